"""Mailbox filters of NOTIFY and ESEARCH."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.notify import mailbox_filter


def parse_filter(text: bytes) -> MailboxFilter:
    """Parse a mailbox filter that is a whole command."""
    cursor = Cursor([text])
    result = mailbox_filter(cursor)
    cursor.expect_end()
    return result


class MailboxFilterTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """A filter is a kind alone, or a kind with one name or a list of names."""
        for text, expected in (
            (b"personal", MailboxFilter(b"PERSONAL")),
            (b"SELECTED-DELAYED", MailboxFilter(b"SELECTED-DELAYED")),
            (b"subtree inbox", MailboxFilter(b"SUBTREE", frozenset({"INBOX"}))),
            (b"MAILBOXES (a b)", MailboxFilter(b"MAILBOXES", frozenset({"a", "b"}))),
        ):
            self.assertEqual(parse_filter(text), expected)

    def test_malformed(self) -> None:
        """Unknown kinds, missing names, and names after a kind that has none are refused."""
        for text in (b"", b"nowhere", b"mailboxes", b"mailboxes ()", b"personal a"):
            self.assertRaises(BadCommand, parse_filter, text)

    def test_names_that_cannot_be_decoded(self) -> None:
        """A name that no mailbox can have is ignored like a mailbox that does not exist (RFC 5465 section 3.1)."""
        for names in (b'"a&b"', b'("a&b" "a&b")'):
            self.assertEqual(parse_filter(b"mailboxes " + names), MailboxFilter(b"MAILBOXES"))
