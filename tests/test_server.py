"""The server that the settings make: its parts, the errors of settings that cannot be used, and a running service."""

import io
import os
import socket
import sys
from typing import Any
from unittest import mock

from twisted.application.service import IService
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.basic import LineReceiver

from imapshield import guard_state
from imapshield.cred import passwords, users
from imapshield.cred.moved_users import MovedCheck
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.values import Namespace
from imapshield.service import CannotServe
from imapshield.state_file import StateFile
from imapshield.tap import makeService
from tests.certificates import self_signed
from tests.command_line import CommandLineTestCase


class MakeServiceTests(CommandLineTestCase):
    def test_own_directory(self) -> None:
        """Without options the server has its own directory; it prints nothing before it listens."""
        self.assertTrue(IService.providedBy(self.make()))
        demo = os.path.join(self.path("xdg"), "imapshield", "mail", "demo", "new")
        self.assertTrue(os.path.isdir(demo))
        self.assertEqual(self.printed(), "")

    def test_auth_without_mail_root(self) -> None:
        """With --auth the server's own directory has no demo user, whose password would never be shown."""
        self.make("--auth", f"file:{self.users}")
        folder = os.path.join(self.path("xdg"), "imapshield")
        self.assertEqual((os.listdir(folder), os.listdir(f"{folder}/mail")), (["mail"], []))

    def test_unwritable_directory_is_an_error_with_advice(self) -> None:
        """If the server's own directory cannot be created, the error names it and the option to use instead."""
        self.file("xdg", b"a file in place of the directory")
        self.refuses(message=[self.path("xdg"), "--mail-root"])

    def test_auth_file_is_relative_to_the_start_directory(self) -> None:
        """--auth file: is the file of hashed passwords, relative to the directory in which twistd was started."""
        working_directory = os.getcwd()
        self.addCleanup(os.chdir, working_directory)
        os.chdir(self.folder)
        options = self.parse(
            "--mail-root", "mail", "--auth", "file:users", "--auth", "imapshield:users"
        )
        service: Any = makeService(options)
        os.chdir(working_directory)
        (checker,) = {*service.factory.portal.checkers.values()}
        self.assertEqual([c.path for c in checker.checkers], [self.users] * 2)
        self.assertEqual(service.factory.portal.realm.mail_root.base, self.mail)

    def test_invalid_auth_is_an_error_with_advice(self) -> None:
        """An unknown type of --auth, wrong arguments and a missing file are errors with advice."""
        root = ("--mail-root", self.mail, "--auth")
        self.refuses(*root, "nonsense:x", message=["nonsense", "--help-auth"])
        self.refuses(*root, "anonymous", message=["anonymous", "--help-auth"])
        self.refuses(*root, "memory:alice", message="--auth memory: needs USER:PASSWORD")
        self.refuses(*root, "memory:", message="--auth memory: needs USER:PASSWORD")
        self.refuses(*root, "memory:a:b:c", message="--help-auth-type memory")
        self.refuses(
            *root, f"file:{self.path('none')}", message=["No such file", "imapshield passwd"]
        )
        self.refuses(*root, "file:", message="file:/")
        message = f"--auth {self.users}: did you mean file:{self.users}?"
        self.refuses(*root, self.users, message=message)

    def test_invalid_mail_root_is_an_error_with_advice(self) -> None:
        """A mail root that is missing, not a directory, inaccessible or shared by all users is an error with advice."""
        auth = ("--auth", "memory:a:b", "--mail-root")
        self.refuses(*auth, self.path("none"), message=[self.path("none"), "create it"])
        self.refuses(*auth, self.users, message="not a directory")
        self.refuses(*auth, self.path("none/{user}/x"), message=self.path("none"))
        self.refuses(*auth, self.mail + "/{domain}", message="{user}")
        unknown = "unknown {usr}; use {user}, {local} or {domain}"
        self.refuses(*auth, self.mail + "/{usr}", message=unknown)
        with mock.patch("os.access", return_value=False):
            self.refuses(*auth, self.mail, message=[self.mail, "chown"])

    def test_invalid_endpoint_is_an_error_with_an_example(self) -> None:
        """An endpoint that cannot be parsed is an error with an example, before anything is created."""
        for text in ("", "nonsense", "nonsense:1", "tcp:x", "tcp:1:nonsense=2"):
            self.refuses("--listen", text, message=["--listen", "tcp:"])
        for text in ("tcp:", "tcp", "tcp6:", "tcp::interface=::1", "haproxy:tcp:"):
            self.refuses("--listen", text, message=f"--listen {text}: has no port; use")
        self.refuses("--listen", "143", message="--listen 143: did you mean tcp:143?")
        missing = self.path("cert.pem")
        endpoint = f"ssl:993:certKey={missing}:privateKey={missing}"
        self.refuses("--listen", endpoint, message=f"{missing}: No such file or directory; name")
        self.assertFalse(os.path.exists(self.path("xdg")))

    def test_separator_and_prefix_reach_the_accounts(self) -> None:
        """Accounts have the separator and the prefix of the options."""
        service = self.make("--separator", ".", "--prefix", "inbox.")
        self.patch(MovedCheck, "require_here", lambda *_: succeed(None))  # no thread
        login = service.factory.portal.realm.requestAvatar(b"demo", None, IAccount)
        _, account, logout = self.successResultOf(login)
        self.assertEqual(account.namespace, Namespace("INBOX/", "."))
        logout()

    def test_certificate_enables_starttls(self) -> None:
        """A certificate enables STARTTLS."""
        certificate, key = self_signed()
        both = self.file("both.pem", key + certificate)
        self.assertIsNotNone(self.make("--certificate", both).factory.buildProtocol(None).ctx)
        certificate_path = self.file("cert.pem", certificate)
        key_path = self.file("key.pem", key)
        service = self.make("--certificate", certificate_path, "--key", key_path)
        self.assertIsNotNone(service.factory.buildProtocol(None).ctx)
        self.assertIsNone(self.make().factory.buildProtocol(None).ctx)

    def test_invalid_certificate_error_names_the_file(self) -> None:
        """A certificate that cannot be used is an error that names its file."""
        self.refuses("--certificate", self.path("none"), message=self.path("none"))


