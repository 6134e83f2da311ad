"""Parses search keys and the charset of their texts (RFC 9051 section 6.4.4). `KEYS` has an entry for each key.

Rules
-----
* A charset is looked up in `CHARSETS`, and its name is never passed to Python's codec registry. For each new name the
  registry tries to import a module, and it never forgets the name.
* Keys that contain other keys are parsed with an explicit stack instead of recursion, because one line can contain NOT
  4,000 times.
* The tree of keys is flat: OR of OR becomes one `Or`, AND of AND one `And`, NOT of NOT cancels out, and a list of one
  key is that key. So the chains of OR that clients build from lists do not nest, and what does nest can be limited.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf, flags
from imapshield.wire.commands import search
from imapshield.wire.commands.search import SearchKey
from imapshield.wire.cursor import Cursor, too_many
from imapshield.wire.dates import parse_date
from imapshield.wire.grammar.fetch import field_name
from imapshield.wire.sequence import MAX_NUMBER, SequenceSet

CHARSETS: dict[bytes, str] = {
    name: name.decode("ascii")
    for name in (
        b"utf-8 iso-8859-1 iso-8859-2 iso-8859-3 iso-8859-4 iso-8859-5 iso-8859-6 iso-8859-7"
        b" iso-8859-8 iso-8859-9 iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-15 iso-8859-16"
        b" windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255"
        b" windows-1256 windows-1257 windows-1258 koi8-r koi8-u gb2312 gbk gb18030 big5 euc-jp"
        b" iso-2022-jp shift_jis euc-kr iso-2022-kr tis-620"
    ).split()
} | {b"us-ascii": "ascii", b"ascii": "ascii", b"utf8": "utf-8"}


def charset_name(cursor: Cursor) -> str:
    """Read ``charset SP``; return the name of Python's codec.

    Raises:
        CommandRefused: the charset is not supported (BADCHARSET).
    """
    charset = CHARSETS.get(cursor.astring("a charset").lower())
    if charset is None:
        raise CommandRefused(b"BADCHARSET (US-ASCII UTF-8)", "Unsupported charset")
    cursor.space("the charset")
    return charset


class KeyReader:
    """Reads the keys of one search. Each method reads the argument of a key, after the name of the key and its space.

    Without a `charset` texts are UTF-8, as RFC 9051 says; it includes the US-ASCII of RFC 3501.
    """

    __slots__ = ("_charset", "_text_keys_left", "cursor")

    def __init__(self, cursor: Cursor, charset: str | None) -> None:
        self.cursor = cursor
        self._charset = charset or "utf-8"
        self._text_keys_left = cursor.limits.max_text_keys

    def read(self, name: bytes | None) -> SearchKey:
        """Read one key after its `name`, which is in upper case; without one, a sequence set."""
        if name is None:
            return search.SequenceKey(self.cursor.sequence_set())
        key = KEYS.get(name)
        if key is None:
            raise BadCommand("Unknown search key")
        if isinstance(key, SearchKey):
            return key
        self.cursor.space(name.decode("ascii"))
        return key(self)

    def keyword(self) -> search.FlagKey:
        """Read ``flag-keyword``, quoted or not: npm's emailjs-imap-client quotes everything it searches for."""
        word = self.cursor.astring("a keyword")
        if not abnf.ATOM.fullmatch(word):
            raise BadCommand("Expected a keyword without spaces and special characters")
        return search.FlagKey(flags.canonical_flag(word))

    def text(self) -> str:
        """Read an astring; return it decoded.

        JavaMail 1.6 enables UTF8=ACCEPT and sends Latin-1 all the same.
        """
        octets = self.cursor.encoded_text("a text to search for")
        try:
            return octets.decode(self._charset)
        except UnicodeDecodeError:
            if self.cursor.names.utf8 and self._charset == "utf-8":
                return octets.decode("latin-1")
            raise BadCommand("The search text is not valid in its charset") from None

    def body_text(self) -> str:
        """Read an astring that is searched for in the body of every message."""
        self._text_keys_left -= 1
        if self._text_keys_left < 0:
            text = too_many("BODY and TEXT keys in one search", self.cursor.limits.max_text_keys)
            raise BadCommand(text)
        return self.text()

    def header(self) -> search.HeaderKey:
        """Read ``header-fld-name SP astring``; the name in upper case."""
        name = field_name(self.cursor).upper()
        self.cursor.space("the header field")
        return search.HeaderKey(name, self.text())

    def envelope(self, field: bytes) -> search.EnvelopeKey:
        """Read the text of FROM, TO, CC, BCC or SUBJECT."""
        return search.EnvelopeKey(field, self.text())

    def date(self, comparison: bytes, field: bytes) -> search.DateKey:
        """Read ``date = date-text / DQUOTE date-text DQUOTE``."""
        return search.DateKey(comparison, parse_date(self.cursor.astring("a date")), field)

    def size(self, larger: bool) -> search.SizeKey:
        """Read ``number64``."""
        return search.SizeKey(larger, self.cursor.number64("a size in bytes"))

    def age(self, younger: bool) -> search.AgeKey:
        """Read ``nz-number``, the seconds of OLDER or YOUNGER (RFC 5032)."""
        return search.AgeKey(younger, self.cursor.nz_number("a number of seconds"))

    def modseq(self) -> search.ModseqKey:
        """Read ``[entry-name SP entry-type-req SP] mod-sequence-valzer`` (RFC 7162).

        A message here has one MODSEQ for all of its flags, so the entry is ignored.
        """
        if self.cursor.peek() == b'"':
            self.cursor.quoted("an entry name")
            self.cursor.space("the entry name")
            self.cursor.word_in((b"PRIV", b"SHARED", b"ALL"), "priv, shared or all")
            self.cursor.space("the entry type")
        return search.ModseqKey(self.cursor.number64("a MODSEQ"))

    def uid_range(self, *, after: bool) -> search.SequenceKey:
        """Read a UID; return the key for all UIDs after it, or before it."""
        uid = self.cursor.nz_number("a UID")
        first, last = (uid + 1, MAX_NUMBER) if after else (1, uid - 1)
        ranges = ((first, last),) if first <= last else ()
        return search.SequenceKey(SequenceSet(ranges), uid=True)

    def object_id(self, is_thread_id: bool) -> search.ObjectIdKey:
        """Read ``objectid`` (RFC 8474)."""
        return search.ObjectIdKey(
            is_thread_id, self.cursor.match(abnf.OBJECTID, "an object identifier")
        )


