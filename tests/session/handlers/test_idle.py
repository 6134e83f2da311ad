"""NOOP and IDLE."""

from unittest import mock

from twisted.internet.defer import Deferred

from tests.session.session_case import SessionTestCase, session_of, without_text


class IdleTests(SessionTestCase):
    def test_noop_returns_changes(self) -> None:
        """NOOP returns the changes of other sessions."""
        client = self.select_inbox(2)
        other = self.second_client()
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.server.login().append()
        response = client(b"c NOOP")
        self.assertIn(b"* 1 EXPUNGE\r\n* 2 EXISTS\r\n", response)

    def test_one_poll_answers_noops_that_arrived_together(self) -> None:
        """NOOPs of one packet poll once. A NOOP that the client has sent after that polls again."""
        client = self.select_inbox(1)
        mailbox = session_of(client).mailbox
        with mock.patch.object(mailbox, "poll", wraps=mailbox.poll) as poll:
            client.send(b"".join(b"a%d NOOP\r\n" % number for number in range(10)))
            self.assertEqual(poll.call_count, 1)
            client(b"b NOOP")
            client(b"c NOOP")
            self.assertEqual(poll.call_count, 3)

    def test_noop_that_waited_for_another_polls_again(self) -> None:
        """While the poll of a NOOP runs in a thread, the mailbox may change: the next NOOP of the packet polls too."""
        client = self.select_inbox(1)
        polls: list[Deferred[None]] = []

        async def poll() -> None:
            polls.append(Deferred())
            await polls[-1]

        self.patch(session_of(client).mailbox, "poll", poll)
        client.send(b"a NOOP\r\nb NOOP\r\n")
        self.assertEqual(len(polls), 1)
        polls[0].callback(None)
        self.assertEqual(without_text(client.read()), b"a OK\r\n")
        polls[1].callback(None)
        self.assertEqual(without_text(client.read()), b"b OK\r\n")

    def test_idle_returns_changes_at_once(self) -> None:
        """IDLE returns changes immediately and ends with DONE."""
        client = self.select_inbox(1)
        self.assertEqual(without_text(client(b"a IDLE")), b"+\r\n")
        other = self.second_client()
        other.append()
        self.assertIn(b"* 2 EXISTS", client.read())
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        self.assertIn(b"* 1 FETCH", client.read())
        other(b"b EXPUNGE")
        self.assertIn(b"* 1 EXPUNGE", client.read())
        self.assertEqual(without_text(client(b"DONE")), b"a OK\r\n")
        other.append()
        self.assertEqual(client.read(), b"")

    def test_idle_ends_with_done_only(self) -> None:
        """Any other line ends IDLE with BAD and is not executed."""
        client = self.select_inbox(1)
        client(b"a IDLE")
        self.assertEqual(without_text(client(b"b LOGOUT")), b"a BAD\r\n")
        self.assertEqual(without_text(client(b"c NOOP")), b"c OK\r\n")

    def test_commands_may_follow_done_in_the_same_packet(self) -> None:
        """Commands can follow IDLE and DONE in the same packet."""
        client = self.select_inbox(1)
        self.assertEqual(
            without_text(client.send(b"a IDLE\r\nDONE\r\nb NOOP\r\n")),
            b"+\r\na OK\r\nb OK\r\n",
        )

    def test_idle_without_mailbox_returns_notify_events(self) -> None:
        """Without a selected mailbox IDLE returns the events of NOTIFY at once."""
        other = self.server.login()
        other(b"c CREATE foo")
        self.client(b"a NOTIFY SET (mailboxes foo (MessageNew MessageExpunge))")
        self.client(b"b IDLE")
        other.append(mailbox=b"foo")
        self.assertIn(b"* STATUS foo (MESSAGES 1", self.client.read())
        self.assertEqual(self.client(b"DONE"), b"b OK IDLE completed\r\n")

    def test_events_during_the_poll_of_idle(self) -> None:
        """NOTIFY events that arrive while IDLE polls the mailbox are sent when idling begins."""
        client = self.select_inbox(1)
        client(b"a NOTIFY SET (personal (MailboxName))")
        mailbox = session_of(client).mailbox

        async def poll() -> None:
            self.server.realm.account().notify_listeners("created", "foo")

        self.patch(mailbox, "poll", poll)
        self.assertIn(b'* LIST (\\NonExistent \\HasNoChildren) "/" foo', client(b"b IDLE"))
