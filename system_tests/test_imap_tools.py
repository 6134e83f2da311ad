"""PyPI's imap-tools."""

from __future__ import annotations

import datetime
import threading
import time

import imap_tools
from imap_tools import AND, MailBoxStartTls, MailBoxUnencrypted, MailMessageFlags

from benchmarks.corpus import planted
from system_tests.cases import PASSWORD, USER, ServerCase, deliver, letters, plain, simple, stored
from system_tests.certificate import write_certificate


class ImapToolsTests(ServerCase):
    def box(self):
        box = MailBoxUnencrypted("127.0.0.1", self.port, timeout=60).login(USER, PASSWORD)
        self.addCleanup(box.logout)
        return box

    def test_fetch(self) -> None:
        """400 real messages, one by one and in bulk, parsed; searches find what was planted."""
        self.fill(400)
        box = self.box()
        found = list(box.fetch(mark_seen=False, bulk=100))
        self.assertEqual({plain(m.obj.as_bytes()) for m in found[:0]}, set())
        self.assertEqual(len(found), 400)
        self.assertTrue(all(m.uid and m.date and m.from_ for m in found))
        self.assertEqual(
            [m.uid for m in box.fetch(limit=10, mark_seen=False)], [m.uid for m in found[:10]]
        )
        subjects = list(box.fetch(AND(subject="platypus"), mark_seen=False, headers_only=True))
        self.assertEqual(len(subjects), sum(planted(n).subject for n in range(400)))
        self.assertEqual(
            len(box.uids(AND(text="quincunx"))), sum(planted(n).body for n in range(400))
        )
        self.assertEqual(len(box.numbers()), 400)
        self.assertEqual(set(box.uids()), {m.uid for m in found})

    def test_search(self) -> None:
        """Dates, flags, sizes, headers, UIDs, and text that is not ASCII."""
        box = self.box()
        box.append(simple("apple"), dt=datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC))
        box.append("Subject: Grüße\r\n\r\nJürgen\r\n".encode(), flag_set=[MailMessageFlags.FLAGGED])
        self.assertEqual(len(box.uids(AND(date_lt=datetime.date(2025, 6, 1)))), 1)
        self.assertEqual(len(box.uids(AND(flagged=True, size_gt=10))), 1)
        self.assertEqual(len(box.uids(AND(subject="grüße"), charset="UTF-8")), 1)
        self.assertEqual(len(box.uids(AND(body="Jürgen"), charset="UTF-8")), 1)
        self.assertEqual(len(box.uids(AND(uid="1:*", from_="bob"))), 1)
        self.assertEqual(
            len(box.uids(AND(header=imap_tools.H("Message-ID", "<apple@example.org>")))), 1
        )

    def test_change(self) -> None:
        """append, flag, copy, move, delete."""
        box = self.box()
        box.folder.create("Kept")
        for subject in "abcdef":
            box.append(simple(subject))
        uids = box.uids()
        box.flag(uids[:2], [MailMessageFlags.FLAGGED, "Mine"], True)
        box.flag(uids[0], MailMessageFlags.FLAGGED, False)
        box.copy(uids[:2], "Kept")
        box.move(uids[2:4], "Kept")
        box.delete(uids[4:5])
        self.assertEqual(set(letters(self.maildir())), {b"a", b"b", b"f"})
        self.assertEqual(set(letters(self.maildir(".Kept"))), {b"a", b"b", b"c", b"d"})
        self.assertEqual(letters(self.maildir(".Kept"))[b"b"].replace("a", ""), "F")
        self.assertEqual(len(box.uids(AND(keyword="Mine"))), 2)

    def test_folders(self) -> None:
        """create, list, exists, status, rename, subscribe, set and delete, with a name that is not ASCII."""
        box = self.box()
        for name in ("Work", "Work/Köln", "日本語"):
            box.folder.create(name)
            box.folder.subscribe(name, True)
        self.assertEqual(
            {f.name for f in box.folder.list()}, {"INBOX", "Work", "Work/Köln", "日本語"}
        )
        self.assertEqual(
            {f.name for f in box.folder.list(subscribed_only=True)}, {"Work", "Work/Köln", "日本語"}
        )
        box.folder.rename("日本語", "Über")
        self.assertTrue(box.folder.exists("Über"))
        self.assertFalse(box.folder.exists("日本語"))
        box.append(simple("x"), "Über")
        self.assertEqual(box.folder.status("Über")["MESSAGES"], 1)
        box.folder.set("Über")
        self.assertEqual([m.subject for m in box.fetch()], ["x"])
        box.folder.set("INBOX")
        box.folder.delete("Über")
        self.assertEqual(stored(self.maildir()), {})

    def test_idle(self) -> None:
        """idle.wait comes back within a second of a delivery."""
        box = self.box()
        box.idle.start()
        self.addCleanup(lambda: None)
        late = threading.Timer(0.3, deliver, (self.maildir(), simple("late")))
        late.start()
        began = time.monotonic()
        said = []
        while not any(b"EXISTS" in line for line in said) and time.monotonic() - began < 30:
            said += box.idle.poll(timeout=5)
        self.assertLess(time.monotonic() - began, 1.3)
        box.idle.stop()
        self.assertEqual([m.subject for m in box.fetch()], ["late"])


class StartTlsTests(ServerCase):
    def prepare(self) -> None:
        self.pem = write_certificate(self.home)

    def start(self, **more) -> None:
        super().start(**{**more, "options": ("--certificate", self.pem)})

    def test_starttls(self) -> None:
        """MailBoxStartTls checks the certificate, logs in and reads."""
        import ssl

        context = ssl.create_default_context(cafile=self.pem)
        with MailBoxStartTls("localhost", self.port, ssl_context=context).login(
            USER, PASSWORD
        ) as box:
            box.append(simple("sealed"))
            self.assertEqual([m.subject for m in box.fetch()], ["sealed"])
