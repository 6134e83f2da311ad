"""Runs the blocking calls of an account's store one after another, in threads that all accounts share fairly.

A short call may run in the reactor's thread (`in_place_rules`), if no other call of its account runs or waits.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from imapshield.errors import IndexLocked, StoreBusy
from imapshield.limits import LimitReached
from imapshield.mailbox.in_place import WouldBlock, call_in_place
from imapshield.mailbox.request import Request, current_request
from imapshield.maildir import in_place_rules
from imapshield.maildir.call_pauses import Pauses
from imapshield.maildir.handover import Handover
from imapshield.maildir.in_place_rules import CallHistory, CallKind, InPlaceRules, Waits
from imapshield.maildir.job_queue import SLOW_SECONDS, JobQueue, Share
from imapshield.maildir.local_disk import waits_of_thread
from imapshield.message.pauses import call_with_pauses

T = TypeVar("T")

LOCKED_SECONDS = 10.0
"""Seconds for which a call is repeated while another process holds the lock of its index."""

FIRST_DELAY = 0.01
MAX_DELAY = 0.25
"""Seconds between the first two attempts, and the maximum; each delay is twice the one before."""


class SharedThreads:
    """A thread pool, and the queue in front of it.

    Args:
        pool: the threads (`StoreThreads`); not the reactor's own, which resolve host names.
        reactor: an `IReactorFromThreads` and `IReactorTime`.
        sleep: lets the calling thread wait for a number of seconds.
        waits: returns how often the calling thread has waited until now.
        cpu_seconds: returns how long the calling thread has computed until now.
        on_slow_volumes: called with file systems that are slow, so that all their accounts use threads for a while, and
            with the seconds that the last call took.
    """

    def __init__(
        self,
        pool: Any,
        reactor: Any,
        sleep: Callable[[float], object] = time.sleep,
        waits: Callable[[], Waits] = waits_of_thread,
        cpu_seconds: Callable[[], float] = time.thread_time,
        on_slow_volumes: Callable[[Sequence[int], float], object] = lambda *_: None,
    ) -> None:
        self.reactor = reactor
        self._cpu_seconds = cpu_seconds
        self._on_slow_volumes = on_slow_volumes
        self._waits = waits
        self._sleep = sleep
        self._pool = pool
        self._queue = JobQueue()
        self._rules = InPlaceRules()
        self._workers: dict[Share, SerialWorker] = {}
        self._delayed_call: Any = None

    def wait(self, worker: "SerialWorker") -> None:
        """Let a worker run its next call as soon as it may."""
        self._workers[worker.share] = worker
        self._queue.wait(worker.share)
        self._start()

    def _start(self) -> None:
        while (share := self._queue.start_next(self.reactor.seconds())) is not None:
            call = self._workers.pop(share).next_call()
            share.is_background = call.is_background
            pauses = Pauses(self._queue, share, self.reactor.seconds, self._sleep)
            waits = None if call.writes or call.kind is None else self._waits
            timed = _TimedCall(call.function, call.args, pauses, self._cpu_seconds, waits)
            is_awaited = call.may_be_awaited and not share.is_slow
            handover = Handover(
                self.reactor.callFromThread,
                partial(self._finished, share, timed, call),
                partial(self._give_turn, share, timed, call),
                pauses.acquire,
                is_awaited=is_awaited,
                waits_for_disk=is_awaited and self._rules.may_await_disk(call.volumes),
            )
            self._pool.callInThreadWithCallback(handover.end, handover.run, timed)
            if is_awaited and self._wait_for(call, handover):
                self._note_end(share, timed, call, handover.result)
        if self._queue.is_waiting and self._delayed_call is None:
            # A call becomes slow by running, and a slow account becomes another one by waiting.
            self._delayed_call = self.reactor.callLater(SLOW_SECONDS / 2, self._check_again)

    def _wait_for(self, call: "_Call", handover: Handover) -> bool:
        """Wait while a call computes, and return whether it has ended."""
        has_ended = handover.wait(in_place_rules.AWAITED_SECONDS)
        is_late, is_at_disk = handover.is_late, handover.is_at_disk
        assert call.kind is not None  # `run_short` allows it
        is_long = is_late and not is_at_disk
        if is_long or has_ended:  # otherwise a later turn shows it
            self._rules.was_awaited(call.worker.history, call.kind, call.volumes, in_vain=is_long)
        if handover.waits_for_disk:
            self._rules.disk_was_awaited(call.volumes, in_vain=is_late and is_at_disk)
            handover.waits_for_disk = not is_late
        return has_ended

    def _give_turn(
        self, share: Share, timed: "_TimedCall", call: "_Call", handover: Handover
    ) -> None:
        if handover.give_turn() and self._wait_for(call, handover):
            self._finished(share, timed, call, handover.result)

    def _check_again(self) -> None:
        self._delayed_call = None
        self._start()

    def stop(self) -> None:
        """Look at waiting calls no longer. There are none, because the accounts are closed."""
        call, self._delayed_call = self._delayed_call, None
        if call is not None:
            call.cancel()

    def run_in_place(
        self,
        history: CallHistory,
        function: Callable[[], T],
        kind: CallKind,
        volumes: Collection[int],
    ) -> Deferred[T] | None:
        """Run a call at once. Return its result, or None if it is to run in a thread, perhaps again."""
        clock = self.reactor.seconds
        started_at = clock()
        if not self._rules.may_run(history, kind, volumes, started_at):
            return None
        late = started_at + in_place_rules.SLOW_SECONDS_IN_PLACE

        def pause() -> None:
            if clock() > late:
                raise WouldBlock

        is_first = kind not in history.kinds
        before, result = self._waits(), None
        self._queue.is_in_place = True
        try:
            result = succeed(call_in_place(function, pause))
        except WouldBlock:
            pass
        except Exception:
            result = fail()
        finally:
            self._queue.is_in_place = False
        now = clock()
        seconds = now - started_at
        has_waited, needed = self._waited(before, seconds)
        if result is not None:
            self._rules.succeeded(history, kind, volumes, needed, now)
        else:
            self._rules.needed_thread(history, kind, volumes)
        if has_waited and seconds > in_place_rules.SLOW_SECONDS_IN_PLACE:
            slow_volumes = self._rules.was_slow(history, volumes, seconds, now, is_first=is_first)
            if slow_volumes:
                self._on_slow_volumes(slow_volumes, seconds)
        return result

    def _waited(self, before: Waits, seconds: float) -> tuple[bool, float]:
        """Return whether a call in place has waited for a disk, and how long it took without other processes."""
        if seconds <= in_place_rules.SHORT_SECONDS:
            return False, seconds
        after, is_running = self._waits(), self._queue.is_running
        if in_place_rules.has_waited(before, after, seconds, with_others=is_running):
            return True, seconds
        return False, min(seconds, after.process_seconds - before.process_seconds)

    def may_await(self, call: "_Call") -> bool:
        """Return whether the reactor may wait for a call that runs in a thread, because it is known to be short."""
        now = self.reactor.seconds()
        assert call.kind is not None
        return self._rules.may_await(call.worker.history, call.kind, call.volumes, now)

    def _finished(self, share: Share, timed: "_TimedCall", call: "_Call", result: Any) -> None:
        # The time of a call that ends while it is awaited is a part of the reactor's, which is counted too.
        if call.request is not None:
            call.request.count_seconds(timed.cpu_seconds)
        self._note_end(share, timed, call, result)
        # The next call starts before the callbacks run here, so that they overlap.
        self._start()
        call.fire()

    def _note_end(self, share: Share, timed: "_TimedCall", call: "_Call", result: Any) -> None:
        if isinstance(result, Exception):  # the system permits no thread for the call
            result = Failure(result)  # type: ignore[no-untyped-call]
        now = self.reactor.seconds()
        self._queue.finish(share, timed.seconds, now)
        if call.kind is not None:
            # The reactor would not have to wait for the interpreter, and only while a call that writes computes.
            seconds = timed.seconds if timed.has_waited else timed.cpu_seconds
            self._rules.ended_in_thread(
                call.worker.history, call.kind, call.volumes, seconds, now, writes=call.writes
            )
        else:
            call.worker.history.warm_until = now + in_place_rules.WARM_SECONDS
        call.worker.call_ended(call, result)


class _TimedCall:
    """Calls a function in a thread, and measures that.

    Attributes:
        seconds: how long it has taken without its pauses.
        cpu_seconds: how long it has computed.
        has_waited: whether it has waited for a disk, if that is measured.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[object, ...],
        pauses: Pauses,
        now_cpu: Callable[[], float],
        waits: Callable[[], Waits] | None,
    ) -> None:
        self._function = function
        self._args = args
        self._pauses = pauses
        self._now_cpu = now_cpu
        self._waits = waits
        self.seconds = self.cpu_seconds = 0.0
        self.has_waited = False

    def __call__(self) -> Any:
        before = self._waits and self._waits()
        started_at, cpu_before = self._pauses.now(), self._now_cpu()
        try:
            return call_with_pauses(partial(self._function, *self._args), self._pauses.pause)
        except BaseException:
            return Failure()  # type: ignore[no-untyped-call]
        finally:
            self.seconds = self._pauses.now() - started_at - self._pauses.slept
            self.cpu_seconds = self._now_cpu() - cpu_before
            if self._waits and before:
                self.has_waited = in_place_rules.has_waited(
                    before, self._waits(), self.seconds, with_others=True
                )


