"""What the check of the configuration says about endpoints."""

from __future__ import annotations

import contextlib
import os
import socket

from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.check_findings import ERROR, WARNING, Finding
from imapshield.port_check import PortCheck


def unused_port() -> int:
    """Return a port that nobody uses, below those that the kernel gives to connections of other tests meanwhile."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError


class PortCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ports = PortCheck()
        self.folder: str = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)

    def check(self, text: str) -> list[Finding]:
        return [*self.ports.check(f"--x {text}", serverFromString(MemoryReactorClock(), text))]

    def test_port_of_another_option(self) -> None:
        """Two options cannot have the same port, unless their addresses differ, or the system chooses the port."""
        port = unused_port()
        self.assertEqual(self.check(f"tcp:{port}:interface=127.0.0.1"), [])
        for text in (f"tcp:{port}:interface=127.0.0.1", f"tcp:{port}", f"tcp6:{port}"):
            ((severity, line),) = self.check(text)
            self.assertEqual(severity, ERROR)
            self.assertIn(f"has the port of --x tcp:{port}:interface=127.0.0.1; choose", line)
        self.ports = PortCheck()
        for text in (f"tcp:{port}:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.2"):
            self.assertEqual(self.check(text), [])
        for _ in range(2):
            self.assertEqual(self.check("tcp:0"), [])

    def test_port_of_another_program(self) -> None:
        """A port that is in use is a warning, and an address of another machine an error."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            ((severity, line),) = self.check(f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")
        self.assertEqual(severity, WARNING)
        self.assertIn("another program uses this address", line)
        ((severity, line),) = self.check("tcp:0:interface=192.0.2.1")
        self.assertEqual(severity, ERROR)
        self.assertIn("omit interface=", line)

    def test_unix_sockets(self) -> None:
        """The directory of a UNIX socket must exist and be writable; a file there may be a running server's."""
        path = os.path.join(self.folder, "socket")
        self.assertEqual(self.check(f"unix:{path}"), [])
        ((severity, line),) = self.check(f"unix:{path}/below")
        self.assertEqual((severity, line.endswith("does not exist; create it")), (ERROR, True))
        self.patch(os, "access", lambda *_, **__: False)
        ((severity, line),) = self.check(f"unix:{path}")
        self.assertIn(f"permission denied in {self.folder}", line)
        with open(path, "wb"):
            ((severity, line),) = self.check(f"unix:{path}")
        self.assertEqual(severity, WARNING)
        self.assertIn(f"{path} exists; another program may use it", line)

    def test_other_endpoints(self) -> None:
        """Endpoints that are not known are left alone."""
        self.assertEqual([*self.ports.check("--x", object())], [])
