"""Users are disabled, enabled and imported; weak passwords are refused."""

from imapshield.cred import passwords, users
from tests.cred.test_foreign_hashes import CRYPT_6
from tests.test_cli import CommandCase


class UserCommandTests(CommandCase):
    def add(self, *names: str, scram: bool = False) -> None:
        for name in names:
            make = passwords.hash_scram if scram else passwords.hash_password
            users.set_hash(self.path, name, make(b"secret"))

    def entry(self, user: str) -> users.UserEntry:
        with open(self.path, "rb") as file:
            return users.parse(file.read())[0][user]

    def test_weak_passwords_are_refused(self) -> None:
        """A weak password is refused with the reason, unless --weak is given."""
        for password, reason in ((b"abc", "fewer than 6 characters"), (b"password1", "guessed")):
            status, out, err = self.command("passwd", self.path, "alice", stdin=password)
            self.assertEqual((status, out, err.count("\n")), (1, "", 1))
            self.assertIn(reason, err)
        self.assertEqual(self.command("passwd", "--weak", self.path, "alice", stdin=b"abc")[0], 0)

    def test_names_with_capitals_are_explained(self) -> None:
        """A new user whose name is not in lower case gets a note, because other letter cases do not reach that user."""
        for name, expected in (("Alice", True), ("Alice", False), ("alice", False)):
            err = self.command("passwd", self.path, name, stdin=b"sesame2")[2]
            self.assertEqual("exactly this name" in err, expected, name)

    def test_a_disabled_user_keeps_the_password(self) -> None:
        """A disabled user is marked in the list, stays disabled with a new password, and is enabled with the old one."""
        self.add("alice", "bob")
        stored = self.entry("alice").stored
        for text in ("disabled alice\n", "alice was disabled already\n"):
            self.assertEqual(self.command("disable", self.path, "alice")[1], text)
        self.assertEqual(self.command("users", self.path)[1], "alice  disabled\nbob\n")
        for text in ("enabled alice\n", "alice was enabled already\n"):
            self.assertEqual(self.command("enable", self.path, "alice")[1], text)
        self.assertEqual(self.entry("alice").stored, stored)
        self.command("disable", self.path, "alice")
        status, out, err = self.command("passwd", self.path, "alice", stdin=b"sesame2")
        self.assertEqual((status, out), (0, "changed alice\n"))
        self.assertIn(f"alice is disabled; `imapshield enable {self.path} alice`", err)
        self.assertTrue(self.entry("alice").is_disabled)

    def test_users_have_their_quotas(self) -> None:
        """The list has the quotas that lines of the file set."""
        for name, rest in (
            ("alice", "::::::userdb_quota_rule=*:bytes=1M"),
            ("bob", ":quota_messages=7"),
        ):
            stored = passwords.hash_password(b"secret")
            users.add_lines(self.path, {name: f"{stored}{rest}".encode()})
        self.command("disable", self.path, "bob")
        expected = "alice  quota=1048576\nbob  disabled  quota_messages=7\n"
        self.assertEqual(self.command("users", self.path)[1], expected)

    def test_what_cannot_be_enabled_is_an_error(self) -> None:
        """An unknown user, a user without a password, and one with nologin cannot be enabled."""
        for command in ("disable", "enable"):
            self.add("bob")
            self.assertIn("no user alice", self.command(command, self.path, "alice")[2])
        with open(self.path, "ab") as file:
            file.write(f"carol:!\ndave:{CRYPT_6}::::::nologin\n".encode())
        self.assertIn(
            "no password; `imapshield passwd", self.command("enable", self.path, "carol")[2]
        )
        status, _, err = self.command("enable", self.path, "dave")
        self.assertEqual((status, "nologin; remove that" in err), (1, True))

    def test_import_says_what_it_did_for_each_line(self) -> None:
        """Each line is added, kept, replaced, skipped or refused, and the status is 1 if one was refused."""
        self.add("bob")
        source = self.mktemp()
        with open(source, "w") as file:
            file.write(f"alice:{CRYPT_6}\nalice:{CRYPT_6}\nbob:{CRYPT_6}\nroot:*\neve:{{X}}y\n")
        status, out, _ = self.command("import", self.path, source)
        words = [line.partition(": ")[2].split(";")[0] for line in out.splitlines()]
        self.assertEqual(status, 1)
        self.assertEqual(words[0], "added alice")
        self.assertEqual(words[1], "alice: skipped: an earlier line is used")
        self.assertEqual(words[2], f"kept bob, who is in {self.path} already")
        self.assertEqual(words[3], "root: skipped: there is no password")
        self.assertEqual(words[4], "eve: refused: the scheme of the hash is not supported")
        self.assertEqual(out.splitlines()[-1], "1 imported, 1 refused")
        self.assertEqual(self.entry("alice").stored, CRYPT_6)
        self.assertNotEqual(self.entry("bob").stored, CRYPT_6)
        out = self.command("import", "--replace", self.path, source)[1]
        self.assertIn("line 3: replaced bob\n", out)
        self.assertEqual(self.entry("bob").stored, CRYPT_6)

    def test_import_into_a_new_file(self) -> None:
        """The password file is created; a source that cannot be read is an error and creates nothing."""
        status, _, err = self.command("import", self.path, "/nosuch")
        self.assertEqual((status, err.count("\n")), (1, 1))
        source = self.mktemp()
        with open(source, "w") as file:
            file.write(f"alice:{CRYPT_6}\n")
        self.assertEqual(self.command("import", self.path, source)[0], 0)
        self.assertEqual(self.entry("alice").stored, CRYPT_6)

    def test_users_says_because_of_whom_scram_is_not_offered(self) -> None:
        """The list warns of the users without a SCRAM secret, if others have one."""
        self.add("alice", scram=True)
        self.assertEqual(self.command("users", self.path)[2], "")
        self.add("bob", "carol")
        err = self.command("users", self.path)[2]
        self.assertIn("SCRAM is not offered, because bob (and 1 more) has no SCRAM secret", err)
