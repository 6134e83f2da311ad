"""The threads in which calls of stores run.

Twisted's `ThreadPool` passes each call through two queues and three locks, which takes longer than what most calls do
between two files.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

_Call = tuple[Callable[[bool, Any], object], Callable[..., Any], tuple[object, ...]]
_Calls = SimpleQueue[_Call | None]


class StoreThreads:
    """Threads that start when they are needed. The caller bounds how many calls run at the same time.

    It has the methods of `twisted.python.threadpool.ThreadPool` that `deferToThreadPool` and `worker` need. They are to
    be called from one thread, and calls end before `stop`.
    """

    def __init__(self) -> None:
        self._threads: list[tuple[Thread, _Calls]] = []
        self._idle: list[_Calls] = []
        self._has_stopped = False

    def start(self) -> None:
        """Do nothing: threads start with the first calls."""

    def callInThreadWithCallback(
        self, on_result: Callable[[bool, Any], object], function: Callable[..., Any], *args: object
    ) -> None:
        """Call ``function(*args)`` in a thread, and there ``on_result(True, result)``, or (False, exception).

        After `stop`, nothing is called.
        """
        if self._has_stopped:
            return
        try:
            calls = self._idle.pop()  # the last that was busy: the processor's cache has its memory
        except IndexError:
            try:
                calls = self._start_thread()
            except RuntimeError as error:  # the system permits no further thread
                on_result(False, error)
                return
        calls.put((on_result, function, args))

    def _start_thread(self) -> _Calls:
        calls: _Calls = SimpleQueue()
        name = f"maildir-{len(self._threads)}"
        thread = Thread(target=self._run, args=(calls,), name=name)
        thread.start()
        self._threads.append((thread, calls))
        return calls

    def _run(self, calls: _Calls) -> None:
        while (call := calls.get()) is not None:
            on_result, function, args = call
            try:
                succeeded, result = True, function(*args)
            except BaseException as error:
                succeeded, result = False, error
            self._idle.append(calls)
            on_result(succeeded, result)
            del call, on_result, function, args, result  # nothing is held until the next call

    def stop(self) -> None:
        """End the threads after their calls, and wait for that."""
        self._has_stopped = True
        for _, calls in self._threads:
            calls.put(None)
        for thread, _ in self._threads:
            thread.join()
