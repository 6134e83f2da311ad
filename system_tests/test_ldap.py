"""Users of an LDAP directory log in: Debian's slapd decides, over StartTLS and ldaps."""

from __future__ import annotations

import contextlib
import imaplib
import os
import signal
import time
from collections.abc import Iterator, Sequence

from imapshield.cred import passwords, users
from system_tests.server import TIMEOUT
from system_tests.server_case import FAULTS, ServerCase, close_quietly
from system_tests.slapd import BASE, SEARCH_DN, SEARCH_PASSWORD, Slapd

SPECIAL = "o'(b)*, #+=<x>é"
_PERSON = """dn: cn={number},{base}
objectClass: inetOrgPerson
cn: {number}
sn: {number}
uid:: {uid}
mail: {mail}
userPassword: {password}

"""


def _ldif() -> str:
    """Return the entries: people, the user who searches, and two people with the same address."""
    import base64

    people = [
        ("alice", "alice@example.org"),
        ("bob", "bob@example.org"),
        (SPECIAL, "x@example.org"),
    ]
    people += [("twin1", "twin@example.org"), ("twin2", "twin@example.org")]
    entries = [
        _PERSON.format(
            number=number, base=BASE, mail=mail, password=f"secret {number}",
            uid=base64.b64encode(uid.encode()).decode(),
        )
        for number, (uid, mail) in enumerate(people)
    ]  # fmt: skip
    return "".join(entries) + (
        f"dn: {SEARCH_DN}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: imapshield\n"
        f"userPassword: {SEARCH_PASSWORD}\n"
    )


class LdapCase(ServerCase):
    forbidden_log_texts = FAULTS
    options: Sequence[str] = ("--limit", "max_failed_pairs=1000")
    lines: tuple[str, ...] = ()

    def prepare(self) -> None:
        folder = os.path.join(self.base, "slapd")
        os.mkdir(folder)
        self.slapd = Slapd(folder, _ldif())
        self.addCleanup(self.slapd.stop)
        self.settings = os.path.join(self.base, "ldap.toml")
        self.write_settings(*self.lines)
        self.auth = f"ldap:{self.settings}"

    def write_settings(self, *lines: str) -> None:
        values = {"port": self.slapd.port, "tls_port": self.slapd.tls_port}
        text = "\n".join(
            line % values for line in (*lines, f'ca-file = "{self.slapd.certificate}"')
        )
        with open(self.settings, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)

    def answer(self, user: str, password: str) -> str:
        """Return the answer to a login: the name of the INBOX's owner in the mail root, or the response code."""
        before = {*os.listdir(self.root)}
        with self.client() as client:
            given = b"\0" + user.encode() + b"\0" + password.encode()
            try:
                client.authenticate("PLAIN", lambda _: given)
            except imaplib.IMAP4.error as error:
                return str(error).partition("[")[2].partition("]")[0]
            self.ok(client.select())
        return (*sorted({*os.listdir(self.root)} - before), "a known user")[0]

    @contextlib.contextmanager
    def client(self) -> Iterator[imaplib.IMAP4]:
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            yield client
        finally:
            close_quietly(client)


