"""The service listens on all endpoints or on none, and stops in order."""

import io
import sys
from typing import Any, Never
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.service import CannotServe, ShieldService


class FakePort:
    """A port that records whether it was closed."""

    def __init__(self) -> None:
        self.stopped = False

    def stopListening(self) -> None:
        self.stopped = True

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)


class FakeEndpoint:
    """An endpoint with a `listen` that returns `result`, or fails with it."""

    def __init__(self, result: FakePort | Exception) -> None:
        self.result = result

    def listen(self, factory: object) -> Deferred[FakePort]:
        return fail(self.result) if isinstance(self.result, Exception) else succeed(self.result)


class ShieldServiceTests(SynchronousTestCase):
    def test_stopping_closes_ports_connections_and_mail(self) -> None:
        """Stopping closes the ports, then the connections, then the mail, even if one step fails."""
        port = FakePort()
        calls: list[object] = []
        disconnected: Deferred[None] = Deferred()

        class Factory:
            def shutdown(self) -> Deferred[None]:
                calls.append(("shutdown", port.stopped))
                return disconnected

        def failing_step() -> Never:
            calls.append("failing step")
            raise OSError

        clock = Clock()
        ticks: list[int] = []
        service = ShieldService(
            [("x", FakeEndpoint(port))],
            Factory(),
            [failing_step, lambda: calls.append("close")],
            lambda: ticks.append(1),
            clock,
        )
        service.startService()
        clock.advance(10)
        stopped = service.stopService()
        self.assertEqual((calls, ticks), ([("shutdown", True)], [1]))
        disconnected.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(calls, [("shutdown", True), "failing step", "close"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        clock.advance(100)
        self.assertEqual(ticks, [1])

    def test_switch_interval_is_a_millisecond(self) -> None:
        """Threads get the interpreter within a millisecond, because they read indexes while the reactor is busy."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        factory: Any = mock.Mock(shutdown=lambda: succeed(None))
        service = ShieldService([], factory, [], int, Clock())
        service.startService()
        self.assertLess(sys.getswitchinterval(), 0.001)
        self.successResultOf(service.stopService())


class CannotServeTests(SynchronousTestCase):
    def test_each_error_of_listening_comes_with_advice(self) -> None:
        """Each error of listening is reported with advice, on one line."""
        for error, advice in (
            (CannotListenError("", 1, OSError(98, "x")), "another program"),
            (CannotListenError("", 1, OSError(13, "x")), "twistd --uid"),
            (CannotListenError("", 1, OSError(99, "x")), "interface="),
            (OSError(98, "x"), "another program"),
            (OverflowError("port must be 0-65535"), "0-65535"),
        ):
            err = io.StringIO()
            service = ShieldService(
                [("tcp:1", FakeEndpoint(error))], None, [], lambda: None, Clock()
            )
            with mock.patch.object(sys, "__stderr__", err), self.assertRaises(CannotServe):
                service.startService()
            self.assertIn(advice, err.getvalue())
            self.assertEqual(len(err.getvalue().splitlines()), 1)

    def test_error_is_an_exception_and_a_system_exit(self) -> None:
        """CannotServe is an Exception, so that twistd cleans up, and a SystemExit of status 1, without a traceback."""
        with mock.patch.object(sys, "__stderr__", io.StringIO()):
            error = CannotServe("text")
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual((error.code, str(error)), (1, "text"))
