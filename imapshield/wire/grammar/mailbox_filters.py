"""Mailbox filters, which NOTIFY and ESEARCH share (RFC 5465 section 6, RFC 7377)."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.cursor import Cursor

KINDS_WITHOUT_NAMES = frozenset(b"SELECTED SELECTED-DELAYED INBOXES PERSONAL SUBSCRIBED".split())
KINDS_WITH_NAMES = frozenset(b"SUBTREE SUBTREE-ONE MAILBOXES".split())


def mailbox_filter(cursor: Cursor) -> MailboxFilter:
    """``filter-mailboxes``: a kind that stands alone, or a kind with one mailbox name or a list of them."""
    kind = cursor.word("a mailbox filter such as PERSONAL")
    if kind in KINDS_WITHOUT_NAMES:
        return MailboxFilter(kind)
    if kind not in KINDS_WITH_NAMES:
        raise BadCommand("Unknown mailbox filter")
    cursor.space("the mailbox filter")
    is_list = cursor.peek() == b"("
    names = cursor.list_of(lambda: _mailbox(cursor), "mailboxes") if is_list else [_mailbox(cursor)]
    return MailboxFilter(kind, frozenset(name for name in names if name is not None))


def _mailbox(cursor: Cursor) -> str | None:
    """Read a mailbox name; None if no mailbox can have it.

    Mailboxes that do not exist are ignored (RFC 5465 section 3.1), and so are those that cannot.
    """
    try:
        return cursor.mailbox()
    except CommandRefused:
        return None
