"""APPEND (RFC 9051), MULTIAPPEND (RFC 3502) and REPLACE (RFC 8508)."""

from imapshield.testing import MAIL
from tests.session.session_case import SessionTestCase, lines, without_text


class AppendTests(SessionTestCase):
    def test_append_stores_flags_and_date(self) -> None:
        """APPEND stores a message, with and without flags and date, after a continuation request or immediately."""
        size = len(MAIL)
        self.assertEqual(without_text(self.client(b"a APPEND INBOX {%d}" % size)), b"+\r\n")
        self.assertRegex(self.client(MAIL), rb"a OK \[APPENDUID \d+ 1\]")
        response = self.client.send(
            b'b APPEND inbox (\\Seen) " 1-Feb-2003 04:05:06 +0100" {%d+}\r\n%b\r\n' % (size, MAIL)
        )
        self.assertIn(b" 2]", response)
        self.client(b"c SELECT INBOX")
        self.assertIn(b'"01-Feb-2003 03:05:06 +0000"', self.client(b"d FETCH 2 INTERNALDATE"))

    def test_append_to_a_missing_mailbox_is_trycreate(self) -> None:
        """APPEND to a mailbox that does not exist is NO [TRYCREATE]."""
        self.assertIn(b"app NO [TRYCREATE]", self.client.append(mailbox=b"nowhere"))

    def test_append_to_the_selected_mailbox_returns_exists(self) -> None:
        """APPEND to the selected mailbox returns EXISTS before its tagged response."""
        client = self.select_inbox(1)
        response = client.append()
        self.assertLess(response.index(b"* 2 EXISTS"), response.index(b"app OK"))

    def test_continuation_request_follows_earlier_responses(self) -> None:
        """The continuation request follows the responses to earlier commands."""
        response = self.client.send(b"a NOOP\r\nb APPEND INBOX {5}\r\n")
        self.assertEqual(without_text(response), b"a OK\r\n+\r\n")

    def test_multiappend_stores_all_messages(self) -> None:
        """MULTIAPPEND stores all messages of the command (RFC 3502)."""
        response = self.client.send(b"a APPEND INBOX {1+}\r\nx (\\Seen) {2+}\r\nyz\r\n")
        self.assertRegex(response, rb"a OK \[APPENDUID \d+ 1:2\]")

    def test_multiappend_stores_all_messages_or_none(self) -> None:
        """If one message is empty or cannot be stored, MULTIAPPEND stores none (RFC 3502)."""
        self.assertIn(b"a NO", self.client.send(b"a APPEND INBOX {1+}\r\nx {0+}\r\n\r\n"))
        self.assertIn(b"MESSAGES 0", self.client(b"b STATUS INBOX (MESSAGES)"))


class ReplaceTests(SessionTestCase):
    def replace(self, command: bytes, mail: bytes = MAIL) -> bytes:
        return self.client.send(b"%b {%d+}\r\n%b\r\n" % (command, len(mail), mail))

    def test_replace_in_the_same_mailbox_expunges_the_old_message(self) -> None:
        """REPLACE returns APPENDUID, EXPUNGE and EXISTS, then OK (the example of RFC 8508 section 3.1)."""
        self.select_inbox(4)
        self.client(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        response = lines(self.replace(b"A003 REPLACE 4 INBOX (\\Seen \\Draft)"))
        self.assertRegex(response[0], rb"^\* OK \[APPENDUID \d+ 5\]")
        self.assertEqual(response[1:3], [b"* 4 EXPUNGE", b"* 4 EXISTS"])
        self.assertIn(b"A003 OK", response[-1])
        self.assertIn(
            b"* 4 FETCH (UID 5 FLAGS (\\Recent \\Seen \\Draft",
            self.client(b"b FETCH 4 (UID FLAGS)"),
        )
        self.assertIn(b"* SEARCH 2", self.client(b"c SEARCH DELETED"))

    def test_replace_moves_a_message_into_another_mailbox(self) -> None:
        """REPLACE moves a message by number or UID into another mailbox. `*` is the last message."""
        self.select_inbox(2)
        self.client(b"a CREATE there")
        self.assertIn(b"* 1 EXPUNGE", self.replace(b"b UID REPLACE 1 there"))
        self.assertIn(b"* 1 EXPUNGE", self.replace(b"c REPLACE * there"))
        self.assertIn(b"MESSAGES 2", self.client(b"d STATUS there (MESSAGES)"))

    def test_refused_replace_changes_nothing(self) -> None:
        """REPLACE changes nothing if the message or mailbox does not exist or is read-only."""
        self.select_inbox(1)
        self.assertIn(b"a BAD", self.replace(b"a REPLACE 2 INBOX"))
        self.assertIn(b"b NO [NONEXISTENT]", self.replace(b"b UID REPLACE 2 INBOX"))
        self.assertIn(b"c NO [TRYCREATE]", self.replace(b"c REPLACE 1 nowhere"))
        self.assertIn(b"d BAD", self.replace(b"d REPLACE 1:2 INBOX"))
        self.client(b"e EXAMINE INBOX")
        self.assertIn(b"f NO [READ-ONLY]", self.replace(b"f REPLACE 1 INBOX"))
        self.assertIn(b"MESSAGES 1", self.client(b"g STATUS INBOX (MESSAGES)"))