class _Call:
    """One call that waits or runs, the Deferred of its result, and the result until that is fired."""

    def __init__(
        self, worker: "SerialWorker", function: Callable[..., Any], args: tuple[object, ...]
    ) -> None:
        self.worker = worker
        self.function = function
        self.args = args
        self.done: Deferred[Any] = Deferred(lambda _: worker.drop(self))
        self.result: Any = None
        self.has_ended = False
        self.is_background = False
        self.request: Request | None = None
        self.kind: CallKind | None = None
        self.volumes: Collection[int] = ()
        self.writes = self.may_be_awaited = False
        self.delay = FIRST_DELAY
        self.first_tried_at: float | None = None

    def fire(self) -> None:
        """Fire the Deferred if the call has ended and was not cancelled."""
        if self.has_ended and not self.done.called:
            self.done.callback(self.result)


class SerialWorker:
    """One account's queue of calls: they run in order, and never two at once.

    Args:
        threads: the threads in which they run.
    """

    def __init__(self, threads: SharedThreads) -> None:
        self.share = Share()
        self.history = CallHistory()
        self._threads = threads
        self._queue: deque[_Call] = deque()
        self._is_busy = False

    @property
    def is_busy(self) -> bool:
        """Whether a call runs or waits."""
        return self._is_busy or bool(self._queue)

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Run ``function(*args)`` in a thread after all calls that were queued before.

        A call that raises `IndexLocked` is repeated for some seconds, without a thread in between. If the caller
        cancels the Deferred, a call that has not started is dropped; one that runs is not stopped.
        """
        call = _Call(self, function, args)
        self._add(call)
        return call.done

    def run_short(
        self,
        function: Callable[[], T],
        kind: tuple[str, Hashable],
        volumes: Collection[int],
        *,
        writes: bool = False,
    ) -> Deferred[T]:
        """Like `run`, for a call that is probably short: when this returns, it may have ended.

        It runs in the caller's thread. If it writes, it runs in a thread for which the caller waits for a moment:
        otherwise both would wait for the interpreter again and again, and it would take twice the time.

        Args:
            function: the function. It may raise `WouldBlock` before it has changed anything (`mailbox.in_place`).
            kind: what it does, and with which mailbox. Calls of one kind take about the same time.
            volumes: the file systems that it uses.
            writes: whether it waits for a disk.
        """
        call_kind = CallKind(kind[0], hash(kind[1]))
        is_idle = not self.is_busy
        if is_idle and not writes:
            result = self._threads.run_in_place(self.history, function, call_kind, volumes)
            if result is not None:
                return result
        call = _Call(self, function, ())
        call.kind, call.volumes, call.writes = call_kind, volumes, writes
        call.may_be_awaited = is_idle and writes and self._threads.may_await(call)
        self._add(call)
        call.may_be_awaited = False  # if it must wait for its turn
        call.fire()  # if it has ended
        return call.done

    def run_in_background(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """Like `run`, for work that no client waits for. The time that it takes makes the account no slower.

        A call that raises `IndexLocked` fails: to repeat it is up to the caller.
        """
        call = _Call(self, function, args)
        call.is_background = True
        self._add(call)
        return call.done

    def drop(self, call: _Call) -> None:
        """Remove a call that was cancelled, unless it runs."""
        if call in self._queue:
            self._queue.remove(call)

    def next_call(self) -> _Call:
        """Return the call that starts now."""
        call = self._queue.popleft() if self._queue else _Call(self, int, ())
        if call.first_tried_at is None:
            call.first_tried_at = self._threads.reactor.seconds()
        return call

    def call_ended(self, call: _Call, result: object) -> None:
        """Keep the result, and let the next call wait, or the same one again if it found the index locked."""
        now = self._threads.reactor.seconds()
        is_locked = isinstance(result, Failure) and isinstance(result.value, IndexLocked)
        is_repeated = is_locked and not call.is_background and not call.done.called
        assert call.first_tried_at is not None
        if is_repeated and now < call.first_tried_at + LOCKED_SECONDS:
            self._queue.appendleft(call)
            self._threads.reactor.callLater(call.delay, self._resume)
            call.delay = min(2 * call.delay, MAX_DELAY)
            return
        if isinstance(result, Failure) and isinstance(result.value, StoreBusy):
            waited = now - call.first_tried_at
            result.value.reached = LimitReached("LOCKED_SECONDS", LOCKED_SECONDS, waited)
        call.result, call.has_ended = result, True
        self._resume()

    def _resume(self) -> None:
        self._is_busy = False
        self._wait()

    def _add(self, call: _Call) -> None:
        call.request = current_request.get()
        self._queue.append(call)
        self._wait()

    def _wait(self) -> None:
        if self._queue and not self._is_busy:
            self._is_busy = True
            self._threads.wait(self)
