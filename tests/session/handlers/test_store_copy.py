"""STORE, COPY, MOVE and EXPUNGE."""

from typing import Any

from imapshield.errors import StoreLimitExceeded
from imapshield.testing import NOW, MemoryRealm, MemoryStore, Server
from tests.session.session_case import SessionTestCase, lines, without_text


class StoreCopyTests(SessionTestCase):
    def test_store_changes_and_returns_flags(self) -> None:
        """STORE adds, removes and replaces flags, and returns them unless it is .SILENT."""
        client = self.select_inbox(1)
        self.assertIn(
            b"* 1 FETCH (FLAGS (\\Recent \\Flagged \\Seen",
            client(b"a STORE 1 +FLAGS (\\Seen \\Flagged $x)"),
        )
        self.assertIn(
            b"* 1 FETCH (FLAGS (\\Recent \\Seen $x))", client(b"a STORE 1 -FLAGS (\\Flagged)")
        )
        self.assertEqual(without_text(client(b"a STORE 1 FLAGS.SILENT (\\Draft)")), b"a OK\r\n")
        self.assertIn(b"* 1 FETCH (UID 1 FLAGS (\\Recent \\Draft))", client(b"a UID FETCH 1 FLAGS"))

    def test_new_keyword_is_announced(self) -> None:
        """A keyword that is new to the mailbox appears in FLAGS before it appears in FETCH."""
        client = self.select_inbox(1)
        response = client(b"a STORE 1 +FLAGS ($New)")
        self.assertLess(response.index(b"* FLAGS ("), response.index(b"* 1 FETCH"))

    def test_new_keyword_is_announced_to_others(self) -> None:
        """Another session gets FLAGS with a new keyword before FETCH too."""
        client = self.select_inbox(1)
        other = self.second_client()
        client(b"a STORE 1 +FLAGS ($New)")
        response = other(b"a FETCH 1 FLAGS")
        self.assertLess(response.index(b"* FLAGS ("), response.index(b"* 1 FETCH"))

    def test_keyword_over_the_limit_is_refused(self) -> None:
        r"""A keyword over the limit is NO [LIMIT], and PERMANENTFLAGS no longer lists \* (RFC 9051 section 7.1)."""

        class Full(MemoryStore):
            def store_flags(self, *_: Any) -> Any:
                raise StoreLimitExceeded

        client = Server(realm=MemoryRealm(open_store=lambda: Full(lambda: NOW))).login()
        client.append(flags=b"($x)")
        client(b"s SELECT INBOX")
        self.assertEqual(
            lines(without_text(client(b"a STORE 1 +FLAGS ($y)"))),
            [
                b"* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $x)]",
                b"a NO [LIMIT]",
            ],
        )

    def test_others_get_changed_flags_once(self) -> None:
        """Another session gets changed flags exactly once."""
        client = self.select_inbox(1)
        other = self.second_client()
        client(b"a STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertIn(b"* 1 FETCH (FLAGS (\\Seen))", other(b"a NOOP"))
        self.assertEqual(without_text(other(b"a NOOP")), b"a OK\r\n")

    def test_silent_store_returns_flags_changed_by_another(self) -> None:
        """A .SILENT STORE returns the flags if another session changed them earlier."""
        client = self.select_inbox(1)
        other = self.second_client()
        other(b"a STORE 1 +FLAGS (\\Flagged)")
        response = client(b"a STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertIn(b"\\Flagged \\Seen", response)

    def test_copy_keeps_flags_and_dates(self) -> None:
        """COPY keeps flags and dates and returns the new UIDs. COPY to a missing mailbox is NO [TRYCREATE]."""
        client = self.select_inbox(2)
        client(b"a STORE 1 +FLAGS (\\Flagged)")
        self.assertIn(b"b NO [TRYCREATE]", client(b"b COPY 1:2 there"))
        client(b"c CREATE there")
        self.assertRegex(client(b"d COPY 1:2 there"), rb"d OK \[COPYUID \d+ 1:2 1:2\]")
        client(b"e SELECT there")
        self.assertIn(b"\\Flagged", client(b"f FETCH 1 FLAGS"))

    def test_copy_of_an_expunged_message_copies_nothing(self) -> None:
        """COPY of an expunged message is NO and copies nothing. UID COPY and MOVE take the messages that exist."""
        client = self.select_inbox(3)
        client(b"a CREATE there")
        other = self.second_client()
        other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"b NO [EXPUNGEISSUED]", client(b"b COPY 1:3 there"))
        self.assertRegex(client(b"c UID COPY 1:3 there"), rb"COPYUID \d+ 1,3 1:2\]")
        other(b"d UID STORE 1 +FLAGS.SILENT (\\Deleted)")
        other(b"e EXPUNGE")
        self.assertRegex(client(b"f UID MOVE 1,3 there"), rb"COPYUID \d+ 3 3\]")

    def test_copy_into_the_selected_mailbox_is_a_new_message(self) -> None:
        """A copy into the selected mailbox appears as a new message."""
        client = self.select_inbox(1)
        self.assertIn(b"* 2 EXISTS", client(b"a COPY 1 INBOX"))

    def test_move_returns_copyuid_before_expunge(self) -> None:
        """MOVE returns COPYUID before the EXPUNGE responses (RFC 6851)."""
        client = self.select_inbox(3)
        client(b"a CREATE there")
        response = without_text(client(b"b MOVE 1,3 there"))
        self.assertRegex(
            response, rb"\* OK \[COPYUID \d+ 1,3 1:2\]\r\n\* 3 EXPUNGE\r\n\* 1 EXPUNGE\r\n"
        )
        self.assertRegex(response, rb"b OK \[HIGHESTMODSEQ \d+\]\r\n\Z")

    def test_expunge_removes_only_deleted_messages(self) -> None:
        r"""EXPUNGE removes messages with \Deleted, UID EXPUNGE only the named messages. UIDs are not reused."""
        client = self.select_inbox(4)
        client(b"a STORE 2:4 +FLAGS.SILENT (\\Deleted)")
        self.assertEqual(lines(client(b"b UID EXPUNGE 4"))[0], b"* 4 EXPUNGE")
        self.assertEqual(lines(client(b"c EXPUNGE"))[:2], [b"* 3 EXPUNGE", b"* 2 EXPUNGE"])
        self.assertIn(b"[APPENDUID", client.append())
        self.assertIn(b"* 2 FETCH (UID 5", client(b"d FETCH 2 UID"))
