"""Reads one command from left to right: each method of `Cursor` reads one element, or raises `BadCommand`.

Rules
-----
* Text and literals alternate: each literal follows the text before it. Framing has limited the size of both.
* No method goes back, so a command costs time in proportion to its length. Counts and nesting are limited for the
  whole command (`GrammarLimits`), however the client spreads them over its parts.
* Error texts say what was expected, and name the limit if one is exceeded. They never quote the client.
"""

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TypeVar

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.flags import canonical_flag
from imapshield.wire.names import MODIFIED_UTF7, NameFormat
from imapshield.wire.sequence import MAX_NUMBER, SAVED, SequenceSet

T = TypeVar("T")

Parts = Sequence[bytes | LiteralData]
"""The texts (bytes) and literals of a command, alternately. The first is a text."""

MAX_NUMBER64 = 0x7FFFFFFFFFFFFFFF
"""The largest ``number64`` (RFC 9051 section 9)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GrammarLimits:
    """The largest counts and sizes that one command may have, besides its size on the wire."""

    max_depth: int = 50
    """Nested parentheses, NOT and OR. Clients need about four, because chains of OR do not nest (see
    `grammar.search_keys`). Code that walks the result may recurse this deep."""

    max_terms: int = 5000
    """List elements and search keys of the command together. Synchronisation tools search for hundreds of Message-IDs
    at once."""

    max_ranges: int = 40_000
    """Numbers and ranges in the sequence sets of the command: a line of 64 KiB full of one-digit numbers has 32,768."""

    max_fetch_items: int = 250
    """Different FETCH items, and URLs of CATENATE: each of them may be the whole message once more. Header fields are
    not counted."""

    max_string_size: int = 64 << 10
    """Bytes of a string, quoted or literal. Sessions use the larger one of `Limits.max_literal_size` and
    `Limits.max_metadata_size`."""

    max_patterns: int = 32
    """Patterns of one LIST, event groups of one NOTIFY, mailbox filters of one ESEARCH. Each is matched against every
    mailbox name. Clients send one or two."""

    max_pattern_length: int = 1000
    """Characters of a LIST pattern. For each character of each name the matcher computes with an integer of as many
    bits. Names are not longer than this, so a longer pattern matches none."""

    max_text_keys: int = 50
    """BODY and TEXT keys of one search: each may read every message. Clients send one for each word of the user."""

    max_append_messages: int = 1000
    """Messages of one MULTIAPPEND."""


DEFAULT_LIMITS = GrammarLimits()


def too_many(what: str, limit: int) -> str:
    """Return the text for a command that has more than `limit` of something."""
    return f"Too many {what}: the limit is {limit}"


_SPACES_TO_END = re.compile(rb" *\Z")


class Cursor:
    """A position in one command.

    The parameter `expected` of a method is the noun of its error text: "Expected a mailbox name". A method that cannot
    read its element raises `BadCommand`.

    Args:
        parts: the command, after its tag.
        limits: what the command may contain.
        names: how the client writes mailbox names.
    """

    def __init__(
        self,
        parts: Parts,
        limits: GrammarLimits = DEFAULT_LIMITS,
        names: NameFormat = MODIFIED_UTF7,
    ) -> None:
        self.limits = limits
        self.names = names
        self._depth = 0
        self._parts = parts
        self._index = -1
        self._terms_left = limits.max_terms
        self._ranges_left = limits.max_ranges
        self._next_text()

    def _next_text(self) -> None:
        self._index += 1
        self._position = 0
        text = self._parts[self._index] if self._index < len(self._parts) else b""
        if not isinstance(text, bytes):
            raise BadCommand("Expected a space between two literals")
        self._text = text

    def peek(self) -> bytes:
        """Return the next byte; b"" before a literal and at the end."""
        return self._text[self._position : self._position + 1]

    def rest(self) -> bytes | None:
        """Return the text up to the end of the command, None if it contains literals. Reads nothing."""
        return self._text[self._position :] if self._index + 1 == len(self._parts) else None

    def next_matches(self, rule: re.Pattern[bytes]) -> bool:
        """Whether `rule` matches here. Reads nothing."""
        return rule.match(self._text, self._position) is not None

    def at_literal(self) -> bool:
        """Whether a literal comes next."""
        return self._position == len(self._text) and self._index + 1 < len(self._parts)

    def at_end(self) -> bool:
        """Whether only spaces are left. Several clients send spaces at the end of a command."""
        if self._index + 1 < len(self._parts):
            return False
        return _SPACES_TO_END.match(self._text, self._position) is not None

    def expect_end(self) -> None:
        """Require the end of the command."""
        if not self.at_end():
            raise BadCommand("Unexpected arguments at the end of the command")

    def space(self, after: str) -> None:
        """Read one space; `after` names the element before it."""
        if not self.skip(b" "):
            raise BadCommand(f"Expected a space after {after}")

    def skip(self, token: bytes) -> bool:
        """Read `token` if it comes next, and return whether it did. Compares case-sensitively."""
        if self._text.startswith(token, self._position):
            self._position += len(token)
            return True
        return False

    def skip_word(self, word: bytes) -> bool:
        """Read `word` (given in upper case) if it is the next word, in any case, and return whether it was."""
        found = abnf.WORD.match(self._text, self._position)
        if found is None or found[0].upper() != word:
            return False
        self._position = found.end()
        return True

    def expect(self, token: bytes, message: str) -> None:
        """Read `token`, or raise `BadCommand` with `message`."""
        if not self.skip(token):
            raise BadCommand(message)

    def match(self, rule: re.Pattern[bytes], expected: str) -> bytes:
        """Read what `rule` matches here."""
        text = self.try_match(rule)
        if text is None:
            raise BadCommand(f"Expected {expected}")
        return text

    def try_match(self, rule: re.Pattern[bytes]) -> bytes | None:
        """Read what `rule` matches here; None if it does not match."""
        found = rule.match(self._text, self._position)
        if found is None:
            return None
        self._position = found.end()
        return found[0]

    def word(self, expected: str) -> bytes:
        """Read a word of the protocol; return it in upper case."""
        return self.match(abnf.WORD, expected).upper()

    def word_in(self, words: Container[bytes], expected: str) -> bytes:
        """Read one of `words`, which are in upper case; return it in upper case."""
        word = self.word(expected)
        if word not in words:
            raise BadCommand(f"Unknown word: expected {expected}")
        return word

    def count_term(self) -> None:
        """Count one list element or search key, of which a command has at most `GrammarLimits.max_terms`."""
        self._terms_left -= 1
        if self._terms_left < 0:
            raise BadCommand(too_many("parts in one command", self.limits.max_terms))

    def list_of(
        self, item: Callable[[], T], expected: str, *, allow_empty: bool = False
    ) -> list[T]:
        """Read ``"(" item *(SP item) ")"``, or ``()`` if `allow_empty`; `item` reads one element."""
        self.expect(b"(", f"Expected a parenthesised list of {expected}")
        self._depth += 1
        if self._depth > self.limits.max_depth:
            raise BadCommand(too_many("nested lists", self.limits.max_depth))
        items: list[T] = []
        if not (allow_empty and self.skip(b")")):
            while True:
                self.count_term()
                items.append(item())
                if self.skip(b")"):
                    break
                if not self.skip(b" "):
                    raise BadCommand(f"Expected a space or ) in the list of {expected}")
        self._depth -= 1
        return items

    def list_to_end(self, item: Callable[[], T], expected: str) -> list[T]:
        """Read ``item *(SP item)`` up to the end of the command; `item` reads one element, which `expected` names."""
        items: list[T] = []
        while True:
            self.count_term()
            items.append(item())
            if self.at_end():
                return items
            self.space(f"each {expected}")

    def atom(self, expected: str) -> bytes:
        """Read ``atom``."""
        return self.match(abnf.ATOM, expected)

    def astring(self, expected: str) -> bytes:
        """Read ``astring = 1*ASTRING-CHAR / string``."""
        return self._string_or(abnf.ASTRING_ATOM, expected)

    def encoded_text(self, expected: str) -> bytes:
        """Read ``astring`` in a charset that the caller knows: unlike other strings it need not be UTF-8."""
        if self.peek() == b'"':
            return self._quoted(expected)
        return self.astring(expected)

    def list_mailbox(self, expected: str) -> bytes:
        """Read ``list-mailbox = 1*list-char / string``."""
        return self._string_or(abnf.LIST_ATOM, expected)

    def mailbox(self, expected: str = "a mailbox name") -> str:
        """Read ``mailbox``; return it decoded, with INBOX in upper case.

        Raises:
            CommandRefused: no mailbox can have this name. The command itself keeps the grammar, so it is not BAD.
        """
        name = self.astring(expected)
        try:
            return self.names.decode(name)
        except BadCommand as error:
            raise CommandRefused(b"CANNOT", error.text) from None

    def flag(self) -> bytes:
        """Read ``flag``; return it in its canonical spelling."""
        return canonical_flag(self.match(abnf.FLAG, "a flag"))

    def nstring(self, expected: str) -> bytes | None:
        """Read ``nstring = string / nil``; None is NIL."""
        if self.skip_word(b"NIL"):
            return None
        return self.string(expected)

    def string(self, expected: str) -> bytes:
        """Read ``string = quoted / literal``; return its content."""
        if self.peek() == b'"':
            return self.quoted(expected)
        if not self.at_literal():
            raise BadCommand(f"Expected {expected}")
        literal = self.small_literal(expected)
        if literal.binary:
            raise BadCommand(f"Expected {expected}, not a binary literal")
        content = literal.read(0, literal.size)
        if b"\0" in content:
            raise BadCommand(f"Expected {expected}, but the literal contains NUL")
        return content

    def quoted(self, expected: str) -> bytes:
        """Read ``quoted``; return its content without escapes.

        It must be valid UTF-8 if the client enabled UTF-8 in quoted strings (RFC 6855 section 3). Other clients send
        passwords in Latin-1.
        """
        content = self._quoted(expected)
        if self.names.utf8 and not content.isascii():
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                raise BadCommand(f"Expected {expected} in UTF-8") from None
        return content

    def _quoted(self, expected: str) -> bytes:
        content = self.match(abnf.QUOTED, f"{expected} in double quotes")[1:-1]
        if len(content) > self.limits.max_string_size:
            raise self._too_large("String")
        # A substitution for each escape would take 16 ms for 64 KiB of them.
        return b"\\".join([p.replace(b"\\", b"") for p in content.split(b"\\\\")])

    def literal(self, expected: str) -> LiteralData:
        """Read a literal of any size and kind, without reading its content."""
        if not self.at_literal():
            raise BadCommand(f"Expected {expected} as a literal")
        literal = self._parts[self._index + 1]
        if isinstance(literal, bytes):
            raise BadCommand(f"Expected {expected} as a literal")
        self._index += 1
        self._next_text()
        return literal

    def small_literal(self, expected: str) -> LiteralData:
        """Read a literal of any kind and at most `GrammarLimits.max_string_size` bytes, without reading its content."""
        literal = self.literal(expected)
        if literal.size > self.limits.max_string_size:
            raise self._too_large("Literal")
        return literal

    def _too_large(self, subject: str) -> BadCommand:
        limit = self.limits.max_string_size
        return BadCommand(f"{subject} too large: the limit is {limit} bytes")

    def number(self, expected: str) -> int:
        """Read ``number``, 32 bits."""
        return self._number(expected, 0, MAX_NUMBER)

    def number64(self, expected: str) -> int:
        """Read ``number64``, 63 bits."""
        return self._number(expected, 0, MAX_NUMBER64)

    def nz_number(self, expected: str) -> int:
        """Read ``nz-number``, 32 bits."""
        return self._number(expected, 1, MAX_NUMBER)

    def nz_number64(self, expected: str) -> int:
        """Read ``nz-number64``, 63 bits."""
        return self._number(expected, 1, MAX_NUMBER64)

    def sequence_set(self, *, allow_saved: bool = True) -> SequenceSet:
        """Read ``sequence-set``, or ``$`` as `sequence.SAVED` if `allow_saved`."""
        if allow_saved and self.skip(b"$"):
            return SAVED
        text = self.match(abnf.SEQUENCE, "a sequence set such as 1:5,7")
        self._ranges_left -= text.count(b",") + 1
        if self._ranges_left < 0:
            raise BadCommand(too_many("message numbers in one command", self.limits.max_ranges))
        return SequenceSet.parse(text)

    def _string_or(self, rule: re.Pattern[bytes], expected: str) -> bytes:
        text = self.try_match(rule)
        return self.string(expected) if text is None else text

    def _number(self, expected: str, minimum: int, maximum: int) -> int:
        digits = self.match(abnf.DIGITS, expected)
        # No permitted number has more than twenty digits. int() of a whole line would be slow, and of more than
        # 4300 digits it raises ValueError.
        number = int(digits) if len(digits) <= 20 else maximum + 1
        if not minimum <= number <= maximum:
            raise BadCommand(f"Expected {expected} between {minimum} and {maximum}")
        return number
