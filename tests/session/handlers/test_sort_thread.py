"""SORT and THREAD (RFC 5256), SORT=DISPLAY (RFC 5957) and ESORT (RFC 5267)."""

from imapshield.mailbox import thread_tree
from imapshield.session import sort_keys
from imapshield.testing import Client
from tests.session.session_case import SessionTestCase, lines


def mail(subject: str, date: str, sender: str = "a@x.org", more: str = "", size: int = 0) -> bytes:
    head = f"From: {sender}\r\nTo: {sender}\r\nSubject: {subject}\r\nDate: {date}\r\n{more}\r\n"
    return head.encode() + b"x" * size


class SortTests(SessionTestCase):
    def select_messages(self) -> Client:
        for message in (
            mail("Re: beta", "Mon, 6 Nov 2023 12:00:00 +0000", "Zoe <ann@x.org>", size=300),
            mail("alpha", "Mon, 6 Nov 2023 12:00:00 +0200", "Carl <bob@x.org>", size=200),
            mail(
                "[list] Beta",
                "Sun, 5 Nov 2023 12:00:00 +0000",
                "=?utf-8?q?=C3=84nne?= <carl@x.org>",
                size=100,
            ),
            mail("", "nonsense", "dora@x.org"),
        ):
            self.client.append(message)
        self.client(b"s SELECT INBOX")
        return self.client

    def test_messages_are_sorted_by_each_key(self) -> None:
        """Messages are sorted by each key in both directions. Equal messages are in the order of their numbers."""
        client = self.select_messages()
        for criteria, numbers in (
            (b"SUBJECT", b"4 2 1 3"),
            (b"REVERSE SUBJECT", b"1 3 2 4"),
            (b"DATE", b"3 2 1 4"),
            (b"SUBJECT DATE", b"4 2 3 1"),
            (b"SUBJECT REVERSE DATE", b"4 2 1 3"),
            (b"FROM", b"1 2 3 4"),
            (b"REVERSE TO", b"4 3 2 1"),
            (b"CC", b"1 2 3 4"),
            (b"REVERSE CC", b"1 2 3 4"),
            (b"SIZE", b"4 3 2 1"),
            (b"ARRIVAL", b"1 2 3 4"),
            (b"DISPLAYFROM", b"3 2 4 1"),
            (b"REVERSE DISPLAYTO", b"1 4 2 3"),
        ):
            response = client(b"a282 SORT (%b) UTF-8 ALL" % criteria)
            self.assertEqual(lines(response)[0], b"* SORT " + numbers, criteria)

    def test_uid_sort_returns_matching_uids(self) -> None:
        """UID SORT returns the UIDs of the messages that match. An empty result is a SORT line too."""
        client = self.select_messages()
        client(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        client(b"b EXPUNGE")
        self.assertEqual(lines(client(b"c UID SORT (DATE) US-ASCII 1:3"))[0], b"* SORT 3 2 4")
        self.assertEqual(lines(client(b"d SORT (DATE) UTF-8 SUBJECT beta"))[0], b"* SORT 2")
        self.assertEqual(lines(client(b"e SORT (SUBJECT) US-ASCII TEXT unseen"))[0], b"* SORT")

    def test_unknown_charset_is_no_and_unknown_key_bad(self) -> None:
        """An unknown charset is NO [BADCHARSET]. An unknown sort key is BAD."""
        client = self.select_messages()
        self.assertIn(b"a NO [BADCHARSET", client(b"a SORT (DATE) X-NONE ALL"))
        self.assertIn(b"b BAD", client(b"b SORT (COLOUR) UTF-8 ALL"))

    def test_esort_keeps_the_order(self) -> None:
        """ESORT keeps the order in ALL, MIN, MAX and PARTIAL (RFC 5267 section 3)."""
        client = self.select_messages()
        self.assertEqual(
            lines(client(b"E01 UID SORT RETURN (COUNT ALL MIN MAX) (DATE) UTF-8 ALL"))[0],
            b'* ESEARCH (TAG "E01") UID MIN 3 MAX 4 ALL 3,2,1,4 COUNT 4',
        )
        self.assertEqual(
            lines(client(b"E02 UID SORT RETURN (PARTIAL 2:3) (DATE) UTF-8 ALL"))[0],
            b'* ESEARCH (TAG "E02") UID PARTIAL (2:3 2,1)',
        )

    def test_modseq_key_adds_the_highest_modseq(self) -> None:
        """A MODSEQ search key adds the highest MODSEQ (RFC 7162 section 3.1.6)."""
        client = self.select_messages()
        self.assertRegex(
            client(b"a SORT (DATE) UTF-8 MODSEQ 1 1:2"), rb"\* SORT 2 1 \(MODSEQ \d+\)\r\n"
        )

    def test_large_mailbox_is_sorted_completely(self) -> None:
        """A mailbox with 2,300 messages is sorted completely."""
        client = self.select_inbox(2300)
        response = lines(client(b"a SORT (REVERSE SUBJECT) UTF-8 ALL"))[0]
        self.assertEqual(response, b"* SORT " + b" ".join(b"%d" % i for i in range(1, 2301)))

    def test_sort_omits_a_message_expunged_by_another(self) -> None:
        """SORT omits messages that another session expunged."""
        client = self.select_messages()
        other = self.second_client()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertEqual(lines(client(b"c SORT (DATE) UTF-8 ALL"))[0], b"* SORT 3 1 4")


class ThreadTests(SessionTestCase):
    def select_messages(self) -> Client:
        day = "Mon, 6 Nov 2023 12:00:0%d +0000"
        for message in (
            mail("one", day % 1, more="Message-ID: <1@x>\r\n"),
            mail("two", day % 2, more="Message-ID: <2@x>\r\n"),
            mail("Re: two", day % 3, more="Message-ID: <3@x>\r\nIn-Reply-To: <2@x>\r\n"),
            mail("Re: two", day % 4, more="Message-ID: <4@x>\r\nReferences: <2@x>\r\n <3@x>\r\n"),
            mail("Re: one", day % 5, more="Message-ID: <5@x>\r\n"),
            mail("Re: two", day % 6, more="Message-ID: <6@x>\r\nReferences: <2@x>\r\n"),
        ):
            self.client.append(message)
        self.client(b"s SELECT INBOX")
        return self.client

    def test_references_threads_by_fields_and_then_subjects(self) -> None:
        """REFERENCES threads by References fields, and by subject for messages without them."""
        client = self.select_messages()
        self.assertEqual(
            lines(client(b"A283 THREAD REFERENCES UTF-8 ALL"))[0], b"* THREAD (1 5)(2 (3 4)(6))"
        )
        self.assertEqual(
            lines(client(b"A284 UID THREAD REFERENCES US-ASCII UID 3:6"))[0],
            b"* THREAD ((3 4)(6))(5)",
        )

    def test_orderedsubject_uses_subject_and_date(self) -> None:
        """ORDEREDSUBJECT uses only subject and date."""
        client = self.select_messages()
        self.assertEqual(
            lines(client(b"A283 THREAD ORDEREDSUBJECT UTF-8 ALL"))[0],
            b"* THREAD (1 5)(2 (3)(4)(6))",
        )

    def test_empty_result_is_a_line_without_threads(self) -> None:
        """An empty result is a THREAD line without threads."""
        client = self.select_messages()
        self.assertEqual(lines(client(b"a THREAD REFERENCES UTF-8 SEEN"))[0], b"* THREAD")

    def test_large_references_field_is_read_up_to_a_limit(self) -> None:
        """A References field of hundreds of kilobytes is read up to a limit."""
        refs = "References:" + "".join(f" <{i}@y>\r\n" for i in range(30_000))
        self.client.append(mail("x", "nonsense", more=refs))
        self.client(b"s SELECT INBOX")
        self.assertIn(b"* THREAD (1)", self.client(b"a THREAD REFERENCES UTF-8 ALL"))

    def test_other_sessions_are_served_during_thread_and_sort(self) -> None:
        """Another session is served while THREAD and SORT link and sort."""
        for i in range(60):
            self.client.append(mail(str(i), "now", more=f"Message-ID: <{i}@x>\r\n"))
        client, other = self.client, self.server.login()
        client(b"s SELECT INBOX")
        self.patch(thread_tree, "MESSAGES_PER_PAUSE", 5)
        self.patch(sort_keys, "HEADER_CHUNK_MESSAGES", 20)
        served = 0

        def send_noop() -> None:
            """Make `other` send NOOPs one at a time for as long as `client` waits."""
            nonlocal served
            served += other.transport.value().count(b"n OK")
            other.transport.clear()
            if b"\r\nc OK " not in client.transport.value():
                other.protocol.dataReceived(b"n NOOP\r\n")
                self.server.clock.callLater(0, send_noop)

        for command, turns in (
            (b"THREAD REFERENCES UTF-8 ALL", 50),
            (b"THREAD ORDEREDSUBJECT UTF-8 ALL", 10),
            (b"SORT (SUBJECT FROM) UTF-8 ALL", 5),
            (b"SORT (ARRIVAL SIZE) UTF-8 ALL", 5),
        ):
            undisturbed = client(b"c " + command)
            served = 0
            client.protocol.dataReceived(b"c %b\r\n" % command)
            send_noop()
            self.assertEqual(client.read(), undisturbed)
            self.assertGreaterEqual(served, turns, command)
