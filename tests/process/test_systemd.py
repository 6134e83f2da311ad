"""systemd is told when the server serves, reloads and stops, and its watchdog is fed by the reactor."""

import faulthandler
import os
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.process.systemd import WATCHDOG_CALLS, Notifier


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.patch(faulthandler, "enable", lambda *_: None)

    def listen(self, address: str) -> socket.socket:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.bind(address)
        receiver.setblocking(False)
        return receiver

    def notifier(self, **environ: str) -> Notifier:
        """Return a notifier whose datagrams `received` returns."""
        path = os.path.relpath(self.mktemp())
        self.receiver = self.listen(path)
        self.directory = os.getcwd()
        environ["NOTIFY_SOCKET"] = os.path.join("/proc/self/cwd", path)
        return Notifier(environ, self.clock, lambda: 5_000_001_999)

    def received(self) -> list[str]:
        found = []
        try:
            while True:
                found.append(self.receiver.recv(4096).decode())
        except BlockingIOError:
            return found

    def test_states(self) -> None:
        """Each state is a datagram, and a reload has the time of the monotonic clock."""
        notifier = self.notifier()
        notifier.ready()
        notifier.reloading()
        notifier.ready()
        notifier.stopping()
        expected = ["READY=1", "RELOADING=1\nMONOTONIC_USEC=5000001", "READY=1", "STOPPING=1"]
        self.assertEqual(self.received(), expected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_status_is_sent_when_it_changes(self) -> None:
        """The status is sent only when it changes."""
        notifier = self.notifier()
        for text in ("1 connections", "1 connections", "2 connections"):
            notifier.status(text)
        self.assertEqual(self.received(), ["STATUS=1 connections", "STATUS=2 connections"])

    def test_abstract_socket(self) -> None:
        """The socket may be an abstract one, as in some containers."""
        name = f"imapshield-test-{os.getpid()}"
        self.receiver = self.listen("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}, self.clock).ready()
        self.assertEqual(self.received(), ["READY=1"])

    def test_watchdog_is_fed_by_the_reactor(self) -> None:
        """From the start on, the watchdog is fed three times in its time, as long as the reactor runs."""
        notifier = self.notifier(WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
        self.clock.advance(100)
        self.assertEqual(self.received(), [])
        notifier.ready()
        self.assertEqual(self.received(), ["READY=1", "WATCHDOG=1"])
        self.clock.pump([10] * WATCHDOG_CALLS)
        self.assertEqual(self.received(), ["WATCHDOG=1"] * WATCHDOG_CALLS)
        notifier.ready()
        self.clock.advance(10)
        self.assertEqual(self.received(), ["READY=1", "WATCHDOG=1"])

    def test_watchdog_of_another_process(self) -> None:
        """The watchdog of another process is not fed, nor one whose time is no number."""
        for environ in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}):
            self.notifier(**{"WATCHDOG_USEC": "30000000", **environ}).ready()
            self.assertEqual((self.received(), self.clock.getDelayedCalls()), (["READY=1"], []))

    def test_without_systemd(self) -> None:
        """Without systemd, or when its socket is gone, nothing happens."""
        environs: tuple[dict[str, str], ...] = (
            {},
            {"NOTIFY_SOCKET": "/nonexistent/socket"},
            {"NOTIFY_SOCKET": "x"},
        )
        for environ in environs:
            notifier = Notifier({"WATCHDOG_USEC": "x", **environ}, self.clock)
            self.assertEqual(notifier.is_used, environ == environs[1])
            for call in (notifier.ready, notifier.reloading, notifier.stopping):
                call()

    def test_full_socket_does_not_block(self) -> None:
        """A systemd that does not read never makes the server wait."""
        notifier = self.notifier()
        for _ in range(5000):
            notifier.ready()
        self.assertLess(len(self.received()), 5000)
