"""NOTIFY (RFC 5465): what happens elsewhere is told at once, and never in the middle of something else."""

import re
from collections.abc import Callable, Sequence

from imapshield.mailbox.values import NewMessage
from imapshield.testing import MAIL, Client
from imapshield.wire.commands.base import MemoryLiteral
from tests.session.session_case import SessionTestCase, highest_modseq, lines

MESSAGES = b"(MessageNew MessageExpunge)"


class Notify(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.server.login()
        for name in (b"foo", b"bar/x"):
            self.other(b"c CREATE " + name)

    def told(self, client: Client | None = None) -> list[bytes]:
        return [
            re.sub(rb"UIDVALIDITY \d+", b"UIDVALIDITY 1", one)
            for one in lines((client or self.client).read())
        ]

    def test_status(self) -> None:
        """SET STATUS tells how each mailbox is now; later each change, of mailboxes that were named."""
        self.other.append(mailbox=b"foo")
        answer = lines(self.client(b"a NOTIFY SET STATUS (mailboxes foo %b)" % MESSAGES))
        self.assertRegex(answer[0], rb"^\* STATUS foo \(MESSAGES 1 UIDNEXT 2 UIDVALIDITY \d+\)$")
        self.assertEqual(answer[1:], [b"a OK Those are told"])
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.told(), [b"* STATUS foo (MESSAGES 2 UIDNEXT 3 UIDVALIDITY 1)"])
        self.other.append(mailbox=b"bar/x")
        self.assertEqual(self.told(), [])
        self.other(b"s SELECT foo")
        self.other(b"t STORE 1 +FLAGS (\\Deleted)")
        self.assertEqual(self.told(), [])
        self.other(b"u EXPUNGE")
        self.assertEqual(self.told(), [b"* STATUS foo (MESSAGES 1 UIDNEXT 3 UIDVALIDITY 1)"])
        self.other(b"v COPY 1 bar/x")
        self.assertEqual(self.told(), [])

    def test_flags(self) -> None:
        """FlagChange tells UNSEEN and HIGHESTMODSEQ (section 5.1), after ENABLE CONDSTORE every STATUS the latter."""
        self.other.append(mailbox=b"foo")
        self.client(b"e ENABLE CONDSTORE")
        told = self.client(b"n NOTIFY SET STATUS (mailboxes foo %b)" % MESSAGES)
        self.assertRegex(told, rb"^\* STATUS foo \([^N]*NEXT 2 UIDVALIDITY \d+ HIGHESTMODSEQ \d+\)")
        self.client = self.server.login()
        self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge FlagChange))")
        self.other(b"s SELECT foo")
        self.other(b"t STORE 1 +FLAGS (\\Seen)")
        self.assertRegex(self.told()[-1], rb"^\* STATUS foo \(.*UNSEEN 0 HIGHESTMODSEQ \d+\)$")

    def test_groups(self) -> None:
        """Groups that mean the same mailbox count together (section 6), but for NONE, which is none (section 8)."""
        self.client(
            b"a NOTIFY SET (subtree bar %b) (inboxes (SubscriptionChange)) (mailboxes foo NONE)"
            % MESSAGES
        )
        for name, told in ((b"foo", 0), (b"bar/x", 2), (b"INBOX", 1)):
            self.other.append(mailbox=name)
            self.other(b"s SUBSCRIBE " + name)
            self.assertEqual(len(self.told()), told, name)

    def test_selected(self) -> None:
        """The selected mailbox is told of as if it were idle, with what MessageNew names (section 5.2)."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.client(
            b"a NOTIFY SET (selected (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (Subject)]) MessageExpunge FlagChange))"
        )
        self.other.append()
        told = b"\r\n".join(self.told())
        self.assertIn(b"* 2 EXISTS", told)
        self.assertIn(
            b"* 2 FETCH (UID 2 FLAGS (\\Recent) BODY[HEADER.FIELDS (Subject)] {18}\r\nSubject: Lunch",
            told,
        )
        self.other(b"s SELECT INBOX")
        self.other(b"t STORE 1 +FLAGS (\\Deleted)")
        self.assertIn(b"* 1 FETCH (UID 1 FLAGS", b"".join(self.told()))  # section 5.1
        self.other(b"u EXPUNGE")
        self.assertIn(b"* 1 EXPUNGE", self.told())

    def test_selected_delayed(self) -> None:
        """With selected-delayed an EXPUNGE waits for a command that permits it (section 5.3)."""
        self.client.append()
        self.client(b"a NOTIFY SET (selected-delayed %b)" % MESSAGES)
        self.client(b"s SELECT INBOX")
        self.other(b"s SELECT INBOX")
        self.other(b"t STORE 1 +FLAGS (\\Deleted)")
        self.other(b"u EXPUNGE")
        self.assertNotIn(b"* 1 EXPUNGE", self.told())
        self.other.append()
        self.assertIn(b"* 2 EXISTS", self.told())
        self.assertIn(b"* 1 EXPUNGE", self.client(b"b NOOP"))

    def test_not_selected(self) -> None:
        """Without a group of its own the selected mailbox is a snapshot, but for what the client does (section 3.1)."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.other(b"s SELECT INBOX")
        for command in (b"NOTIFY SET (selected NONE) (personal %b)" % MESSAGES, b"NOTIFY NONE"):
            self.client(b"a " + command)
            self.other(b"b STORE 1 +FLAGS (\\Flagged)")
            self.other.append()
            for quiet in (b"NOOP", b"FETCH 1 BODY.PEEK[TEXT]"):
                self.assertNotRegex(self.client(b"c " + quiet), rb"EXISTS|FLAGS|STATUS")
            self.client(b"d IDLE")
            self.other(b"e STORE 1 -FLAGS (\\Flagged)")
            self.assertEqual(self.told(), [])
            self.client(b"DONE")
            told = self.client(b"f FETCH 1 BODY[TEXT]")
            self.assertRegex(told, rb"FLAGS \([^)]*\\Seen")
            self.assertNotIn(b"EXISTS", told)
            self.other(b"g STORE 1 -FLAGS (\\Seen)")
        self.other.append()
        told = self.client(b"h NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        self.assertIn(b"EXISTS", told)
        self.assertIn(b"* 1 FETCH", told)

    def test_own(self) -> None:
        """What the client itself expunges and appends it is told of all the same, and whatever there is with it."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY NONE")
        self.assertIn(b"* 2 EXISTS", self.client.append())
        self.client(b"b STORE 1 +FLAGS.SILENT (\\Deleted)")
        self.assertIn(b"* 1 EXPUNGE", self.client(b"c EXPUNGE"))

    def test_no_flags(self) -> None:
        """Without FlagChange no flags are told, until a NOTIFY asks for them."""
        self.client.append()
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected %b)" % MESSAGES)
        self.other(b"s SELECT INBOX")
        self.other(b"t STORE 1 +FLAGS (\\Flagged)")
        self.assertEqual(self.told(), [])
        self.assertEqual(self.client(b"b NOOP"), b"b OK Done\r\n")
        told = self.client(b"c NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        self.assertIn(b"* 1 FETCH (UID 1 FLAGS", told)

    def test_resync(self) -> None:
        """A client of QRESYNC is told up to where it has heard everything, for all that NOTIFY leaves out."""
        self.client.append()
        self.client(b"e ENABLE QRESYNC")
        self.client(b"s SELECT INBOX")
        self.other(b"s SELECT INBOX")
        for command in (b"NONE", b"SET (selected %b)" % MESSAGES):
            self.client(b"a NOTIFY " + command)
            before = highest_modseq(self.other(b"h STATUS INBOX (HIGHESTMODSEQ)"))
            self.other(b"b STORE 1 FLAGS (%b)" % command[:3])
            self.assertIn(b"[HIGHESTMODSEQ %d]" % before, self.client(b"c UID FETCH 1 MODSEQ"))

    def test_own_mail(self) -> None:
        """What the client brings itself it is not sent (section 5.2)."""
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected (MessageNew (UID) MessageExpunge))")
        self.assertNotIn(b"FETCH", self.client.append() + self.client(b"b COPY 1 INBOX"))
        self.other.append()
        self.assertEqual(self.told()[-1], b"* 3 FETCH (UID 3)")

    def test_many_new(self) -> None:
        """All that is new is told, however much it is, MODSEQ with it under CONDSTORE (RFC 7162 section 3.1)."""
        self.client(b"e ENABLE CONDSTORE")
        self.client(b"s SELECT INBOX")
        self.client(
            b"a NOTIFY SET (selected (MessageNew (BODY.PEEK[] RFC822.SIZE) MessageExpunge))"
        )
        mail = b"".join(b" {%d+}\r\n%b" % (200_000, MAIL.ljust(200_000, b"x")) for _ in range(5))
        self.other.send(b"b APPEND INBOX" + mail + b"\r\n")
        told = self.client.read()
        for uid in range(1, 6):
            self.assertRegex(
                told,
                rb"\* %d FETCH \(UID %d RFC822.SIZE 200000 MODSEQ \(\d+\) BODY\[\]" % (uid, uid),
            )

    def test_large(self) -> None:
        """What is too large to be told in one piece comes with the next command, for commands might come in between."""
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge))")
        self.other.append(MAIL + b"x" * 400_000)
        self.assertNotIn(b"FETCH", b"".join(self.told()))
        told = self.client(b"b NOOP")
        self.assertTrue(
            told.startswith(b"* 1 FETCH (UID 1 BODY[] {%d}\r\nFrom" % (len(MAIL) + 400_000))
        )
        self.assertTrue(told.endswith(b"xxx)\r\nb OK Done\r\n"))
        self.assertEqual(self.client(b"c NOOP"), b"c OK Done\r\n")

    def test_names(self) -> None:
        """Mailboxes that come, go and change their names; subscriptions; metadata (section 5.4 and on)."""
        self.client(
            b"a NOTIFY SET (personal (MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange))"
        )
        for command, told in (
            (b"CREATE new", b'* LIST (\\HasNoChildren) "/" new'),
            (b"RENAME new newer", b'* LIST (\\HasNoChildren) "/" newer ("OLDNAME" (new))'),
            (b"SUBSCRIBE newer", b'* LIST (\\HasNoChildren \\Subscribed) "/" newer'),
            (b"UNSUBSCRIBE newer", b'* LIST (\\HasNoChildren) "/" newer'),
            (b'SETMETADATA newer (/private/comment "x")', b"* METADATA newer /private/comment"),
            (b'SETMETADATA "" (/private/comment "x")', b'* METADATA "" /private/comment'),
            (b"DELETE newer", b'* LIST (\\NonExistent \\HasNoChildren) "/" newer'),
        ):
            self.other(b"c " + command)
            self.assertEqual(self.told(), [told])

    def test_parents(self) -> None:
        """With a mailbox that comes or goes its parent is told, and what came with it (section 5.4)."""
        self.client(b"a NOTIFY SET (personal (MailboxName))")
        self.other(b"c CREATE foo/a/b")
        self.assertEqual(
            self.told(),
            [b'* LIST (\\HasNoChildren) "/" foo/a/b', b'* LIST (\\HasChildren) "/" foo/a',
             b'* LIST (\\HasChildren) "/" foo'],
        )  # fmt: skip
        self.other(b"d CREATE foo/a/c")
        self.assertEqual(len(self.told()), 2)
        self.other(b"e DELETE foo/a/b")
        self.assertEqual(
            self.told(),
            [b'* LIST (\\NonExistent \\HasNoChildren) "/" foo/a/b', b'* LIST (\\HasChildren) "/" foo/a'],
        )  # fmt: skip
        self.other(b"f RENAME foo fooo")
        self.assertEqual(self.told(), [b'* LIST (\\HasChildren) "/" fooo ("OLDNAME" (foo))'])
        self.other(b"g RENAME INBOX old")
        self.assertEqual(self.told(), [b'* LIST (\\HasNoChildren) "/" old ("OLDNAME" (INBOX))'])

    def test_names_of_selected(self) -> None:
        """Other groups decide of all but the messages of the selected mailbox (section 3.1)."""
        self.client(b"s SELECT foo")
        self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge MailboxName))")
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.told(), [])
        self.other(b"c RENAME foo fooo")
        self.assertIn(b'"OLDNAME" (foo)', b"".join(self.told()))

    def test_not_oneself(self) -> None:
        """What the client does itself it is not told (section 5)."""
        self.client(
            b"a NOTIFY SET (personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange"
            b" MailboxMetadataChange ServerMetadataChange))"
        )
        self.other(b"s SELECT foo")
        for command in (b"CREATE new", b"RENAME new newer", b"SUBSCRIBE newer", b"UNSUBSCRIBE newer",
                        b'SETMETADATA newer (/private/comment "x")', b"DELETE newer",
                        b"APPEND foo {1+}\r\nx"):  # fmt: skip
            self.assertEqual(len(lines(self.client(b"c " + command))), 1, command)

    def test_uidvalidity(self) -> None:
        """FlagChange tells of another UIDVALIDITY (section 5.1)."""
        self.client(b"a NOTIFY SET (mailboxes foo (MessageNew MessageExpunge FlagChange))")
        self.other(b"d DELETE foo")
        self.assertEqual(self.told(), [])
        self.other(b"c CREATE foo")
        self.assertRegex(self.told()[0], rb"^\* STATUS foo .* UIDVALIDITY ")

    def test_subscribed(self) -> None:
        """Which mailboxes are subscribed is known as it changes."""
        self.client(b"a NOTIFY SET (subscribed %b)" % MESSAGES)
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.told(), [])
        self.other(b"s SUBSCRIBE foo")
        self.other.append(mailbox=b"foo")
        self.assertEqual(len(self.told()), 1)
        self.client(b"a NOTIFY SET (subscribed (SubscriptionChange))")
        self.other(b"s UNSUBSCRIBE foo")
        self.assertEqual(self.told(), [b'* LIST (\\HasNoChildren) "/" foo'])

    def test_not_in_between(self) -> None:
        """While a command runs nothing is told; it is when the command is done."""
        self.client(b"a NOTIFY SET (personal %b)" % MESSAGES)
        self.client.protocol.dataReceived(b"b APPEND INBOX {5}\r\n")
        self.client.read()
        session = self.client.protocol._session
        session._running = True
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.told(), [])
        session._running = False
        answer = lines(self.client.send(b"Hello\r\n"))
        self.assertIn(b"b OK", answer[0])
        self.assertIn(b"* STATUS foo", b"".join(answer[1:]))

    def test_idle(self) -> None:
        """In IDLE other mailboxes are told of as well."""
        self.client(b"a NOTIFY SET (selected-delayed %b) (personal %b)" % (MESSAGES, MESSAGES))
        self.client(b"s SELECT INBOX")
        self.client(b"b IDLE")
        self.other.append(mailbox=b"foo")
        self.other.append()
        told = self.told()
        self.assertIn(b"* 1 EXISTS", told)
        self.assertIn(b"* STATUS foo (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1)", told)
        self.assertIn(b"b OK", self.client(b"DONE"))

    def test_none(self) -> None:
        """NONE, LOGOUT and the end of the connection end it."""
        account = self.server.realm.account()
        self.client(b"a NOTIFY SET (personal %b)" % MESSAGES)
        self.client(b"b NOTIFY NONE")
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.told(), [])
        self.client(b"c NOTIFY SET (personal %b)" % MESSAGES)
        self.assertEqual(len(account._listeners), 1)
        self.client.lose_connection()
        self.assertEqual(len(account._listeners), 0)

    def test_refused(self) -> None:
        """Events that are not known are NO [BADEVENT]; combinations that make no sense are BAD (section 3.1)."""
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

    def test_from_outside(self) -> None:
        """Mail that other programs deliver is heard by the bell, told once, in mailboxes that come later too."""
        rung: dict[str, Callable[[], object]] = {}
        stopped: list[str] = []

        class ChangeNotifier:
            def watch(self, paths: Sequence[str], ring: Callable[[], object]) -> "Subscription":
                rung[paths[0]] = ring
                return Subscription(paths[0])

        class Subscription:
            def __init__(self, path: str) -> None:
                self.path = path

            def stop(self) -> None:
                stopped.append(self.path)

        account = self.server.realm.account()
        account.bell = ChangeNotifier()
        store = account._store
        self.patch(store, "watch_paths", lambda key: [f"box{key}"])
        self.client(b"s SELECT bar")
        self.client(b"a NOTIFY SET (personal (MessageNew MessageExpunge))")
        self.client(b"u UNSELECT")
        self.assertEqual(len(rung), 4)  # INBOX, foo, bar and bar/x
        store.append("foo", [NewMessage((), None, MemoryLiteral(MAIL))])
        rung[f"box{store.key('foo')}"]()
        self.assertEqual(self.told(), [b"* STATUS foo (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1)"])
        rung[f"box{store.key('foo')}"]()
        self.assertEqual(self.told(), [])
        self.other(b"c CREATE later")
        self.assertEqual(len(rung), 5)
        self.client(b"b NOTIFY NONE")
        self.assertEqual(sorted(stopped), sorted(rung))

    def test_overflow(self) -> None:
        """A client that does not read is told that it missed something, and nothing more is kept for it."""
        self.client(b"a NOTIFY SET (personal (MailboxName))")
        outbox = self.client.protocol._outbox
        outbox.full = True
        for i in range(1100):
            self.server.realm.account().notify_listeners("created", f"m{i}")
        outbox.full = False
        outbox.resumeProducing()
        told = self.told()
        self.assertEqual(told, [b"* OK [NOTIFICATIONOVERFLOW] Too much happened"])
        self.client(b"a NOTIFY SET (personal (MailboxName)) (selected %b)" % MESSAGES)
        self.client(b"s SELECT foo")
        self.client.protocol._session._running = True
        for i in range(1100):
            self.server.realm.account().notify_listeners("created", f"m{i}")
        self.client.protocol._session._running = False
        self.assertEqual(self.told(), [])
        self.assertIn(b"OVERFLOW", self.client(b"b NOOP"))
        self.other.append(mailbox=b"foo")
        self.assertEqual(self.client(b"c NOOP"), b"c OK Done\r\n")
