"""A place in one command: each method reads one thing and moves on, or is Malformed.

Rules
-----
* Text and literals alternate; a literal stands where its text piece ends. Framing bounded the
octets of both.
* No method goes back, so a command costs its length. Counts and depth have allowances
(`GrammarLimits`), spent for
  the whole command, however the client spread them over its parts.
* Errors are ours: they name what was expected, and never quote what came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.base import LiteralData
from imapshield.wire.flags import canonical_flag
from imapshield.wire.names import decode_name
from imapshield.wire.sequence import SAVED, SequenceSet

T = TypeVar("T")

MAX_NUMBER = 0xFFFFFFFF
MAX_NUMBER64 = 0x7FFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """What one command may hold, beyond its octets."""

    max_depth: int = 50
    """Nested parentheses, NOT and OR. Chains of OR do not nest (see `grammar.search`), so people
    need about four; whoever walks the result may recurse this deep."""

    max_terms: int = 5000
    """List elements and search keys. Message-ID searches of sync tools have hundreds."""

    max_ranges: int = 40_000
    """Elements of sequence sets: a 64 KiB line full of one-digit numbers has 32,768."""

    max_fetch_items: int = 250
    """Different FETCH items, each of which may be the whole message once more. Header fields are
    not counted."""

    max_string_size: int = 64 << 10
    """Octets of a string, quoted or literal, as `Limits.max_literal_size`."""

    max_patterns: int = 32
    """Patterns of one LIST, groups of one NOTIFY, sources of one ESEARCH: each is tried on each
    mailbox, and people need two."""

    max_pattern_length: int = 1000
    """Characters of a LIST pattern, each of which costs a bit a character of each name; names are
    no longer, so a longer one matches none."""

    max_text_keys: int = 50
    """BODY and TEXT keys of one search: each may read every message. A person types ten words."""

    max_append_messages: int = 1000
    """Messages of one MULTIAPPEND."""


DEFAULT_LIMITS = GrammarLimits()


class Cursor:
    """Reads `parts`: text (bytes) and literals (`LiteralData`) by turns, text first.

    `utf8` says whether the client enabled UTF-8 names (`names.decode_name`). The `what` of a method
    is the noun of its error: "Expected a mailbox name".
    """

    __slots__ = (
        "_index",
        "_parts",
        "_position",
        "_ranges",
        "_terms",
        "_text",
        "depth",
        "limits",
        "utf8",
    )

    def __init__(
        self,
        parts: Sequence[bytes | LiteralData],
        limits: GrammarLimits = DEFAULT_LIMITS,
        utf8: bool = False,
    ) -> None:
        self.limits = limits
        self.utf8 = utf8
        self.depth = 0
        self._parts = parts
        self._index = -1
        self._terms = limits.max_terms
        self._ranges = limits.max_ranges
        self._next_text()

    def _next_text(self) -> None:
        self._index += 1
        self._position = 0
        text = self._parts[self._index] if self._index < len(self._parts) else b""
        if not isinstance(text, bytes):
            raise BadCommand("Expected a space between two literals")
        self._text = text

    def peek(self) -> bytes:
        """Return the next octet, or b"" before a literal and at the end."""
        return self._text[self._position : self._position + 1]

    def next_matches(self, rule: re.Pattern[bytes]) -> bool:
        """Whether `rule` matches here; nothing is read."""
        return rule.match(self._text, self._position) is not None

    def at_literal(self) -> bool:
        """Whether a literal comes next."""
        return self._position == len(self._text) and self._index + 1 < len(self._parts)

    def at_end(self) -> bool:
        """Whether nothing is left but spaces, which several clients leave behind."""
        if self._index + 1 < len(self._parts):
            return False
        return _SPACES.match(self._text, self._position) is not None

    def expect_end(self) -> None:
        """Require the end of the command."""
        if not self.at_end():
            raise BadCommand("Unexpected arguments at the end of the command")

    def space(self, after: str) -> None:
        """Read one space."""
        if not self.skip(b" "):
            raise BadCommand(f"Expected a space after {after}")

    def skip(self, token: bytes) -> bool:
        """Read `token` if it comes next, and say whether it did; letters as they are."""
        if self._text.startswith(token, self._position):
            self._position += len(token)
            return True
        return False

    def expect(self, token: bytes, message: str) -> None:
        """Read `token`, or be Malformed with `message`."""
        if not self.skip(token):
            raise BadCommand(message)

    def match(self, rule: re.Pattern[bytes], what: str) -> bytes:
        """Read what `rule` matches here."""
        found = self.try_match(rule)
        if found is None:
            raise BadCommand(f"Expected {what}")
        return found

    def try_match(self, rule: re.Pattern[bytes]) -> bytes | None:
        """Read what `rule` matches here; None where it does not."""
        found = rule.match(self._text, self._position)
        if found is None:
            return None
        self._position = found.end()
        return found[0]

    def word(self, what: str) -> bytes:
        """Read a protocol word, returned in upper case."""
        return self.match(abnf.WORD, what).upper()

    def skip_word(self, word: bytes) -> bool:
        """Read `word` (upper case) if it is the whole next word, in any case; say whether."""
        found = abnf.WORD.match(self._text, self._position)
        if found is None or found[0].upper() != word:
            return False
        self._position = found.end()
        return True

    def count_term(self, count: int = 1) -> None:
        """Take `count` from the allowance of terms."""
        self._terms -= count
        if self._terms < 0:
            raise BadCommand("The command has too many parts")

    def enter(self) -> None:
        """Go one level deeper; every `enter` has its `leave`."""
        self.depth += 1
        if self.depth > self.limits.max_depth:
            raise BadCommand("The command is nested too deeply")

    def leave(self) -> None:
        """Come back from one level."""
        self.depth -= 1

    def list_of(self, item: Callable[[], T], what: str, *, allow_empty: bool = False) -> list[T]:
        """Read ``"(" item *(SP item) ")"``, or ``()`` where `empty` allows that."""
        self.expect(b"(", f"Expected a parenthesised list of {what}")
        self.enter()
        items: list[T] = []
        if not (allow_empty and self.skip(b")")):
            while True:
                self.count_term()
                items.append(item())
                if self.skip(b")"):
                    break
                if not self.skip(b" "):
                    raise BadCommand(f"Expected a space or a parenthesis in the list of {what}")
        self.leave()
        return items

    def atom(self, what: str) -> bytes:
        """Read ``atom``."""
        return self.match(abnf.ATOM, what)

    def astring(self, what: str) -> bytes:
        """Read ``astring = 1*ASTRING-CHAR / string``."""
        return self._string_or(abnf.ASTRING_ATOM, what)

    def list_mailbox(self, what: str) -> bytes:
        """Read ``list-mailbox = 1*list-char / string``."""
        return self._string_or(abnf.LIST_ATOM, what)

    def mailbox(self, what: str = "a mailbox name") -> str:
        """Read ``mailbox``, decoded, INBOX folded."""
        octets = self.astring(what)
        try:
            return decode_name(octets, self.utf8)
        except (
            BadCommand
        ) as error:  # well-formed as a command: there is and can be no mailbox of that name
            raise CommandRefused(b"CANNOT", error.text) from None

    def flag(self) -> bytes:
        """Read ``flag``, in its canonical spelling."""
        return canonical_flag(self.match(abnf.FLAG, "a flag"))

    def nstring(self, what: str) -> bytes | None:
        """Read ``nstring = string / nil``; None is NIL."""
        if self.skip_word(b"NIL"):
            return None
        return self.string(what)

    def string(self, what: str) -> bytes:
        """Read ``string = quoted / literal``, its content."""
        if self.peek() == b'"':
            return self.quoted(what)
        if not self.at_literal():
            raise BadCommand(f"Expected {what}")
        octets = self.literal(what)
        if octets.binary:
            raise BadCommand(f"Expected {what}, not a binary literal")
        if octets.size > self.limits.max_string_size:
            raise BadCommand(f"Expected {what}, and this is too long for one")
        content = octets.read(0, octets.size)
        if b"\0" in content:
            raise BadCommand(f"Expected {what}, and a NUL cannot be in one")
        return content

    def quoted(self, what: str) -> bytes:
        """Read ``quoted``, its content without escapes.

        A client that enabled UTF-8 in quotes must mean it (RFC 6855 section 3); from others come Latin-1 passwords.
        """
        content = self.match(abnf.QUOTED, f"{what} in proper quotes")[1:-1]
        if self.utf8 and not content.isascii():
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                raise BadCommand(f"Expected {what} in UTF-8") from None
        if len(content) > self.limits.max_string_size:
            raise BadCommand(f"Expected {what}, and this is too long for one")
        if b"\\" in content:
            content = _UNESCAPE.sub(rb"\1", content)
        return content

    def literal(self, what: str) -> LiteralData:
        """Read a literal, of whatever size and kind, unread."""
        if not self.at_literal():
            raise BadCommand(f"Expected {what} as a literal")
        octets = self._parts[self._index + 1]
        if isinstance(octets, bytes):
            raise BadCommand(f"Expected {what} as a literal")
        self._index += 1
        self._next_text()
        return octets

    def number(self, what: str) -> int:
        """Read ``number``, 32 bits."""
        return self._digits(what, 0, MAX_NUMBER)

    def number64(self, what: str) -> int:
        """Read ``number64``, 63 bits."""
        return self._digits(what, 0, MAX_NUMBER64)

    def nz_number(self, what: str) -> int:
        """Read ``nz-number``, 32 bits."""
        return self._digits(what, 1, MAX_NUMBER)

    def nz_number64(self, what: str) -> int:
        """Read ``nz-number64``, 63 bits."""
        return self._digits(what, 1, MAX_NUMBER64)

    def sequence_set(self, *, allow_saved: bool = True) -> SequenceSet:
        """Read ``sequence-set``, or ``$`` as `sequence.SAVED` unless `saved` forbids it."""
        if allow_saved and self.skip(b"$"):
            return SAVED
        octets = self.match(abnf.SEQUENCE, "a sequence set such as 1:5,7")
        self._ranges -= octets.count(b",") + 1
        if self._ranges < 0:
            raise BadCommand("The command names too many message numbers")
        return SequenceSet.parse(octets)

    def _string_or(self, rule: re.Pattern[bytes], what: str) -> bytes:
        found = self.try_match(rule)
        return self.string(what) if found is None else found

    def _digits(self, what: str, least: int, most: int) -> int:
        digits = self.match(abnf.DIGITS, what)
        # Twenty digits are more than `most` has; int() of a whole line would be slow, and over 4300
        # digits raise.
        number = int(digits) if len(digits) <= 20 else most + 1
        if not least <= number <= most:
            raise BadCommand(f"Expected {what}, and this number is out of range")
        return number


_SPACES = re.compile(rb" *\Z")
_UNESCAPE = re.compile(rb'\\(["\\])')
