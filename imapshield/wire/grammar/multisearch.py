"""ESEARCH, the search in several mailboxes (RFC 7377)."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.multisearch import MultiSearch
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.mailbox_filters import mailbox_filter
from imapshield.wire.grammar.search import result_options, search_program


def esearch(cursor: Cursor) -> MultiSearch:
    """``esearch = "ESEARCH" [SP esearch-source-opts] [SP search-return-opts] SP search-program``."""
    cursor.space("ESEARCH")
    sources = [MailboxFilter(b"SELECTED")]
    if cursor.skip_word(b"IN"):
        cursor.space("IN")
        sources = cursor.list_of(lambda: mailbox_filter(cursor), "mailbox filters")
        cursor.space("the mailbox filters")
    if len(sources) > cursor.limits.max_patterns:
        raise CommandRefused(b"LIMIT", "Too many mailbox filters in one search")
    if any(source.kind == b"SELECTED-DELAYED" for source in sources):
        raise BadCommand("SELECTED-DELAYED is a mailbox filter of NOTIFY only")
    options = result_options(cursor)
    key, _ = search_program(cursor, options)
    returns = options.returns or frozenset({b"ALL"})
    return MultiSearch(tuple(sources), key, returns, options.partial, options.update_items)
