"""SEARCH, ESEARCH (RFC 7377), SORT and THREAD (RFC 5256), and CANCELUPDATE (RFC 5267)."""

import re
from typing import NamedTuple

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands import search as commands
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.mailboxes import MailboxFilter
from imapshield.wire.cursor import Cursor, too_many
from imapshield.wire.grammar.fetch import item_list, partial_range
from imapshield.wire.grammar.notify import mailbox_filter
from imapshield.wire.grammar.search_keys import charset_name, search_keys

RESULT_OPTIONS = frozenset(b"MIN MAX ALL COUNT SAVE PARTIAL UPDATE CONTEXT".split())
"""CONTEXT is only a hint (RFC 5267 section 4.2), which this server does not need."""

CRITERIA = frozenset(b"ARRIVAL CC DATE DISPLAYFROM DISPLAYTO FROM SIZE SUBJECT TO".split())
ALGORITHMS = frozenset({b"ORDEREDSUBJECT", b"REFERENCES"})
_BEFORE_LIST = re.compile(rb" ?(?=\()")


class SaveRefused(CommandRefused):
    """A search with SAVE is refused: the session must also empty the saved result (RFC 5182 section 2.1)."""


class ResultOptions(NamedTuple):
    """The result options of a search; `Search` describes the fields."""

    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


def search(cursor: Cursor, *, uid: bool = False) -> commands.Search:
    """``search = "SEARCH" [SP search-return-opts] SP search-program``."""
    options = result_options(cursor)
    key, charset = search_program(cursor, options)
    return commands.Search(
        key, uid, options.returns, options.partial, charset, options.update_items
    )


def cancel_update(cursor: Cursor) -> commands.CancelUpdate:
    """``cancelupdate = "CANCELUPDATE" 1*(SP quoted)`` (RFC 5267)."""
    return commands.CancelUpdate(tuple(cursor.list_to_end(lambda: cursor.quoted("a tag"), "tag")))


def esearch(cursor: Cursor) -> commands.MultiSearch:
    """``esearch = "ESEARCH" [SP esearch-source-opts] [SP search-return-opts] SP search-program``."""
    sources = [MailboxFilter(b"SELECTED")]
    if cursor.skip_word(b"IN"):
        cursor.space("IN")
        sources = cursor.list_of(lambda: mailbox_filter(cursor), "mailbox filters")
        cursor.space("the mailbox filters")
    if len(sources) > cursor.limits.max_patterns:
        text = too_many("mailbox filters in one search", cursor.limits.max_patterns)
        raise CommandRefused(b"LIMIT", text)
    if any(source.kind == b"SELECTED-DELAYED" for source in sources):
        raise BadCommand("SELECTED-DELAYED is a mailbox filter of NOTIFY only")
    options = result_options(cursor)
    key, _ = search_program(cursor, options)
    returns = options.returns or frozenset({b"ALL"})
    return commands.MultiSearch(tuple(sources), key, returns, options.partial, options.update_items)


def sort(cursor: Cursor, *, uid: bool = False) -> commands.Sort:
    """``sort = "SORT" SP [search-return-opts SP] sort-criteria SP charset SP search-keys``."""
    options = result_options(cursor)
    criteria: dict[bytes, bool] = {}

    def criterion() -> None:
        reverse = cursor.skip_word(b"REVERSE")
        if reverse:
            cursor.space("REVERSE")
        # A repeated sort key decides nothing.
        criteria.setdefault(cursor.word_in(CRITERIA, "a sort key"), reverse)

    cursor.list_of(criterion, "sort keys")
    cursor.space("the sort keys")
    key = search_keys(cursor, known_charset(cursor, options))
    pairs = tuple((reverse, word) for word, reverse in criteria.items())
    return commands.Sort(pairs, key, uid, *options)


def thread(cursor: Cursor, *, uid: bool = False) -> commands.Thread:
    """``thread = "THREAD" SP thread-alg SP charset SP search-keys``."""
    algorithm = cursor.word_in(ALGORITHMS, "a threading algorithm")
    cursor.space("the algorithm")
    return commands.Thread(algorithm, search_keys(cursor, charset_name(cursor)), uid)


def known_charset(cursor: Cursor, options: ResultOptions) -> str:
    """Read ``charset SP`` of a search with `options`; return the name of Python's codec."""
    try:
        return charset_name(cursor)
    except CommandRefused as error:
        if options.returns and b"SAVE" in options.returns:
            raise SaveRefused(error.code, error.text) from None
        raise


def result_options(cursor: Cursor) -> ResultOptions:
    """``["RETURN" SP "(" [option *(SP option)] ")" SP]``.

    ``()`` means ALL (RFC 9051 section 6.4.4). PARTIAL is counted among the options too, so they are never empty.
    """
    if not cursor.skip_word(b"RETURN"):
        return ResultOptions()
    cursor.space("RETURN")
    partial: tuple[int, int] | None = None
    update: tuple[FetchItem, ...] = ()

    def option() -> bytes:
        nonlocal partial, update
        word = cursor.word_in(RESULT_OPTIONS, "a result option")
        if word == b"PARTIAL":
            if partial is not None:
                raise BadCommand("PARTIAL may be given only once")  # RFC 9394 section 3.1
            cursor.space("PARTIAL")
            partial = partial_range(cursor)
        # RFC 5465 has a space here in the example of section 7, and none in the grammar of section 8.
        elif word == b"UPDATE" and cursor.try_match(_BEFORE_LIST) is not None:
            update = item_list(cursor)
        return word

    options = frozenset(cursor.list_of(option, "result options", allow_empty=True))
    cursor.space("the result options")
    if options >= {b"ALL", b"PARTIAL"}:
        raise BadCommand("ALL and PARTIAL cannot be combined")
    return ResultOptions(options or frozenset({b"ALL"}), partial, update)


def search_program(cursor: Cursor, options: ResultOptions) -> tuple[commands.SearchKey, bool]:
    """``search-program = ["CHARSET" SP charset SP] search-keys``; return the key, and whether there was a charset."""
    charset = None
    if cursor.skip_word(b"CHARSET"):
        cursor.space("CHARSET")
        charset = known_charset(cursor, options)
    return search_keys(cursor, charset), charset is not None
