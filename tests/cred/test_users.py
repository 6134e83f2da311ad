"""User names are safe in paths, and the password file is edited atomically, without changes to other lines."""

import os
import stat
import threading
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import locked_lines, passwords, users
from imapshield.cred.passwords import hash_scrypt
from imapshield.cred.users import BadUserName, parse, remove, set_hash, user_name

HASH = hash_scrypt(b"secret", ln=2)
OTHER = hash_scrypt(b"other", ln=2)


class UserNameTests(SynchronousTestCase):
    def test_ordinary_names_are_valid_and_unchanged(self) -> None:
        """Addresses, spaces, accents, capitals and names that look like variables are valid and stay as typed."""
        for name in (
            "alice",
            "Alice",
            "alice@example.org",
            "a b",
            "jürgen",
            "%{user}",
            "{user}",
            "a..b",
            "~",
            "-",
            "$HOME",
        ):
            with self.subTest(name=name):
                self.assertEqual(user_name(name.encode()), name)

    def test_unsafe_name_is_refused(self) -> None:
        """A name that could lead outside the mail root, be hidden in it or damage a log is refused."""
        for raw in (
            b"", b".", b"..", b"../x", b"a/b", b"/etc", b".hidden", b"a\0b", b"a\nb", b"a\rb", b"\x1b[0m", b"\x7f",
            b"\xff", b"a\xc3", "a\u202eb".encode(), "a\u2028b".encode(), b"\xc0\xaf", b"\xed\xb0\x80", b"x" * 256,
        ):  # fmt: skip
            with self.subTest(raw=raw), self.assertRaises(BadUserName):
                user_name(raw)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.binary(max_size=12) | st.text("./\\ab\0", max_size=6).map(str.encode))
    def test_no_name_leads_outside_the_mail_root(self, raw: bytes) -> None:
        """No user name leads to a path outside the mail root."""
        try:
            name = user_name(raw)
        except BadUserName:
            return
        self.assertEqual(os.path.dirname(os.path.normpath("/root/" + name)), "/root")


class PasswordFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "users")

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, text: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(text)

    def entry(self, rest: str) -> users.UserEntry:
        entries, self.problems = parse(f"alice:{rest}\n".encode())
        return entries["alice"]

    def test_plain_password_is_reported(self) -> None:
        """A password in plain text is used, and reported without the password."""
        entry, problem = users.parse_entry("{PLAIN}gehä".encode())
        self.assertTrue(passwords.verify(entry.stored, "gehä".encode()))
        self.assertIn("the password is in plain text", problem)
        self.assertNotIn("geh", problem)

    def test_quota_of_a_user(self) -> None:
        """A line may have a quota, in our own words or in those of Dovecot, after the hash or after Dovecot's fields."""
        for fields, expected in (
            ("", (None, None)),
            (":quota=1G", (1 << 30, None)),
            (":quota=10m quota_messages=5", (10 << 20, 5)),
            ("::::::quota_messages=0", (None, 0)),
            ("::::::userdb_quota_rule=*:bytes=1G", (1 << 30, None)),
            (":1:1:x:/home/a:/bin/sh:userdb_quota_rule=*:storage=2:messages=7", (2048, 7)),
            ("::::::userdb_quota_rule=*:storage=2M quota=1k", (1024, None)),
            ("::::::userdb_quota_rule=Trash:bytes=1G", (None, None)),
            (":1000:1000:Alice quota=1:/home/a:/bin/sh", (None, None)),
        ):
            self.assertEqual(self.entry(HASH + fields).quota, expected, fields)
            self.assertEqual(self.problems, [])
        for fields in (":quota=x", ":quota=-1", ":quota_messages=1.5"):
            self.assertEqual(self.entry(HASH + fields), users.UserEntry(HASH))
            self.assertIn("the quota is not a number", self.problems[0])

    def test_disabled_users(self) -> None:
        """A user with ! or * before the hash or with nologin is disabled, and that is no problem of the line."""
        for rest in ("!" + HASH, "!", "!!", "*", f"{HASH}:nologin", f"{HASH}::::::nologin=y"):
            self.assertEqual(self.entry(rest), users.UserEntry("", is_disabled=True), rest)
            self.assertEqual(self.problems, [])

    def test_restrictions_that_are_not_supported(self) -> None:
        """Nobody can log in with a line that has a restriction which this server does not enforce."""
        for field in ("allow_nets=10.0.0.0/8", "user=bob", "proxy=y host=x"):
            self.assertEqual(self.entry(f"{HASH}::::::{field}").stored, "")
            self.assertIn("is not supported", self.problems[0])

    def test_hashes_are_replaced_only_if_they_are_the_expected_ones(self) -> None:
        """A hash that was changed meanwhile stays, a user who was removed stays removed, and all other lines stay."""
        self.write(f"#alice:{HASH}\nalice:{HASH}:x=1\nbob:{OTHER}\nalice:{OTHER}\n".encode())
        expected = {"alice": (HASH, "new"), "bob": (HASH, "new"), "carol": (HASH, "new")}
        self.assertEqual(users.replace_hashes(self.path, expected), ["alice"])
        text = f"#alice:{HASH}\nalice:new:x=1\nbob:{OTHER}\nalice:{OTHER}\n"
        self.assertEqual(self.read(), text.encode())

    def test_dovecot_can_read_a_replaced_hash(self) -> None:
        """A hash that replaces one with Dovecot's scheme has a scheme, too."""
        sha = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
        self.write(f"alice:{sha}\n".encode())
        users.replace_hashes(self.path, {"alice": (sha, "$argon2id$x")})
        self.assertEqual(self.read(), b"alice:{ARGON2ID}$argon2id$x\n")

    def test_only_changed_lines_are_parsed_again(self) -> None:
        """With what an earlier call has found, other lines alone are parsed, and their numbers are those of the text."""
        known: dict[bytes, users.ParsedLine] = {}
        text = f"alice:{HASH}\nbob:plain\n".encode()
        self.assertEqual(parse(text, known), parse(text))
        changed = f"bob:plain\ncarol:{OTHER}\n".encode()
        expected = parse(changed)
        with mock.patch.object(users, "parse_entry", wraps=users.parse_entry) as parsed:
            self.assertEqual(parse(changed, known), expected)
        parsed.assert_called_once_with(OTHER.encode())
        self.assertEqual(len(known), 2)

    def test_a_fifo_is_refused_at_once(self) -> None:
        """A FIFO in place of the file makes no command wait."""
        os.mkfifo(self.path)
        with self.assertRaisesRegex(OSError, "Not a regular file"):
            set_hash(self.path, "alice", HASH)

    def test_parse_reports_the_line_of_a_problem(self) -> None:
        """Comments, empty lines and fields after the hash are ignored; a problem names its line."""
        text = f"# users\n\nalice:{HASH}:uid=1000\r\nbob:plain\n:{HASH}\nalice:{OTHER}\nno colon\n\xff:{HASH}\n"
        entries, problems = parse(text.encode("latin-1"))
        self.assertEqual(users.usable(entries), {"alice": HASH})
        self.assertEqual([*entries], ["alice", "bob", "no colon"])
        self.assertEqual(
            [p.partition(":")[0] for p in problems], [f"line {n}" for n in (4, 5, 6, 7, 8)]
        )

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.binary(max_size=80))
    def test_parse_succeeds_for_any_content(self, text: bytes) -> None:
        """Parsing succeeds for any content of the file."""
        parse(text)

    def test_set_hash_creates_the_file_and_changes_a_user(self) -> None:
        """A missing file is created for its owner only; a user is added, then changed."""
        self.assertTrue(set_hash(self.path, "alice", HASH))
        self.assertTrue(set_hash(self.path, "bob", HASH))
        self.assertFalse(set_hash(self.path, "alice", OTHER))
        self.assertEqual(self.read(), f"alice:{OTHER}\nbob:{HASH}\n".encode())
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["users"])

    def test_set_hash_keeps_all_other_lines(self) -> None:
        """Comments, order, invalid lines and further fields are kept; a second line of the user is removed."""
        self.write(b"# top\n\nalice:old:uid=1\nbob:?\n#alice:x\nalice:older\n")
        set_hash(self.path, "alice", HASH)
        self.assertEqual(self.read(), f"# top\n\nalice:{HASH}:uid=1\nbob:?\n#alice:x\n".encode())

    def test_missing_last_newline_joins_no_lines(self) -> None:
        """If the last line of the file has no newline, a new user still gets a separate line."""
        self.write(f"alice:{HASH}".encode())
        set_hash(self.path, "bob", HASH)
        self.assertEqual(set(parse(self.read())[0]), {"alice", "bob"})

    def test_set_hash_refuses_an_invalid_name(self) -> None:
        """A name that is invalid in the file or in the mail root is refused, and nothing changes."""
        for name in ("", "a:b", "#a", " a", "a ", "..", "a\nb:x", "\udcff"):
            with self.subTest(name=name), self.assertRaises(BadUserName):
                set_hash(self.path, name, HASH)
        self.assertEqual(os.listdir(self.folder), [])

    def test_remove_deletes_all_lines_of_a_user(self) -> None:
        """Removing a user removes all lines of the user, and returns whether there were any."""
        self.write(f"alice:{HASH}\n#alice:x\nalicexx:{HASH}\nalice:{OTHER}\n".encode())
        self.assertTrue(remove(self.path, "alice"))
        self.assertFalse(remove(self.path, "alice"))
        self.assertEqual(self.read(), f"#alice:x\nalicexx:{HASH}\n".encode())

    def test_remove_from_a_missing_file_is_an_error(self) -> None:
        """Removing a user from a missing file is an error."""
        self.assertRaises(FileNotFoundError, remove, self.path, "alice")
        self.assertEqual(os.listdir(self.folder), [])

    def test_disk_failure_leaves_the_old_file(self) -> None:
        """If the disk fails during the write, the old file is intact and no temporary file is left."""
        set_hash(self.path, "alice", HASH)
        before = self.read()
        for call in ("fsync", "rename"):
            with mock.patch(f"os.{call}", side_effect=OSError(28, "No space")):
                self.assertRaises(OSError, set_hash, self.path, "bob", HASH)
            self.assertEqual((self.read(), os.listdir(self.folder)), (before, ["users"]))

    def test_mode_is_kept(self) -> None:
        """An edit keeps the mode of the file, so that a group that could read it still can."""
        set_hash(self.path, "alice", HASH)
        os.chmod(self.path, 0o640)
        set_hash(self.path, "bob", HASH)
        remove(self.path, "alice")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def owner_of_new_file(self, euid: int, folder: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return owner, group and mode of a file that the user `euid` creates in a directory with those of `folder`."""
        uid, gid, mode = folder
        status = os.stat_result((stat.S_IFDIR | mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))
        with mock.patch("os.geteuid", return_value=euid), mock.patch("os.getegid", return_value=5):
            return locked_lines._owner(None, status)

    def test_new_file_of_root_belongs_to_the_owner_of_its_directory(self) -> None:
        """A file that root creates has the owner and the group of its directory; others keep their own."""
        self.assertEqual(self.owner_of_new_file(0, (8, 9, 0o700)), (8, 9, 0o600))
        self.assertEqual(self.owner_of_new_file(0, (0, 0, 0o755)), (0, 0, 0o600))
        self.assertEqual(self.owner_of_new_file(1000, (8, 9, 0o750)), (1000, 5, 0o600))

    def test_group_of_a_private_directory_may_read(self) -> None:
        """The group may read a new file of root in a directory for owner and group alone, unless it is root's group."""
        self.assertEqual(self.owner_of_new_file(0, (0, 9, 0o750)), (0, 9, 0o640))
        for folder in ((0, 9, 0o755), (0, 9, 0o710), (0, 0, 0o750)):
            self.assertEqual(self.owner_of_new_file(0, folder), (*folder[:2], 0o600))

    def test_owner_is_set_where_it_differs(self) -> None:
        """The owner and the mode are those that were chosen, before the file has its name."""
        chosen = os.geteuid(), os.getegid() + 1, 0o640
        with (
            mock.patch.object(locked_lines, "_owner", return_value=chosen),
            mock.patch("os.fchown") as fchown,
        ):
            set_hash(self.path, "alice", HASH)
        self.assertEqual(fchown.call_args.args[1:], chosen[:2])
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_symbolic_link_is_kept_and_its_target_replaced(self) -> None:
        """If the path is a symbolic link, its target is replaced and the link is kept."""
        set_hash(self.path, "alice", HASH)
        link = os.path.join(self.folder, "link")
        os.symlink("users", link)
        set_hash(link, "bob", HASH)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(set(parse(self.read())[0]), {"alice", "bob"})

    def test_concurrent_edits_lose_no_user(self) -> None:
        """Several processes that add users at the same time lose none."""

        def add(start: int) -> None:
            for number in range(start, start + 10):
                set_hash(self.path, f"user{number}", HASH)

        threads = [threading.Thread(target=add, args=(start,)) for start in (0, 10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(parse(self.read())[0]), 30)
