import os
import stat
import threading
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import users
from imapshield.cred.passwords import hash_scrypt
from imapshield.cred.users import BadUserName, drop, parse, put, user_name

HASH = hash_scrypt(b"secret", ln=2)
OTHER = hash_scrypt(b"other", ln=2)


class NameTests(SynchronousTestCase):
    def test_good_names(self) -> None:
        """Addresses, spaces, accents, capitals and what looks like a variable are names, kept as typed."""
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

    def test_bad_names(self) -> None:
        """What could leave the mail root, hide in it or garble a log is refused."""
        for raw in (
            b"", b".", b"..", b"../x", b"a/b", b"/etc", b".hidden", b"a\0b", b"a\nb", b"a\rb", b"\x1b[0m", b"\x7f",
            b"\xff", b"a\xc3", "a\u202eb".encode(), "a\u2028b".encode(), b"\xc0\xaf", b"\xed\xb0\x80", b"x" * 256,
        ):  # fmt: skip
            with self.subTest(raw=raw), self.assertRaises(BadUserName):
                user_name(raw)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.binary(max_size=12) | st.text("./\\ab\0", max_size=6).map(str.encode))
    def test_never_outside(self, raw) -> None:
        """No octets whatever become a path outside the root."""
        try:
            name = user_name(raw)
        except BadUserName:
            return
        self.assertEqual(os.path.dirname(os.path.normpath("/root/" + name)), "/root")


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "users")

    def read(self):
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, text) -> None:
        with open(self.path, "wb") as file:
            file.write(text)

    def test_parse(self) -> None:
        """Comments and empty lines are nothing, fields after the hash are others', trouble names its line."""
        text = f"# people\n\nalice:{HASH}:uid=1000\r\nbob:plain\n:{HASH}\nalice:{OTHER}\nno colon\n\xff:{HASH}\n"
        found, problems = parse(text.encode("latin-1"))
        self.assertEqual(found, {"alice": HASH})
        self.assertEqual(
            [p.partition(":")[0] for p in problems], [f"line {n}" for n in (4, 5, 6, 7, 8)]
        )

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.binary(max_size=80))
    def test_parse_never_fails(self, text) -> None:
        """Whatever lies in the file, the server gets an answer."""
        parse(text)

    def test_put(self) -> None:
        """A file that was not there is made for its owner alone, and a user is added, then changed."""
        self.assertTrue(put(self.path, "alice", HASH))
        self.assertTrue(put(self.path, "bob", HASH))
        self.assertFalse(put(self.path, "alice", OTHER))
        self.assertEqual(self.read(), f"alice:{OTHER}\nbob:{HASH}\n".encode())
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["users"])

    def test_put_keeps_the_rest(self) -> None:
        """Comments, order, unreadable lines and others' fields survive; a second line of the user does not."""
        self.write(b"# top\n\nalice:old:uid=1\nbob:?\n#alice:x\nalice:older\n")
        put(self.path, "alice", HASH)
        self.assertEqual(self.read(), f"# top\n\nalice:{HASH}:uid=1\nbob:?\n#alice:x\n".encode())

    def test_put_without_last_newline(self) -> None:
        """A file that an editor left without its last newline does not glue two users together."""
        self.write(f"alice:{HASH}".encode())
        put(self.path, "bob", HASH)
        self.assertEqual(set(parse(self.read())[0]), {"alice", "bob"})

    def test_put_refuses(self) -> None:
        """A name that the file or the realm could not hold changes nothing."""
        for name in ("", "a:b", "#a", " a", "a ", "..", "a\nb:x", "\udcff"):
            with self.subTest(name=name), self.assertRaises(BadUserName):
                put(self.path, name, HASH)
        self.assertEqual(os.listdir(self.folder), [])

    def test_drop(self) -> None:
        """Removing takes all lines of one user and tells whether there was one."""
        self.write(f"alice:{HASH}\n#alice:x\nalicexx:{HASH}\nalice:{OTHER}\n".encode())
        self.assertTrue(drop(self.path, "alice"))
        self.assertFalse(drop(self.path, "alice"))
        self.assertEqual(self.read(), f"#alice:x\nalicexx:{HASH}\n".encode())

    def test_drop_makes_no_file(self) -> None:
        """Removing from a file that is not there says so."""
        self.assertRaises(FileNotFoundError, drop, self.path, "alice")
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_crash_leaves_the_old_file(self) -> None:
        """When the disk fails in the middle, the old file is whole and no rest lies beside it."""
        put(self.path, "alice", HASH)
        before = self.read()
        for call in ("fsync", "rename"):
            with mock.patch.object(users.os, call, side_effect=OSError(28, "No space")):
                self.assertRaises(OSError, put, self.path, "bob", HASH)
            self.assertEqual((self.read(), os.listdir(self.folder)), (before, ["users"]))

    def test_symbolic_link(self) -> None:
        """A file that is a link is written where it points."""
        put(self.path, "alice", HASH)
        link = os.path.join(self.folder, "link")
        os.symlink("users", link)
        put(link, "bob", HASH)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(set(parse(self.read())[0]), {"alice", "bob"})

    def test_at_once(self) -> None:
        """Two who add users at the same moment lose none."""

        def add(start) -> None:
            for number in range(start, start + 10):
                put(self.path, f"user{number}", HASH)

        threads = [threading.Thread(target=add, args=(start,)) for start in (0, 10, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(parse(self.read())[0]), 30)
