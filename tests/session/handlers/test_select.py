"""SELECT, EXAMINE, CLOSE and UNSELECT."""

from tests.session.session_case import SessionTestCase


class Selecting(SessionTestCase):
    def test_select(self) -> None:
        """SELECT tells all that a client needs to know."""
        self.client.append(flags=b"(\\Seen)")
        self.client.append(flags=b"($Work)")
        answer = self.client(b"a SELECT INBOX")
        for part in (
            b"* 2 EXISTS",
            b"* 2 RECENT",
            b"[UNSEEN 2]",
            b"[UIDNEXT 3]",
            b"[UIDVALIDITY ",
            b"[PERMANENTFLAGS (",
            b"\\*)]",
            b"$Work",
            b"a OK [READ-WRITE]",
        ):
            self.assertIn(part, answer)

    def test_recent_once(self) -> None:
        """A message is \\Recent to the first session that selects, and to no other; EXAMINE does not count."""
        self.client.append()
        self.assertIn(b"* 1 RECENT", self.server.login()(b"a EXAMINE INBOX"))
        self.assertIn(b"* 1 RECENT", self.server.login()(b"a SELECT INBOX"))
        self.assertIn(b"* 0 RECENT", self.server.login()(b"a SELECT INBOX"))

    def test_examine(self) -> None:
        """EXAMINE changes nothing: STORE, EXPUNGE and MOVE are refused, \\Seen is not set, CLOSE removes nothing."""
        self.client.append(flags=b"(\\Deleted)")
        self.assertIn(b"a OK [READ-ONLY]", self.client(b"a EXAMINE INBOX"))
        for command in (b"STORE 1 +FLAGS (\\Seen)", b"EXPUNGE", b"UID EXPUNGE 1", b"MOVE 1 INBOX"):
            self.assertIn(b"b NO [READ-ONLY]", self.client(b"b " + command))
        self.client(b"c FETCH 1 BODY[]")
        self.client(b"d CLOSE")
        self.assertIn(b"UNSEEN 1", self.client(b"e STATUS INBOX (UNSEEN MESSAGES)"))

    def test_select_fails(self) -> None:
        """A SELECT that fails leaves nothing selected, and tells that the one before is closed."""
        for name in (b"nowhere", b"no&name"):
            self.client(b"a SELECT INBOX")
            answer = self.client(b"b SELECT " + name)
            self.assertIn(b"[CLOSED]", answer)
            self.assertIn(b"b NO", answer)
            self.assertIn(b"c BAD Select", self.client(b"c FETCH 1 FLAGS"))

    def test_close(self) -> None:
        """CLOSE removes what has \\Deleted and tells nothing; UNSELECT removes nothing."""
        client = self.select_inbox(2)
        client(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        client(b"b UNSELECT")
        self.assertIn(b"* 2 EXISTS", client(b"c SELECT INBOX"))
        self.assertEqual(client(b"d CLOSE"), b"d OK Closed\r\n")
        self.assertIn(b"* 1 EXISTS", client(b"e SELECT INBOX"))
