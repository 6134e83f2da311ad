"""The poll that follows a change of another process finds it, at once and each time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from imapshield.errors import NoSuchMailbox
from tests.maildir.disk import DiskTestCase

ROUNDS = 8
"""How often each change is made, as fast as possible: a mistake about times or about a commit shows in some of them."""


class NextPollTests(DiskTestCase):
    """A session polls after each change, and all that it is told adds up to `known`."""

    def setUp(self) -> None:
        super().setUp()
        command = [sys.executable, "-m", "tests.maildir.other_program"]
        path = os.pathsep.join(sys.path)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.communicate)
        self.select("INBOX")

    def select(self, name: str) -> None:
        opened = self.store.open(name, True)
        self.key, self.since = opened.key, opened.delta.highestmodseq
        self.known = {row.uid: row.flags for row in opened.delta.rows}

    def other(self, function: str, *arguments: object) -> None:
        """Let the other process make a change, and poll."""
        self.process.stdin.write(json.dumps([function, *arguments]) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        self.assertEqual(self.process.stdout.readline(), "\n")  # type: ignore[union-attr]
        self.poll()

    def poll(self) -> None:
        delta = self.store.changes(self.key, self.since, True)
        self.since = delta.highestmodseq
        self.known |= {row.uid: row.flags for row in delta.rows}
        for uid in delta.vanished:
            self.known.pop(uid, None)

    def test_files(self) -> None:
        """A message that is delivered, flagged or removed."""
        for number in range(ROUNDS):
            uids = [3 * number + 1 + i for i in range(3)]
            self.other("deliver", self.root, f"{number}.A.mx")
            self.assertEqual(self.known, {uids[0]: b""})
            self.other("link", self.root, f"{number}.B.mx")
            self.assertEqual(self.known, {uids[0]: b"", uids[1]: b""})
            self.other("deliver", self.root, f"{number}.C.mx", "cur")
            self.assertEqual(list(self.known), uids)
            self.other("flag", self.root, f"{number}.A.mx", "S")
            self.assertEqual(self.known[uids[0]], b"\\Seen")
            self.other("flag", self.root, f"{number}.A.mx", "FS")
            self.assertEqual(self.known[uids[0]], b"\\Flagged \\Seen")
            for base, count in (("A", 2), ("B", 1), ("C", 0)):
                self.other("remove", self.root, f"{number}.{base}.mx")
                self.assertEqual(len(self.known), count)

    def test_commits(self) -> None:
        """A commit of another imapshield, also one that changes nothing but the index."""
        self.other("append", self.root)
        for number in range(ROUNDS):
            # From the 27th on, keywords get no letter in the name of the file.
            for keyword in [f"K{number * 3 + i}" for i in range(3)]:
                self.other("store", self.root, 1, keyword)
                self.assertEqual(self.known[1], keyword.encode())
            self.other("append", self.root)
            self.assertEqual(len(self.known), 2 + number)

    def test_mailbox_that_another_imapshield_renames_is_the_same(self) -> None:
        """After a RENAME by another imapshield, the session sees what is delivered into the renamed folder."""
        self.store.create("A0", [])
        self.select("A0")
        for number in range(ROUNDS):
            self.other("rename", self.root, f"A{number}", f"A{number + 1}")
            self.other("deliver", self.path(f".A{number + 1}"), f"{number}.mx")
            self.assertEqual(len(self.known), number + 1)
        with self.assertRaises(NoSuchMailbox):
            self.other("delete", self.root, f"A{ROUNDS}")

    def test_folders(self) -> None:
        """A folder, or a directory in it or above it, that another program renames, exchanges, removes or makes."""
        self.store.create("A", [])
        self.store.create("B", [])
        for number in range(5):
            self.deliver(folder=".A", name=f"{number}.A.mx")
        self.deliver(folder=".B", name="1.B.mx")
        self.store.open("B", True)
        self.select("A")
        for _ in range(ROUNDS):
            for what in (".A/cur", ".A"):
                self.other("exchange", self.path(what), self.path(what.replace("A", "B")))
                self.assertEqual(len(self.known), 1)
                self.other("exchange", self.path(what), self.path(what.replace("A", "B")))
                self.assertEqual(len(self.known), 5)
            with self.assertRaises(NoSuchMailbox):
                self.other("move", self.path(".A"), self.path(".C"))
            self.other("move", self.path(".C"), self.path(".A"))
            self.assertEqual(len(self.known), 5)
        self.other("make_again", self.path(".A"))
        self.assertEqual(self.known, {})

    def test_maildir(self) -> None:
        """The whole Maildir, exchanged with another one, or with its own backup."""
        self.append()
        self.select("INBOX")
        self.store.close()
        backup, other = self.root + "-backup", self.root + "-other"
        shutil.copytree(self.root, backup)
        self.append(store=self.open_store(other))
        for place in (other, backup):
            self.select("INBOX")
            with self.assertRaises(NoSuchMailbox):
                self.other("exchange", self.root, place)