class LineClient(LineReceiver):
    """A client that collects lines; `greeted` and `lost` fire when the first line arrives and the connection ends."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.greeted: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)
        if len(self.lines) == 1:
            self.greeted.callback(None)

    def connectionLost(self, reason: object = None) -> None:
        self.lost.callback(None)


class OpenFileTests(CommandLineTestCase):
    def test_too_few_open_files(self) -> None:
        """If the system permits too few open files, the log says how many connections they permit, and what is needed."""
        service: Any = self.make("--limit", "max_connections=1000")
        with capturedLogs() as logged:
            service.on_open_files(256)
            service.on_open_files(1398)
        (text,) = [formatEvent(event) for event in logged]
        self.assertIn("256 open files permit 144 connections, 72 of them without a login", text)
        self.assertIn("max_connections=1000 needs 1398", text)
        self.assertEqual(service.factory.guard.shares.max_connections, 1000)

    async def test_nodes_that_a_reload_adds(self) -> None:
        """The logins that are checked at other nodes need files, too."""
        config = self.path("nodes.toml")
        for number in (2, 9):
            nodes = [f"m{n}=tcp:127.0.0.1:{n}" for n in range(1, number + 1)]
            users = "".join(f"alice{n} m{n}\n" for n in range(1, number + 1))
            with open(self.path("map"), "w") as file:
                file.write(users)
            with open(config, "w") as file:
                file.write(f"backend = {nodes}\nuser-map = 'file:{self.path('map')}'\n")
            if number == 2:
                service: Any = self.make("--config", config)
                service.on_open_files(3000)
                before = service.factory.guard.shares.max_connections
        reloader = service.on_start[0].__self__.parts.control_process.reloader
        reloaded = await reloader.reload()
        self.assertEqual(([*reloaded.problems], len(reloaded.changed)), ([], 1))
        self.assertLess(service.factory.guard.shares.max_connections, before)


class RunningServiceTests(CommandLineTestCase):
    async def test_salts_of_unknown_users_survive_a_restart(self) -> None:
        """The key of the decoys is in the state file; without one, the checker derives it from the password file."""
        path, keys = self.path("state"), []
        for state in (path, path, "none"):
            service = self.make(
                "--mail-root", self.mail, "--auth", f"file:{self.users}", "--state", state,
                "--listen", "tcp:0:interface=127.0.0.1",
            )  # fmt: skip
            service.privilegedStartService()
            service.startService()
            (checker,) = service.factory.portal.checkers[IUsernamePassword].checkers
            keys.append(checker.decoy_key)
            await service.stopService()
        self.assertEqual(len(keys[0]), 32)
        self.assertEqual(keys, [keys[0], keys[0], None])

    async def test_problems_of_the_password_file_are_logged_at_the_start(self) -> None:
        """A password in plain text is in the log when the server starts, before somebody cannot log in with it."""
        with open(self.users, "a", encoding="utf-8") as file:
            file.write("carol:secret\n")
        with capturedLogs() as logged:
            service = self.make(
                "--mail-root", self.mail, "--auth", f"file:{self.users}", "--state", "none",
                "--listen", "tcp:0:interface=127.0.0.1",
            )  # fmt: skip
            service.privilegedStartService()
            service.startService()
            await service.stopService()
        lines = [text for text in map(formatEvent, logged) if text.startswith(self.users)]
        self.assertEqual(len(lines), 1)
        self.assertIn("line 2", lines[0])

    async def test_state_file_that_is_loaded_late(self) -> None:
        """The key of the decoys is that of the state file as soon as the file can be loaded, and not a restart later."""
        path = self.path("late/guard.sqlite")
        service = self.make(
            "--mail-root", self.mail, "--auth", f"file:{self.users}", "--state", path,
            "--listen", "tcp:0:interface=127.0.0.1",
        )  # fmt: skip
        self.patch(guard_state, "RETRY_SECONDS", 0)
        self.patch(guard_state, "SAVE_SECONDS", 0.01)
        service.privilegedStartService()
        service.startService()
        (checker,) = service.factory.portal.checkers[IUsernamePassword].checkers
        self.assertIsNone(checker.decoy_key)
        os.mkdir(os.path.dirname(path))
        while checker.decoy_key is None:
            await deferLater(reactor, 0.01)
        await service.stopService()

    async def test_several_auth_options_are_tried_in_order(self) -> None:
        """--auth memory:alice:secret lets alice log in, and several --auth are tried in order."""
        service = self.make(
            "--mail-root", self.mail, "--auth", "memory:bob:x", "--auth", "memory:alice:secret:eve:y"
        )  # fmt: skip
        login = service.factory.portal.login
        for user, password in ((b"alice", b"secret"), (b"bob", b"x"), (b"eve", b"y")):
            _, account, logout = await login(UsernamePassword(user, password), None, IAccount)
            self.assertEqual(account.user, user.decode())
            self.assertIn("INBOX", [info.name for info in await account.mailboxes()])
            self.assertTrue(os.path.isdir(os.path.join(self.mail, user.decode(), "new")))
            logout()
        self.assertEqual(self.printed(), "")
        with self.assertRaises(UnauthorizedLogin):
            await login(UsernamePassword(b"alice", b"x"), None, IAccount)
        await service.stopService()

    async def test_scram_is_offered_with_scram_secrets_only(self) -> None:
        """SCRAM is offered if the only --auth is a password file with SCRAM secrets for all users."""
        users.set_hash(self.users, "alice", passwords.hash_scram(b"x", iterations=4096))
        file_only = ["--auth", f"file:{self.users}"]
        for arguments, offered in (
            (file_only, True),
            ([*file_only, "--auth", "memory:a:b"], False),
        ):
            service = self.make("--mail-root", self.mail, *arguments)
            checker: Any = service.factory.portal.checkers[IUsernamePassword]
            await checker.refresh()
            transport = StringTransport()
            server = service.factory.buildProtocol(None)
            server.makeConnection(transport)
            self.assertEqual(b"AUTH=SCRAM-SHA-256" in transport.value(), offered)
            server.connectionLost()
            await service.stopService()

    async def test_service_greets_and_sends_bye_when_it_stops(self) -> None:
        """The service greets on every endpoint; when it stops, it sends BYE to all and accepts no more connections."""
        # The operating system limits the length of a socket's path: the path is relative.
        unix_endpoint = f"unix:{os.path.relpath(self.folder)}/s"
        service = self.make(
            "--listen",
            "tcp:0:interface=127.0.0.1",
            "--listen",
            unix_endpoint,
            "--auth",
            "memory:a:b",
        )
        service.privilegedStartService()
        service.startService()
        address = service._ports[0][1].getHost()
        clients: list[Any] = [
            await clientFromString(reactor, text).connect(Factory.forProtocol(LineClient))
            for text in (f"tcp:127.0.0.1:{address.port}", unix_endpoint)
        ]
        for client in clients:
            await client.greeted
            self.assertTrue(client.lines[0].startswith(b"* OK "), client.lines)
        await service.stopService()
        for client in clients:
            await client.lost
            self.assertTrue(client.lines[-1].startswith(b"* BYE "), client.lines)
        with socket.socket() as late:
            self.assertNotEqual(late.connect_ex(("127.0.0.1", address.port)), 0)
        self.assertFalse(os.path.exists(f"{self.folder}/s"))

    async def test_ban_command(self) -> None:
        """--ban-command is called for each ban, and after a restart for each ban that goes on."""
        called = self.path("called")
        code = f"import sys; print(*sys.argv[1:], file=open({called!r}, 'a'))"
        for repetition in (1, 2):
            service = self.make(
                "--mail-root", self.mail, "--auth", "memory:a:b", "--state", self.path("state"), "--listen", "tcp:0:interface=127.0.0.1",
                "--ban-command", f'{sys.executable} -c "{code}"',
            )  # fmt: skip
            service.privilegedStartService()
            with capturedLogs() as logged:
                service.startService()
            (text,) = [text for text in map(formatEvent, logged) if text.startswith("bans: ")]
            self.assertTrue(
                text.startswith(
                    f"bans: state={self.path('state')} trust=127.0.0.0/8,::1/128 proxy=none ban-command="
                ),
                text,
            )
            if repetition == 1:
                admission = service.factory.shared.admission
                for n in range(10):
                    counted = admission.admit("192.0.2.7").connection
                    admission.login_failed(counted, b"a", b"%d" % n)
            await service.stopService()
            with open(called) as file:
                lines = file.read().splitlines()
            self.assertEqual(len(lines), repetition)
            self.assertRegex(lines[-1], r"^ban 192\.0\.2\.7/32 (600|59\d)$")

    async def test_the_log_says_at_the_start_what_is_report_only(self) -> None:
        """With --report-only or --report-only-limit, the start is logged with the limits that are not enforced."""
        for options, expected in (
            ((), []),
            (("--report-only",), ["report-only: the limits reset no connection and ban nobody"]),
            (
                ("--report-only-limit", "preauth-bytes", "--report-only-limit", "backlog"),
                ["report-only: these limits are not enforced: backlog,preauth_bytes"],
            ),
        ):
            service = self.make(
                "--mail-root", self.mail, "--auth", "memory:a:b", "--state", "none", "--listen",
                "tcp:0:interface=127.0.0.1", *options,
            )  # fmt: skip
            service.privilegedStartService()
            with capturedLogs() as logged:
                service.startService()
            await service.stopService()
            texts = [formatEvent(event) for event in logged]
            self.assertEqual([text for text in texts if text.startswith("report-only")], expected)

    async def test_log_of_bans(self) -> None:
        """The log counts the connections that a ban has refused, and says that another process has ended a ban."""
        state = self.path("state")
        service = self.make(
            "--mail-root", self.mail, "--auth", "memory:a:b", "--state", state, "--listen", "tcp:0:interface=127.0.0.1",
        )  # fmt: skip
        with capturedLogs() as logged:
            service.startService()
            admission = service.factory.shared.admission
            admission.guard.bans.ban("192.0.2.7", "test", admission._now())
            admission.admit("192.0.2.7")
            service.periodic()
            admission.admit("192.0.2.7")
            file = StateFile(state)
            while not file.unban("192.0.2.7"):
                await deferLater(reactor, 0.05)
            file.close()
            while not any(formatEvent(event).startswith("unbanned") for event in logged):
                await deferLater(reactor, 0.05)
            await service.stopService()
        words = ("refused", "unbanned")
        lines = [text for text in map(formatEvent, logged) if text.startswith(words)]
        self.assertEqual(
            [line.partition(" banned-for=")[0] for line in lines],
            [
                "refused network=192.0.2.7/32 connections=1",
                "unbanned network=192.0.2.7/32",
                "refused network=192.0.2.7/32 connections=1",
            ],
        )

    def test_directory_in_place_of_the_password_file(self) -> None:
        """--auth with a directory advises a file in it, and not to create the directory as a file."""
        self.refuses(
            "--mail-root", self.mail, "--auth", f"file:{self.mail}",
            message=f"--auth file:{self.mail}: Is a directory; name a file in it, such as --auth file:{self.mail}/users",
        )  # fmt: skip

    def test_ban_command_errors(self) -> None:
        """A --ban-command that cannot be executed is an error of one line."""
        for text, message in (
            ("/no/such/program", "--ban-command /no/such/program: no such program; name an executable"),
            (__file__, f"--ban-command {__file__}: is not executable; run `chmod +x {__file__}`"),
            ("x 'y", "--ban-command x 'y: No closing quotation; add the missing quotation mark"),
        ):  # fmt: skip
            self.refuses(
                "--mail-root", self.mail, "--auth", "memory:a:b", "--ban-command", text, message=message
            )  # fmt: skip

    async def test_port_in_use_ends_the_start(self) -> None:
        """A port in use ends the start with status 1 and one line, and closes the other ports."""
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
