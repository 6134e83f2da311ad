"""REPLACE (RFC 8508): the new draft comes, then the old one goes."""

from imapshield.testing.in_process import MAIL
from tests.session.test_commands import Case, lines


class Replace(Case):
    def replace(self, command: bytes, mail: bytes = MAIL) -> bytes:
        return self.client.send(b"%b {%d+}\r\n%b\r\n" % (command, len(mail), mail))

    def test_same_mailbox(self) -> None:
        """APPENDUID, EXISTS, EXPUNGE, OK, in that order (the example of section 3.1)."""
        self.filled(4)
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
        self.filled(2)
        self.client(b"a CREATE there")
        self.assertIn(b"* 1 EXPUNGE", self.replace(b"b UID REPLACE 1 there"))
        self.assertIn(b"* 1 EXPUNGE", self.replace(b"c REPLACE * there"))
        self.assertIn(b"MESSAGES 2", self.client(b"d STATUS there (MESSAGES)"))

    def test_refused(self) -> None:
        """Nothing changes when the message or the mailbox is not there, or may not be changed."""
        self.filled(1)
        self.assertIn(b"a BAD", self.replace(b"a REPLACE 2 INBOX"))
        self.assertIn(b"b NO [NONEXISTENT]", self.replace(b"b UID REPLACE 2 INBOX"))
        self.assertIn(b"c NO [TRYCREATE]", self.replace(b"c REPLACE 1 nowhere"))
        self.assertIn(b"d BAD", self.replace(b"d REPLACE 1:2 INBOX"))
        self.client(b"e EXAMINE INBOX")
        self.assertIn(b"f NO [READ-ONLY]", self.replace(b"f REPLACE 1 INBOX"))
        self.assertIn(b"MESSAGES 1", self.client(b"g STATUS INBOX (MESSAGES)"))
