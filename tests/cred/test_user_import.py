"""The lines of other programs become lines of a password file, or the reason is given."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import password_rules, passwords, users
from imapshield.cred.user_import import read_import
from tests.cred.test_foreign_hashes import CRYPT_6

EXPIRED, VALID = "100:0:99999:7::19000:", "100:0:99999:7::30000:"


class ImportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(passwords, "hash_password", lambda p: passwords.hash_scrypt(p, ln=2))

    def read(self, line: str) -> tuple[str, str | None, str]:
        ((_, user, rest, reason),) = read_import(line.encode(), today=20000)
        return user, None if rest is None else rest.decode(), reason

    def test_lines_of_dovecot_are_kept(self) -> None:
        """A line of Dovecot's passwd-file is kept with its other fields."""
        rest = f"{{SHA512-CRYPT}}{CRYPT_6}:1000:1000::/home/a::userdb_quota_rule=*:bytes=1G"
        self.assertEqual(self.read(f"alice:{rest}"), ("alice", rest, ""))
        self.assertEqual(self.read(f"alice:{CRYPT_6}"), ("alice", CRYPT_6, ""))
        rest = f"{CRYPT_6}::::::nologin"
        self.assertEqual(self.read(f"alice:{rest}"), ("alice", rest, ", disabled"))
        rest = f"{CRYPT_6}::::::quota=x"
        self.assertIn("; the quota is not a number", self.read(f"alice:{rest}")[2])

    def test_dates_of_shadow_are_not_kept(self) -> None:
        """A line of /etc/shadow loses its dates. An account that is locked or has expired is disabled."""
        self.assertEqual(self.read(f"alice:{CRYPT_6}:{VALID}"), ("alice", CRYPT_6, ""))
        for line in (f"alice:!{CRYPT_6}:{VALID}", f"alice:{CRYPT_6}:{EXPIRED}"):
            self.assertEqual(self.read(line), ("alice", "!" + CRYPT_6, ", disabled"))

    def test_plain_passwords_are_hashed(self) -> None:
        """A password in plain text is hashed, and its text is gone."""
        _, rest, _ = self.read("alice:{PLAIN}secret:1:1")
        assert rest is not None
        self.assertTrue(passwords.verify(rest.partition(":")[0], b"secret"))
        self.assertTrue(rest.endswith(":1:1"))

    def test_users_without_a_password_are_skipped(self) -> None:
        """Accounts of the system have no password and are skipped."""
        for stored in ("*", "!", "!!", "!*", "x", ""):
            reason = "skipped: there is no password"
            self.assertEqual(self.read(f"daemon:{stored}:{VALID}"), ("daemon", None, reason))

    def test_what_cannot_be_verified_is_refused(self) -> None:
        """A hash that cannot be verified, a restriction that cannot be kept and a wrong name are refused."""
        for line in (
            "alice:{CRAM-MD5}abc", f"alice:{CRYPT_6}::::::allow_nets=10.0.0.0/8", f"alice:{CRYPT_6}::::::user=bob",
            "alice", f"../x:{CRYPT_6}", f"\udcff:{CRYPT_6}", f" alice:{CRYPT_6}",
        ):  # fmt: skip
            ((_, _, rest, reason),) = read_import(line.encode("utf-8", "surrogateescape"))
            self.assertEqual((rest, reason.partition(":")[0]), (None, "refused"), line)

    def test_comments_and_empty_lines_are_nothing(self) -> None:
        """Comments and empty lines are passed over, and the others keep their numbers."""
        found = [*read_import(f"# users\n\nalice:{CRYPT_6}\n".encode())]
        self.assertEqual([line.number for line in found], [3])
        self.assertEqual(users.parse_entry(found[0].rest or b"")[0].stored, CRYPT_6)


class PasswordRuleTests(SynchronousTestCase):
    def test_passwords_that_are_guessed_first_are_refused(self) -> None:
        """A short password, one of the most frequent, the name of the user, and one letter are refused."""
        for password in (
            "",
            "abcde",
            "12345",
            "Password1",
            "QWERTY",
            "zzzzzzzz",
            "alice12",
            "Alice12@Example",
        ):
            self.assertTrue(password_rules.weakness(password.encode(), "alice12@example"), password)

    def test_other_passwords_are_accepted(self) -> None:
        """Six characters are enough, in any script and of any bytes."""
        for password in ("kzv8qm", "müßig!", "correct horse battery staple"):
            self.assertEqual(password_rules.weakness(password.encode(), "alice"), "")
        self.assertEqual(password_rules.weakness(b"\xff" * 5 + b"a", "alice"), "")
