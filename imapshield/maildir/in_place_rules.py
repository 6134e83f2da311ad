"""Decides which calls of a store run in the reactor's thread. Pure: time is an argument.

Rules
-----
* A call runs in place if one of its kind was short a short time ago, so that what it reads is in memory.
* The first call of a kind runs in place, too, if the account is in use, so that its index is open, and the last call of
  this operation was short in whatever account of the file system. Otherwise it runs in a thread. Without this rule, a
  server with a thousand clients that send few commands each runs most of them in threads, which costs twice as much.
* If such a first call waits for a disk, all first calls of the file system run in threads for a while: what they read
  is not in memory. That is no sign of a slow disk, unless it took very long: a healthy one takes ten milliseconds, too.
* An account whose call in place has waited for a disk uses threads for a while: its disk is slow, or its mail is not in
  memory.
* So do all accounts of a file system on which some calls took long, or one took very long. A sick disk stops the
  reactor for few calls in a minute, however many accounts it has.
* A call that writes waits for a disk, so it runs in a thread. By the same rules, the reactor waits for a moment while
  the call computes (`handover`), and also while it waits for the disk, as long as that is quick.
* A call that turned out to need a thread has cost its work twice. If that happens again and again, as for a client that
  reads old mail, calls of the kind are tried in place less often. So are first calls in the account, and in others of
  the file system if it happens in several accounts.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

SHORT_SECONDS = 0.002
"""A kind of call is short if the last one took at most this long, in place or in a thread. Most take a tenth of it.
Waits for the processor or the interpreter do not count: the next call may have neither."""

SHORT_WRITE_SECONDS = 0.01
"""The same for the processor time of calls that write. In a thread beside a busy reactor, they take several times as
much as awaited."""

SLOW_SECONDS_IN_PLACE = 0.005
"""A call in place that takes longer shows that its disk is slow: the limit is the time after which the reactor returns
to its sockets anyway (`limits.turn_seconds`), with room for an interrupted thread."""

AWAITED_SECONDS = 0.002
"""How long the reactor waits at a time for a call that writes, and so runs in a thread, if such calls were short."""

THREADS_ONLY_SECONDS = 60.0
"""How long an account, or a file system, uses threads because calls in place took long."""

SLOW_CALLS_PER_VOLUME = 3
"""Calls in place that took long in `THREADS_ONLY_SECONDS`, after which all accounts of the file system use threads."""

HANGING_SECONDS = 0.05
"""After one call in place that takes longer, all accounts of the file system use threads."""

REPORTED_SECONDS = 3600.0
"""Seconds between two reports that a file system is slow. A disk that is slow for a day is 24 lines of the log."""

WARM_SECONDS = 60.0
"""How long a kind of call is expected to find in memory what the last one has read."""

MAX_KINDS = 64
"""Kinds of calls that are remembered for each account: those of a client with a few mailboxes."""

MAX_OPERATIONS = 4096
"""Operations of file systems whose last call is remembered: those of some hundred file systems. A user may have one."""

MAX_SKIPPED = 63
"""Calls of a kind that run in a thread before one is tried in place again."""

MAX_PREEMPTED = 0.02
"""For how long a thread that has the interpreter waits for the processor: a few turns of other processes."""


class CallKind(NamedTuple):
    """What a call does, and with what.

    Attributes:
        operation: such as ``fetch``. There are few.
        mailbox: the hash of the mailbox. Its name would take memory that no budget counts.
    """

    operation: str
    mailbox: int = 0


# No operations: all calls for which the reactor waits while they compute, and while they wait for a disk.
_COMPUTING, _AT_DISK = CallKind(""), CallKind("disk")


@dataclass(slots=True)
class _Kind:
    """What is known of one kind of call, or of an operation in all accounts of some file systems.

    Attributes:
        warm_until: until when a call is expected to be short.
        failures: how many of the last calls in place needed a thread.
        skips: how many more calls are not tried in place.
    """

    warm_until: float = float("-inf")
    failures: int = 0
    skips: int = 0

    def is_skipped(self) -> bool:
        """Return whether the next call is not tried, and count it."""
        if self.skips:
            self.skips -= 1
            return True
        return False

    def tried(self, *, in_vain: bool) -> None:
        """Note how a call that was tried has ended."""
        self.skips = min(2**self.failures - 1, MAX_SKIPPED) if in_vain else 0
        self.failures = min(self.failures + 1, 16) if in_vain else 0


@dataclass(slots=True, eq=False)
class CallHistory:
    """What is known of the calls of one account.

    Attributes:
        threads_until: until when all run in threads.
        warm_until: until when what the last call has read, of whatever kind, is expected to be in memory.
        kinds: what is known of each kind.
    """

    threads_until: float = float("-inf")
    warm_until: float = float("-inf")
    kinds: OrderedDict[CallKind, _Kind] = field(default_factory=OrderedDict)


class Waits(NamedTuple):
    """How often a thread has waited.

    Attributes:
        reads: what it has read from disks, in blocks.
        voluntary_switches: how often it has waited for anything but the processor.
        process_seconds: for how long all threads of the process have computed.
    """

    reads: int
    voluntary_switches: int
    process_seconds: float


def has_waited(before: Waits, after: Waits, seconds: float, *, with_others: bool) -> bool:
    """Return whether a thread has probably waited for a disk, and not just for the processor or the interpreter.

    A busy system makes every call slow. Threads would then make it slower still.

    Args:
        before: how often the thread has waited at the begin.
        after: the same at the end.
        seconds: the time in between.
        with_others: whether another thread may have had the interpreter.
    """
    if after.reads > before.reads:
        return True
    if after.voluntary_switches == before.voluntary_switches:
        return False
    computed = after.process_seconds - before.process_seconds
    return not with_others or (seconds > MAX_PREEMPTED and computed < seconds / 2)


class InPlaceRules:
    """The rules for all accounts of a server."""

    def __init__(self) -> None:
        self._slow_calls: defaultdict[int, list[float]] = defaultdict(list)
        self._threads_until: dict[int, float] = {}
        self._first_in_threads_until: dict[int, float] = {}
        self._reported_at: dict[int, float] = {}
        self._operations: dict[tuple[object, ...], _Kind] = {}

    def may_run(
        self, history: CallHistory, kind: CallKind, volumes: Collection[int], now: float
    ) -> bool:
        """Return whether a call may be tried in place.

        Args:
            history: that of the account.
            kind: what the call does, and with which mailbox.
            volumes: the file systems of the account; none if one of them may be remote.
            now: the time in seconds.
        """
        known = history.kinds.get(kind)
        if not volumes or now < history.threads_until:
            return False
        for volume in volumes:
            if now < self._threads_until.get(volume, now):
                return False
            if known is None and now < self._first_in_threads_until.get(volume, now):
                return False
        if known is None:
            first = history.kinds.get(_first(kind))
            if first is not None and first.is_skipped():
                history.kinds.move_to_end(_first(kind))
                return False
            if now > history.warm_until:
                return False
            known = self._operation(kind, volumes)
        return now <= known.warm_until and not known.is_skipped()

    def may_await(
        self, history: CallHistory, kind: CallKind, volumes: Collection[int], now: float
    ) -> bool:
        """Return whether the reactor may wait for a call that writes. The arguments are those of `may_run`."""
        is_expected = self.may_run(history, kind, volumes, now)
        return is_expected and not self._operation(_COMPUTING, volumes).is_skipped()

    def may_await_disk(self, volumes: Collection[int]) -> bool:
        """Return whether the reactor may wait for a call also while that waits for a disk."""
        return not self._operation(_AT_DISK, volumes).is_skipped()

    def was_awaited(
        self, history: CallHistory, kind: CallKind, volumes: Collection[int], *, in_vain: bool
    ) -> None:
        """Note whether the reactor has waited in vain for a call that computes.

        The accounts of a file system count together, too: their disk is slow for all of them.
        """
        for known in (_record(history, kind), self._operation(_COMPUTING, volumes)):
            known.tried(in_vain=in_vain)

    def disk_was_awaited(self, volumes: Collection[int], *, in_vain: bool) -> None:
        """Note whether the reactor has waited in vain for a call that waits for a disk."""
        self._operation(_AT_DISK, volumes).tried(in_vain=in_vain)

    def succeeded(
        self,
        history: CallHistory,
        kind: CallKind,
        volumes: Collection[int],
        seconds: float,
        now: float,
    ) -> None:
        """Note that a call in place has ended, which took `seconds`."""
        operation = self._operation(kind, volumes)
        if kind not in history.kinds:
            self._first_tried(history, kind, operation, in_vain=False)
        known = _record(history, kind)
        if known.failures:
            known.tried(in_vain=False)
        history.warm_until = now + WARM_SECONDS
        known.warm_until = operation.warm_until = (
            history.warm_until if seconds <= SHORT_SECONDS else now
        )

    def needed_thread(self, history: CallHistory, kind: CallKind, volumes: Collection[int]) -> None:
        """Note that a call in place was given up, and is to be repeated in a thread."""
        if kind not in history.kinds:
            self._first_tried(history, kind, self._operation(kind, volumes), in_vain=True)
        _record(history, kind).tried(in_vain=True)

    def ended_in_thread(
        self,
        history: CallHistory,
        kind: CallKind,
        volumes: Collection[int],
        seconds: float,
        now: float,
        *,
        writes: bool = False,
    ) -> None:
        """Note that a call has ended in a thread, which took `seconds`."""
        limit = SHORT_WRITE_SECONDS if writes else SHORT_SECONDS
        history.warm_until = now + WARM_SECONDS
        for known in (_record(history, kind), self._operation(kind, volumes)):
            known.warm_until = history.warm_until if seconds <= limit else now

    def _first_tried(
        self, history: CallHistory, kind: CallKind, operation: _Kind, *, in_vain: bool
    ) -> None:
        # A client with many cold mailboxes makes a first call in each, which counts once for other accounts.
        first = _record(history, _first(kind))
        if not (in_vain and first.failures):
            operation.tried(in_vain=in_vain)
        first.tried(in_vain=in_vain)

    def _operation(self, kind: CallKind, volumes: Collection[int]) -> _Kind:
        key = kind.operation, *volumes
        known = self._operations.get(key)
        if known is None:
            if len(self._operations) >= MAX_OPERATIONS:
                del self._operations[next(iter(self._operations))]
            known = self._operations[key] = _Kind()
        return known

    def was_slow(
        self,
        history: CallHistory,
        volumes: Collection[int],
        seconds: float,
        now: float,
        *,
        is_first: bool = False,
    ) -> list[int]:
        """Note that a call in place has waited, and took `seconds`: more than `SLOW_SECONDS_IN_PLACE`.

        `is_first` is whether it was the first of its kind.

        Returns:
            the file systems to report: all their accounts use threads from now on.
        """
        until = history.threads_until = now + THREADS_ONLY_SECONDS
        reported: list[int] = []
        for volume in volumes:
            recent = [
                then for then in self._slow_calls[volume] if then > now - THREADS_ONLY_SECONDS
            ]
            if is_first:
                self._first_in_threads_until[volume] = until
            else:
                recent.append(now)
            self._slow_calls[volume] = recent[-SLOW_CALLS_PER_VOLUME:]
            if len(recent) >= SLOW_CALLS_PER_VOLUME or seconds > HANGING_SECONDS:
                self._threads_until[volume] = until
                if now >= self._reported_at.get(volume, now - REPORTED_SECONDS) + REPORTED_SECONDS:
                    self._reported_at[volume] = now
                    reported.append(volume)
        return reported


def _first(kind: CallKind) -> CallKind:
    """Return what stands for the first calls of an account with an operation. No mailbox has the hash -1."""
    return CallKind(kind.operation, -1)


def _record(history: CallHistory, kind: CallKind) -> _Kind:
    """Return what is known of a kind, which is now the one that is forgotten last."""
    known = history.kinds.get(kind)
    if known is not None:
        history.kinds.move_to_end(kind)
        return known
    known = history.kinds[kind] = _Kind()
    if len(history.kinds) > MAX_KINDS:
        history.kinds.popitem(last=False)
    return known
