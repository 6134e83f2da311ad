import io
import os
import socket
import sys
from unittest import mock

from twisted.application.service import IService
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield import tap
from imapshield.cred import passwords, users
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount
from imapshield.service import CannotServe, ShieldService
from imapshield.tap import Options, makeService
from tests.certificates import self_signed
from typing import Never


class Files:
    """A folder with all that the command line may name."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        self.mail = self.path("mail")
        os.makedirs(self.mail)
        self.users = self.path("users")
        users.put(self.users, "alice", passwords.hash_scrypt(b"secret", ln=2))
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))
        self.patch(os, "environ", {**os.environ, "XDG_DATA_HOME": self.path("xdg")})
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def parse(self, *arguments):
        options = Options()
        options.parseOptions(arguments)
        return options

    def make(self, *arguments):
        return makeService(self.parse(*arguments))

    def refuses(self, *arguments, saying):
        """One line, which says what to do, and no traceback: SystemExit with a text has status 1."""
        with self.assertRaises(SystemExit) as caught:
            self.make(*arguments)
        text = caught.exception.code
        self.assertIsInstance(text, str)
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertTrue(text.startswith("imapshield: "), text)
        for word in [saying] if isinstance(saying, str) else saying:
            self.assertIn(word, text)
        return text


class OptionsTests(Files, SynchronousTestCase):
    def test_nothing(self) -> None:
        """With no option there are no settings and the limits are the defaults."""
        options = self.parse()
        self.assertEqual((options.settings, options.limits), ({}, Limits()))

    def test_limits(self) -> None:
        """Every limit can be set by its name, in its type; --backlog is short for one of them."""
        options = self.parse(
            "--limit", "max_line_length=1000", "--limit", "idle-seconds=1.5", "--limit", "strict_backlog=true",
            "--backlog", "50", "--report-only",
        )  # fmt: skip
        self.assertEqual(
            options.limits,
            Limits(
                max_line_length=1000,
                idle_seconds=1.5,
                strict_backlog=True,
                backlog=50,
                report_only=True,
            ),
        )

    def test_limits_that_cannot_be(self) -> None:
        """A wrong name is answered with the list, a wrong number with what it should be."""
        self.refuses("--limit", "bakclog=1", saying=["no such limit", "backlog", "preauth_seconds"])
        for setting in (
            "max_line_length",
            "max_line_length=",
            "max_line_length=x",
            "max_line_length=-1",
            "max_line_length=0",
            "max_line_length=1.5",
            "max_line_length=nan",
            "idle_seconds=inf",
            "report_only=1",
            "max_line_length=99999999999999",
        ):
            self.refuses("--limit", setting, saying=setting.partition("=")[0])
        self.refuses("--backlog", "many", saying="backlog=many")

    def test_limit_help(self) -> None:
        """--limit help lists each limit with its value and its reason."""
        with self.assertRaises(SystemExit) as caught:
            self.parse("--limit", "help")
        for name, (value, reason) in Limits().reasons().items():
            self.assertIn(f"{name}={value}", caught.exception.code)
            self.assertIn(reason, caught.exception.code)

    def test_unknown_options(self) -> None:
        """What is no option is said in one line, without pages of help."""
        self.refuses("--nonsense", saying=["nonsense", "--help"])
        self.refuses("surplus", saying="surplus")
        self.refuses("--listen", saying="--help")

    def test_help(self) -> None:
        """The help names every option of the command line."""
        with self.assertRaises(SystemExit) as caught:
            self.parse("--help")
        self.assertIn(caught.exception.code, (0, None))
        for name in (
            "listen",
            "mail-root",
            "auth",
            "certificate",
            "key",
            "backlog",
            "strict-backlog",
            "report-only",
            "limit",
            "config",
            "verbose",
        ):
            self.assertIn(f"--{name}", self.out.getvalue())

    def test_config(self) -> None:
        """The file has the same options, and the command line wins."""
        path = self.file(
            "c.toml",
            b'listen = ["tcp:1", "tcp:2"]\nauth = "memory:a:b"\nmail-root = "/x"\nbacklog = 7\nreport-only = true\n'
            b"[limit]\nmax_line_length = 2000\nidle_seconds = 2.5\nstrict_backlog = true\n",
        )
        options = self.parse("--config", path)
        self.assertEqual(options.settings["listen"], ["tcp:1", "tcp:2"])
        self.assertEqual(options.settings["auth"], ["memory:a:b"])
        self.assertEqual(
            options.limits,
            Limits(
                backlog=7,
                report_only=True,
                max_line_length=2000,
                idle_seconds=2.5,
                strict_backlog=True,
            ),
        )
        options = self.parse(
            "--config",
            path,
            "--listen",
            "tcp:3",
            "--backlog",
            "8",
            "--mail-root",
            "/y",
            "--limit",
            "max_line_length=3000",
        )
        self.assertEqual(options.settings["listen"], ["tcp:3"])
        self.assertEqual((options.limits.backlog, options.settings["mail-root"]), (8, "/y"))
        self.assertEqual((options.limits.max_line_length, options.limits.idle_seconds), (3000, 2.5))

    def test_config_that_cannot_be(self) -> None:
        """A file that is missing, garbled or has a wrong name or type is one line that names the file."""
        self.refuses("--config", self.path("none"), saying=self.path("none"))
        for content in (b"=", b"\xff", b"nonsense = 1", b"listen = 1", b"backlog = true", b"mail-root = 1", b"report-only = 1",
                        b"auth = [1]", b"limit = 1", b"[limit]\nx = 1", b"[limit]\nline = [1]"):  # fmt: skip
            with self.subTest(content=content):
                self.refuses("--config", self.file("c.toml", content), saying="--")


class MakeServiceTests(Files, SynchronousTestCase):
    def test_first_start(self) -> None:
        """With no option it serves from a folder of its own and tells user, password and what to type."""
        service = self.make()
        self.assertTrue(IService.providedBy(service))
        words = self.out.getvalue()
        self.assertIn("curl imap://127.0.0.1:1143/INBOX -u demo:", words)
        self.assertTrue(
            os.path.isdir(os.path.join(self.path("xdg"), "imapshield", "mail", "demo", "new"))
        )
        self.out.truncate(0)
        self.make("--listen", "tcp:2143:interface=127.0.0.2")
        self.assertIn("127.0.0.2:2143", self.out.getvalue())
        self.assertIn("shown at the first start", self.out.getvalue())
        self.assertNotIn("-u demo:", self.out.getvalue())

    def test_own_folder_unwritable(self) -> None:
        """If that folder cannot be made, the line says which and what else to do."""
        self.file("xdg", b"in the way")
        self.refuses(saying=[self.path("xdg"), "--mail-root"])

    def test_mail_root_alone(self) -> None:
        """A mail root without --auth gets one line that says what is missing."""
        self.refuses("--mail-root", self.mail, saying=["--auth", "file:PATH", "imapshield passwd"])

    def test_file_is_hashed(self) -> None:
        """--auth file: is the file of hashed passwords, relative to where twistd was started."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.folder)
        options = self.parse(
            "--mail-root", "mail", "--auth", "file:users", "--auth", "imapshield:users"
        )
        service = makeService(options)
        os.chdir(here)
        (checker,) = {*service.factory.portal.checkers.values()}
        self.assertEqual([c.path for c in checker.checkers], [self.users] * 2)
        self.assertEqual(service.factory.portal.realm.mail_root.base, self.mail)

    def test_auth_that_cannot_be(self) -> None:
        """A type that is not there or a file that is not there is one line that says what to do."""
        root = ("--mail-root", self.mail, "--auth")
        self.refuses(*root, "nonsense:x", saying=["nonsense", "--help-auth"])
        self.refuses(*root, "anonymous", saying=["anonymous", "--help-auth"])
        self.refuses(*root, "memory:alice", saying=["memory", "--help-auth-type memory"])
        self.refuses(
            *root, f"file:{self.path('none')}", saying=["No such file", "imapshield passwd"]
        )
        self.refuses(*root, "file:", saying="file:/")

    def test_mail_root_that_cannot_be(self) -> None:
        """A mail root that is missing, no folder, unreadable or shared by mistake is one line that says what to do."""
        auth = ("--auth", "memory:a:b", "--mail-root")
        self.refuses(*auth, self.path("none"), saying=[self.path("none"), "make it"])
        self.refuses(*auth, self.users, saying="no folder")
        self.refuses(*auth, self.path("none/{user}/x"), saying=self.path("none"))
        self.refuses(*auth, self.mail + "/{domain}", saying="{user}")
        with mock.patch.object(tap.os, "access", return_value=False):
            self.refuses(*auth, self.mail, saying=[self.mail, "chown"])

    def test_endpoint_that_cannot_be(self) -> None:
        """An endpoint that nobody can parse is one line with an example."""
        for text in ("", "nonsense", "nonsense:1", "tcp:x", "tcp:1:nonsense=2"):
            self.refuses("--listen", text, saying=["--listen", "tcp:"])
        self.assertFalse(os.path.exists(self.path("xdg")))

    def test_certificate(self) -> None:
        """A certificate turns STARTTLS on; the key may lie in the same file."""
        certificate, key = self_signed()
        one, two = self.file("cert.pem", certificate), self.file("key.pem", key)
        both = self.file("both.pem", key + certificate + self_signed()[0])
        for arguments in (("--certificate", one, "--key", two), ("--certificate", both)):
            service = self.make(*arguments)
            self.assertIsNotNone(service.factory.buildProtocol(None).ctx)
        self.assertIsNone(self.make().factory.buildProtocol(None).ctx)

    def test_certificate_that_cannot_be(self) -> None:
        """A missing, damaged, encrypted or foreign certificate or key is one line that names the file."""
        certificate, key = self_signed()
        one = self.file("cert.pem", certificate)
        none, bad = (
            self.path("none"),
            self.file(
                "bad.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + key
            ),
        )
        other = self.file("other.pem", self_signed()[1])
        self.refuses("--key", other, saying="--certificate")
        self.refuses("--certificate", none, saying=none)
        self.refuses("--certificate", one, "--key", none, saying=none)
        self.refuses("--certificate", one, saying=[one, "private key"])
        self.refuses("--certificate", other, saying="no PEM certificate")
        self.refuses("--certificate", bad, saying="damaged")
        self.refuses("--certificate", one, "--key", other, saying=[other, "not the key"])


