"""UIDONLY (RFC 9586) removes sequence numbers from commands and responses."""

from imapshield.testing import MAIL, Client
from tests.session.session_case import SessionTestCase, lines


class UidOnlyTests(SessionTestCase):
    def select_with_uidonly(self, count: int = 3) -> Client:
        for _ in range(count):
            self.client.append()
        self.assertIn(b"* ENABLED UIDONLY", self.client(b"10 ENABLE UIDONLY"))
        self.assertNotIn(b"[UNSEEN", self.client(b"s SELECT INBOX"))
        return self.client

    def test_sequence_numbers_are_uidrequired(self) -> None:
        """Commands and search keys with sequence numbers are BAD [UIDREQUIRED] (section 3)."""
        client = self.select_with_uidonly()
        for command in (
            b"FETCH 1 FLAGS", b"STORE 1 +FLAGS (\\Seen)", b"COPY 1 INBOX", b"MOVE * INBOX", b"SEARCH ALL",
            b"SORT (DATE) UTF-8 ALL", b"THREAD REFERENCES UTF-8 ALL", b"UID SEARCH 1:2", b"UID SEARCH NOT (OR 1 SEEN)",
            b"ESEARCH IN (personal) 1", b"UID SORT (DATE) UTF-8 1", b"REPLACE 1 INBOX {1+}\r\nx",
        ):  # fmt: skip
            self.assertIn(b"07 BAD [UIDREQUIRED]", client(b"07 " + command), command)
        self.assertIn(b"* SEARCH 2", client(b"08 UID SEARCH UID 2"))

    def test_uid_comes_first_when_fetch_marks_messages_seen(self) -> None:
        r"""A requested UID stays before the FLAGS that are added because the command makes the message \Seen."""
        client = self.select_with_uidonly(1)
        response = client(b"07 UID FETCH 1 (UID BODY[]<0.1>)")
        self.assertTrue(
            response.startswith(b"* 1 UIDFETCH (UID 1 FLAGS (\\Recent \\Seen) BODY[]<0> "), response
        )

    def test_known_sequence_numbers_of_qresync_are_refused(self) -> None:
        """Known sequence numbers of QRESYNC are refused. Known UIDs are allowed (section 3.7)."""
        client = self.select_with_uidonly()
        client(b"a ENABLE QRESYNC")
        self.assertIn(
            b"b BAD [UIDREQUIRED]", client(b"b SELECT INBOX (QRESYNC (1 1 1:3 (1:3 1:3)))")
        )
        self.assertIn(b"c OK", client(b"c SELECT INBOX (QRESYNC (1 1 1:3))"))

    def test_fetch_responses_are_uidfetch(self) -> None:
        """FETCH responses become UIDFETCH responses, solicited or not, even with large bodies."""
        client = self.select_with_uidonly()
        other = self.second_client()
        self.assertEqual(
            lines(client(b"a UID FETCH 3 FLAGS"))[0], b"* 3 UIDFETCH (FLAGS (\\Recent))"
        )
        self.assertIn(b"* 2 UIDFETCH (FLAGS", client(b"b UID STORE 2 +FLAGS (\\Seen)"))
        other(b"c STORE 1 +FLAGS (\\Seen)")
        self.assertIn(b"* 1 UIDFETCH (FLAGS", client(b"d NOOP"))
        big = MAIL + b"x" * 400_000
        client.append(big)
        response = client(b"e UID FETCH 3:4 BODY.PEEK[]")
        self.assertIn(b"* 3 UIDFETCH (BODY[] {%d}" % len(MAIL), response)
        self.assertIn(b"* 4 UIDFETCH (BODY[] {%d}" % len(big), response)

    def test_expunge_responses_are_vanished(self) -> None:
        """EXPUNGE responses become VANISHED responses."""
        client = self.select_with_uidonly()
        client(b"a UID STORE 2 +FLAGS.SILENT (\\Deleted)")
        self.assertEqual(lines(client(b"b EXPUNGE"))[0], b"* VANISHED 2")
        self.assertEqual(
            lines(client(b"c UID MOVE 3 INBOX"))[1:3], [b"* VANISHED 3", b"* 2 EXISTS"]
        )

    def test_uidfetch_may_have_modseq_alone(self) -> None:
        """A UIDFETCH response can contain only MODSEQ."""
        client = self.select_with_uidonly()
        client(b"a ENABLE CONDSTORE")
        self.assertRegex(
            client(b"b UID STORE 2 +FLAGS.SILENT (\\Seen)"), rb"^\* 2 UIDFETCH \(MODSEQ \(\d+\)\)"
        )
