"""A server in a process of its own, and what it said."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")
PATIENCE = 60.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``twistd imapshield`` with `arguments`; `stop` ends it.

    `before` is a command that ends in ``exec`` of its arguments, such as setpriv: the pid stays the server's.
    """

    def __init__(
        self,
        *arguments: str,
        twistd: str = TWISTD,
        port: int | None = None,
        before: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.port = port or free_port()
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [
                *before, twistd, "--nodaemon", "--pidfile=", "imapshield",
                "--listen", f"tcp:{self.port}:interface=127.0.0.1", *arguments,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **environment}, cwd=environment.get("XDG_DATA_HOME", HERE),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text: str) -> str:
        """The next line of output that has `text` in it."""
        until = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0.01, until - time.monotonic()))
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"ended before it said {text!r}: {''.join(self.output)}")
            self.output.append(line)
            if text in line:
                return line

    def ready(self) -> Server:
        """Wait until it serves."""
        self.wait_for("serving at")
        return self

    def drain(self) -> None:
        """Take in what it has said until now."""
        while not self._lines.empty():
            line = self._lines.get()
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"the server ended: {''.join(self.output)}")
            self.output.append(line)

    def stop(self, how: int | None = signal.SIGTERM) -> str:
        """End it, or wait for the end of what was told to end; returns all it has said."""
        if how is not None:
            self.process.send_signal(how)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
        while (line := self._lines.get()) is not None:
            self.output.append(line)
        return "".join(self.output)
