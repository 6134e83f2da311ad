"""NOTIFY (RFC 5465), and mailbox filters."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.fetch import Attribute, BodySection, Section
from imapshield.wire.commands.mailboxes import EventGroup, MailboxFilter, Notify
from imapshield.wire.cursor import Cursor, GrammarLimits
from imapshield.wire.grammar import parse
from imapshield.wire.grammar.notify import mailbox_filter

MESSAGES = frozenset({b"MESSAGENEW", b"MESSAGEEXPUNGE"})


class NotifyTests(SynchronousTestCase):
    def test_examples_of_rfc_5465_are_parsed(self) -> None:
        """NONE and the examples of RFC 5465 section 3 are parsed."""
        self.assertEqual(parse([b"NOTIFY NONE"]), Notify(()))
        line = (
            b"NOTIFY SET STATUS (selected (MessageNew (uid body.peek[header.fields (From To)]) MessageExpunge))"
            b" (subtree Lemonde (MessageNew MessageExpunge)) (mailboxes (a inbox) NONE)"
        )
        header = BodySection(Section((), b"HEADER.FIELDS", (b"From", b"To")), peek=True)
        self.assertEqual(
            parse([line]),
            Notify(
                (
                    EventGroup(MailboxFilter(b"SELECTED"), MESSAGES, (Attribute(b"UID"), header)),
                    EventGroup(MailboxFilter(b"SUBTREE", frozenset({"Lemonde"})), MESSAGES),
                    EventGroup(MailboxFilter(b"MAILBOXES", frozenset({"a", "INBOX"})), frozenset()),
                ),
                True,
            ),
        )
        for kind in (b"SELECTED", b"PERSONAL"):
            group = EventGroup(MailboxFilter(kind), MESSAGES | {b"SOMETHING"})
            line = b"NOTIFY SET (%b (MessageNew MessageNew MessageExpunge Something))" % kind
            self.assertEqual(parse([line]), Notify((group,)))
        self.assertEqual(
            parse([b"NOTIFY SET (personal (MailboxName Something))"]),
            Notify(
                (EventGroup(MailboxFilter(b"PERSONAL"), frozenset({b"MAILBOXNAME", b"SOMETHING"})),)
            ),
        )

    def test_invalid_events_and_items_are_refused(self) -> None:
        """Events that cannot be combined, misplaced FETCH items, and lists without end are refused."""
        for line in (
            b"NOTIFY", b"NOTIFY SET", b"NOTIFY GET", b"NOTIFY SET STATUS",
            b"NOTIFY SET personal NONE", b"NOTIFY SET (personal)", b"NOTIFY SET (personal ())",
            b"NOTIFY SET (personal (MessageNew))", b"NOTIFY SET (personal (FlagChange))",
            b"NOTIFY SET (selected (MailboxName))",
            b"NOTIFY SET (personal (MessageNew (UID) MessageExpunge))",
            b"NOTIFY SET (selected (MessageNew () MessageExpunge))",
            b"NOTIFY SET (selected (MessageNew (UID MessageExpunge)",
            b"NOTIFY SET (personal NONE)(personal NONE)", b"NOTIFY NONE x",
            b"NOTIFY SET (selected NONE) (selected-delayed NONE)",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])

    def test_event_groups_are_limited(self) -> None:
        """FETCH items and event groups are counted; too many groups are refused with a code (section 3.1)."""
        line = b"NOTIFY SET (selected (MessageNew (UID FLAGS MODSEQ) MessageExpunge))"
        self.assertRaises(BadCommand, parse, [line], limits=GrammarLimits(max_fetch_items=2))
        self.assertRaises(
            BadCommand,
            parse,
            [b"NOTIFY SET" + b" (personal NONE)" * 20],
            limits=GrammarLimits(max_terms=10),
        )
        error = self.assertRaises(CommandRefused, parse, [b"NOTIFY SET" + b" (personal NONE)" * 33])
        self.assertEqual(error.code, b"NOTIFICATIONOVERFLOW")


def parse_filter(text: bytes) -> MailboxFilter:
    """Parse a mailbox filter that is a whole command."""
    cursor = Cursor([text])
    result = mailbox_filter(cursor)
    cursor.expect_end()
    return result


class MailboxFilterTests(SynchronousTestCase):
    def test_filter_is_a_kind_with_or_without_names(self) -> None:
        """A filter is a kind alone, or a kind with one name or a list of names."""
        for text, expected in (
            (b"personal", MailboxFilter(b"PERSONAL")),
            (b"SELECTED-DELAYED", MailboxFilter(b"SELECTED-DELAYED")),
            (b"subtree inbox", MailboxFilter(b"SUBTREE", frozenset({"INBOX"}))),
            (b"MAILBOXES (a b)", MailboxFilter(b"MAILBOXES", frozenset({"a", "b"}))),
        ):
            self.assertEqual(parse_filter(text), expected)

    def test_invalid_filters_are_refused(self) -> None:
        """Unknown kinds, missing names, and names after a kind that has none are refused."""
        for text in (b"", b"nowhere", b"mailboxes", b"mailboxes ()", b"personal a"):
            self.assertRaises(BadCommand, parse_filter, text)

    def test_undecodable_name_is_ignored(self) -> None:
        """A name that no mailbox can have is ignored like a mailbox that does not exist (RFC 5465 section 3.1)."""
        for names in (b'"a&b"', b'("a&b" "a&b")'):
            self.assertEqual(parse_filter(b"mailboxes " + names), MailboxFilter(b"MAILBOXES"))
