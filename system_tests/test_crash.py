"""Restarts and kill -9 in the middle of things: what was answered OK is there once, and UIDs are what they were."""

from __future__ import annotations

import collections
import imaplib
import re
import signal
import threading
import time

from system_tests.cases import FAULTS, ServerCase, files, letters, simple

KILLS = 3


def subject(octets):
    return re.search(rb"^Subject: (\S+)", octets, re.MULTILINE)[1].decode()


class CrashTests(ServerCase):
    complaints = FAULTS

    def seen(self, folder="INBOX"):
        """UIDVALIDITY, and subject by UID, of what is whole."""
        client = self.login()
        count = int(self.ok(client.select(folder, readonly=True))[0])
        valid = client.response("UIDVALIDITY")[1][0]
        found = {}
        if count:
            for one in self.ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")):
                if isinstance(one, tuple):
                    uid = int(re.search(rb"UID (\d+)", one[0])[1])
                    found[uid] = subject(one[1])
                    self.assertEqual(one[1], self.message(found[uid]), "half a message")
        client.logout()
        return valid, found

    def message(self, name):
        return simple(name, f"{name} " * 3000)

    def until_killed(self, work, how, seconds) -> None:
        """Do `work` again and again in a session, and stop the server in the midst of it."""
        failed = []

        def loop() -> None:
            try:
                client = self.login()
                while True:
                    work(client)
            except (imaplib.IMAP4.error, OSError):
                pass
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=loop, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop(how)
        for thread in threads:
            thread.join(30)
            self.assertFalse(thread.is_alive())
        self.assertEqual(failed, [])

    def appends(self, how) -> None:
        names = iter(range(1_000_000))
        promised = {}
        valid = None
        for kill in range(KILLS):

            def work(client) -> None:
                name = f"m{next(names)}"
                kind, (text,) = client.append("INBOX", "", None, self.message(name))
                if kind == "OK":
                    promised[int(re.search(rb"APPENDUID \d+ (\d+)", text)[1])] = name

            self.until_killed(work, how, 0.7 + 0.31 * kill)
            self.start()
            again, found = self.seen()
            self.assertIn(valid, (None, again), "UIDVALIDITY is another")
            valid = again
            self.assertGreater(len(promised), 20 * kill)
            self.assertEqual({u: n for u, n in found.items() if u in promised}, promised)
            twice = [n for n, times in collections.Counter(found.values()).items() if times > 1]
            self.assertEqual(twice, [])
            self.assertEqual(
                sorted(n.encode() for n in found.values()), sorted(letters(self.maildir()))
            )
            self.assertEqual(len(found), len(files(self.maildir())))

    def test_appends_killed(self) -> None:
        """kill -9 while three sessions append: nothing that was OK is lost, nothing is there twice or by half."""
        self.appends(signal.SIGKILL)

    def test_appends_stopped(self) -> None:
        """The same with SIGTERM."""
        self.appends(signal.SIGTERM)

    def moves(self, how) -> None:
        client = self.login()
        self.ok(client.create("Other"))
        names = [f"m{number}" for number in range(150)]
        for name in names:
            self.ok(client.append("INBOX", "", None, self.message(name)))
        there, back = "INBOX", "Other"
        for kill in range(KILLS):

            def work(client, there=there, back=back) -> None:
                client.select(there)
                uids = client.uid("SEARCH", "ALL")[1][0].split()
                # A few at a time, the same ones in all three sessions: they get in each other's way.
                client.uid("MOVE", b",".join(uids[:3]).decode() or "1", back)

            self.until_killed(work, how, 0.3 + 0.17 * kill)
            self.start()
            both = [*self.seen("INBOX")[1].values(), *self.seen("Other")[1].values()]
            self.assertEqual(sorted(both), sorted(names))
            there, back = back, there

    def test_moves_killed(self) -> None:
        """kill -9 while three sessions move: each message is in one of the two folders, and whole."""
        self.moves(signal.SIGKILL)

    def test_moves_stopped(self) -> None:
        """The same with SIGTERM."""
        self.moves(signal.SIGTERM)

    def test_copies_killed(self) -> None:
        """kill -9 while messages are copied in bulk: each COPY is done or not (RFC 9051 section 6.4.7)."""
        client = self.login()
        self.ok(client.create("Other"))
        for number in range(100):
            self.ok(client.append("INBOX", "", None, self.message(f"m{number}")))
        before = self.seen()
        done = []

        def work(client) -> None:
            client.select()
            done.append(client.copy("1:*", "Other")[0])

        for kill in range(KILLS):
            self.until_killed(work, signal.SIGKILL, 0.4 + 0.13 * kill)
            self.start()
            self.assertEqual(self.seen(), before)
            copies = collections.Counter(self.seen("Other")[1].values())
            self.assertGreaterEqual(copies.total(), 100 * done.count("OK"))
            self.assertIn(len(copies), (0, 100))
            self.assertLessEqual(len(set(copies.values())), 1, "a COPY in part")

    def test_restart(self) -> None:
        """UIDs, UIDVALIDITY, UIDNEXT, flags, keywords, dates, subscriptions and MAILBOXIDs outlive a restart."""
        client = self.login()
        for name in ("Work", "Work/2025"):
            self.ok(client.create(name))
            self.ok(client.subscribe(name))
        when = imaplib.Time2Internaldate(1_600_000_000)
        for name in "abcde":
            self.ok(client.append("Work", "(\\Flagged $Mine)", when, self.message(name)))
        client.select("Work")
        self.ok(client.store("2,4", "+FLAGS", "(\\Deleted)"))
        self.ok(client.expunge())

        def state():
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
        self.login().select("Work")  # takes \\Recent, which only the first may have
        before = state()
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.stop(how)
            self.start()
            self.assertEqual(state(), before)
