"""Takes the result of a call from its thread to that of the reactor, which may wait for it for a moment."""

from collections.abc import Callable
from threading import Lock
from typing import Any


class Handover:
    """The result of one call.

    Args:
        call_from_thread: the reactor's `callFromThread`.
        on_ended: called in the reactor's thread with the result, unless `wait` returns True.
        is_awaited: whether the reactor's thread is going to call `wait`.

    Attributes:
        result: the result, or a `Failure`.
    """

    def __init__(
        self,
        call_from_thread: Callable[..., object],
        on_ended: Callable[[Any], object],
        *,
        is_awaited: bool,
    ) -> None:
        self.result: Any = None
        self._call_from_thread = call_from_thread
        self._on_ended = on_ended
        self._lock = Lock()
        self._is_awaited = is_awaited
        self._ended = Lock()
        self._ended.acquire()

    def end(self, _succeeded: bool, result: Any) -> None:
        """Take the result, in the thread of the call."""
        self.result = result
        with self._lock:
            if self._is_awaited:
                self._ended.release()
                return
        self._call_from_thread(self._on_ended, result)

    def wait(self, seconds: float) -> bool:
        """Wait for the result, in the reactor's thread; return whether it came in time."""
        if self._ended.acquire(timeout=seconds):
            return True
        with self._lock:
            self._is_awaited = False
            return self._ended.acquire(blocking=False)