class Greeted(LineReceiver):
    def __init__(self) -> None:
        self.lines, self.first, self.lost = [], Deferred(), Deferred()

    def lineReceived(self, line) -> None:
        self.lines.append(line)
        if len(self.lines) == 1:
            self.first.callback(None)

    def connectionLost(self, reason) -> None:
        self.lost.callback(None)


class ServiceTests(Files, TestCase):
    async def test_memory(self) -> None:
        """--auth memory:alice:secret lets alice in, and several --auth are asked in turn."""
        service = self.make(
            "--mail-root", self.mail, "--auth", "memory:bob:x", "--auth", "memory:alice:secret:eve:y"
        )  # fmt: skip
        self.assertEqual(self.out.getvalue(), "")
        login = service.factory.portal.login
        for user, password in ((b"alice", b"secret"), (b"bob", b"x"), (b"eve", b"y")):
            _, account, logout = await login(UsernamePassword(user, password), None, IAccount)
            self.assertEqual(account.user, user.decode())
            self.assertIn("INBOX", [info.name for info in await account.mailboxes()])
            self.assertTrue(os.path.isdir(os.path.join(self.mail, user.decode(), "new")))
            logout()
        with self.assertRaises(UnauthorizedLogin):
            await login(UsernamePassword(b"alice", b"x"), None, IAccount)
        await service.stopService()

    async def test_scram(self) -> None:
        """A password file whose users all have SCRAM secrets offers it; of two --auth neither does."""
        users.put(self.users, "alice", passwords.hash_scram(b"x", iterations=4096))
        one = ["--auth", f"file:{self.users}"]
        for arguments, offered in ((one, True), ([*one, "--auth", "memory:a:b"], False)):
            service = self.make("--mail-root", self.mail, *arguments)
            transport = StringTransport()
            server = service.factory.buildProtocol(None)
            server.makeConnection(transport)
            self.assertEqual(b"AUTH=SCRAM-SHA-256" in transport.value(), offered)
            server.connectionLost()
            await service.stopService()

    async def test_serves_and_stops(self) -> None:
        """It greets on every endpoint, and when it stops says BYE to all and lets nobody in."""
        service = self.make(
            "--listen",
            "tcp:0:interface=127.0.0.1",
            "--listen",
            f"unix:{self.folder}/s",
            "--auth",
            "memory:a:b",
        )
        service.privilegedStartService()
        service.startService()
        address = service._ports[0].getHost()
        clients = [
            await clientFromString(reactor, text).connect(Factory.forProtocol(Greeted))
            for text in (f"tcp:127.0.0.1:{address.port}", f"unix:{self.folder}/s")
        ]
        for client in clients:
            await client.first
            self.assertTrue(client.lines[0].startswith(b"* OK "), client.lines)
        await service.stopService()
        for client in clients:
            await client.lost
            self.assertTrue(client.lines[-1].startswith(b"* BYE "), client.lines)
        with socket.socket() as late:
            self.assertNotEqual(late.connect_ex(("127.0.0.1", address.port)), 0)
        self.assertFalse(os.path.exists(f"{self.folder}/s"))

    async def test_port_in_use(self) -> None:
        """A port in use ends the start with status 1 and one line, and leaves no other port open."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            service = self.make(
                "--listen",
                "tcp:0:interface=127.0.0.1",
                "--listen",
                f"tcp:{port}:interface=127.0.0.1",
            )
            err = io.StringIO()
            with (
                mock.patch.object(sys, "__stderr__", err),
                self.assertRaises(CannotServe) as caught,
            ):
                service.privilegedStartService()
        self.assertEqual(caught.exception.code, 1)
        self.assertEqual(len(err.getvalue().splitlines()), 1)
        for word in (str(port), "another program", "--listen"):
            self.assertIn(word, err.getvalue())
        await service.stopService()


class FakePort:
    def __init__(self) -> None:
        self.stopped = False

    def stopListening(self) -> None:
        self.stopped = True

    def getHost(self):
        return IPv4Address("TCP", "127.0.0.1", 1)


class FakeEndpoint:
    def __init__(self, answer) -> None:
        self.answer = answer

    def listen(self, factory):
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)


class OrderTests(SynchronousTestCase):
    def test_order(self) -> None:
        """Stopping closes the doors, then says BYE, then closes the mail, whatever fails on the way."""
        port, calls, gone = FakePort(), [], Deferred()

        class Factory:
            def shutdown(self):
                calls.append(("shutdown", port.stopped))
                return gone

        def broken() -> Never:
            calls.append("broken")
            raise OSError

        clock, ticks = Clock(), []
        service = ShieldService(
            [("x", FakeEndpoint(port))],
            Factory(),
            [broken, lambda: calls.append("close")],
            lambda: ticks.append(1),
            clock,
        )
        service.startService()
        clock.advance(10)
        stopped = service.stopService()
        self.assertEqual((calls, ticks), ([("shutdown", True)], [1]))
        gone.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(calls, [("shutdown", True), "broken", "close"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        clock.advance(100)
        self.assertEqual(ticks, [1])

    def test_threads(self) -> None:
        """A thread that waits for the interpreter gets it soon: indexes are read while the reactor is busy."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        service = ShieldService([], mock.Mock(shutdown=lambda: succeed(None)), [], int, Clock())
        service.startService()
        self.assertLess(sys.getswitchinterval(), 0.001)
        self.successResultOf(service.stopService())

    def test_reasons(self) -> None:
        """Each reason why one cannot listen has an advice."""
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

    def test_twistd_hears_of_it(self) -> None:
        """The error is an Exception, for twistd to tidy up, and ends the process with status 1 and no traceback."""
        with mock.patch.object(sys, "__stderr__", io.StringIO()):
            error = CannotServe("text")
        self.assertIsInstance(error, Exception)
        self.assertIsInstance(error, SystemExit)
        self.assertEqual((error.code, str(error)), (1, "text"))
