"""Runs ``twistd imapshield`` in a process of its own, and waits for conditions with a deadline."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")
TIMEOUT = 60.0
"""Seconds after which a wait for the server or for a client fails."""
POLL_INTERVAL = 0.02


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that no program uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(predicate: Callable[[], object], seconds: float = TIMEOUT) -> None:
    """Wait until `predicate` returns a true value.

    Raises:
        AssertionError: it was still false after `seconds`. The message shows its last value.
    """
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still false after {seconds:g} s: {value!r}")
        time.sleep(POLL_INTERVAL)


def _state(arguments: Sequence[str]) -> list[str]:
    """Return the option that keeps a server from writing to the home directory of the user who runs the tests."""
    return [] if "--state" in arguments else ["--state", "none"]


class Server:
    """A running ``twistd imapshield``; `stop` ends it.

    Args:
        arguments: options of ``twistd imapshield``, without ``--listen``.
        twistd: the path of twistd.
        port: where to listen on 127.0.0.1; a free port by default.
        wrapper: a command, such as setpriv, that ends by executing its arguments. It must not fork, so that
            the process id stays the server's.
        environment: variables in addition to those of this process.
    """

    def __init__(
        self,
        *arguments: str,
        twistd: str = TWISTD,
        port: int | None = None,
        wrapper: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.port = port or free_port()
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [
                *wrapper, twistd, "--nodaemon", "--pidfile=", "imapshield",
                "--listen", f"tcp:{self.port}:interface=127.0.0.1", *_state(arguments), *arguments,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **environment}, cwd=environment.get("XDG_DATA_HOME", REPOSITORY),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for_output(self, text: str) -> str:
        """Return the next line of output that contains `text`."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"the server ended before {text!r}: {''.join(self.output)}")
            self.output.append(line)
            if text in line:
                return line

    def wait_ready(self) -> Server:
        """Wait until the server accepts connections."""
        self.wait_for_output("serving at")
        return self

    def stop(self, signum: int | None = signal.SIGTERM) -> str:
        """End the server and return all its output.

        With `signum` None, wait for the end of a server that has been signalled already.
        """
        if signum is not None:
            self.process.send_signal(signum)
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join(TIMEOUT)
            assert self.process.stdout is not None
            self.process.stdout.close()
        while (line := self._lines.get()) is not None:
            self.output.append(line)
        return "".join(self.output)
