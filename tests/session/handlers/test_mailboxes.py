"""The commands on mailboxes: CREATE, DELETE, RENAME, LIST, LSUB, SUBSCRIBE, STATUS."""

from imapshield.session.handlers import mailboxes
from imapshield.testing import MAIL
from tests.session.session_case import SessionTestCase, lines, without_text


class MailboxTests(SessionTestCase):
    def test_created_mailbox_is_listed_until_deleted(self) -> None:
        """A created mailbox is listed, with its parents, until it is deleted."""
        self.assertIn(b"a OK", self.client(b"a CREATE a/b/c/"))
        listed = self.client(b'a LIST "" *')
        self.assertIn(b'* LIST (\\HasNoChildren) "/" INBOX\r\n', listed)
        self.assertIn(b'* LIST (\\HasChildren) "/" a\r\n', listed)
        self.assertIn(b'* LIST (\\HasNoChildren) "/" a/b/c\r\n', listed)
        self.assertIn(b"a OK", self.client(b"a DELETE a/b/c"))
        self.assertNotIn(b"a/b/c", self.client(b'a LIST "" *'))

    def test_percent_stops_at_the_delimiter(self) -> None:
        """In a LIST pattern `%` stops at the delimiter and `*` does not. An empty pattern asks for the delimiter."""
        self.client(b"a CREATE x/y")
        self.assertNotIn(b"x/y", self.client(b'a LIST "" %'))
        self.assertIn(b"x/y", self.client(b"a LIST x/ %"))
        self.assertIn(b'* LIST (\\Noselect) "/" ""', self.client(b'a LIST "" ""'))
        self.assertIn(b"INBOX", self.client(b'a LIST "" inbox'))

    def test_other_sessions_are_served_while_names_are_compared(self) -> None:
        """LIST and LSUB let other connections run while they compare many names with many patterns."""
        for i in range(40):
            self.client(b"a CREATE folder%d" % i)
            self.client(b"a SUBSCRIBE folder%d" % i)
        self.patch(mailboxes, "CHARACTERS_PER_TURN", 100)
        other = self.server.login()
        for command in (
            b'LIST "" (%b)' % b" ".join([b"*z"] * 30),
            b'LSUB "" *z',
            b'LSUB "" nothing',
        ):
            served = 0
            self.client.protocol.dataReceived(b"c %b\r\n" % command)
            while b"c OK" not in self.client.transport.value():
                other(b"n NOOP")
                served += 1
                self.client.run_due_calls()
            self.client.transport.clear()
            self.assertGreater(served, 0, command)

    def test_refusals_have_codes(self) -> None:
        """A refused command is NO with the response code of RFC 5530."""
        for command, response in (
            (b"CREATE INBOX", b"NO [ALREADYEXISTS]"),
            (b"DELETE INBOX", b"NO [CANNOT]"),
            (b"DELETE nowhere", b"NO [NONEXISTENT]"),
            (b"RENAME nowhere x", b"NO [NONEXISTENT]"),
            (b"SELECT nowhere", b"NO [NONEXISTENT]"),
            (b"STATUS nowhere (MESSAGES)", b"NO [NONEXISTENT]"),
            (b'CREATE "a//b"', b"NO [CANNOT]"),
        ):
            self.assertIn(b"a " + response, self.client(b"a " + command), command)

    def test_lsub_lists_subscribed_names(self) -> None:
        """LSUB lists subscribed names, whether they exist or not, and their parents if `%` stops at the parents."""
        self.assertIn(b"a NO [NONEXISTENT]", self.client(b"a SUBSCRIBE gone/below"))
        self.client(b"a CREATE gone/below")
        self.assertIn(b"a OK", self.client(b"a SUBSCRIBE gone/below"))
        self.client(b"a DELETE gone/below")
        self.client(b"a DELETE gone")
        self.assertIn(b'* LSUB (\\Noselect) "/" gone/below', self.client(b'a LSUB "" *'))
        self.assertIn(b'* LSUB (\\Noselect) "/" gone\r\n', self.client(b'a LSUB "" %'))
        self.client(b"a UNSUBSCRIBE gone/below")
        self.assertEqual(without_text(self.client(b'a LSUB "" *')), b"a OK\r\n")

    def test_rename_keeps_messages(self) -> None:
        """RENAME keeps messages, UIDs and UIDVALIDITY."""
        self.client(b"a CREATE old")
        self.client.append(mailbox=b"old")
        before = self.client(b"a STATUS old (MESSAGES UIDNEXT UIDVALIDITY)").replace(b"old", b"new")
        self.client(b"a RENAME old new")
        self.assertEqual(self.client(b"a STATUS new (MESSAGES UIDNEXT UIDVALIDITY)"), before)

    def test_names_are_modified_utf7(self) -> None:
        """Mailbox names in any script are listed in modified UTF-7."""
        self.client(b"a CREATE Entw&APw-rfe")
        self.assertIn(b"Entw&APw-rfe", self.client(b'a LIST "" *'))
        self.assertIn(b"a NO [CANNOT]", self.client(b"a CREATE Entw&APw"))
        self.assertEqual(without_text(self.client(b'a LIST "" Entw&APw')), b"a OK\r\n")

    def test_status_returns_counts(self) -> None:
        """STATUS returns the number of messages of each kind."""
        self.client.append(flags=b"(\\Seen \\Deleted)")
        self.client.append()
        response = self.client(b"a STATUS INBOX (MESSAGES RECENT UNSEEN DELETED UIDNEXT SIZE)")
        self.assertIn(
            b"* STATUS INBOX (MESSAGES 2 RECENT 2 UNSEEN 1 DELETED 1 UIDNEXT 3 SIZE %d)"
            % (2 * len(MAIL)),
            response,
        )

    def test_list_return_status_returns_list_and_status(self) -> None:
        """LIST RETURN (STATUS) returns LIST and STATUS responses, which saves the client one command per mailbox."""
        self.client.append()
        response = self.client(b'a LIST "" * RETURN (STATUS (MESSAGES))')
        self.assertIn(b"* STATUS INBOX (MESSAGES 1)", response)


