"""SEARCH and CANCELUPDATE, and the parts of SEARCH that SORT, THREAD and ESEARCH share.

Rules
-----
* Search keys are parsed with an explicit stack instead of recursion: 4,000 times NOT is a long line, but no deep
  stack.
* The tree of keys is flat: OR of OR becomes one `Or`, AND of AND one `And`, NOT of NOT cancels out, and a list of one
  key is that key. So the chains of OR that clients build from lists do not nest, and what does nest can be limited.
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

RESULT_OPTIONS = frozenset(b"MIN MAX ALL COUNT SAVE PARTIAL UPDATE CONTEXT".split())
"""CONTEXT is only a hint (RFC 5267 section 4.2), which this server does not need."""


class SaveRefused(CommandRefused):
    """A search with SAVE is refused: the session must also empty the saved result (RFC 5182 section 2.1)."""


class ResultOptions(NamedTuple):
    """The result options of a search; `Search` describes the fields."""

    returns: frozenset[bytes] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


def search(cursor: Cursor, *, uid: bool = False) -> Search:
    """``search = "SEARCH" [SP search-return-opts] SP search-program``."""
    cursor.space("SEARCH")
    options = result_options(cursor)
    key, charset = search_program(cursor, options)
    return Search(key, uid, options.returns, options.partial, charset, options.update_items)


def cancel_update(cursor: Cursor) -> CancelUpdate:
    """``cancelupdate = "CANCELUPDATE" 1*(SP quoted)`` (RFC 5267)."""
    tags: list[bytes] = []
    while not tags or not cursor.at_end():
        cursor.space("CANCELUPDATE and each tag")
        cursor.count_term()
        tags.append(cursor.quoted("a tag"))
    return CancelUpdate(tuple(tags))


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
        word = cursor.word("a result option")
        if word not in RESULT_OPTIONS:
            raise BadCommand("Unknown result option")
        if word == b"PARTIAL":
            if partial is not None:
                raise BadCommand("PARTIAL may be given only once")  # RFC 9394 section 3.1
            cursor.space("PARTIAL")
            partial = partial_range(cursor)
        # RFC 5465 has a space here in the example of section 7, and none in the grammar of section 8.
        elif word == b"UPDATE" and (cursor.skip(b" (") or cursor.skip(b"(")):
            update = parenthesised_items(cursor)
        return word

    options = frozenset(cursor.list_of(option, "result options", allow_empty=True))
    cursor.space("the result options")
    if options >= {b"ALL", b"PARTIAL"}:
        raise BadCommand("ALL and PARTIAL cannot be combined")
    return ResultOptions(options or frozenset({b"ALL"}), partial, update)


def search_program(cursor: Cursor, options: ResultOptions) -> tuple[SearchKey, bool]:
    """``search-program = ["CHARSET" SP charset SP] search-keys``; return the key, and whether there was a charset."""
    charset = None
    if cursor.skip_word(b"CHARSET"):
        cursor.space("CHARSET")
        charset = known_charset(cursor, options)
    return search_keys(cursor, charset), charset is not None


def search_keys(cursor: Cursor, charset: str | None) -> SearchKey:
    """``search-key *(SP search-key)`` up to the end of the command; the texts in it are in `charset`."""
    reader, tree = KeyReader(cursor, charset), _KeyTree(cursor)
    while True:
        cursor.count_term()
        if tree.open_frame():
            continue
        root = tree.add(reader.read())
        if root is not None:
            return root


@dataclass(slots=True)
class _Frame:
    """An unfinished list, NOT or OR.

    `missing` is the number of keys that an OR still needs. An OR inside an OR does not open a frame: it only makes the
    outer OR need one key more. A NOT inside a NOT closes the outer one.
    """

    kind: Literal["list", "not", "or"]
    missing: int = 0
    keys: list[SearchKey] = field(default_factory=list)


class _KeyTree:
    """The tree read so far, as the stack of frames from the command down to the next key."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._frames = [_Frame("list")]

    def open_frame(self) -> bool:
        """Read a parenthesis, NOT or OR if one comes next, and return whether one did."""
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
        """Add `key` to the innermost frame and close the frames that it completes.

        Returns:
            The root of the tree when the search is complete, else None.
        """
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
            # `key` has completed its frame, and may complete the frame around it too.
            frames.pop()
            if not frames:
                return key
        cursor.space("a search key")
        return None
