"""imapshield in one process with a meter of its reactor: how long each turn took, from one poll to the next.

    python -m benchmarks.fairness_server CONTROL_PORT OPTION...

The options are those of ``twistd imapshield``. Whoever connects to the control port gets one line, and the meter starts
again: the longest turn in seconds, the longest CPU time of the reactor's thread in one turn, the longest garbage
collection in any thread, and a place in the code where the longest turn was seen.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from types import FrameType
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Protocol, ServerFactory

from benchmarks.in_process import serve

SAMPLE_SECONDS = 0.01
LONG_SECONDS = 0.01


class TurnMeter:
    """Stands between the reactor and its poll object, and measures the time between two polls.

    Attributes:
        longest: the longest turn, in seconds.
        longest_cpu: the longest CPU time of a turn, in seconds.
        longest_collection: the longest garbage collection, in seconds.
        long_turns: how many turns took longer than `LONG_SECONDS`.
        long_seconds: their sum.
        seen_at: where in the code the longest turn was seen, b"-" if it was too short for that.
    """

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self._began = self._began_cpu = 0.0
        self._seen, self._thread_id = "-", threading.get_ident()
        self.start_again()
        self._collection_began = 0.0
        gc.callbacks.append(self._on_collection)
        threading.Thread(target=self._sample, daemon=True).start()

    def start_again(self) -> None:
        """Forget what was measured."""
        self._began = self.longest = self.longest_cpu = self.longest_collection = 0.0
        self.seen_at = "-"
        self.long_turns, self.long_seconds = 0, 0.0

    def _on_collection(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collection_began = now
        else:
            self.longest_collection = max(self.longest_collection, now - self._collection_began)

    def _sample(self) -> None:
        while True:
            time.sleep(SAMPLE_SECONDS)
            began = self._began
            if began and time.perf_counter() - began > SAMPLE_SECONDS:
                frame = sys._current_frames().get(self._thread_id)
                if frame is not None and began == self._began:
                    self._seen = _place(frame)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, *args: object) -> Any:
        """End a turn, wait for events, and begin the next turn."""
        if self._began:
            seconds = time.perf_counter() - self._began
            if seconds > self.longest:
                self.longest, self.seen_at = seconds, self._seen
            if seconds > LONG_SECONDS:
                self.long_turns += 1
                self.long_seconds += seconds
            self._began, self._seen = 0.0, "-"
            self.longest_cpu = max(self.longest_cpu, time.thread_time() - self._began_cpu)
        try:
            return self._poller.poll(*args)
        finally:
            self._began, self._began_cpu = time.perf_counter(), time.thread_time()


class Control(Protocol):
    """Sends the longest turn, and starts again."""

    def __init__(self, meter: TurnMeter) -> None:
        self._meter = meter

    def connectionMade(self) -> None:
        """Send one line and close."""
        meter = self._meter
        assert self.transport is not None
        times = meter.longest, meter.longest_cpu, meter.longest_collection
        line = " ".join([*(f"{seconds:.6f}" for seconds in times), meter.seen_at, "\n"])
        self.transport.write(line.encode())
        self.transport.loseConnection()
        meter.start_again()


class ControlFactory(ServerFactory):
    """Makes `Control` protocols.

    Args:
        meter: what they send.
    """

    noisy = False

    def __init__(self, meter: TurnMeter) -> None:
        self._meter = meter

    def buildProtocol(self, addr: object) -> Control:
        """Serve one connection."""
        return Control(self._meter)


def _place(frame: FrameType | None) -> str:
    """Return the innermost functions of imapshield on the stack."""
    names: list[str] = []
    while frame is not None and len(names) < 3:
        if "imapshield" in frame.f_code.co_filename:
            names.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return "<".join(names) or "-"


def main() -> None:
    """Serve until a signal ends the process."""
    reactor: Any = global_reactor
    meter = reactor._poller = TurnMeter(reactor._poller)
    reactor.listenTCP(int(sys.argv[1]), ControlFactory(meter), interface="127.0.0.1")
    serve(sys.argv[2:], sys.stdout)


if __name__ == "__main__":
    main()
