"""imap-tools (PyPI): fetches, searches, changes messages and folders, waits in IDLE, and uses STARTTLS."""

from __future__ import annotations

import datetime
import ssl
import time
from typing import Any

import imap_tools
from imap_tools import AND, MailBoxStartTls, MailBoxUnencrypted, MailMessageFlags

from benchmarks.corpus import planted
from system_tests.maildirs import deliver, flags_by_subject, small_message, stored_messages
from system_tests.server_case import PASSWORD, SPECIAL_FOLDERS, USER, ServerCase, TlsServerCase


class ImapToolsTests(ServerCase):
    def mailbox(self) -> Any:
        mailbox = MailBoxUnencrypted("127.0.0.1", self.port, timeout=60).login(USER, PASSWORD)
        self.addCleanup(mailbox.logout)
        return mailbox

    def test_corpus_is_fetched_parsed_and_searched(self) -> None:
        """400 messages of the corpus are fetched and parsed; searches find the planted words."""
        self.fill(400)
        mailbox = self.mailbox()
        found = list(mailbox.fetch(mark_seen=False, bulk=100))
        self.assertEqual(len(found), 400)
        self.assertTrue(all(m.uid and m.date and m.from_ for m in found))
        self.assertEqual(
            [m.uid for m in mailbox.fetch(limit=10, mark_seen=False)], [m.uid for m in found[:10]]
        )
        subjects = list(mailbox.fetch(AND(subject="platypus"), mark_seen=False, headers_only=True))
        self.assertEqual(len(subjects), sum(planted(n).subject for n in range(400)))
        self.assertEqual(
            len(mailbox.uids(AND(text="quincunx"))), sum(planted(n).body for n in range(400))
        )
        self.assertEqual(len(mailbox.numbers()), 400)
        self.assertEqual(set(mailbox.uids()), {m.uid for m in found})

    def test_searches_find_the_right_messages(self) -> None:
        """Searches by date, flag, size, header, UID and text that is not ASCII find the right messages."""
        mailbox = self.mailbox()
        date = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
        mailbox.append(small_message("apple"), dt=date)
        foreign = "Subject: Grüße\r\n\r\nJürgen\r\n".encode()
        mailbox.append(foreign, flag_set=[MailMessageFlags.FLAGGED])
        self.assertEqual(len(mailbox.uids(AND(date_lt=datetime.date(2025, 6, 1)))), 1)
        self.assertEqual(len(mailbox.uids(AND(flagged=True, size_gt=10))), 1)
        self.assertEqual(len(mailbox.uids(AND(subject="grüße"), charset="UTF-8")), 1)
        self.assertEqual(len(mailbox.uids(AND(body="Jürgen"), charset="UTF-8")), 1)
        self.assertEqual(len(mailbox.uids(AND(uid="1:*", from_="bob"))), 1)
        self.assertEqual(
            len(mailbox.uids(AND(header=imap_tools.H("Message-ID", "<apple@example.org>")))), 1
        )

    def test_changes_are_on_disk(self) -> None:
        """append, flag, copy, move and delete change the Maildir accordingly."""
        mailbox = self.mailbox()
        mailbox.folder.create("Kept")
        for subject in "abcdef":
            mailbox.append(small_message(subject))
        uids = mailbox.uids()
        mailbox.flag(uids[:2], [MailMessageFlags.FLAGGED, "Mine"], True)
        mailbox.flag(uids[0], MailMessageFlags.FLAGGED, False)
        mailbox.copy(uids[:2], "Kept")
        mailbox.move(uids[2:4], "Kept")
        mailbox.delete(uids[4:5])
        self.assertEqual(set(flags_by_subject(self.maildir())), {b"a", b"b", b"f"})
        self.assertEqual(set(flags_by_subject(self.maildir(".Kept"))), {b"a", b"b", b"c", b"d"})
        self.assertEqual(flags_by_subject(self.maildir(".Kept"))[b"b"].replace("a", ""), "F")
        self.assertEqual(len(mailbox.uids(AND(keyword="Mine"))), 2)

    def test_folder_commands_work_with_non_ascii_names(self) -> None:
        """create, list, exists, status, rename, subscribe, set and delete work with names that are not ASCII."""
        mailbox = self.mailbox()
        for name in ("Work", "Work/Köln", "日本語"):
            mailbox.folder.create(name)
            mailbox.folder.subscribe(name, True)
        listed = {f.name for f in mailbox.folder.list()}
        self.assertEqual(listed, {"INBOX", "Work", "Work/Köln", "日本語"} | SPECIAL_FOLDERS)
        subscribed = {f.name for f in mailbox.folder.list(subscribed_only=True)}
        self.assertEqual(subscribed, listed)
        mailbox.folder.rename("日本語", "Über")
        self.assertTrue(mailbox.folder.exists("Über"))
        self.assertFalse(mailbox.folder.exists("日本語"))
        mailbox.append(small_message("x"), "Über")
        self.assertEqual(mailbox.folder.status("Über")["MESSAGES"], 1)
        mailbox.folder.set("Über")
        self.assertEqual([m.subject for m in mailbox.fetch()], ["x"])
        mailbox.folder.set("INBOX")
        mailbox.folder.delete("Über")
        self.assertEqual(stored_messages(self.maildir()), {})

    def test_idle_poll_returns_a_delivery_within_a_second(self) -> None:
        """idle.poll returns a delivery within a second."""
        mailbox = self.mailbox()
        mailbox.idle.start()
        started = time.monotonic()
        deliver(self.maildir(), small_message("late"))
        responses: list[bytes] = []
        while not any(b"EXISTS" in line for line in responses) and time.monotonic() - started < 30:
            responses += mailbox.idle.poll(timeout=5)
        self.assertLess(time.monotonic() - started, 1.0)
        mailbox.idle.stop()
        self.assertEqual([m.subject for m in mailbox.fetch()], ["late"])


class StartTlsTests(TlsServerCase):
    def test_starttls_session_checks_the_certificate(self) -> None:
        """MailBoxStartTls checks the certificate, logs in, appends and fetches."""
        context = ssl.create_default_context(cafile=self.pem)
        mailbox = MailBoxStartTls("localhost", self.port, ssl_context=context)
        with mailbox.login(USER, PASSWORD):
            mailbox.append(small_message("sealed"))
            self.assertEqual([m.subject for m in mailbox.fetch()], ["sealed"])
