"""NOTIFY (RFC 5465): changes of other mailboxes are reported immediately, but never during a command."""

import re
from collections.abc import Callable, Sequence

from imapshield.mailbox.values import NewMessage
from imapshield.testing import MAIL
from imapshield.wire.commands.base import MemoryLiteral
from tests.session.session_case import (
    SessionTestCase,
    highest_modseq,
    lines,
    session_of,
    without_text,
)

MESSAGES = b"(MessageNew MessageExpunge)"


class NotifyTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.server.login()
        for name in (b"foo", b"bar/x"):
            self.other(b"c CREATE " + name)

    def received(self) -> list[bytes]:
        """Return the responses since the last read, with 1 for each UIDVALIDITY."""
        return lines(re.sub(rb"UIDVALIDITY \d+", b"UIDVALIDITY 1", self.client.read()))

    def test_set_status_returns_the_current_state(self) -> None:
        """SET STATUS returns the state of the named mailboxes, then each change of them."""
        self.other.append(mailbox=b"foo")
        response = lines(self.client(b"a NOTIFY SET STATUS (mailboxes foo %b)" % MESSAGES))
        self.assertRegex(response[0], rb"^\* STATUS foo \(MESSAGES 1 UIDNEXT 2 UIDVALIDITY \d+\)$")
        self.assertEqual(without_text(response[1]), b"a OK")
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.received(), [b"* STATUS foo (MESSAGES 2 UIDNEXT 3 UIDVALIDITY 1)"])
        self.other.append(mailbox=b"bar/x")
        self.assertEqual(self.received(), [])
        self.other(b"s SELECT foo")
        self.other(b"t STORE 1 +FLAGS (\\Deleted)")
        self.assertEqual(self.received(), [])
        self.other(b"u EXPUNGE")
        self.assertEqual(self.received(), [b"* STATUS foo (MESSAGES 1 UIDNEXT 3 UIDVALIDITY 1)"])
        self.other(b"v COPY 1 bar/x")
        self.assertEqual(self.received(), [])

    def test_flag_change_reports_unseen_and_highestmodseq(self) -> None:
        """FlagChange reports UNSEEN and HIGHESTMODSEQ (section 5.1). After ENABLE CONDSTORE every STATUS has
        HIGHESTMODSEQ."""
        self.other.append(mailbox=b"foo")
        self.client(b"e ENABLE CONDSTORE")
        response = self.client(b"n NOTIFY SET STATUS (mailboxes foo %b)" % MESSAGES)
        self.assertRegex(
            response, rb"^\* STATUS foo \([^N]*NEXT 2 UIDVALIDITY \d+ HIGHESTMODSEQ \d+\)"
        )
        self.client = self.server.login()
        self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge FlagChange))")
        self.other(b"s SELECT foo")
        self.other(b"t STORE 1 +FLAGS (\\Seen)")
        self.assertRegex(self.received()[-1], rb"^\* STATUS foo \(.*UNSEEN 0 HIGHESTMODSEQ \d+\)$")

    def test_groups_for_one_mailbox_add_up(self) -> None:
        """Several groups for a mailbox add up (section 6), except that NONE cancels the others (section 8)."""
        self.client(
            b"a NOTIFY SET (subtree bar %b) (inboxes (SubscriptionChange)) (mailboxes foo NONE)"
            % MESSAGES
        )
        for name, expected in ((b"foo", 0), (b"bar/x", 2), (b"INBOX", 1)):
            self.other.append(mailbox=name)
            self.other(b"s SUBSCRIBE " + name)
            self.assertEqual(len(self.received()), expected, name)

    def test_selected_group_reports_as_idle_does(self) -> None:
        """The selected group reports as IDLE does, with the FETCH items of MessageNew (section 5.2)."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.client(
            b"a NOTIFY SET (selected (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (Subject)]) MessageExpunge FlagChange))"
        )
        self.other.append()
        response = b"\r\n".join(self.received())
        self.assertIn(b"* 2 EXISTS", response)
        self.assertIn(
            b"* 2 FETCH (UID 2 FLAGS (\\Recent) BODY[HEADER.FIELDS (Subject)] {18}\r\nSubject: Lunch",
            response,
        )
        self.other(b"s SELECT INBOX")
        self.other(b"t STORE 1 +FLAGS (\\Deleted)")
        self.assertIn(b"* 1 FETCH (UID 1 FLAGS", b"".join(self.received()))  # section 5.1
        self.other(b"u EXPUNGE")
        self.assertIn(b"* 1 EXPUNGE", self.received())

    def test_selected_delayed_defers_expunge(self) -> None:
        """With selected-delayed, EXPUNGE waits for a command that allows it (section 5.3)."""
        self.client.append()
        self.client(b"a NOTIFY SET (selected-delayed %b)" % MESSAGES)
        self.client(b"s SELECT INBOX")
        self.other(b"s SELECT INBOX")
        self.other(b"t STORE 1 +FLAGS (\\Deleted)")
        self.other(b"u EXPUNGE")
        self.assertNotIn(b"* 1 EXPUNGE", self.received())
        self.other.append()
        self.assertIn(b"* 2 EXISTS", self.received())
        self.assertIn(b"* 1 EXPUNGE", self.client(b"b NOOP"))

    def test_selected_mailbox_without_a_group_is_silent(self) -> None:
        """Without a group for the selected mailbox, only the client's own changes of it are reported (section 3.1)."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.other(b"s SELECT INBOX")
        for command in (b"NOTIFY SET (selected NONE) (personal %b)" % MESSAGES, b"NOTIFY NONE"):
            self.client(b"a " + command)
            self.other(b"b STORE 1 +FLAGS (\\Flagged)")
            self.other.append()
            for silent in (b"NOOP", b"FETCH 1 BODY.PEEK[TEXT]"):
                self.assertNotRegex(self.client(b"c " + silent), rb"EXISTS|FLAGS|STATUS")
            self.client(b"d IDLE")
            self.other(b"e STORE 1 -FLAGS (\\Flagged)")
            self.assertEqual(self.received(), [])
            self.client(b"DONE")
            response = self.client(b"f FETCH 1 BODY[TEXT]")
            self.assertRegex(response, rb"FLAGS \([^)]*\\Seen")
            self.assertNotIn(b"EXISTS", response)
            self.other(b"g STORE 1 -FLAGS (\\Seen)")
        self.other.append()
        response = self.client(b"h NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        self.assertIn(b"EXISTS", response)
        self.assertIn(b"* 1 FETCH", response)

    def test_own_changes_are_sent_despite_notify_none(self) -> None:
        """EXPUNGE and EXISTS for the client's own commands are sent despite NOTIFY NONE."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY NONE")
        self.assertIn(b"* 2 EXISTS", self.client.append())
        self.client(b"b STORE 1 +FLAGS.SILENT (\\Deleted)")
        self.assertIn(b"* 1 EXPUNGE", self.client(b"c EXPUNGE"))

    def test_no_flags_are_sent_without_flag_change(self) -> None:
        """Without FlagChange no flags are sent, until a later NOTIFY asks for them."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected %b)" % MESSAGES)
        self.other(b"s SELECT INBOX")
        self.other(b"t STORE 1 +FLAGS (\\Flagged)")
        self.assertEqual(self.received(), [])
        self.assertEqual(without_text(self.client(b"b NOOP")), b"b OK\r\n")
        response = self.client(b"c NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        self.assertIn(b"* 1 FETCH (UID 1 FLAGS", response)

    def test_highestmodseq_stays_behind(self) -> None:
        """Under QRESYNC, HIGHESTMODSEQ stays at the last change that was reported completely."""
        self.client.append()
        self.client(b"e ENABLE QRESYNC")
        self.client(b"s SELECT INBOX")
        self.other(b"s SELECT INBOX")
        for command in (b"NONE", b"SET (selected %b)" % MESSAGES):
            self.client(b"a NOTIFY " + command)
            before = highest_modseq(self.other(b"h STATUS INBOX (HIGHESTMODSEQ)"))
            self.other(b"b STORE 1 FLAGS (%b)" % command[:3])
            self.assertIn(b"[HIGHESTMODSEQ %d]" % before, self.client(b"c UID FETCH 1 MODSEQ"))

    def test_own_mail_gets_no_fetch_items(self) -> None:
        """The FETCH items of MessageNew are not sent for messages that the client itself adds (section 5.2)."""
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected (MessageNew (UID) MessageExpunge))")
        self.assertNotIn(b"FETCH", self.client.append() + self.client(b"b COPY 1 INBOX"))
        self.other.append()
        self.assertEqual(self.received()[-1], b"* 3 FETCH (UID 3)")

    def test_every_new_message_is_reported(self) -> None:
        """Every new message is reported, with MODSEQ under CONDSTORE (RFC 7162 section 3.1)."""
        self.client(b"e ENABLE CONDSTORE")
        self.client(b"s SELECT INBOX")
        self.client(
            b"a NOTIFY SET (selected (MessageNew (BODY.PEEK[] RFC822.SIZE) MessageExpunge))"
        )
        mail = b"".join(b" {%d+}\r\n%b" % (200_000, MAIL.ljust(200_000, b"x")) for _ in range(5))
        self.other.send(b"b APPEND INBOX" + mail + b"\r\n")
        response = self.client.read()
        for uid in range(1, 6):
            self.assertRegex(
                response,
                rb"\* %d FETCH \(UID %d RFC822.SIZE 200000 MODSEQ \(\d+\) BODY\[\]" % (uid, uid),
            )

    def test_large_fetch_items_wait_for_the_next_command(self) -> None:
        """A FETCH response too large for one write waits for the next command, which could arrive during it."""
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge))")
        self.other.append(MAIL + b"x" * 400_000)
        self.assertNotIn(b"FETCH", b"".join(self.received()))
        response = self.client(b"b NOOP")
        self.assertTrue(
            response.startswith(b"* 1 FETCH (UID 1 BODY[] {%d}\r\nFrom" % (len(MAIL) + 400_000))
        )
        self.assertTrue(without_text(response).endswith(b"xxx)\r\nb OK\r\n"))
        self.assertEqual(without_text(self.client(b"c NOOP")), b"c OK\r\n")

    def test_mailbox_events_are_reported(self) -> None:
        """Created, renamed and deleted mailboxes, subscriptions and metadata are reported (sections 5.4 to 5.8)."""
        self.client(
            b"a NOTIFY SET (personal (MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange))"
        )
        for command, expected in (
            (b"CREATE new", b'* LIST (\\HasNoChildren) "/" new'),
            (b"RENAME new newer", b'* LIST (\\HasNoChildren) "/" newer ("OLDNAME" (new))'),
            (b"SUBSCRIBE newer", b'* LIST (\\HasNoChildren \\Subscribed) "/" newer'),
            (b"UNSUBSCRIBE newer", b'* LIST (\\HasNoChildren) "/" newer'),
            (b'SETMETADATA newer (/private/comment "x")', b"* METADATA newer /private/comment"),
            (b'SETMETADATA "" (/private/comment "x")', b'* METADATA "" /private/comment'),
            (b"DELETE newer", b'* LIST (\\NonExistent \\HasNoChildren) "/" newer'),
        ):
            self.other(b"c " + command)
            self.assertEqual(self.received(), [expected])

    def test_parents_are_reported_with_a_mailbox(self) -> None:
        """The parents of a created or deleted mailbox are reported with it (section 5.4)."""
        self.client(b"a NOTIFY SET (personal (MailboxName))")
        self.other(b"c CREATE foo/a/b")
        self.assertEqual(
            self.received(),
            [b'* LIST (\\HasNoChildren) "/" foo/a/b', b'* LIST (\\HasChildren) "/" foo/a',
             b'* LIST (\\HasChildren) "/" foo'],
        )  # fmt: skip
        self.other(b"d CREATE foo/a/c")
        self.assertEqual(len(self.received()), 2)
        self.other(b"e DELETE foo/a/b")
        self.assertEqual(
            self.received(),
            [b'* LIST (\\NonExistent \\HasNoChildren) "/" foo/a/b', b'* LIST (\\HasChildren) "/" foo/a'],
        )  # fmt: skip
        self.other(b"f RENAME foo fooo")
        self.assertEqual(self.received(), [b'* LIST (\\HasChildren) "/" fooo ("OLDNAME" (foo))'])
        self.other(b"g RENAME INBOX old")
        self.assertEqual(self.received(), [b'* LIST (\\HasNoChildren) "/" old ("OLDNAME" (INBOX))'])

    def test_other_groups_cover_the_selected_mailbox(self) -> None:
        """Other groups cover everything about the selected mailbox except its messages (section 3.1)."""
        self.client(b"s SELECT foo")
        self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge MailboxName))")
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.received(), [])
        self.other(b"c RENAME foo fooo")
        self.assertIn(b'"OLDNAME" (foo)', b"".join(self.received()))

    def test_own_events_are_not_reported(self) -> None:
        """The client's own changes are not reported to the client (section 5)."""
        self.client(
            b"a NOTIFY SET (personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange"
            b" MailboxMetadataChange ServerMetadataChange))"
        )
        self.other(b"s SELECT foo")
        for command in (b"CREATE new", b"RENAME new newer", b"SUBSCRIBE newer", b"UNSUBSCRIBE newer",
                        b'SETMETADATA newer (/private/comment "x")', b"DELETE newer",
                        b"APPEND foo {1+}\r\nx"):  # fmt: skip
            self.assertEqual(len(lines(self.client(b"c " + command))), 1, command)

    def test_new_uidvalidity_is_reported(self) -> None:
        """FlagChange reports a new UIDVALIDITY (section 5.1)."""
        self.client(b"a NOTIFY SET (mailboxes foo (MessageNew MessageExpunge FlagChange))")
        self.other(b"d DELETE foo")
        self.assertEqual(self.received(), [])
        self.other(b"c CREATE foo")
        self.assertRegex(self.received()[0], rb"^\* STATUS foo .* UIDVALIDITY ")

    def test_subscribed_group_follows_subscriptions(self) -> None:
        """The subscribed group follows changes of the subscriptions."""
        self.client(b"a NOTIFY SET (subscribed %b)" % MESSAGES)
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.received(), [])
        self.other(b"s SUBSCRIBE foo")
        self.other.append(mailbox=b"foo")
        self.assertEqual(len(self.received()), 1)
        self.client(b"a NOTIFY SET (subscribed (SubscriptionChange))")
        self.other(b"s UNSUBSCRIBE foo")
        self.assertEqual(self.received(), [b'* LIST (\\HasNoChildren) "/" foo'])

    def test_nothing_is_reported_during_a_command(self) -> None:
        """A change is not reported while a command runs, but when the command has completed."""
        self.client(b"a NOTIFY SET (personal %b)" % MESSAGES)
        self.client.protocol.dataReceived(b"b APPEND INBOX {5}\r\n")
        self.client.read()
        session = session_of(self.client)
        session.command_running = True
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.received(), [])
        session.command_running = False
        response = lines(self.client.send(b"Hello\r\n"))
        self.assertIn(b"b OK", response[0])
        self.assertIn(b"* STATUS foo", b"".join(response[1:]))

    def test_idle_reports_other_mailboxes(self) -> None:
        """IDLE reports changes of other mailboxes too."""
        self.client(b"a NOTIFY SET (selected-delayed %b) (personal %b)" % (MESSAGES, MESSAGES))
        self.client(b"s SELECT INBOX")
        self.client(b"b IDLE")
        self.other.append(mailbox=b"foo")
        self.other.append()
        response = self.received()
        self.assertIn(b"* 1 EXISTS", response)
        self.assertIn(b"* STATUS foo (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1)", response)
        self.assertIn(b"b OK", self.client(b"DONE"))

    def test_notify_none_and_disconnect_end_notifications(self) -> None:
        """NOTIFY NONE and the end of the connection end the notifications."""
        account = self.server.realm.account()
        self.client(b"a NOTIFY SET (personal %b)" % MESSAGES)
        self.client(b"b NOTIFY NONE")
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.received(), [])
        self.client(b"c NOTIFY SET (personal %b)" % MESSAGES)
        self.assertEqual(len(account._listeners), 1)
        self.client.lose_connection()
        self.assertEqual(len(account._listeners), 0)

    def test_unknown_event_is_badevent(self) -> None:
        """Unknown events are NO [BADEVENT]. Combinations that RFC 5465 section 3.1 forbids are BAD."""
        self.assertIn(
            b"a NO [BADEVENT (MessageNew",
            self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge AnnotationChange))"),
        )
        self.assertIn(b"a NO [BADEVENT", self.client(b"a NOTIFY SET (selected (Something))"))
        for groups in (
            b"(personal (MessageNew))", b"(personal (FlagChange))", b"(selected (MailboxName))", b"(nonsense NONE)",
            b"(personal (MessageNew (UID) MessageExpunge))", b"personal NONE", b"", b"(personal ())",
        ):  # fmt: skip
            self.assertIn(b"b BAD", self.client(b"b NOTIFY SET " + groups), groups)

    def test_mail_of_other_programs_is_reported_once(self) -> None:
        """Mail delivered by other programs is reported once, even in mailboxes that are created later."""
        on_change: dict[str, Callable[[], object]] = {}
        stopped: list[str] = []

        class ChangeNotifier:
            def watch(
                self,
                paths: Sequence[str],
                callback: Callable[[], object],
                *,
                must_notify: bool = True,
            ) -> "Subscription":
                on_change[paths[0]] = callback
                return Subscription(paths[0])

        class Subscription:
            def __init__(self, path: str) -> None:
                self.path = path

            def stop(self) -> None:
                stopped.append(self.path)

        account = self.server.realm.account()
        account.change_notifier = ChangeNotifier()
        store = account._store
        self.patch(store, "watch_paths", lambda key: [f"folder{key}"])
        self.patch(
            store,
            "mailbox_paths",
            lambda names: {name: [f"folder{store.mailbox_key(name)}"] for name in names},
        )
        self.client(b"s SELECT bar")
        self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge))")
        self.client(b"u UNSELECT")
        self.assertEqual(len(on_change), 4)  # INBOX, foo, bar and bar/x
        store.append("foo", [NewMessage((), None, MemoryLiteral(MAIL))])
        on_change[f"folder{store.mailbox_key('foo')}"]()
        self.assertEqual(self.received(), [b"* STATUS foo (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1)"])
        on_change[f"folder{store.mailbox_key('foo')}"]()
        self.assertEqual(self.received(), [])
        self.other(b"c CREATE later")
        self.assertEqual(len(on_change), 5)
        self.client(b"b NOTIFY NONE")
        self.assertEqual(sorted(stopped), sorted(on_change))

    def test_client_that_does_not_read_gets_an_overflow(self) -> None:
        """A client that does not read gets [NOTIFICATIONOVERFLOW] and then nothing."""
        self.client(b"a NOTIFY SET (personal (MailboxName))")
        write_buffer = self.client.protocol.write_buffer
        write_buffer.full = True
        for i in range(1100):
            self.server.realm.account().notify_listeners("created", f"m{i}")
        write_buffer.full = False
        write_buffer.resumeProducing()
        response = self.received()
        self.assertEqual(len(response), 1)
        self.assertIn(b"* OK [NOTIFICATIONOVERFLOW]", response[0])
        self.client(b"a NOTIFY SET (personal (MailboxName)) (selected %b)" % MESSAGES)
        self.client(b"s SELECT foo")
        session = session_of(self.client)
        session.command_running = True
        for i in range(1100):
            self.server.realm.account().notify_listeners("created", f"m{i}")
        session.command_running = False
        self.assertEqual(self.received(), [])
        self.assertIn(b"OVERFLOW", self.client(b"b NOOP"))
        self.other.append(mailbox=b"foo")
        self.assertEqual(without_text(self.client(b"c NOOP")), b"c OK\r\n")
