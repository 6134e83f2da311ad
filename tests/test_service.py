"""The service listens on all endpoints or on none, and stops in order."""

import gc
import io
import sys
from resource import RLIM_INFINITY
from typing import Any, Never
from unittest import mock

from twisted.application.service import Application, IServiceCollection
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError
from imapshield.endpoints import listen_now
from imapshield.observe.json_log import JsonLogObserver
from imapshield.service import GC_THRESHOLDS, CannotServe, ShieldService


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
    def test_application_gets_the_log_observer(self) -> None:
        """Twistd takes the observer of its log from the application of the service."""
        for observer in (None, JsonLogObserver(io.StringIO())):
            service = ShieldService([], None, [], lambda: None, Clock())
            service.log_observer = observer
            application: Any = Application("imapshield")
            service.setServiceParent(application)
            self.assertIs(application.getComponent(ILogObserver, None), observer)
            self.assertIs(service.parent, IServiceCollection(application))

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

    def test_garbage_collections_are_rare(self) -> None:
        """The objects that exist at the start are never traversed again, and collections are rarer than by default."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        gc.unfreeze()
        factory: Any = mock.Mock(shutdown=lambda: succeed(None))
        service = ShieldService([], factory, [], int, Clock())
        service.startService()
        self.addCleanup(gc.unfreeze)
        self.assertGreater(gc.get_freeze_count(), 10_000)
        self.assertGreater(gc.get_threshold()[0], 10_000)
        self.successResultOf(service.stopService())


class OpenFileLimitTests(SynchronousTestCase):
    def start(self, limits: tuple[int, int], *, error: Exception | None = None) -> tuple[Any, Any]:
        """Start a service that needs 1,200 open files; return the arguments of setrlimit, and what it reports."""
        factory: Any = mock.Mock(shutdown=lambda: succeed(None))
        reported: list[int | None] = []
        service = ShieldService([], factory, [], int, Clock(), 1200, on_open_files=reported.append)
        with (
            mock.patch("resource.getrlimit", return_value=limits),
            mock.patch("resource.setrlimit", side_effect=error) as setrlimit,
        ):
            service.privilegedStartService()
        return setrlimit.call_args and setrlimit.call_args[0][1], reported[0]

    def test_raised(self) -> None:
        """The limit of open files is raised to that of the system, or without one to what is needed."""
        self.assertEqual(self.start((1024, 4096)), ((4096, 4096), 4096))
        self.assertEqual(self.start((1024, RLIM_INFINITY)), ((1200, RLIM_INFINITY), 1200))
        self.assertEqual(self.start((5000, RLIM_INFINITY)), ((5000, RLIM_INFINITY), 5000))
        self.assertEqual(self.start((RLIM_INFINITY, RLIM_INFINITY)), (None, None))

    def test_cannot_be_raised(self) -> None:
        """If the limit cannot be raised, the present one is reported."""
        for error in (ValueError(), PermissionError()):
            self.assertEqual(self.start((100, 4096), error=error)[1], 100)


class LateEndpoint(FakeEndpoint):
    """An endpoint that listens later, as those of some plugins do."""

    def __init__(self) -> None:
        super().__init__(FakePort())
        self.listening: Deferred[Any] = Deferred()

    def listen(self, factory: object) -> Deferred[FakePort]:
        return self.listening


class LateEndpointTests(SynchronousTestCase):
    """The gate is put before ports that listen; an endpoint that comes later would be without it."""

    def test_start_fails(self) -> None:
        """An endpoint that does not listen at once is an error, and the others are closed."""
        self.patch(sys, "__stderr__", io.StringIO())
        early, late = FakePort(), LateEndpoint()
        endpoints = [("a:", FakeEndpoint(early)), ("b:", late)]
        service = ShieldService(endpoints, None, [], int, Clock())
        error = self.assertRaises(CannotServe, service.privilegedStartService)
        self.assertIn("cannot listen on b:: this kind of endpoint does not listen", str(error))
        self.assertTrue(early.stopped)

    def test_late_port_is_closed(self) -> None:
        """A port that listens after all is closed, and a late failure is no unhandled error."""
        late, port = LateEndpoint(), FakePort()
        self.assertRaises(ConfigError, listen_now, late, None)
        late.listening.callback(port)
        self.assertTrue(port.stopped)
        late = LateEndpoint()
        self.assertRaises(ConfigError, listen_now, late, None)
        late.listening.errback(OSError())


class AddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Addresses of ports are written so that they can be copied into another program."""
        for address, text in (
            (IPv4Address("TCP", "127.0.0.1", 143), "127.0.0.1:143"),
            (IPv6Address("TCP", "::1", 143), "[::1]:143"),
            (UNIXAddress(b"/run/imap"), "/run/imap"),
            (UNIXAddress(None), "UNIXAddress(None)"),
        ):
            service, port = mock.Mock(), FakePort()
            self.patch(port, "getHost", lambda address=address: address)
            endpoints = [("x:y", FakeEndpoint(port))]
            ShieldService(
                endpoints, None, [], int, Clock(), on_listening=service
            ).privilegedStartService()
            service.assert_called_once_with([("x:y", text)])


class CannotServeTests(SynchronousTestCase):
    def test_each_error_of_listening_comes_with_advice(self) -> None:
        """Each error of listening is reported with advice, on one line."""
        for error, advice in (
            (CannotListenError("", 1, OSError(98, "x")), "such as --listen tcp:2143:interface="),
            (CannotListenError("", 1, OSError(13, "x")), "twistd --uid"),
            (CannotListenError("", 1, OSError(99, "x")), "interface="),
            (OSError(98, "x"), "another program"),
            (OverflowError("port must be 0-65535."), "0-65535; see --help"),
        ):
            err = io.StringIO()
            service = ShieldService(
                [("tcp:1", FakeEndpoint(error))], None, [], lambda: None, Clock()
            )
            with mock.patch.object(sys, "__stderr__", err), self.assertRaises(CannotServe):
                service.startService()
            self.assertIn(advice, err.getvalue())
            self.assertEqual(len(err.getvalue().splitlines()), 1)

    def test_the_log_has_the_reason(self) -> None:
        """The log has the whole text: in the background, twistd cuts what is printed."""
        text = "cannot listen on tcp:1: " + 100 * "x"
        with mock.patch.object(sys, "__stderr__", io.StringIO()), capturedLogs() as captured:
            CannotServe(text)
        self.assertEqual([formatEvent(event) for event in captured], [f"cannot start: {text}"])

    def test_error_is_an_exception_and_a_system_exit(self) -> None:
        """CannotServe is an Exception, so that twistd cleans up, and a SystemExit of status 1, without a traceback."""
        with mock.patch.object(sys, "__stderr__", io.StringIO()):
            error = CannotServe("text")
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual((error.code, str(error)), (1, "text"))


class GarbageCollectorTests(SynchronousTestCase):
    def test_collections_of_the_second_generation_are_short(self) -> None:
        """However many objects a call makes that stay, each collection of the second generation traverses few."""
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        sizes: list[int] = []

        def on_collection(phase: str, info: dict[str, int]) -> None:
            if phase == "start" and info["generation"] == 1:
                sizes.append(sum(len(gc.get_objects(generation)) for generation in (0, 1)))

        gc.collect()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.callbacks.append(on_collection)
        self.addCleanup(gc.callbacks.remove, on_collection)
        stay = [[number] for number in range(500_000)]
        self.assertEqual(len(stay), 500_000)
        self.assertGreaterEqual(len(sizes), 2)
        self.assertLess(max(sizes), 150_000)
