"""Parses the search keys that contain no other keys, and the charset of their texts. `KEYS` has an entry for each key.

Rules
-----
* A charset is looked up in `CHARSETS`, never passed to Python: for each new name Python imports a module, and it keeps
  the name for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf, flags
from imapshield.wire.commands.search_keys import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    ObjectIdKey,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
)
from imapshield.wire.cursor import Cursor
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
    """Reads the keys of one search; each method reads the space and the argument after the name of a key.

    Without a `charset` texts are UTF-8, as RFC 9051 says; it includes the US-ASCII of RFC 3501.
    """

    __slots__ = ("_charset", "_cursor", "_text_keys_left")

    def __init__(self, cursor: Cursor, charset: str | None) -> None:
        self._cursor = cursor
        self._charset = charset or "utf-8"
        self._text_keys_left = cursor.limits.max_text_keys

    def read(self) -> SearchKey:
        """Read one key."""
        word = self._cursor.try_match(abnf.WORD)
        if word is None:
            return SequenceKey(self._sequence())
        parser = KEYS.get(word.upper())
        if parser is None:
            raise BadCommand("Unknown search key")
        return parser(self)

    def _sequence(self) -> SequenceSet | None:
        sequence = self._cursor.sequence_set()
        return None if sequence.saved else sequence

    def uids(self) -> SequenceSet | None:
        """Read a sequence set; None is ``$``."""
        self._cursor.space("UID")
        return self._sequence()

    def keyword(self) -> FlagKey:
        """Read ``flag-keyword``, quoted or not: npm's emailjs-imap-client quotes everything it searches for."""
        self._cursor.space("KEYWORD or UNKEYWORD")
        word = self._cursor.astring("a keyword")
        if not abnf.ATOM.fullmatch(word):
            raise BadCommand("Expected a keyword without spaces and special characters")
        return FlagKey(flags.canonical_flag(word))

    def text(self, after: str = "the search key") -> str:
        """Read an astring; return it decoded."""
        self._cursor.space(after)
        octets = self._cursor.astring("a text to search for")
        try:
            return octets.decode(self._charset)
        except UnicodeDecodeError:
            raise BadCommand("The search text is not valid in its charset") from None

    def body_text(self) -> str:
        """Read an astring that is searched for in the body of every message."""
        self._text_keys_left -= 1
        if self._text_keys_left < 0:
            raise BadCommand("Too many BODY and TEXT keys in one search")
        return self.text()

    def header(self) -> HeaderKey:
        """Read ``header-fld-name SP astring``; the name in upper case."""
        self._cursor.space("HEADER")
        return HeaderKey(field_name(self._cursor).upper(), self.text("the header field"))

    def date(self, comparison: bytes, field: bytes) -> DateKey:
        """Read ``date = date-text / DQUOTE date-text DQUOTE``."""
        self._cursor.space("the search key")
        return DateKey(comparison, parse_date(self._cursor.astring("a date")), field)

    def size(self) -> int:
        """Read ``number64``."""
        self._cursor.space("LARGER or SMALLER")
        return self._cursor.number64("a size in bytes")

    def seconds(self) -> int:
        """Read ``nz-number``."""
        self._cursor.space("OLDER or YOUNGER")
        return self._cursor.nz_number("a number of seconds")

    def modseq(self) -> ModseqKey:
        """Read ``[entry-name SP entry-type-req SP] mod-sequence-valzer`` (RFC 7162).

        A message here has one MODSEQ for all of its flags, so the entry is ignored.
        """
        self._cursor.space("MODSEQ")
        if self._cursor.peek() == b'"':
            self._cursor.quoted("an entry name")
            self._cursor.space("the entry name")
            if self._cursor.word("an entry type") not in (b"PRIV", b"SHARED", b"ALL"):
                raise BadCommand("Unknown entry type: expected priv, shared or all")
            self._cursor.space("the entry type")
        return ModseqKey(self._cursor.number64("a MODSEQ"))

    def uid_range(self, *, after: bool) -> SequenceKey:
        """Read a UID; return the key for all UIDs after it, or before it."""
        self._cursor.space("UIDAFTER or UIDBEFORE")
        uid = self._cursor.nz_number("a UID")
        first, last = (uid + 1, MAX_NUMBER) if after else (1, uid - 1)
        ranges = ((first, last),) if first <= last else ()
        return SequenceKey(SequenceSet(ranges), uid=True)

    def object_id(self) -> bytes:
        """Read ``objectid`` (RFC 8474)."""
        self._cursor.space("EMAILID or THREADID")
        return self._cursor.match(abnf.OBJECTID, "an object identifier")


def _constant(key: SearchKey) -> Callable[[KeyReader], SearchKey]:
    return lambda _reader: key


def _envelope(word: bytes) -> Callable[[KeyReader], SearchKey]:
    return lambda reader: EnvelopeKey(word, reader.text())


def _date(comparison: bytes, field: bytes) -> Callable[[KeyReader], SearchKey]:
    return lambda reader: reader.date(comparison, field)


_RECENT = FlagKey(flags.RECENT)

KEYS: dict[bytes, Callable[[KeyReader], SearchKey]] = {
    b"ALL": _constant(And(())),
    **{flag[1:].upper(): _constant(FlagKey(flag)) for flag in flags.SYSTEM_FLAGS},
    **{b"UN" + flag[1:].upper(): _constant(Not(FlagKey(flag))) for flag in flags.SYSTEM_FLAGS},
    b"RECENT": _constant(_RECENT),
    b"OLD": _constant(Not(_RECENT)),
    b"NEW": _constant(And((_RECENT, Not(FlagKey(flags.SEEN))))),
    b"KEYWORD": KeyReader.keyword,
    b"UNKEYWORD": lambda reader: Not(reader.keyword()),
    b"UID": lambda reader: SequenceKey(reader.uids(), uid=True),
    # RFC 9738 section 3.2, for searches that continue where MESSAGELIMIT ended them
    b"UIDAFTER": lambda reader: reader.uid_range(after=True),
    b"UIDBEFORE": lambda reader: reader.uid_range(after=False),
    **{word: _envelope(word) for word in (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT")},
    b"HEADER": KeyReader.header,
    b"BODY": lambda reader: TextKey(reader.body_text()),
    b"TEXT": lambda reader: TextKey(reader.body_text(), headers=True),
    **{
        prefix + comparison: _date(comparison, field)
        for prefix, field in ((b"", b"INTERNAL"), (b"SENT", b"SENT"), (b"SAVED", b"SAVED"))
        for comparison in (b"BEFORE", b"ON", b"SINCE")
    },
    b"SAVEDATESUPPORTED": _constant(
        And(())
    ),  # RFC 8514: matches every message of a store with save dates
    b"LARGER": lambda reader: SizeKey(larger=True, size=reader.size()),
    b"SMALLER": lambda reader: SizeKey(larger=False, size=reader.size()),
    b"OLDER": lambda reader: AgeKey(younger=False, seconds=reader.seconds()),
    b"YOUNGER": lambda reader: AgeKey(younger=True, seconds=reader.seconds()),
    b"MODSEQ": KeyReader.modseq,
    b"EMAILID": lambda reader: ObjectIdKey(is_thread_id=False, id=reader.object_id()),
    b"THREADID": lambda reader: ObjectIdKey(is_thread_id=True, id=reader.object_id()),
}
