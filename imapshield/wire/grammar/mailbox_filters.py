"""Which mailboxes: the filters of RFC 5465 section 6 and RFC 7377, and the commands made of them."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.search import MultiSearch
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.search import known_charset, return_options, search_keys

ALONE = frozenset(b"SELECTED SELECTED-DELAYED INBOXES PERSONAL SUBSCRIBED".split())
NAMING = frozenset(b"SUBTREE SUBTREE-ONE MAILBOXES".split())


def mailbox_filter(cursor: Cursor) -> MailboxFilter:
    """``filter-mailboxes``: one of `ALONE`, or one of `NAMING` and the mailboxes it names."""
    kind = cursor.word("which mailboxes")
    if kind in ALONE:
        return MailboxFilter(kind)
    if kind not in NAMING:
        raise BadCommand("Unknown kind of mailboxes")
    cursor.space("the kind of mailboxes")
    several = cursor.peek() == b"("
    names = cursor.list_of(lambda: _name(cursor), "mailboxes") if several else [_name(cursor)]
    return MailboxFilter(kind, frozenset(name for name in names if name is not None))


def _name(cursor: Cursor) -> str | None:
    """Read a mailbox; None if none can have that name: those that are not there are ignored (RFC 5465 section 3.1)."""
    try:
        return cursor.mailbox()
    except CommandRefused:
        return None


def esearch(cursor: Cursor) -> MultiSearch:
    """``esearch = "ESEARCH" [SP esearch-source-opts] [SP search-return-opts] SP search-program``."""
    cursor.space("ESEARCH")
    sources = [MailboxFilter(b"SELECTED")]
    if cursor.skip_word(b"IN"):
        cursor.space("IN")
        sources = cursor.list_of(lambda: mailbox_filter(cursor), "kinds of mailboxes")
        cursor.space("the mailboxes")
    if len(sources) > cursor.limits.max_patterns:
        raise CommandRefused(b"LIMIT", "Too many kinds of mailboxes in one search")
    if any(one.kind == b"SELECTED-DELAYED" for one in sources):
        raise BadCommand("Unknown kind of mailboxes")
    options = return_options(cursor)
    charset = None
    if cursor.skip_word(b"CHARSET"):
        cursor.space("CHARSET")
        charset = known_charset(cursor, options)
    key = search_keys(cursor, charset)
    returns = options.returns or frozenset({b"ALL"})
    return MultiSearch(tuple(sources), key, returns, options.partial, options.update_items)