_RECENT = search.FlagKey(flags.RECENT)
_EVERY_MESSAGE = search.And(())
_HAS_FLAG = {flag[1:].upper(): search.FlagKey(flag) for flag in flags.SYSTEM_FLAGS}

KEYS: dict[bytes, SearchKey | Callable[[KeyReader], SearchKey]] = {
    b"ALL": _EVERY_MESSAGE,
    b"SAVEDATESUPPORTED": _EVERY_MESSAGE,  # of a store with save dates (RFC 8514)
    **_HAS_FLAG,
    **{b"UN" + name: search.Not(key) for name, key in _HAS_FLAG.items()},
    b"RECENT": _RECENT,
    b"OLD": search.Not(_RECENT),
    b"NEW": search.And((_RECENT, search.Not(_HAS_FLAG[b"SEEN"]))),
    b"KEYWORD": KeyReader.keyword,
    b"UNKEYWORD": lambda reader: search.Not(reader.keyword()),
    b"UID": lambda reader: search.SequenceKey(reader.cursor.sequence_set(), uid=True),
    # RFC 9738 section 3.2, for searches that continue where MESSAGELIMIT ended them
    b"UIDAFTER": partial(KeyReader.uid_range, after=True),
    b"UIDBEFORE": partial(KeyReader.uid_range, after=False),
    **{
        field: partial(KeyReader.envelope, field=field)
        for field in (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT")
    },
    b"HEADER": KeyReader.header,
    b"BODY": lambda reader: search.TextKey(reader.body_text()),
    b"TEXT": lambda reader: search.TextKey(reader.body_text(), headers=True),
    **{
        prefix + comparison: partial(KeyReader.date, comparison=comparison, field=field)
        for prefix, field in ((b"", b"INTERNAL"), (b"SENT", b"SENT"), (b"SAVED", b"SAVED"))
        for comparison in (b"BEFORE", b"ON", b"SINCE")
    },
    b"LARGER": partial(KeyReader.size, larger=True),
    b"SMALLER": partial(KeyReader.size, larger=False),
    b"OLDER": partial(KeyReader.age, younger=False),
    b"YOUNGER": partial(KeyReader.age, younger=True),
    b"MODSEQ": KeyReader.modseq,
    b"EMAILID": partial(KeyReader.object_id, is_thread_id=False),
    b"THREADID": partial(KeyReader.object_id, is_thread_id=True),
}


def search_keys(cursor: Cursor, charset: str | None) -> SearchKey:
    """``search-key *(SP search-key)`` up to the end of the command; the texts in it are in `charset`."""
    reader, tree = KeyReader(cursor, charset), _KeyTree(cursor)
    while True:
        cursor.count_term()
        word = cursor.try_match(abnf.WORD)
        name = None if word is None else word.upper()
        if tree.open_frame(name):
            continue
        root = tree.add(reader.read(name))
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

    def open_frame(self, name: bytes | None) -> bool:
        """Open a frame if `name`, the word that was read, is NOT or OR, or if a parenthesis comes next without a word.

        Returns:
            Whether there was one of them.
        """
        cursor, top = self._cursor, self._frames[-1]
        if name is None:
            if not cursor.skip(b"("):
                return False
            self._push(_Frame("list"))
        elif name == b"NOT":
            cursor.space("NOT")
            if top.kind == "not":
                self._frames.pop()
            else:
                self._push(_Frame("not"))
        elif name == b"OR":
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
            raise BadCommand(too_many("nested search keys", self._cursor.limits.max_depth))
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
                key = key.key if isinstance(key, search.Not) else search.Not(key)
            elif top.kind == "or":
                top.keys.extend(key.keys if isinstance(key, search.Or) else (key,))
                top.missing -= 1
                if top.missing:
                    break
                key = search.Or(tuple(top.keys))
            else:
                top.keys.extend(key.keys if isinstance(key, search.And) else (key,))
                if not (cursor.at_end() if len(frames) == 1 else cursor.skip(b")")):
                    break
                key = top.keys[0] if len(top.keys) == 1 else search.And(tuple(top.keys))
            # `key` has completed its frame, and may complete the frame around it too.
            frames.pop()
            if not frames:
                return key
        cursor.space("a search key")
        return None
