"""SEARCH: keys → one tree of values, small and flat.

Rules
-----
* A stack of our own and no recursion: 4,000 times NOT is a long line, not a deep stack.
* The tree has one form: OR of OR is one `AnyOf`, AND of AND one `AllOf`, NOT of NOT nothing, and
  one key alone is itself. So the chains of OR that clients build of lists do not nest, and what
  does nest may be refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from imapshield.errors import Malformed
from imapshield.wire.commands import AllOf, AnyOf, CancelUpdate, Not, Search, SearchKey
from imapshield.wire.cursor import Cursor
from imapshield.wire.grammar.fetch import partial_range
from imapshield.wire.grammar.keys import KeyReader, charset_name

RETURNS = frozenset(b"MIN MAX ALL COUNT SAVE PARTIAL".split())
CONTEXTS = frozenset({b"UPDATE", b"CONTEXT"})
"""What RFC 5267 adds for the selected mailbox; CONTEXT alone is a hint that we have no need of."""


def search(cursor: Cursor, *, uid: bool = False) -> Search:
    """``search = "SEARCH" [SP search-return-opts] SP search-program``."""
    cursor.sp("SEARCH")
    returns, partial = return_options(cursor, RETURNS | CONTEXTS)
    charset = None
    if cursor.keyword(b"CHARSET"):
        cursor.sp("CHARSET")
        charset = charset_name(cursor)
    keys = search_keys(cursor, charset)
    return Search(keys, uid, returns, partial, charset=charset is not None)


def cancel_update(cursor: Cursor) -> CancelUpdate:
    """``"CANCELUPDATE" 1*(SP quoted)`` (RFC 5267)."""
    tags: list[bytes] = []
    while not tags or not cursor.at_end():
        cursor.sp("CANCELUPDATE and each tag")
        cursor.spend()
        tags.append(cursor.quoted("a tag"))
    return CancelUpdate(tuple(tags))


def return_options(
    cursor: Cursor, known: frozenset[bytes] = RETURNS
) -> tuple[frozenset[bytes] | None, tuple[int, int] | None]:
    """``["RETURN" SP "(" [option *(SP option)] ")" SP]``, and PARTIAL's range.

    PARTIAL is among the options too, so that they are never empty: ``()`` is ALL (RFC 9051, 6.4.4).
    """
    if not cursor.keyword(b"RETURN"):
        return None, None
    cursor.sp("RETURN")
    partial: tuple[int, int] | None = None

    def option() -> bytes:
        nonlocal partial
        word = cursor.word("a result option")
        if word not in known:
            raise Malformed("Unknown result option")
        if word == b"PARTIAL":
            cursor.sp("PARTIAL")
            partial = partial_range(cursor)
        return word

    options = frozenset(cursor.list_of(option, "result options", empty=True))
    cursor.sp("the result options")
    if options >= {b"ALL", b"PARTIAL"}:
        raise Malformed("ALL and PARTIAL exclude each other")
    return options or frozenset({b"ALL"}), partial


def search_keys(cursor: Cursor, charset: str | None) -> SearchKey:
    """``search-key *(SP search-key)`` to the end of the command, texts being in `charset`."""
    reader, tree = KeyReader(cursor, charset), _Tree(cursor)
    while True:
        cursor.spend()
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
        elif cursor.keyword(b"NOT"):
            cursor.sp("NOT")
            if top.kind == "not":
                self._frames.pop()
            else:
                self._push(_Frame("not"))
        elif cursor.keyword(b"OR"):
            cursor.sp("OR")
            if top.kind == "or":
                top.missing += 1
            else:
                self._push(_Frame("or", missing=2))
        else:
            return False
        return True

    def _push(self, frame: _Frame) -> None:
        if len(self._frames) > self._cursor.limits.depth:
            raise Malformed("The search is nested too deeply")
        self._frames.append(frame)

    def add(self, key: SearchKey) -> SearchKey | None:
        """Put `key` in its place, read what closes frames; the whole search when that ends it."""
        cursor, frames = self._cursor, self._frames
        while True:
            top = frames[-1]
            if top.kind == "not":
                key = key.key if isinstance(key, Not) else Not(key)
            elif top.kind == "or":
                top.keys.extend(key.keys if isinstance(key, AnyOf) else (key,))
                top.missing -= 1
                if top.missing:
                    break
                key = AnyOf(tuple(top.keys))
            else:
                top.keys.extend(key.keys if isinstance(key, AllOf) else (key,))
                if not (cursor.at_end() if len(frames) == 1 else cursor.skip(b")")):
                    break
                key = top.keys[0] if len(top.keys) == 1 else AllOf(tuple(top.keys))
            # The key has ended its frame, and may be the last of the one around it.
            frames.pop()
            if not frames:
                return key
        cursor.sp("a search key")
        return None
