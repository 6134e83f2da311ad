"""`imapshield check-config` and ``--check``: what they find, their exit status, and that they change nothing."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from typing import Any
from unittest import mock

from twisted.internet import reactor

from imapshield import cli
from imapshield.certificates import CertificateSource, PairFiles
from imapshield.config import Settings
from imapshield.config_check import check, restart_problems
from imapshield.cred import passwords, users
from imapshield.first_run import FirstRunFolder
from imapshield.limits import Limits
from imapshield.process.server_user import ServerUser
from imapshield.tap import makeService
from tests.certificates import issued, self_signed
from tests.command_line import CommandLineTestCase


class CheckConfigCase(CommandLineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.alice = os.path.join(self.mail, "alice")
        os.makedirs(os.path.join(self.alice, "cur"))
        self.options = ["--mail-root", self.mail, "--auth", f"file:{self.users}"]
        self.options += ["--listen", "tcp:0:interface=127.0.0.1"]

    def check(self, *arguments: str) -> tuple[int, str]:
        """Run the command, and return its status and what it has printed, on standard error too."""
        self.out.truncate(0)
        self.out.seek(0)
        self.patch(sys, "stderr", self.out)
        status = cli.main(["check-config", *arguments])
        return status, self.out.getvalue()

    def snapshot(self) -> list[tuple[str, list[str], list[str]]]:
        return sorted(os.walk(self.folder))


class CheckConfigTests(CheckConfigCase):
    def test_good_configuration(self) -> None:
        """A good configuration has status 0, a line for each Maildir, and what clients see. Nothing is created."""
        before = self.snapshot()
        status, text = self.check(*self.options)
        self.assertEqual(status, 0, text)
        self.assertIn("1 user can log in", text)
        self.assertIn(f"ok       alice: {self.alice}\n", text)
        self.assertIn("clients see no TLS; PLAIN, LOGIN, and passwords only from this", text)
        self.assertIn("0 errors, 0 warnings", text)
        self.assertEqual(self.snapshot(), before)

    def test_missing_maildir_is_a_warning(self) -> None:
        """A Maildir that the pattern does not find is a warning that names the path and the option."""
        pattern = os.path.join(self.mail, "{user}", "Maildir")
        status, text = self.check(*self.options, "--mail-root", pattern)
        self.assertEqual(status, 1)
        self.assertIn(f"warning  alice: no Maildir at {self.alice}/Maildir; the first login", text)
        self.assertFalse(os.path.exists(os.path.join(self.alice, "Maildir")))

    def test_unknown_user_of_the_server(self) -> None:
        """A user of ``--uid`` who does not exist is one line, not a traceback."""
        status, text = self.check(*self.options, "--uid", "no-such-user")
        self.assertEqual(status, 2)
        self.assertIn("there is no user 'no-such-user' on this machine", text)
        self.assertEqual(self.check(*self.options, "--uid", "root")[0], 0)

    def test_many_users(self) -> None:
        """Twenty Maildirs have a line, missing ones first; of the others there is a number."""
        stored = passwords.hash_scrypt(b"secret", ln=2)
        with open(self.users, "ab") as file:
            file.writelines(b"u%02d:%b\n" % (number, stored.encode()) for number in range(30))
        os.makedirs(os.path.join(self.mail, "u01", "cur"))
        status, text = self.check(*self.options)
        self.assertEqual(status, 1)
        self.assertEqual(text.count("no Maildir at"), 20)
        self.assertIn("9 more users have no Maildir", text)
        self.assertIn("2 more users have a Maildir", text)

    def test_wrong_options(self) -> None:
        """A wrong option, file or limit has status 2 and one line with what was meant."""
        for arguments, words in (
            (["--mailroot", "x"], "did you mean --mail-root?"),
            (["--limit", "bakclog=1"], "did you mean backlog?"),
            (["--certificate", self.path("none.pem")], "none.pem"),
            (["--listen", "143"], "did you mean tcp:143?"),
            (["--mail-root", self.path("{usr}")], "unknown {usr}"),
            (["--auth", f"file:{self.path('nobody')}"], "creates it"),
            (["--auth", f"ldap:{self.path('ldap.toml')}"], "name a TOML file"),
            (["--master-users", self.path("masters")], "--master-users"),
            (["--ban-command", self.path("nothing")], "--ban-command"),
        ):
            with self.subTest(arguments=arguments):
                status, text = self.check(*self.options, *arguments)
                self.assertEqual(status, 2, text)
                self.assertIn(words, text)

    def test_errors_of_the_file_have_its_line(self) -> None:
        """An error in the TOML file has the line, and what was probably meant."""
        for content, words in (
            (
                b'\nmail-rot = "x"\n',
                "line 2: unknown option 'mail-rot'; did you mean 'mail-root'? `twistd imapshield --help` lists",
            ),
            (b"verbose = true\nverbose 1", "line 2"),
            (
                b"[limit]\n# x\nbakclog = 3\n",
                "line 3: limit bakclog=3: unknown limit; did you mean",
            ),
            (b"[limit]\nbacklog = -3\n", "line 2: limit backlog=-3: must be"),
            (
                b"\n[limits]\nbacklog = 3\n",
                "line 2: unknown option 'limits'; did you mean 'limit'?",
            ),
            (b"verbose = 1\n", "line 1: verbose must be true or false"),
        ):
            with self.subTest(content=content):
                path = self.file("config.toml", content)
                status, text = self.check("--config", path)
                self.assertEqual((status, text.count("\n")), (2, 1), text)
                self.assertIn(f"--config {path}: ", text)
                self.assertIn(words, text)

    def test_all_problems_are_named(self) -> None:
        """Several problems of one kind have a line each."""
        none, gone = self.path("none"), self.path("gone")
        config = self.file("two.toml", b"a = 1\nverbose = 1\n[limit]\nb = 1\nbacklog = 7\n")
        for arguments, words in (
            (["--config", config, "--workers", "99"], ("unknown option 'a'", "line 2: verbose", "limit b=1", "99")),
            (["--trust", "x", "--separator", "x", "--backlog", "-1"], ("--trust", "--separator", "backlog")),
            (["--listen", "imaps:993", "--key", "k"], ("--key needs", "imaps:993 needs")),
            (["--backend", "a", "--backend", "b"], ("--backend a:", "--backend b:")),
            (["--auth", f"file:{none}", "--auth", f"file:{gone}"], (none, gone)),
            (["--mail-root", none, "--auth", f"file:{gone}", "--index-root", gone], (none, gone)),
            (["--guard-redis", "redis://127.0.0.1", "--guard-secret", none, "--guard-redis-password", gone], (none, gone)),
        ):  # fmt: skip
            with self.subTest(arguments=arguments):
                status, text = self.check(*arguments)
                self.assertEqual(status, 2)
                lines = [
                    line for line in text.splitlines() if line.startswith(("error ", "imapsh"))
                ]
                for word in words:
                    self.assertTrue(any(word in line for line in lines), (word, text))
                self.assertGreaterEqual(len(lines), len(words))

    def test_what_a_restart_would_find(self) -> None:
        """A reload asks for the problems of options that need a restart, without those of the server's own ports."""
        with (
            socket.create_server(("127.0.0.1", 0)) as own,
            socket.create_server(("127.0.0.1", 0)) as other,
        ):
            texts = [f"tcp:{each.getsockname()[1]}:interface=127.0.0.1" for each in (own, other)]
            running = Settings(listen=(texts[0],), admin=texts[0])
            with open(self.users, "rb") as file:
                some = self.file("some", file.read() + b"nonsense\n")
            for changes, words in (
                ({"listen": tuple(texts)}, f"{texts[1]}: another program"),
                ({"listen": ("143",)}, "did you mean tcp:143?"),
                ({"listen": (f"haproxy:{texts[0]}",)}, ""),
                ({"listen": (f"haproxy:{texts[1]}",)}, "another program"),
                ({"listen": (texts[0], f"haproxy:{texts[0]}")}, "has the port of"),
                ({"metrics": texts[1]}, "another program"),
                ({"metrics": texts[0]}, "another program"),
                ({"admin": None, "metrics": texts[0]}, ""),
                ({"ban_command": "/bin/true", "limits": Limits(report_only=True)}, ""),
                ({"mail_root": "/none", "auth": ("x",)}, "create it, or name another one"),
                ({"ban_command": "/none"}, "--ban-command"),
                ({"acme": ("x",), "acme_http": texts[1]}, "--acme-http"),
                ({"admin_auth": f"file:{self.users}"}, ""),
                ({"admin_auth": f"file:{some}"}, ""),
                ({"separator": "."}, ""),
            ):  # fmt: skip
                with self.subTest(changes=changes):
                    new: Any = replace(running, **changes)
                    found = restart_problems(reactor, running, None, new, {*changes})
                    self.assertEqual(len(found), bool(words), found)
                    self.assertIn(words, "".join(found))

    def test_the_certificate_at_a_restart(self) -> None:
        """A restart has the certificate of the running server, which only root may be able to read."""
        running = Settings(certificate="/none", listen=("imaps:0",))
        changes: dict[str, Any] = {"admin": "https:0", "listen": ("imaps:0", "tcp:0")}
        pem = self.file("own.pem", b"".join(self_signed()))
        source = CertificateSource(PairFiles(pem))
        for main, settings, words in (
            (source, running, ""),
            (source, replace(running, certificate=None, acme=("mail.example.org",)), ""),
            (None, replace(running, certificate=pem), ""),
            (None, running, "--certificate /none: No such file"),
            (source, replace(running, certificate=None, listen=()), "--admin https:0 needs"),
        ):
            with self.subTest(words=words):
                new = replace(settings, **changes, admin_auth=f"file:{self.users}")
                if settings.listen == ():
                    new = replace(new, listen=("tcp:0",))
                found = restart_problems(reactor, running, main, new, {*changes})
                self.assertEqual(bool(found), bool(words), found)
                self.assertIn(words, "".join(found))

    def test_certificate(self) -> None:
        """The check names the hosts and the end of the certificate, and warns of one that clients will not trust."""
        own = self.file("own.pem", b"".join(self_signed("mail.example.org")))
        status, text = self.check(*self.options, "--certificate", own)
        self.assertEqual(status, 1)
        self.assertIn("for mail.example.org, valid until", text)
        self.assertIn("is signed by itself", text)
        self.assertIn("clients see STARTTLS, then PLAIN", text)
        old = self.file("old.pem", b"".join(self_signed(days=1)))
        self.assertEqual(self.check(*self.options, "--certificate", old)[0], 2)
        (leaf, key), issuer = issued()
        alone, full = self.file("alone.pem", leaf + key), self.file("full.pem", leaf + issuer + key)
        self.assertIn("has no chain", self.check(*self.options, "--certificate", alone)[1])
        status, text = self.check(*self.options, "--certificate", full)
        self.assertEqual(status, 0, text)
        self.assertIn("sent with a chain of 1", text)

    def test_port_in_use(self) -> None:
        """A port that another program has is a warning, because the server itself may have it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            status, text = self.check(*self.options, "--listen", listen)
        self.assertEqual(status, 1)
        self.assertIn(f"--listen {listen}: another program uses this address", text)

    def test_endpoint_with_tls(self) -> None:
        """An endpoint that uses TLS from the first byte is said to, and its port is looked at, too."""
        certificate = self.file("c.pem", b"".join(self_signed("mail.example.org")))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"imaps:tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            arguments = "--certificate", certificate, "--listen", listen
            _, text = self.check(*self.options, *arguments)
        self.assertIn(f"--listen {listen}: clients see TLS, then PLAIN, LOGIN", text)
        self.assertIn(f"--listen {listen}: another program uses this address", text)

    def test_endpoint_with_tls_on_one_address(self) -> None:
        """An endpoint with TLS may be on one IPv4 address, although such endpoints are IPv6 by default."""
        certificate = self.file("c.pem", b"".join(self_signed("mail.example.org")))
        arguments = "--certificate", certificate, "--listen", "imaps:0:interface=127.0.0.1"
        self.assertNotIn("error  ", self.check(*self.options, *arguments)[1])

    def test_scram(self) -> None:
        """SCRAM is named if all users have secrets of it."""
        users.set_hash(self.users, "alice", passwords.hash_scram(b"secret", iterations=4096))
        self.assertIn("SCRAM-SHA-256, PLAIN", self.check(*self.options)[1])

    def test_users_without_a_line_that_can_be_used(self) -> None:
        """A password file in which nobody can log in is an error."""
        empty = self.file("empty", b"alice:plain\n")
        status, text = self.check(*self.options[:2], "--auth", f"file:{empty}")
        self.assertEqual(status, 2)
        self.assertIn("line 1", text)

    def test_users_of_the_first_start(self) -> None:
        """Without ``--auth``, the users of the first start are looked at, if there are some."""
        self.patch(os, "environ", {"XDG_DATA_HOME": os.path.abspath(self.mktemp())})
        self.assertIn(
            "a demo user, whose password the first start prints", self.check(*self.options[-2:])[1]
        )
        os.makedirs(FirstRunFolder.from_environ(os.environ).folder)
        users.set_hash(
            FirstRunFolder.from_environ(os.environ).users,
            "demo",
            "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAA$AAAA",
        )
        self.addCleanup(setattr, passwords, "_next_attempt", 0.0)
        with mock.patch.multiple(passwords, _argon2=None, _import_argon2=lambda: None):
            status, text = self.check(*self.options[-2:])
        self.assertEqual(status, 2)
        self.assertIn("cannot log in: argon2-cffi is not installed; type `", text)

    def test_check_option_of_twistd(self) -> None:
        """``--check`` does the same, and ends the start with the status."""
        for arguments, status in (([], 0), (["--report-only"], 1)):
            with self.assertRaises(SystemExit) as caught:
                makeService(self.parse(*self.options, *arguments, "--check"))
            self.assertEqual(caught.exception.code, status)
        self.patch(sys, "stderr", self.out)
        with self.assertRaises(SystemExit) as caught:
            self.parse("--check", "--mailroot", "x")
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("did you mean --mail-root?", self.out.getvalue())

    def test_without_options(self) -> None:
        """Without options, the check says what the first start would do, and creates nothing."""
        status, lines = check(Settings(listen=("tcp:0",)), ServerUser(), None)
        self.assertEqual(status, 0, lines)
        self.assertIn("a demo user", lines[0])
        self.assertFalse(os.path.exists(self.path("xdg")))


class PortTests(CheckConfigCase):
    """The endpoints of ``--admin``, ``--metrics`` and ``--acme-http`` are checked like those of ``--listen``."""

    def test_certificates_of_endpoints(self) -> None:
        """The certificates of ``tls:`` and ``ssl:`` are checked as that of ``--certificate``."""
        os.mkdir(self.path("tls"))
        with open(self.path("tls/a.pem"), "wb") as file:
            file.write(b"".join(self_signed("a.example")))
        own = self.file("old.pem", b"".join(self_signed("b.example", days=1)))
        tls = f"tls:{self.path('tls')}:0:interface=127.0.0.1"
        ssl = f"ssl:0:privateKey={own}:interface=127.0.0.1"
        status, text = self.check(*self.options, "--listen", tls, "--listen", ssl)
        self.assertEqual(status, 2)
        self.assertIn(f"--listen tls:{self.path('tls')} (a.example): is signed by itself", text)
        self.assertRegex(text, rf"error +--listen {ssl}: for b.example, valid until .*; renew it")

    def test_admin_and_metrics(self) -> None:
        """A good status page and its users, and the metrics, have a line each."""
        admin, metrics = "tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.2"
        status, text = self.check(*self.options, "--admin", admin, "--metrics", metrics)
        self.assertEqual(status, 0, text)
        self.assertIn(f"--admin {admin}: the token that", text)
        self.assertIn(f"--metrics {metrics}: figures without a login", text)
        auth = "--admin-auth", f"file:{self.users}"
        status, text = self.check(*self.options, "--admin", admin, *auth)
        self.assertEqual(status, 0, text)
        self.assertIn(f"--admin-auth file:{self.users}: 1 user can log in", text)

    def test_wrong_admin_and_metrics(self) -> None:
        """What would fail at the start is an error here, each on a line of its own."""
        empty = self.file("empty", b"")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            arguments = "--admin", "tcp:8143", "--metrics", f"tcp:{port}:interface=127.0.0.1"
            status, text = self.check(*self.options, *arguments)
        self.assertEqual(status, 2)
        self.assertIn("error    --admin tcp:8143: passwords would cross the network", text)
        self.assertIn(f"warning  --metrics tcp:{port}:interface=127.0.0.1: another program", text)
        local = "tcp:0:interface=127.0.0.1"
        for given, words in (
            (("--admin", "nonsense"), "--admin nonsense: "),
            (("--admin", "https:8143"), "--admin https:8143 needs --certificate"),
            (("--admin", local, "--admin-auth", f"file:{self.path('none')}"), "none"),
            (
                ("--admin", local, "--admin-auth", f"file:{empty}"),
                "no users; nobody can log in; add a",
            ),
            (("--metrics", "tcp:x"), "--metrics tcp:x: "),
        ):
            status, text = self.check(*self.options, *given)
            self.assertEqual(status, 2, text)
            self.assertIn(words, text)

    def test_files_of_the_shared_guard(self) -> None:
        """A secret that is missing or short, with which the server would not start, is an error here, too."""
        redis = "--guard-redis", "redis://127.0.0.1:1"
        for content, words in (
            (b"s" * 15, "has less than 16 bytes"),
            (None, "name a readable file"),
        ):
            path = self.path("none") if content is None else self.file("short", content)
            status, text = self.check(*self.options, *redis, "--guard-secret", path)
            self.assertEqual(status, 2, text)
            self.assertIn(f"error    --guard-secret {path}: ", text)
            self.assertIn(words, text)
        good = *redis, "--guard-secret", self.file("secret", b"s" * 16)
        status, text = self.check(*self.options, *good)
        self.assertEqual(status, 0, text)
        self.assertIn("ok       --guard-redis: its files can be read", text)
        lost = self.path("password")
        status, text = self.check(*self.options, *good, "--guard-redis-password", lost)
        self.assertEqual(status, 2, text)
        self.assertIn(lost, text)

    def test_sockets_of_systemd(self) -> None:
        """Sockets that systemd will pass are not looked for here."""
        status, text = self.check(*self.options[:4], "--listen", "systemd:domain=INET6:index=0")
        self.assertEqual(status, 0, text)
        self.assertIn("clients see no TLS", text)

    def test_acme(self) -> None:
        """``--acme`` names where the certificate will come from, creates nothing, and looks at its port."""
        state = self.path("acme")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            http = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            options = "--acme", "mail.example.org", "--acme-state", state, "--acme-http", http
            status, text = self.check(*self.options, *options, "--listen", "imaps:0")
        self.assertEqual(status, 1, text)
        self.assertIn(
            "ok       --acme: no certificate yet for mail.example.org; the start asks", text
        )
        self.assertIn(f"warning  --acme-http {http}: another program uses this address", text)
        self.assertFalse(os.path.exists(state))
        self.file("acme", b"")
        status, text = self.check(*self.options[4:], *options)
        self.assertEqual(status, 2, text)
        self.assertIn(f"--acme: {state} is not a directory; name another", text)
        self.patch(os, "access", lambda *_, **__: False)
        status, text = self.check(*self.options[4:], *options)
        self.assertIn("--acme: ", text)
