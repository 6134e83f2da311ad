"""SORT and THREAD (RFC 5256), SORT with the result options of ESORT (RFC 5267)."""

from __future__ import annotations

from imapshield.errors import BadCommand
from imapshield.wire.commands.sort_thread import Sort, Thread
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.search import known_charset, result_options, search_keys
from imapshield.wire.grammar.search_keys import charset_name

CRITERIA = frozenset(b"ARRIVAL CC DATE DISPLAYFROM DISPLAYTO FROM SIZE SUBJECT TO".split())
ALGORITHMS = frozenset({b"ORDEREDSUBJECT", b"REFERENCES"})


def sort(cursor: Cursor, *, uid: bool = False) -> Sort:
    """``sort = "SORT" SP [search-return-opts SP] sort-criteria SP charset SP search-keys``."""
    cursor.space("SORT")
    options = result_options(cursor)
    criteria: dict[bytes, bool] = {}

    def criterion() -> None:
        word = cursor.word("a sort key")
        reverse = word == b"REVERSE"
        if reverse:
            cursor.space("REVERSE")
            word = cursor.word("a sort key after REVERSE")
        if word not in CRITERIA:
            raise BadCommand("Unknown sort key")
        criteria.setdefault(word, reverse)  # a repeated sort key decides nothing

    cursor.list_of(criterion, "sort keys")
    cursor.space("the sort keys")
    key = search_keys(cursor, known_charset(cursor, options))
    pairs = tuple((reverse, word) for word, reverse in criteria.items())
    return Sort(pairs, key, uid, *options)


def thread(cursor: Cursor, *, uid: bool = False) -> Thread:
    """``thread = "THREAD" SP thread-alg SP charset SP search-keys``."""
    cursor.space("THREAD")
    algorithm = cursor.word("a threading algorithm")
    if algorithm not in ALGORITHMS:
        raise BadCommand("Unknown threading algorithm")
    cursor.space("the algorithm")
    return Thread(algorithm, search_keys(cursor, charset_name(cursor)), uid)
