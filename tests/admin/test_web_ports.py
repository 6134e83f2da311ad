"""The options of the status page are safe by default, and mistakes say what to type."""

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield.admin import web_login, web_ports
from imapshield.admin.web_login import FileLogin, TokenLogin
from imapshield.admin.web_ports import WebPorts
from imapshield.certificates import Certificates
from imapshield.config import ConfigError, Settings
from imapshield.control.request_lines import ControlError, Request
from imapshield.cred import passwords, users

LOCAL = "tcp:8143:interface=127.0.0.1"


class FakeMonitor:
    """Notes whether it runs."""

    running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class FakeReports:
    """Remembers nothing."""

    def is_banned(self, address: str) -> bool:
        return False

    def succeeded(self, address: str, user: str) -> None:
        """Do nothing."""

    def failed(self, address: str, user: str, password: str) -> None:
        """Do nothing."""


class WebPortsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.monitor: Any = FakeMonitor()

    def ports(self, **settings: Any) -> WebPorts:
        """Return the ports of a server with these settings."""
        return WebPorts(
            *(Settings(**settings), self.monitor, FakeReports(), Certificates(self.reactor)),
            self.reactor,
        )

    def answer(self, ports: WebPorts) -> dict[str, str]:
        """Return the answer to the command ``admin``."""
        return self.successResultOf(Deferred.fromCoroutine(ports.admin(Request("admin"))))

    def test_nothing_is_open_by_default(self) -> None:
        """Without the options there is no port, nothing is sampled, and the command says what to do."""
        ports = self.ports()
        ports.open()
        ports.start()
        self.assertEqual((self.reactor.tcpServers, self.monitor.running), ([], False))
        failed = self.failureResultOf(Deferred.fromCoroutine(ports.admin(Request("admin"))))
        self.assertIsInstance(failed.value, ControlError)
        self.assertIn("--admin", str(failed.value))

    def test_token(self) -> None:
        """Without a password file, the control socket has a token, and the log has not."""
        ports = self.ports(admin=LOCAL)
        ports.open()
        ports.start()
        self.assertTrue(self.monitor.running)
        answer = self.answer(ports)
        self.assertTrue(answer["url"].startswith("http://"))
        login = TokenLogin()
        for token, is_right in ((login.token, True), (answer["token"], False), ("ä\udc80", False)):
            checked = Deferred.fromCoroutine(login.check("", token))
            self.assertEqual(self.successResultOf(checked), is_right)
        self.successResultOf(Deferred.fromCoroutine(ports.close()))
        self.assertFalse(self.monitor.running)

    def test_addresses_that_others_reach_need_tls(self) -> None:
        """An address of the network without TLS is refused; this machine and UNIX sockets are not."""
        for text in (
            "tcp:8143",
            "tcp:8143:interface=0.0.0.0",
            "tcp:8143:interface=127.0.0.1.example",
        ):
            self.assertRaisesRegex(ConfigError, "without TLS; use https", self.ports, admin=text)
        for text in (
            LOCAL,
            r"tcp6:8143:interface=\:\:1",
            "tcp:8143:interface=localhost",
            "unix:/x",
        ):
            self.ports(admin=text)

    def test_unix_socket_is_private(self) -> None:
        """A UNIX socket has the mode 0600, unless the endpoint names another one."""
        for text, mode in (("unix:/x", 0o600), ("unix:/x:mode=660", 0o660)):
            self.reactor.unixServers.clear()
            self.ports(admin=text).open()
            self.assertEqual(self.reactor.unixServers[0][3], mode)

    def test_wrong_options(self) -> None:
        """Each mistake is one line that says what to type."""
        for settings, pattern in (
            ({"admin": "8143"}, "use for example tcp:8143"),
            ({"admin": "https:8143"}, "add --certificate"),
            ({"admin": LOCAL, "control": "none"}, "needs --admin-auth"),
            ({"admin": LOCAL, "admin_auth": "memory:a:b"}, "use file:PATH"),
            ({"admin": LOCAL, "admin_auth": "file:/nonexistent/users"}, "imapshield passwd"),
            ({"metrics": "x"}, "--metrics x: not a Twisted endpoint"),
        ):
            with self.assertRaisesRegex(ConfigError, pattern) as caught:
                self.ports(**settings)
            self.assertNotIn("\n", str(caught.exception))

    def test_metrics_need_a_package(self) -> None:
        """Without prometheus_client, --metrics says what to install."""
        self.patch(web_ports, "has_metrics", False)
        self.assertRaisesRegex(ConfigError, "imapshield.metrics", self.ports, metrics=LOCAL)

    def test_password_file(self) -> None:
        """The users of a password file log in with their passwords."""
        path = self.mktemp()
        users.set_hash(path, "ops", passwords.hash_scrypt(b"secret", ln=4))
        ports = self.ports(admin=LOCAL, admin_auth=f"file:{path}", metrics="tcp:9143")
        ports.open()
        self.assertEqual(len(self.reactor.tcpServers), 2)
        self.assertEqual(self.answer(ports)["token"], "")


class FileLoginTests(TestCase):
    @inlineCallbacks
    def test_users_of_the_file(self) -> Any:
        """The password is checked against the file. A user who is removed from it may not stay."""
        path = self.mktemp()
        users.set_hash(path, "ops", passwords.hash_scrypt(b"secret", ln=4))
        login = FileLogin(path, reactor)
        self.addCleanup(login.close)
        for user, password, is_right in (
            ("ops", "x", False),
            ("ops", "secret", True),
            ("", "", False),
        ):
            found = yield Deferred.fromCoroutine(login.check(user, password))
            self.assertEqual(found, is_right)
            self.assertEqual(login.is_cached(user, password), is_right)
        self.assertTrue(login.may_stay("ops"))
        users.remove(path, "ops")
        yield login._checker.refresh()
        self.assertFalse(login.may_stay("ops"))
        os.unlink(path)
        failed = yield self.assertFailure(
            Deferred.fromCoroutine(login.check("ops", "secret")), web_login.Unavailable
        )
        self.assertIsNotNone(failed)
