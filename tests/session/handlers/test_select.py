"""SELECT, EXAMINE, CLOSE and UNSELECT."""

from tests.session.session_case import SessionTestCase, without_text


class SelectTests(SessionTestCase):
    def test_select_describes_the_mailbox(self) -> None:
        """SELECT returns the counts, UIDs and flags of the mailbox."""
        self.client.append(flags=b"(\\Seen)")
        self.client.append(flags=b"($Work)")
        response = self.client(b"a SELECT INBOX")
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
            self.assertIn(part, response)

    def test_message_is_recent_for_one_session(self) -> None:
        r"""A message is \Recent for the first session that selects the mailbox. EXAMINE does not count."""
        self.client.append()
        self.assertIn(b"* 1 RECENT", self.server.login()(b"a EXAMINE INBOX"))
        self.assertIn(b"* 1 RECENT", self.server.login()(b"a SELECT INBOX"))
        self.assertIn(b"* 0 RECENT", self.server.login()(b"a SELECT INBOX"))

    def test_examine_changes_nothing(self) -> None:
        r"""After EXAMINE, STORE, EXPUNGE and MOVE are refused, FETCH does not set \Seen, and CLOSE removes nothing."""
        self.client.append(flags=b"(\\Deleted)")
        self.assertIn(b"a OK [READ-ONLY]", self.client(b"a EXAMINE INBOX"))
        for command in (b"STORE 1 +FLAGS (\\Seen)", b"EXPUNGE", b"UID EXPUNGE 1", b"MOVE 1 INBOX"):
            self.assertIn(b"b NO [READ-ONLY]", self.client(b"b " + command))
        self.client(b"c FETCH 1 BODY[]")
        self.client(b"d CLOSE")
        self.assertIn(b"UNSEEN 1", self.client(b"e STATUS INBOX (UNSEEN MESSAGES)"))

    def test_failed_select_leaves_no_mailbox_selected(self) -> None:
        """A SELECT that fails leaves no mailbox selected, and reports [CLOSED]."""
        for name in (b"nowhere", b"no&name"):
            self.client(b"a SELECT INBOX")
            response = self.client(b"b SELECT " + name)
            self.assertIn(b"[CLOSED]", response)
            self.assertIn(b"b NO", response)
            self.assertIn(b"c BAD", self.client(b"c FETCH 1 FLAGS"))

    def test_close_removes_deleted_messages_silently(self) -> None:
        r"""CLOSE removes messages with \Deleted without untagged responses. UNSELECT removes nothing."""
        client = self.select_inbox(2)
        client(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        client(b"b UNSELECT")
        self.assertIn(b"* 2 EXISTS", client(b"c SELECT INBOX"))
        self.assertEqual(without_text(client(b"d CLOSE")), b"d OK\r\n")
        self.assertIn(b"* 1 EXISTS", client(b"e SELECT INBOX"))
