"""imapshield in one process that counts the calls of Python functions, in the reactor's thread and in all others.

    python -m benchmarks.counting_server OPTION...

The options are those of ``twistd imapshield``. Each line on standard input is answered with a line on standard output:
the same text, and the counts since the start as JSON. `benchmarks.counts` reads the lines in the record of strace, too.
The server stops at the end of standard input.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from benchmarks.in_process import serve
from imapshield.edge import command_runner
from imapshield.mailbox import request
from imapshield.maildir import in_place_rules, job_queue

# Python 3.12 has no frames for these any more.
_INLINED = {"<listcomp>", "<dictcomp>", "<setcomp>"}
_HOP = ReactorBase.callFromThread.__code__


class CallCounter:
    """Counts the calls of each function.

    Each thread has counts of its own, because two threads that increment the same one may lose a call.
    """

    def __init__(self) -> None:
        self._threads: list[dict[CodeType, int]] = []

    def start(self) -> None:
        """Count in this thread, and in those that start later."""
        threading.setprofile(self._first_event)
        sys.setprofile(self._profile())

    def _first_event(self, frame: FrameType, event: str, argument: object) -> None:
        profile = self._profile()
        sys.setprofile(profile)
        profile(frame, event, argument)

    def _profile(self) -> Callable[[FrameType, str, object], None]:
        counts: dict[CodeType, int] = {}
        self._threads.append(counts)

        def profile(frame: FrameType, event: str, _: object) -> None:
            if event == "call":
                code = frame.f_code
                counts[code] = counts.get(code, 0) + 1

        return profile

    def functions(self) -> dict[str, int]:
        """Return the calls of each function by its name; the file is relative to its package."""
        total: dict[str, int] = {}
        for counts in self._threads:
            for code, count in list(counts.items()):
                if code.co_name not in _INLINED:
                    name = f"{_short(code.co_filename)}:{code.co_qualname}"
                    total[name] = total.get(name, 0) + count
        return total

    def hops(self) -> int:
        """Return how often a thread has woken the reactor."""
        return sum(counts.get(_HOP, 0) for counts in self._threads)


def _short(path: str) -> str:
    for package in ("imapshield", "twisted"):
        _, found, rest = path.rpartition(f"/{package}/")
        if found:
            return f"{package}/{rest}"
    return os.path.basename(path)


def _answer(counter: CallCounter) -> None:
    """Answer requests for the counts, in a thread that is not counted."""
    sys.setprofile(None)
    while line := os.read(0, 1000):
        # One small write that begins with the request: a mark in the record of strace.
        answer = {"hops": counter.hops(), "functions": counter.functions()}
        text = line.strip() + b" " + json.dumps(answer).encode() + b"\n"
        while text:
            text = text[os.write(1, text) :]
    reactor: Any = global_reactor
    reactor.callFromThread(reactor.stop)


def _never(loop: Any, interval: float, now: bool = True) -> Deferred[Any]:  # noqa: ARG001
    """Replace `LoopingCall.start`: what the server does each second belongs to no command."""
    loop.running = True
    return Deferred()


def main() -> None:
    """Serve until the end of standard input."""
    # Whether a call runs in a thread must not depend on time: everything is slow under strace.
    in_place_rules.SHORT_SECONDS = in_place_rules.SLOW_SECONDS_IN_PLACE = math.inf
    command_runner.REPORT_SECONDS = math.inf
    in_place_rules.SHORT_WRITE_SECONDS = math.inf
    in_place_rules.AWAITED_SECONDS = 60.0
    job_queue.SLOW_SECONDS = math.inf
    vars(request)["monotonic"] = lambda: 0.0
    LoopingCall.start = _never  # type: ignore[method-assign,assignment]
    counter = CallCounter()
    threading.Thread(target=_answer, args=(counter,), daemon=True).start()
    counter.start()
    serve(sys.argv[1:], sys.stderr)


if __name__ == "__main__":
    main()
