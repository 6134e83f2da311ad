"""Lets the thread of a call that writes and that of the reactor compute in turns, not both at once.

Both need the interpreter. A thread that computes beside a busy reactor waits for it at every system call, and that
takes more processor time than the call. So the reactor waits while the call computes. While the call waits for a disk
(`wait_for_disk`), the reactor goes on, and after that the call waits for its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, local
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

TURN_SECONDS = 0.05
"""How long a call waits for its turn before it goes on beside the reactor: several turns of a busy one."""

TURNS_PER_CALL = 8
"""Turns that a call waits for. Few calls wait for a disk more often: an APPEND of many messages, or a COPY without hard
links, which may hold the lock of the index meanwhile. They would wait for the reactor longer than for the disk."""


class _Thread(local):
    handover: Handover | None = None


_thread = _Thread()


def wait_for_disk(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``function(*args, **kwargs)``, which waits for a disk. The reactor need not wait meanwhile."""
    handover = _thread.handover
    if handover is None:
        return function(*args, **kwargs)
    handover.leave_turn()
    try:
        return function(*args, **kwargs)
    finally:
        handover.take_turn()


class Handover:
    """The turns and the result of one call.

    Args:
        call_from_thread: the reactor's `callFromThread`.
        on_ended: called in the reactor's thread with the result, unless `wait` returns True.
        on_turn: called in the reactor's thread when the call wants a turn: it is to call `give_turn`, and then `wait`.
        acquire: waits for a turn: `Pauses.acquire`. The account has no part in how long that takes.
        is_awaited: whether the reactor's thread is going to call `wait`. Otherwise the call has no turns.
        waits_for_disk: whether the reactor waits for the disk, too, because that is known to be quick.

    Attributes:
        result: the result, or a `Failure`.
        is_late: whether the last `wait` has taken all of its time.
        is_at_disk: whether the call waits for a disk.
    """

    def __init__(
        self,
        call_from_thread: Callable[..., object],
        on_ended: Callable[[Any], object],
        on_turn: Callable[[Handover], object],
        acquire: Callable[[Lock, float], bool],
        *,
        is_awaited: bool,
        waits_for_disk: bool = True,
    ) -> None:
        self.result: Any = None
        self.is_late = self.is_at_disk = False
        self.waits_for_disk = waits_for_disk
        self._call_from_thread = call_from_thread
        self._on_ended = on_ended
        self._on_turn = on_turn
        self._acquire = acquire
        self._lock = Lock()
        self._is_awaited = self._has_turns = is_awaited
        self._turns_left = TURNS_PER_CALL
        self._has_ended = False
        self._reactor_goes_on = Lock()
        self._reactor_goes_on.acquire()
        self._call_goes_on = Lock()
        self._call_goes_on.acquire()

    # In the thread of the call

    def run(self, call: Callable[[], T]) -> T:
        """Return ``call()``."""
        _thread.handover = self if self._has_turns else None
        try:
            return call()
        finally:
            _thread.handover = None

    def leave_turn(self) -> None:
        """Let the reactor go on if it does not wait for disks."""
        with self._lock:
            self.is_at_disk = True
            if self._is_awaited and not self.waits_for_disk:
                self._is_awaited = False
                self._reactor_goes_on.release()

    def take_turn(self) -> None:
        """Wait until the reactor waits, if it has gone on meanwhile."""
        with self._lock:
            self.is_at_disk = False
            if self._is_awaited or not self._has_turns:
                return
            if not self._turns_left:
                self._has_turns = False
                return
            self._turns_left -= 1
        self._call_from_thread(self._on_turn, self)
        if not self._acquire(self._call_goes_on, TURN_SECONDS):
            with self._lock:
                self._has_turns = self._call_goes_on.acquire(blocking=False)

    def end(self, _succeeded: bool, result: Any) -> None:
        """Take the result."""
        self.result = result
        with self._lock:
            self._has_ended = True
            if self._is_awaited:
                self._reactor_goes_on.release()
                return
        self._call_from_thread(self._on_ended, result)

    # In the reactor's thread

    def give_turn(self) -> bool:
        """Let the call go on; return whether it has waited for that."""
        with self._lock:
            if self._has_ended or not self._has_turns:
                return False
            self._is_awaited = True
            self._call_goes_on.release()
            return True

    def wait(self, seconds: float) -> bool:
        """Wait until the call ends or leaves its turn; return whether it has ended."""
        self.is_late = False
        if not self._reactor_goes_on.acquire(timeout=seconds):
            with self._lock:
                if not self._reactor_goes_on.acquire(blocking=False):
                    self.is_late, self._is_awaited = True, False
                    self._has_turns = self.is_at_disk  # a call that computes for long has no more
                    return False
        # A call that has left its turn may have ended by now, too: its result is on the way then.
        return self._is_awaited
