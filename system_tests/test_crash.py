"""Restarts and kill -9 under load: each message answered OK is present once, and UIDs do not change."""

from __future__ import annotations

import collections
import imaplib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from system_tests.maildirs import flags_by_subject, message_files, small_message, subject_of
from system_tests.server import wait_until
from system_tests.server_case import FAULTS, ServerCase

KILLS = 3
SESSIONS = 3

Seen = tuple[bytes, dict[int, str]]
"""UIDVALIDITY, and the subjects by UID."""


def body_of(name: str) -> bytes:
    """Return the message with the subject `name`, large enough to be stored in several writes."""
    return small_message(name, f"{name} " * 3000)


def number_after(pattern: bytes, text: bytes) -> int:
    """Return the number in the first group of a pattern that must match."""
    match = re.search(pattern, text)
    assert match is not None, text
    return int(match[1])


class CrashTests(ServerCase):
    forbidden_log_texts = FAULTS

    def seen(self, folder: str = "INBOX") -> Seen:
        """Fetch a folder in a new session; every message must be complete."""
        client = self.login()
        count = int(self.ok(client.select(folder, readonly=True))[0])
        uidvalidity = client.response("UIDVALIDITY")[1][0]
        found = {}
        if count:
            for entry in self.ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")):
                if isinstance(entry, tuple):
                    name = subject_of(entry[1]).decode()
                    found[number_after(rb"UID (\d+)", entry[0])] = name
                    self.assertEqual(entry[1], body_of(name), "an incomplete message")
        client.logout()
        return uidvalidity, found

    def stop_during(self, work: Callable[[imaplib.IMAP4], object], signum: int, count: int) -> None:
        """Repeat `work` in several sessions at once; stop the server after `work` has run `count` times."""
        finished = []
        failures = []

        def repeat() -> None:
            try:
                client = self.login()
                while True:
                    work(client)
                    finished.append(1)
            except (imaplib.IMAP4.error, OSError):
                pass
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=repeat, daemon=True) for _ in range(SESSIONS)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(finished) >= count or failures)
        self.stop(signum)
        for thread in threads:
            thread.join(30)
            self.assertFalse(thread.is_alive())
        self.assertEqual(failures, [])

    def append_and_stop(self, signum: int) -> None:
        numbers = iter(range(1_000_000))
        promised: dict[int, str] = {}
        uidvalidity = None

        def append(client: imaplib.IMAP4) -> None:
            name = f"m{next(numbers)}"
            kind, (text,) = client.append("INBOX", "", "", body_of(name))
            if kind == "OK":
                promised[number_after(rb"APPENDUID \d+ (\d+)", text)] = name

        for kill in range(KILLS):
            self.stop_during(append, signum, 60 + 31 * kill)
            self.start()
            current, found = self.seen()
            self.assertIn(uidvalidity, (None, current), "UIDVALIDITY has changed")
            uidvalidity = current
            self.assertGreater(len(promised), 20 * kill)
            self.assertEqual({u: n for u, n in found.items() if u in promised}, promised)
            twice = [n for n, times in collections.Counter(found.values()).items() if times > 1]
            self.assertEqual(twice, [])
            self.assertEqual(
                sorted(n.encode() for n in found.values()), sorted(flags_by_subject(self.maildir()))
            )
            self.assertEqual(len(found), len(message_files(self.maildir())))

    def test_kill_during_appends_loses_no_message(self) -> None:
        """kill -9 while three sessions append: no message that was OK is lost, none is duplicated or incomplete."""
        self.append_and_stop(signal.SIGKILL)

    def test_terminate_during_appends_loses_no_message(self) -> None:
        """SIGTERM while three sessions append: no message is lost, duplicated or incomplete."""
        self.append_and_stop(signal.SIGTERM)

    def move_and_stop(self, signum: int) -> None:
        client = self.login()
        self.ok(client.create("Other"))
        names = [f"m{number}" for number in range(150)]
        for name in names:
            self.ok(client.append("INBOX", "", "", body_of(name)))
        source, target = "INBOX", "Other"
        for kill in range(KILLS):

            def move(client: imaplib.IMAP4, source: str = source, target: str = target) -> None:
                client.select(source)
                uids = client.uid("SEARCH", "ALL")[1][0].split()
                # Few messages at a time, and the same messages in all sessions, so that their MOVEs collide.
                client.uid("MOVE", b",".join(uids[:3]).decode() or "1", target)

            self.stop_during(move, signum, 5 + 4 * kill)
            self.start()
            both = [*self.seen("INBOX")[1].values(), *self.seen("Other")[1].values()]
            self.assertEqual(sorted(both), sorted(names))
            source, target = target, source

    def test_kill_during_moves_leaves_messages_in_one_folder(self) -> None:
        """kill -9 while three sessions move: each message is in exactly one of the two folders, and complete."""
        self.move_and_stop(signal.SIGKILL)

    def test_terminate_during_moves_leaves_messages_in_one_folder(self) -> None:
        """SIGTERM while three sessions move: each message is in exactly one of the two folders, and complete."""
        self.move_and_stop(signal.SIGTERM)

    def test_kill_during_copies_leaves_each_copy_complete_or_absent(self) -> None:
        """kill -9 while messages are copied in bulk: each COPY is complete or absent (RFC 9051 section 6.4.7)."""
        client = self.login()
        self.ok(client.create("Other"))
        for number in range(100):
            self.ok(client.append("INBOX", "", "", body_of(f"m{number}")))
        before = self.seen()
        statuses = []

        def copy(client: imaplib.IMAP4) -> None:
            client.select()
            statuses.append(client.copy("1:*", "Other")[0])

        for kill in range(KILLS):
            self.stop_during(copy, signal.SIGKILL, 2 + kill)
            self.start()
            self.assertEqual(self.seen(), before)
            copies = collections.Counter(self.seen("Other")[1].values())
            self.assertGreaterEqual(copies.total(), 100 * statuses.count("OK"))
            self.assertIn(len(copies), (0, 100))
            self.assertLessEqual(len(set(copies.values())), 1, "a COPY was done in part")

    def names(self) -> list[str]:
        """Return the names of all mailboxes, without INBOX."""
        lines = self.ok(self.login().list())
        return sorted({line.decode().rpartition(" ")[2].strip('"') for line in lines} - {"INBOX"})

    def test_kill_during_renames_leaves_whole_trees(self) -> None:
        """kill -9 while trees are made, renamed and deleted: each has all mailboxes under one name, and its message."""
        levels = ("", *(f"/{number}" for number in range(8)))
        client = self.login()
        trees = [f"tree{number}" for number in range(SESSIONS)]
        for tree in trees:
            for level in levels:
                self.ok(client.create(f"{tree}-old{level}"))
            self.ok(client.append(f"{tree}-old/3", "", "", body_of(tree)))
        for kill in range(KILLS):
            numbers = iter(range(SESSIONS))
            own: dict[imaplib.IMAP4, str] = {}

            def rename(
                client: imaplib.IMAP4,
                numbers: Iterator[int] = numbers,
                own: dict[imaplib.IMAP4, str] = own,
            ) -> None:
                tree = (
                    own[client] if client in own else own.setdefault(client, trees[next(numbers)])
                )
                if client.rename(f"{tree}-old", f"{tree}-new")[0] != "OK":
                    client.rename(f"{tree}-new", f"{tree}-old")
                client.create(f"{tree}-made/a/b")
                for level in ("/a/b", "/a", ""):
                    client.delete(f"{tree}-made{level}")

            self.stop_during(rename, signal.SIGKILL, 9 + 4 * kill)
            self.start()
            found = self.names()
            for tree in trees:
                (name,) = {
                    n.partition("/")[0] for n in found if n.startswith((f"{tree}-o", f"{tree}-n"))
                }
                self.assertLessEqual({name + level for level in levels}, {*found})
                self.assertEqual([*self.seen(f"{name}/3")[1].values()], [tree])
                made = [n.partition("-made")[2] for n in found if n.startswith(f"{tree}-made")]
                self.assertIn(made, ([], [""], ["", "/a"], ["", "/a", "/a/b"]))

    def test_mailbox_state_survives_a_restart(self) -> None:
        """UIDs, UIDVALIDITY, UIDNEXT, flags, keywords, dates, subscriptions and MAILBOXIDs survive a restart."""
        client = self.login()
        for name in ("Work", "Work/2025"):
            self.ok(client.create(name))
            self.ok(client.subscribe(name))
        date = imaplib.Time2Internaldate(1_600_000_000)
        for name in "abcde":
            self.ok(client.append("Work", "(\\Flagged $Mine)", date, body_of(name)))
        client.select("Work")
        self.ok(client.store("2,4", "+FLAGS", "(\\Deleted)"))
        self.ok(client.expunge())

        def state() -> tuple[Any, ...]:
            client = self.login()
            self.ok(client.select("Work"))
            return (
                self.ok(
                    client.status("Work", "(MESSAGES UIDNEXT UIDVALIDITY MAILBOXID HIGHESTMODSEQ)")
                ),
                self.ok(client.fetch("1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE EMAILID)")),
                self.ok(client.lsub()),
                sorted(self.ok(client.list())),
                self.seen("Work"),
            )

        self.ok(client.unselect())
        self.login().select("Work")  # claims \Recent, which only the first session gets
        before = state()
        for signum in (signal.SIGTERM, signal.SIGKILL):
            self.stop(signum)
            self.start()
            self.assertEqual(state(), before)