class SearchTests(LdapCase):
    lines = (
        'uri = "ldap://127.0.0.1:%(port)d"',
        f'base = "{BASE}"',
        'filter = "(|(uid={user})(mail={user}))"',
        f'search-dn = "{SEARCH_DN}"',
        f'search-password = "{SEARCH_PASSWORD}"',
        'user-attribute = "uid"',
    )

    def prepare(self) -> None:
        super().prepare()
        masters = os.path.join(self.base, "masters")
        users.set_hash(masters, "admin", passwords.hash_password(b"master"))
        self.options = (*self.options, "--master-users", masters)

    def test_one_mailbox_has_one_name(self) -> None:
        """Each way to write a name, the address and a master user lead to the mailbox with the directory's name."""
        self.assertEqual(self.answer("ALICE@example.org", "secret 0"), "alice")
        for name in ("alice", "Alice", " alice ", "alice@Example.ORG"):
            self.assertEqual(self.answer(name, "secret 0"), "a known user", name)
        self.assertEqual(self.answer("alice*admin", "master"), "a known user")
        self.assertEqual(os.listdir(self.root), ["alice"])
        # Characters that have a meaning in filters and DNs are only characters.
        self.assertEqual(self.answer(SPECIAL, "secret 2"), SPECIAL)

    def test_wrong_logins_are_refused(self) -> None:
        """A wrong or empty password, an unknown name, and names that try to change the filter are refused.

        If two entries have the name, nobody logs in, and the log says why.
        """
        for user, password in (
            ("alice", "secret 1"), ("alice", ""), ("nobody", "secret 0"), ("*", "secret 0"), ("al*", "secret 0"),
            ("alice)(uid=*", "secret 0"), ("*)(|(uid=*", "secret 0"), (r"\61lice", "secret 0"),
        ):  # fmt: skip
            self.assertEqual(self.answer(user, password), "AUTHENTICATIONFAILED", user)
        self.assertEqual(self.answer("twin@example.org", "secret 3"), "UNAVAILABLE")
        self.server.wait_for_output("2 entries have the same name")

    def test_directory_that_stops(self) -> None:
        """Without the directory, or while it does not answer, logins are unavailable and other clients go on."""
        with self.client() as other:
            other.authenticate("PLAIN", lambda _: b"\0bob\0secret 1")
            os.kill(self.slapd.process.pid, signal.SIGSTOP)
            with self.client() as waiting:
                tag = waiting._new_tag().decode()
                waiting.send(f'{tag} LOGIN alice "secret 0"\r\n'.encode())
                slowest = 0.0
                for _ in range(20):
                    began = time.monotonic()
                    self.ok(other.noop())
                    slowest = max(slowest, time.monotonic() - began)
                self.assertLess(slowest, 5.0)
                self.assertIn(b"NO [UNAVAILABLE]", waiting.readline())
            self.slapd.stop()
            self.assertEqual(self.answer("alice", "secret 0"), "UNAVAILABLE")
            self.slapd.start()
            self.assertEqual(self.answer("alice", "secret 0"), "alice")
        log = self.stop()
        self.assertNotIn("login failed", log)
        self.assertEqual(
            log.count("nobody can log in with it"), 2
        )  # no answer, and then no connection

    def test_password_of_the_search_may_change(self) -> None:
        """A wrong search-password is the operator's problem, not the user's; the file is read at each login."""
        lines = [line.replace(SEARCH_PASSWORD, "old") for line in self.lines]
        self.write_settings(*lines)
        self.assertEqual(self.answer("alice", "secret 0"), "UNAVAILABLE")
        line = self.server.wait_for_output("the directory refuses the password of")
        self.assertNotIn("old", line)
        self.write_settings(*self.lines)
        self.assertEqual(self.answer("alice", "secret 0"), "alice")


class BindTests(LdapCase):
    lines = (
        'uri = "ldaps://127.0.0.1:%(tls_port)d"',
        f'bind-as = "cn={{user}},{BASE}"',
        'user-attribute = "uid"',
    )

    def test_user_binds(self) -> None:
        """The user logs in at the directory and reads the own name; a name is only a part of the DN."""
        self.assertEqual(self.answer("0", "secret 0"), "alice")
        self.assertEqual(self.answer(" 0", "secret 0"), "a known user")
        for user, password in (
            ("0", "secret 1"), ("0", ""), (f"0,{BASE}", "secret 0"), ("0+sn=0", "secret 0"), ("#30", "secret 0"),
        ):  # fmt: skip
            self.assertEqual(self.answer(user, password), "AUTHENTICATIONFAILED", user)

    def test_certificate_is_verified(self) -> None:
        """A directory whose certificate is not trusted, or for another name, gets no password."""
        other = os.path.join(self.base, "other")
        os.mkdir(other)
        trusted = self.slapd.certificate
        wrong_name = self.lines[0].replace("127.0.0.1", "127.0.0.2")
        self.slapd.certificate = "/etc/ssl/certs/ca-certificates.crt"
        self.write_settings(*self.lines)
        self.assertEqual(self.answer("0", "secret 0"), "UNAVAILABLE")
        self.slapd.certificate = trusted
        self.write_settings(*self.lines)
        self.assertEqual(self.answer("0", "secret 0"), "alice")
        self.write_settings(wrong_name, *self.lines[1:])
        self.assertEqual(self.answer("0", "secret 0"), "UNAVAILABLE")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
