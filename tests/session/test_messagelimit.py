"""MESSAGELIMIT (RFC 9738), for operators who set it: a command touches so many messages, the last ones first."""

from tests.harness import Server
from tests.session.test_commands import Case, lines


class MessageLimit(Case):
    def setUp(self) -> None:
        self.server = Server(messages=4)
        self.client = self.server.login()
        self.filled(6)
        self.client(b"d STORE 3 +FLAGS.SILENT (\\Deleted)")
        self.client(b"e EXPUNGE")
        self.client.append()

    def test_advertised(self) -> None:
        """It is told where it is set, and only there."""
        self.assertIn(b" MESSAGELIMIT=4 ", self.client(b"a CAPABILITY"))
        self.assertNotIn(b"MESSAGELIMIT", Server().login()(b"a CAPABILITY"))

    def test_some(self) -> None:
        """FETCH, STORE and SEARCH do the last, and say from which UID on."""
        for command in (
            b"FETCH 1:* UID",
            b"STORE 1:6 +FLAGS (\\Seen)",
            b"UID FETCH 1:2,4:7 UID",
            b"SEARCH ALL",
        ):
            answer = lines(self.client(b"03 " + command))
            self.assertIn(b"03 OK [MESSAGELIMIT 4 4]", answer[-1], command)
        self.assertEqual(lines(self.client(b"04 UID SEARCH ALL"))[0], b"* SEARCH 4 5 6 7")
        self.assertEqual(self.client(b"05 UID FETCH 1:4 UID").count(b"FETCH (UID"), 3)

    def test_all_or_nothing(self) -> None:
        """COPY and MOVE do none."""
        self.assertIn(b"a NO [MESSAGELIMIT 4]", self.client(b"a COPY 1:* INBOX"))
        self.assertIn(b"b NO [MESSAGELIMIT 4]", self.client(b"b UID MOVE 1:* INBOX"))
        self.assertIn(b"c OK", self.client(b"c COPY 1:4 INBOX"))

    def test_beside(self) -> None:
        """UIDAFTER and UIDBEFORE (section 3.2)."""
        self.assertEqual(lines(self.client(b"a UID SEARCH UIDBEFORE 5"))[0], b"* SEARCH 4")
        self.assertEqual(lines(self.client(b"b UID SEARCH UIDAFTER 5"))[0], b"* SEARCH 6 7")
        self.assertEqual(lines(self.client(b"c UID SEARCH UIDBEFORE 1"))[0], b"* SEARCH")
        self.assertEqual(lines(self.client(b"d UID SEARCH UIDAFTER 4294967295"))[0], b"* SEARCH")
