"""APPEND (RFC 9051), MULTIAPPEND (RFC 3502) and REPLACE (RFC 8508)."""

from imapshield.testing import MAIL
from tests.session.session_case import SessionTestCase, lines


class Appending(SessionTestCase):
    def test_append(self) -> None:
        """APPEND, with and without flags and date, waiting for ``+`` or not."""
        size = len(MAIL)
        self.assertEqual(self.client(b"a APPEND INBOX {%d}" % size), b"+ Go ahead\r\n")
        self.assertRegex(self.client(MAIL), rb"a OK \[APPENDUID \d+ 1\] Stored")
        answer = self.client.send(
            b'b APPEND inbox (\\Seen) " 1-Feb-2003 04:05:06 +0100" {%d+}\r\n%b\r\n' % (size, MAIL)
        )
        self.assertIn(b" 2]", answer)
        self.client(b"c SELECT INBOX")
        self.assertIn(b'"01-Feb-2003 03:05:06 +0000"', self.client(b"d FETCH 2 INTERNALDATE"))

    def test_to_nowhere(self) -> None:
        """An APPEND to a mailbox that is not there says TRYCREATE."""
        self.assertIn(b"app NO [TRYCREATE]", self.client.append(mailbox=b"nowhere"))

    def test_told(self) -> None:
        """The selected mailbox says at once that it has grown."""
        client = self.select_inbox(1)
        answer = client.append()
        self.assertLess(answer.index(b"* 2 EXISTS"), answer.index(b"app OK"))

    def test_waits_its_turn(self) -> None:
        """``+`` comes after the answers to the commands before."""
        answer = self.client.send(b"a NOOP\r\nb APPEND INBOX {5}\r\n")
        self.assertEqual(answer, b"a OK Done\r\n+ Go ahead\r\n")

    def test_several(self) -> None:
        """MULTIAPPEND stores all of its messages."""
        answer = self.client.send(b"a APPEND INBOX {1+}\r\nx (\\Seen) {2+}\r\nyz\r\n")
        self.assertRegex(answer, rb"a OK \[APPENDUID \d+ 1:2\]")

    def test_multiappend(self) -> None:
        """A message without octets, or one that cannot be stored, stores none of them (RFC 3502)."""
        self.assertIn(b"a NO", self.client.send(b"a APPEND INBOX {1+}\r\nx {0+}\r\n\r\n"))
        self.assertIn(b"MESSAGES 0", self.client(b"b STATUS INBOX (MESSAGES)"))


class Replace(SessionTestCase):
    def replace(self, command: bytes, mail: bytes = MAIL) -> bytes:
        return self.client.send(b"%b {%d+}\r\n%b\r\n" % (command, len(mail), mail))

    def test_same_mailbox(self) -> None:
        """APPENDUID, EXISTS, EXPUNGE, OK, in that order (the example of section 3.1)."""
        self.select_inbox(4)
        self.client(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        answer = lines(self.replace(b"A003 REPLACE 4 INBOX (\\Seen \\Draft)"))
        self.assertRegex(answer[0], rb"^\* OK \[APPENDUID \d+ 5\]")
        self.assertEqual(answer[1:3], [b"* 4 EXPUNGE", b"* 4 EXISTS"])
        self.assertIn(b"A003 OK", answer[-1])
        self.assertIn(
            b"* 4 FETCH (UID 5 FLAGS (\\Recent \\Seen \\Draft",
            self.client(b"b FETCH 4 (UID FLAGS)").replace(b"\\Seen \\Draft", b"\\Seen \\Draft"),
        )
        self.assertIn(b"* SEARCH 2", self.client(b"c SEARCH DELETED"))

    def test_other_mailbox(self) -> None:
        """By UID, into another mailbox; ``*`` is the last."""
        self.select_inbox(2)
        self.client(b"a CREATE there")
        self.assertIn(b"* 1 EXPUNGE", self.replace(b"b UID REPLACE 1 there"))
        self.assertIn(b"* 1 EXPUNGE", self.replace(b"c REPLACE * there"))
        self.assertIn(b"MESSAGES 2", self.client(b"d STATUS there (MESSAGES)"))

    def test_refused(self) -> None:
        """Nothing changes when the message or the mailbox is not there, or may not be changed."""
        self.select_inbox(1)
        self.assertIn(b"a BAD", self.replace(b"a REPLACE 2 INBOX"))
        self.assertIn(b"b NO [NONEXISTENT]", self.replace(b"b UID REPLACE 2 INBOX"))
        self.assertIn(b"c NO [TRYCREATE]", self.replace(b"c REPLACE 1 nowhere"))
        self.assertIn(b"d BAD", self.replace(b"d REPLACE 1:2 INBOX"))
        self.client(b"e EXAMINE INBOX")
        self.assertIn(b"f NO [READ-ONLY]", self.replace(b"f REPLACE 1 INBOX"))
        self.assertIn(b"MESSAGES 1", self.client(b"g STATUS INBOX (MESSAGES)"))
