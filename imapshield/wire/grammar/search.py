"""SEARCH: keys → one tree of values, small and flat.

Rules
-----
* A stack of our own and no recursion: 4,000 times NOT is a long line, not a deep stack.
* The tree has one form: OR of OR is one `Or`, AND of AND one `And`, NOT of NOT nothing, and
  one key alone is itself. So the chains of OR that clients build of lists do not nest, and what
  does nest may be refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search import CancelUpdate, Search
from imapshield.wire.commands.search_keys import And, Not, Or, SearchKey
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.fetch import parenthesised_items, partial_range
from imapshield.wire.grammar.search_keys import KeyReader, charset_name

RETURNS = frozenset(b"MIN MAX ALL COUNT SAVE PARTIAL UPDATE CONTEXT".split())
"""CONTEXT is a hint that we have no need of (RFC 5267 section 4.2)."""


class SaveRefused(CommandRefused):
    """A search that is refused and said SAVE: what was saved is to be forgotten (RFC 5182 section 2.1)."""


class Options(NamedTuple):
    """The result options: None for the plain form, never empty; PARTIAL's range and UPDATE's FETCH items."""

    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


def search(cursor: Cursor, *, uid: bool = False) -> Search:
    """``search = "SEARCH" [SP search-return-opts] SP search-program``."""
    cursor.space("SEARCH")
    options = return_options(cursor)
    charset = None
    if cursor.skip_word(b"CHARSET"):
        cursor.space("CHARSET")
        charset = known_charset(cursor, options)
    keys = search_keys(cursor, charset)
    return Search(
        keys, uid, options.returns, options.partial, charset is not None, options.update_items
    )


def cancel_update(cursor: Cursor) -> CancelUpdate:
    """``"CANCELUPDATE" 1*(SP quoted)`` (RFC 5267)."""
    tags: list[bytes] = []
    while not tags or not cursor.at_end():
        cursor.space("CANCELUPDATE and each tag")
        cursor.count_term()
        tags.append(cursor.quoted("a tag"))
    return CancelUpdate(tuple(tags))


def known_charset(cursor: Cursor, options: Options) -> str:
    """Read ``charset SP``, for a search with these options."""
    try:
        return charset_name(cursor)
    except CommandRefused as error:
        if options.returns and b"SAVE" in options.returns:
            raise SaveRefused(error.code, error.text) from None
        raise


def return_options(cursor: Cursor) -> Options:
    """``["RETURN" SP "(" [option *(SP option)] ")" SP]``.

    PARTIAL is among the options too, so that they are never empty: ``()`` is ALL (RFC 9051, 6.4.4).
    """
    if not cursor.skip_word(b"RETURN"):
        return Options()
    cursor.space("RETURN")
    partial: tuple[int, int] | None = None
    update: tuple[FetchItem, ...] = ()

    def option() -> bytes:
        nonlocal partial, update
        word = cursor.word("a result option")
        if word not in RETURNS:
            raise BadCommand("Unknown result option")
        if word == b"PARTIAL":
            if partial is not None:
                raise BadCommand("There can be one PARTIAL")  # RFC 9394 section 3.1
            cursor.space("PARTIAL")
            partial = partial_range(cursor)
        # RFC 5465 has a space in the example of section 7 and none in the grammar of section 8
        elif word == b"UPDATE" and (cursor.skip(b" (") or cursor.skip(b"(")):
            update = parenthesised_items(cursor)
        return word

    options = frozenset(cursor.list_of(option, "result options", allow_empty=True))
    cursor.space("the result options")
    if options >= {b"ALL", b"PARTIAL"}:
        raise BadCommand("ALL and PARTIAL exclude each other")
    return Options(options or frozenset({b"ALL"}), partial, update)


def search_keys(cursor: Cursor, charset: str | None) -> SearchKey:
    """``search-key *(SP search-key)`` to the end of the command, texts being in `charset`."""
    reader, tree = KeyReader(cursor, charset), _Tree(cursor)
    while True:
        cursor.count_term()
        if tree.open():
            continue
        whole = tree.add(reader.read())
        if whole is not None:
            return whole


@dataclass(slots=True)
class _Frame:
    """An unfinished list, NOT or OR; `missing` is how many keys an OR still needs.

    An OR in place of a key of an OR makes that one need one more; a NOT in a NOT ends it.
    """

    kind: Literal["list", "not", "or"]
    missing: int = 0
    keys: list[SearchKey] = field(default_factory=list)


class _Tree:
    """What was read so far: the frames from the command down to the key that comes next."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._frames = [_Frame("list")]

    def open(self) -> bool:
        """Read what opens a frame, and say whether it was there."""
        cursor, top = self._cursor, self._frames[-1]
        if cursor.skip(b"("):
            self._push(_Frame("list"))
        elif cursor.skip_word(b"NOT"):
            cursor.space("NOT")
            if top.kind == "not":
                self._frames.pop()
            else:
                self._push(_Frame("not"))
        elif cursor.skip_word(b"OR"):
            cursor.space("OR")
            if top.kind == "or":
                top.missing += 1
            else:
                self._push(_Frame("or", missing=2))
        else:
            return False
        return True

    def _push(self, frame: _Frame) -> None:
        if len(self._frames) > self._cursor.limits.max_depth:
            raise BadCommand("The search is nested too deeply")
        self._frames.append(frame)

    def add(self, key: SearchKey) -> SearchKey | None:
        """Put `key` in its place, read what closes frames; the whole search when that ends it."""
        cursor, frames = self._cursor, self._frames
        while True:
            top = frames[-1]
            if top.kind == "not":
                key = key.key if isinstance(key, Not) else Not(key)
            elif top.kind == "or":
                top.keys.extend(key.keys if isinstance(key, Or) else (key,))
                top.missing -= 1
                if top.missing:
                    break
                key = Or(tuple(top.keys))
            else:
                top.keys.extend(key.keys if isinstance(key, And) else (key,))
                if not (cursor.at_end() if len(frames) == 1 else cursor.skip(b")")):
                    break
                key = top.keys[0] if len(top.keys) == 1 else And(tuple(top.keys))
            # The key has ended its frame, and may be the last of the one around it.
            frames.pop()
            if not frames:
                return key
        cursor.space("a search key")
        return None
