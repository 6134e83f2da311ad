"""The password hashes of other servers are replaced after logins, many at once, and no other change is lost."""

import os
from typing import Any
from unittest import mock

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords, rehashing, users
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.rehashing import WRITE_SECONDS
from tests.cred.fakes import FakePool, FakeReactor

BOB = passwords.hash_scrypt(b"other", ln=2)


class RehashTests(SynchronousTestCase):
    SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # secret

    def setUp(self) -> None:
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))
        self.path = os.path.abspath(self.mktemp())
        with open(self.path, "w") as file:
            file.write(f"alice:{self.SHA}:1000:1000\n")
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.checker = PasswordFile(
            self.path,
            reactor=self.reactor,
            pool=self.pool,
            reading_pool=FakePool(),
            rehashes=True,
        )
        self.logged: list[dict[str, Any]] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def login(self, password: bytes = b"secret", user: bytes = b"alice") -> Deferred[Any]:
        return self.checker.requestAvatarId(UsernamePassword(user, password))

    def text(self) -> str:
        with open(self.path) as file:
            return file.read()

    def test_a_login_replaces_the_hash_of_another_server(self) -> None:
        """After a login the hash is one of ours, with the other fields of the line; the password stays correct."""
        self.failureResultOf(self.login(b"wrong"), UnauthorizedLogin)
        self.reactor.advance(WRITE_SECONDS)
        self.assertIn(self.SHA, self.text())
        self.successResultOf(self.login())
        self.reactor.advance(WRITE_SECONDS)
        self.assertRegex(self.text(), r"^alice:\$scrypt\$[^:]+:1000:1000\n$")
        before = self.text()
        self.successResultOf(self.login())
        self.reactor.advance(WRITE_SECONDS)
        self.assertEqual(self.text(), before)
        self.assertIn(f'{self.path}: new hash of "alice"', [formatEvent(e) for e in self.logged])

    def test_a_login_replaces_a_password_in_plain_text(self) -> None:
        """A password in plain text, as Dovecot may have it in base64, is used and then gone."""
        with open(self.path, "w") as file:
            file.write("alice:{PLAIN.b64}c2VjcmV0:1000:1000\n")
        self.successResultOf(self.login())
        self.reactor.advance(WRITE_SECONDS)
        self.assertRegex(self.text(), r"^alice:\$scrypt\$[^:]+:1000:1000\n$")

    def test_many_logins_change_the_file_once_in_a_minute(self) -> None:
        """The hashes of a minute are written together, and one reading parses the changed lines alone."""
        with open(self.path, "w") as file:
            file.writelines(f"user{number}:{self.SHA}\n" for number in range(20))
        with (
            mock.patch.object(users, "replace_hashes", wraps=users.replace_hashes) as replace,
            mock.patch.object(users, "parse_entry", wraps=users.parse_entry) as parse,
        ):
            for number in range(5):
                self.successResultOf(self.login(user=b"user%d" % number))
            self.assertEqual((replace.call_count, parse.call_count), (0, 20))
            self.reactor.advance(WRITE_SECONDS)
            self.checker.load()
            self.assertEqual((replace.call_count, parse.call_count), (1, 25))
            self.reactor.advance(WRITE_SECONDS)
        self.assertEqual(replace.call_count, 1)
        self.assertEqual(self.text().count("$scrypt$"), 5)

    def test_logins_do_not_wait_for_new_hashes(self) -> None:
        """One new hash is computed at a time, and few passwords wait, so that logins have the other threads."""
        rehasher = self.checker._rehasher
        self.successResultOf(self.checker.requestAvatarId(UsernamePassword(b"alice", b"secret")))
        self.pool.paused = True
        with mock.patch.object(rehashing, "MAX_QUEUED", 2):
            for number in range(5):
                rehasher.password_was_right(f"user{number}", b"secret", self.SHA)
        self.assertEqual(len(self.pool.jobs), 1)
        self.pool.run_pending()
        self.assertEqual(sorted(rehasher._waiting), ["alice", "user0", "user1", "user2"])

    def test_the_end_of_the_server_writes_what_waits(self) -> None:
        """New hashes are written when the checker closes, and when the reactor stops."""

        def reactor_stops() -> Any:
            return self.reactor.triggers.pop()()

        for stop in (reactor_stops, self.checker._rehasher.write, self.checker.close):
            self.checker._cache.clear()
            with open(self.path, "w") as file:
                file.write(f"alice:{self.SHA}\n")
            self.successResultOf(self.login())
            self.assertIn(self.SHA, self.text())
            self.successResultOf(stop())
            self.assertIn("$scrypt$", self.text())
        self.assertEqual((self.reactor.getDelayedCalls(), self.reactor.triggers), ([], []))

    def test_the_setting_turns_it_off(self) -> None:
        """Without the setting the file stays as it is."""
        self.checker.rehashes = False
        self.successResultOf(self.login())
        self.reactor.advance(WRITE_SECONDS)
        self.assertIn(self.SHA, self.text())

    def test_a_line_that_was_changed_meanwhile_stays(self) -> None:
        """A password that is set between the login and the new hash is not lost, and neither is a new user."""
        self.successResultOf(self.login())
        users.set_hash(self.path, "alice", BOB)
        users.set_hash(self.path, "carol", BOB)
        self.reactor.advance(WRITE_SECONDS)
        self.assertEqual(self.text(), f"alice:{BOB}:1000:1000\ncarol:{BOB}\n")
        self.assertEqual([e for e in self.logged if "new hash" in formatEvent(e)], [])

    def test_a_hash_that_cannot_be_made(self) -> None:
        """If no new hash can be made, the login is right and the next one tries again."""
        with mock.patch.object(passwords, "hash_password", side_effect=MemoryError):
            self.successResultOf(self.login())
        self.successResultOf(self.login())
        self.reactor.advance(WRITE_SECONDS)
        self.assertIn(self.SHA, self.text())  # the second password was cached
        self.checker._cache.clear()
        self.successResultOf(self.login())
        self.reactor.advance(WRITE_SECONDS)
        self.assertIn("$scrypt$", self.text())

    def test_a_file_that_cannot_be_written_is_one_line(self) -> None:
        """If the file cannot be changed, logins work and the log has one line that says what to do."""
        denied = mock.Mock(side_effect=PermissionError(13, "Permission denied"))
        self.patch(users, "replace_hashes", denied)
        for _ in range(2):
            self.checker._cache.clear()
            self.successResultOf(self.login())
            self.reactor.advance(WRITE_SECONDS)
        self.assertEqual(denied.call_count, 1)
        (warning,) = [e for e in self.logged if e["log_level"] is LogLevel.warn]
        self.assertIn("Permission denied; make it and its directory writable", formatEvent(warning))
