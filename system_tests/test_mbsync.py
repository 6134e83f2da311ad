"""mbsync (isync), which pipelines without end: 10,000 messages down, 500 new from each side, every change."""

from __future__ import annotations

import os
import re

from benchmarks.corpus import messages
from imapshield.cred import passwords, users
from system_tests.cases import (
    PASSWORD,
    USER,
    ServerCase,
    by_subject,
    corpus,
    deliver,
    files,
    letters,
    plain,
    simple,
    stored,
    tool,
)
from system_tests.server import Server

COUNT, NEW = 10_000, 500

# PipelineDepth is left at its default: unlimited. FSync off spares the test's disk, not the server's.
CONFIG = """\
FSync no

IMAPStore far
Host 127.0.0.1
Port {port}
User {user}
Pass "{password}"
SSLType None
AuthMechs {mechanism}

MaildirStore near
Path {home}/Mail/
Inbox {home}/Mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
CopyArrivalDate yes
"""


def without_tuid(octets: bytes) -> bytes:
    """mbsync adds a header X-TUID to each message that it copies, to find it again on the other side."""
    return re.sub(rb"^X-TUID: .*\n", b"", plain(octets), count=1, flags=re.MULTILINE)


class MbsyncTests(ServerCase):
    def sync(self, mechanism="LOGIN") -> None:
        if not os.path.exists(f"{self.home}/mbsyncrc"):
            os.makedirs(f"{self.home}/Mail", exist_ok=True)
            text = CONFIG.format(
                port=self.port, user=USER, password=PASSWORD, home=self.home, mechanism=mechanism
            )
            self.write("mbsyncrc", text)
        self.run_it(tool("mbsync", "isync"), "-c", f"{self.home}/mbsyncrc", "all")

    def near(self, folder="INBOX") -> str:
        return f"{self.home}/Mail/{folder}"

    def both(self, expected, folder="INBOX") -> None:
        """Both sides hold exactly the same messages, each as often as it should be there."""
        far = "" if folder == "INBOX" else "." + folder.replace("/", ".")
        self.same(stored(self.maildir(far), without_tuid), expected)
        self.same(stored(self.near(folder), without_tuid), expected)

    def test_ten_thousand(self) -> None:
        """10,000 messages come down; 500 new ones on each side cross; a third run finds nothing to do."""
        self.link(COUNT)
        self.sync()
        expected = corpus(COUNT)
        self.both(expected)
        for number, octets in enumerate(messages(NEW, seed=2)):
            deliver(self.maildir(), octets, f"2000000000.{number}.host")
        for number, octets in enumerate(messages(NEW, seed=3)):
            deliver(self.near(), plain(octets), f"2000000000.{number}.home")
        self.sync()
        expected += corpus(NEW, 2) + corpus(NEW, 3)
        self.both(expected)
        before = files(self.maildir()), files(self.near())
        self.sync()
        self.assertEqual((files(self.maildir()), files(self.near())), before)

    def pair(self, count=60) -> None:
        """A folder on both sides, with subjects to tell messages by."""
        for number in range(count):
            deliver(self.maildir(), simple(f"m{number:03}"), f"1700000000.{number:03}.host")
        self.sync()

    def test_flags(self) -> None:
        """Flags cross both ways, and are taken away both ways; those of both sides at once are joined."""
        self.pair()
        client = self.login()
        client.select()
        self.ok(client.store("1:20", "+FLAGS", "(\\Seen \\Flagged)"))
        here = by_subject(self.near())
        for number in range(10, 30):
            path = here[b"m%03d" % number]
            name = os.path.basename(path).partition(":2,")[0]
            os.rename(path, f"{self.near()}/cur/{name}:2,RS")
        self.sync()
        client.noop()
        self.ok(client.store("1:5", "-FLAGS", "(\\Flagged)"))
        self.sync()
        self.assertEqual(letters(self.maildir()), letters(self.near()))
        ends = sorted(letters(self.maildir()).values())
        self.assertEqual(
            ends, sorted(["S"] * 5 + ["FS"] * 5 + ["FRS"] * 10 + ["RS"] * 10 + [""] * 30)
        )

    def test_scram(self) -> None:
        """With a password file made for it, mbsync (Cyrus SASL) proves its password and does not send it."""
        self.stop()
        path = f"{self.base}/users"
        users.set_hash(path, USER, passwords.hash_scram(PASSWORD.encode()))
        self.server = Server("--mail-root", self.root, "--auth", f"file:{path}", port=self.port)
        self.server.ready()
        deliver(self.maildir(), simple("m"), "1700000000.1.host")
        self.sync("SCRAM-SHA-256")
        self.assertEqual(list(by_subject(self.near())), [b"m"])
        self.assertIn("mechanism=SCRAM-SHA-256", self.stop())

    def test_expunge(self) -> None:
        """What is deleted on one side goes on the other, and nothing else does."""
        self.pair()
        client = self.login()
        client.select()
        self.ok(client.store("1:20", "+FLAGS", "(\\Deleted)"))
        self.assertEqual(len(self.ok(client.expunge())), 20)
        here = by_subject(self.near())
        for number in range(40, 60):
            os.unlink(here[b"m%03d" % number])
        self.sync()
        self.sync()
        self.assertEqual(sorted(letters(self.maildir())), [b"m%03d" % n for n in range(20, 40)])
        self.assertEqual(sorted(letters(self.near())), [b"m%03d" % n for n in range(20, 40)])
        self.assertEqual(self.ok(client.noop()) and client.select()[1], [b"20"])

    def test_folders(self) -> None:
        """New folders cross both ways, with their messages and with names that are not ASCII."""
        client = self.login()
        for name in ("Work", "Work/2025", "K&APY-ln"):
            self.ok(client.create(f'"{name}"'))
            self.ok(client.append(f'"{name}"', "", None, simple(name)))
        # mbsync keeps what is not ASCII as mUTF-7 on both sides.
        for name in ("Home", "Gr&APwA3w-e"):
            deliver(self.near(name), plain(simple(name)))
        self.sync()
        self.sync()
        for name in ("Work", "Work/2025", "K&APY-ln", "Home", "Gr&APwA3w-e"):
            self.assertEqual(stored(self.near(name), without_tuid), {plain(simple(name)): 1})
            self.assertEqual({without_tuid(o): n for o, n in self.fetched(client, f'"{name}"').items()},
                             {plain(simple(name)): 1})  # fmt: skip

    def test_removed_folder(self) -> None:
        """A folder that is empty and deleted here goes there as well."""
        client = self.login()
        self.ok(client.create("Passing"))
        self.sync()
        self.assertTrue(os.path.isdir(self.near("Passing")))
        self.ok(client.delete("Passing"))
        self.sync()
        self.assertFalse(os.path.isdir(self.near("Passing")))
