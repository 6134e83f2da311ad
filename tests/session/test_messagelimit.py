"""MESSAGELIMIT (RFC 9738), which operators may set, is the number of messages that a command processes at most."""

import re

from imapshield.testing import Server
from tests.session.session_case import SessionTestCase, lines, without_text


class MessageLimitTests(SessionTestCase):
    def setUp(self) -> None:
        """Store messages with the UIDs 1, 2 and 4 to 7, and with the sequence numbers 1 to 6."""
        self.server = Server(max_messages_per_command=4)
        self.client = self.server.login()
        self.select_inbox(6)
        self.client(b"d STORE 3 +FLAGS.SILENT (\\Deleted)")
        self.client(b"e EXPUNGE")
        self.client.append()

    def test_messagelimit_is_advertised_if_set(self) -> None:
        """MESSAGELIMIT is a capability if the operator sets it."""
        self.assertIn(b" MESSAGELIMIT=4 ", self.client(b"a CAPABILITY"))
        self.assertNotIn(b"MESSAGELIMIT", Server().login()(b"a CAPABILITY"))

    def test_last_messages_are_processed_first(self) -> None:
        """FETCH, STORE and SEARCH process the last messages, in descending order, and return their lowest UID."""
        for command in (
            b"FETCH 1:* UID",
            b"STORE 1:6 +FLAGS (\\Seen)",
            b"UID FETCH 1:2,4:7 BODY.PEEK[TEXT]",
            b"SEARCH ALL",
        ):
            response = lines(self.client(b"03 " + command))
            self.assertIn(b"03 OK [MESSAGELIMIT 4 4]", response[-1], command)
            numbers = [int(line.split()[1]) for line in response if b" FETCH (" in line]
            self.assertEqual(numbers, [6, 5, 4, 3] if numbers else [], command)
        self.assertEqual(lines(self.client(b"04 UID SEARCH ALL"))[0], b"* SEARCH 4 5 6 7")
        self.assertEqual(self.client(b"05 UID FETCH 1:4 UID").count(b"FETCH (UID"), 3)

    def test_messagelimit_is_untagged_beside_another_code(self) -> None:
        """If the tagged response has another code, MESSAGELIMIT is in an untagged NO."""
        self.client(b"a STORE 6 +FLAGS.SILENT (\\Seen)")
        response = lines(
            without_text(self.client(b"b STORE 1:* (UNCHANGEDSINCE 1) +FLAGS (\\Flagged)"))
        )
        self.assertEqual(
            response[-2:],
            [b"* NO [MESSAGELIMIT 4 4]", b"b OK [MODIFIED 3:6]"],
        )

    def test_search_counts_messages_searched(self) -> None:
        """The limit counts searched messages, not found messages. `$` covers only these (sections 3.1 and 3.4)."""
        self.client(b"a STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertEqual(
            lines(self.client(b"b UID SEARCH RETURN (SAVE ALL) SEEN"))[0],
            b'* ESEARCH (TAG "b") UID',
        )
        self.assertIn(b"c OK [MESSAGELIMIT 4 4]", self.client(b"c SEARCH SEEN"))
        for key in (b"UID 1:4", b"UIDBEFORE 5", b"(SEEN 1:3)", b"UIDAFTER 1 UIDBEFORE 7"):
            self.assertNotIn(b"MESSAGELIMIT", self.client(b"d SEARCH " + key), key)
        self.assertEqual(
            lines(without_text(self.client(b"e UID SEARCH UIDBEFORE 4"))),
            [b"* SEARCH 1 2", b"e OK"],
        )

    def test_some_commands_are_complete_or_refused(self) -> None:
        """COPY, SORT, THREAD, MULTIAPPEND and FETCH of a larger PARTIAL range are executed completely or not at all."""
        for command in (
            b"COPY 1:* INBOX",
            b"SORT (DATE) UTF-8 ALL",
            b"UID THREAD REFERENCES UTF-8 ALL",
            b"UID FETCH 1:* UID (PARTIAL -1:-5)",
            b"APPEND INBOX" + b" {1+}\r\nx" * 5,
        ):
            self.assertIn(b"a NO [MESSAGELIMIT 4]", self.client(b"a " + command), command)
        for command in (
            b"SORT (DATE) UTF-8 UIDAFTER 4",
            b"UID FETCH 1:* UID (PARTIAL -5:-8)",
            b"COPY 1:4 INBOX",
        ):
            self.assertIn(b"c OK", self.client(b"c " + command), command)

    def test_move_moves_the_last_messages(self) -> None:
        """MOVE over the limit moves the last messages."""
        self.client(b"c CREATE x")
        response = lines(self.client(b"b UID MOVE 1:* x"))
        self.assertRegex(response[0], rb"COPYUID \d+ 4:7 1:4\]")
        self.assertEqual(without_text(response[1]), b"* NO [MESSAGELIMIT 4 4]")
        self.assertEqual(lines(self.client(b"c UID SEARCH ALL"))[0], b"* SEARCH 1 2")

    def test_uid_expunge_counts_removed_messages(self) -> None:
        """UID EXPUNGE counts the messages that it removes. EXPUNGE and CLOSE have no limit."""
        self.client(b"a STORE 3:6 +FLAGS.SILENT (\\Deleted)")
        self.client(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        self.assertIn(b"b OK [MESSAGELIMIT 4 4]", self.client(b"b UID EXPUNGE 1:*"))
        self.assertEqual(lines(self.client(b"c UID SEARCH ALL"))[0], b"* SEARCH 1 2")
        for _ in range(4):
            self.client.append()
        for numbers in (b"1:3", b"4:6"):
            self.client(b"d STORE %b +FLAGS.SILENT (\\Deleted)" % numbers)
        self.assertEqual(self.client(b"e EXPUNGE").count(b"EXPUNGE\r\n"), 6)

    def test_search_of_several_mailboxes_reaches_the_limit(self) -> None:
        """A search of several mailboxes that reaches the limit in some is OK [LIMIT] (RFC 7377 section 2.4)."""
        response = lines(self.client(b"a ESEARCH IN (personal) RETURN (COUNT) ALL"))
        self.assertIn(b"COUNT 4", response[0])
        self.assertIn(b"a OK [LIMIT]", response[1])

    def test_select_qresync_returns_all_changes(self) -> None:
        """SELECT (QRESYNC) returns all changes."""
        self.client(b"e ENABLE QRESYNC")
        uidvalidity = re.findall(
            rb"UIDVALIDITY (\d+)", self.client(b"u STATUS INBOX (UIDVALIDITY)")
        )
        response = self.client(b"s SELECT INBOX (QRESYNC (%b 1))" % uidvalidity[0])
        self.assertEqual(response.count(b" FETCH ("), 6)
        self.assertNotIn(b"MESSAGELIMIT", response)

    def test_uidafter_and_uidbefore_are_search_keys(self) -> None:
        """UIDAFTER and UIDBEFORE are search keys (section 3.2)."""
        self.assertEqual(lines(self.client(b"a UID SEARCH UIDBEFORE 5"))[0], b"* SEARCH 1 2 4")
        self.assertEqual(lines(self.client(b"b UID SEARCH UIDAFTER 5"))[0], b"* SEARCH 6 7")
        self.assertEqual(lines(self.client(b"c UID SEARCH UIDBEFORE 1"))[0], b"* SEARCH")
        self.assertEqual(lines(self.client(b"d UID SEARCH UIDAFTER 4294967295"))[0], b"* SEARCH")