class StatusTests(SessionTestCase):
    def test_status_size_is_the_sum_of_message_sizes(self) -> None:
        """STATUS SIZE is the sum of the RFC822.SIZE of all messages (RFC 8438)."""
        self.client.append()
        self.assertIn(b"(SIZE %d)" % len(MAIL), self.client(b"a STATUS INBOX (SIZE)"))

    def test_appendlimit_is_the_largest_accepted_message(self) -> None:
        """STATUS APPENDLIMIT and the capability give the largest message that APPEND accepts (RFC 7889)."""
        limit = self.server.factory.limits.max_message_size
        self.assertIn(b"(APPENDLIMIT %d)" % limit, self.client(b"a STATUS INBOX (APPENDLIMIT)"))
        self.assertIn(b"APPENDLIMIT=%d" % limit, self.client(b"b CAPABILITY"))

    def test_highestmodseq_in_list_enables_condstore(self) -> None:
        """LIST RETURN (STATUS (HIGHESTMODSEQ)) enables CONDSTORE."""
        self.select_inbox(1)
        self.client(b'a LIST "" INBOX RETURN (STATUS (HIGHESTMODSEQ))')
        self.assertIn(b"MODSEQ (", self.client(b"b FETCH 1 FLAGS"))


class SelectedMailboxTests(SessionTestCase):
    def test_renamed_mailbox_stays_selected(self) -> None:
        """A selected mailbox that another session renames stays selected under its new name."""
        self.client(b"a CREATE old/x")
        self.client.append(mailbox=b"old/x")
        self.client(b"b SELECT old/x")
        self.server.login()(b"c RENAME old new")
        self.assertIn(b"* 1 FETCH", self.client(b"d FETCH 1 UID"))
        self.server.login().append(mailbox=b"new/x")
        self.client(b"e IDLE")
        self.assertIn(b"f OK", self.client(b"DONE") + self.client(b"f NOOP"))
        self.assertIn(b"* 2 FETCH", self.client(b"g FETCH 2 UID"))

    def test_rename_of_inbox_moves_its_messages(self) -> None:
        """RENAME INBOX moves its messages to the new mailbox. INBOX stays selected and empty."""
        self.select_inbox(2)
        response = self.client(b"a RENAME INBOX Old")
        self.assertIn(b"a OK", response)
        self.assertIn(b"EXPUNGE", response + self.client(b"b NOOP"))
        self.assertIn(b"MESSAGES 2", self.client(b"c STATUS Old (MESSAGES)"))

    def test_delete_of_the_selected_mailbox_closes_it(self) -> None:
        """DELETE of the selected mailbox closes it."""
        self.client(b"a CREATE x")
        self.client(b"b SELECT x")
        self.assertEqual(
            lines(without_text(self.client(b"c DELETE x"))), [b"* OK [CLOSED]", b"c OK"]
        )
        self.assertIn(b"d BAD", self.client(b"d FETCH 1 UID"))

    def test_delete_of_a_mere_parent_is_haschildren(self) -> None:
        """DELETE of a name that exists only as a parent is NO [HASCHILDREN] (RFC 9051 section 6.3.5)."""
        self.client(b"a CREATE x/y")
        self.assertIn(b"b OK", self.client(b"b DELETE x"))
        self.assertIn(b"c NO [HASCHILDREN]", self.client(b"c DELETE x"))
