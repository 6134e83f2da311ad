"""Laws of the whole grammar: what is written is read, and nothing that is read can do harm."""

from __future__ import annotations

from random import Random
from time import process_time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import BareCommand, Command, MemoryLiteral
from imapshield.wire.commands.store_copy import Expunge
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import PARSERS, parse
from tests.wire.command_writer import write
from tests.wire.strategies import COMMANDS, LAWS

SEEDS = st.integers(0, 2**32)


def attempt(parts) -> Command | BadCommand | CommandRefused:
    try:
        return parse(parts)
    except (BadCommand, CommandRefused) as error:
        return error


class LawTests(SynchronousTestCase):
    @LAWS
    @given(COMMANDS, SEEDS)
    def test_written_is_read(self, command: Command, seed: int) -> None:
        """Whatever choices a client makes, its command comes out as it was meant."""
        parts = write(command, Random(seed))
        self.assertEqual(parse(parts), command, parts)

    @LAWS
    @given(COMMANDS, SEEDS)
    def test_written_in_utf8_is_read(self, command: Command, seed: int) -> None:
        """The same after ENABLE IMAP4rev2, when names are UTF-8."""
        parts = write(command, Random(seed), utf8=True)
        self.assertEqual(parse(parts, utf8=True), command, parts)

    @LAWS
    @given(COMMANDS, SEEDS)
    def test_trailing_spaces(self, command: Command, seed: int) -> None:
        """Spaces at the end change nothing."""
        parts = write(command, Random(seed))
        parts[-1] += b"  "
        self.assertEqual(parse(parts), command, parts)

    @LAWS
    @given(COMMANDS, SEEDS, st.data())
    def test_mutations(self, command: Command, seed: int, data: st.DataObject) -> None:
        """A damaged command is a command, Malformed or Refused, and the text is ours."""
        parts = write(command, Random(seed))
        for _ in range(data.draw(st.integers(1, 3))):
            i = data.draw(st.integers(0, len(parts) - 1))
            part = parts[i]
            if not isinstance(part, bytes):
                parts[i] = data.draw(
                    st.sampled_from(
                        [
                            MemoryLiteral(part.read(0, 99), True),
                            MemoryLiteral(b"a\0b"),
                            MemoryLiteral(b""),
                        ]
                    )
                )
                continue
            at = data.draw(st.integers(0, len(part)))
            to = data.draw(st.integers(at, min(len(part), at + 4)))
            fill = data.draw(
                st.sampled_from([b"", b"(", b")", b'"', b"\\", b" ", b"\0", b"\xff", b"*", b"0"])
                | st.binary(max_size=3)
            )
            parts[i] = part[:at] + fill + part[to:]
        outcome = attempt(parts)
        if isinstance(outcome, (BadCommand, CommandRefused)):
            self.assertTrue(outcome.text.isascii() and outcome.text.isprintable())

    @LAWS
    @given(
        st.sampled_from(sorted(PARSERS)),
        st.lists(
            st.sampled_from(
                b'( ) " \\ { } [ ] < > . , : * % $ & + - 1 0 x ALL NIL NOT OR UID FLAGS BODY[ '
                b"HEADER.FIELDS RETURN CHARSET PARTIAL \xff \0".split(b" ")
            )
            | st.binary(max_size=4)
            | st.just(b" "),
            max_size=12,
        ),
    )
    def test_soup(self, name: bytes, tokens: list[bytes]) -> None:
        """Tokens in any order raise nothing but our two errors."""
        attempt([name + b" " + b"".join(tokens)])
        attempt([name + b" " + b" ".join(tokens), MemoryLiteral(b"x"), b"".join(tokens)])

    @LAWS
    @given(
        st.lists(
            st.binary(max_size=20) | st.builds(MemoryLiteral, st.binary(max_size=9)), max_size=5
        )
    )
    def test_anything(self, parts: list[bytes | MemoryLiteral]) -> None:
        """Nor does anything else, in any shape."""
        attempt(parts)


class TableTests(SynchronousTestCase):
    def test_simple(self) -> None:
        """Commands without arguments are their names, in any case."""
        for name in (b"NOOP", b"noop", b"NoOp  "):
            self.assertEqual(parse([name]), BareCommand(b"NOOP"))
        self.assertEqual(parse([b"EXPUNGE"]), Expunge())

    def test_simple_takes_no_argument(self) -> None:
        """An argument too many is an error, a literal too."""
        for parts in ([b"NOOP x"], [b"NOOP(("], [b"NOOP ", MemoryLiteral(b""), b""]):
            self.assertRaises(BadCommand, parse, parts)

    def test_unknown_command_is_not_echoed(self) -> None:
        """The answer to an unknown command holds none of it."""
        for line in (b"XYZZY", b"UID NOOP", b"UID", b"", b"\xff\xfe", b"({[", b"__class__"):
            error = self.assertRaises(BadCommand, parse, [line])
            self.assertNotIn("XYZZY", error.text)

    def test_many_names_that_are_attributes(self) -> None:
        """No client word is looked up anywhere but in the table."""
        for name in (b"PARSE", b"PARTIAL", b"FETCH.FETCH", b"COMMAND"):
            self.assertEqual(attempt([name]).text, "Unknown command")


K = 1 << 16


class CostTests(SynchronousTestCase):
    """64 KiB of anything is parsed or refused in linear time.

    The bound is some twenty times what the slowest needs, so that it never fails on a busy machine, and some ten
    times less than anything quadratic took.
    """

    HOSTILE = {
        "parentheses": b"SEARCH " + b"(" * K,
        "NOT": b"SEARCH " + b"NOT " * (K // 4) + b"SEEN",
        "OR": b"SEARCH " + b"OR SEEN " * (K // 8) + b"SEEN",
        "OR first": b"SEARCH " + b"OR " * 2400 + b"SEEN " * 2400 + b"SEEN",
        "NOT OR": b"SEARCH " + b"NOT OR SEEN " * (K // 12) + b"SEEN",
        "keys": b"SEARCH " + b"SEEN " * (K // 5),
        "lists of one": b"SEARCH " + b"(SEEN) " * (K // 7),
        "HEADER": b"SEARCH " + b'HEADER x "" ' * (K // 12),
        "BODY": b"SEARCH " + b"BODY x " * (K // 7),
        "1,1,1": b"FETCH " + b"1," * (K // 2 - 20) + b"1 UID",
        "falling": b"FETCH " + b",".join(b"%d" % i for i in range(19999, 10000, -1)) + b" UID",
        "*,*,*": b"FETCH " + b"*," * (K // 2 - 20) + b"* UID",
        "1:1:1": b"FETCH " + b"1:" * (K // 2) + b" UID",
        "commas": b"FETCH 1" + b"," * K + b" UID",
        "digits": b"FETCH " + b"1" * K + b" UID",
        "digits of a part": b"FETCH 1 BODY[" + b"1" * K + b"]",
        "digits of a size": b"SEARCH LARGER " + b"9" * K,
        "path": b"FETCH 1 BODY[" + b"1." * (K // 2) + b"1]",
        "items": b"FETCH 1 (" + b"BODY[] " * (K // 7) + b"UID)",
        "different items": b"FETCH 1 (" + b" ".join(b"BODY[%d]" % i for i in range(1, 6000)) + b")",
        "fields": b"FETCH 1 BODY[HEADER.FIELDS (" + b"a " * (K // 2) + b"a)]",
        "flags": b"STORE 1 FLAGS (" + b"a " * (K // 2) + b"a)",
        "flags without": b"STORE 1 FLAGS " + b"a " * (K // 2),
        "one flag": b"STORE 1 FLAGS " + b"a" * K,
        "escapes": b'SELECT "' + b'\\"' * (K // 2),
        "escapes, ended": b'SELECT "' + b'\\"' * (K // 2) + b'"',
        "quote": b'SELECT "' + b"a" * K,
        "shifts": b"SELECT " + b"&-" * (K // 2),
        "open shifts": b"SELECT " + b"&" * K,
        "one shift": b"SELECT &" + b"A" * K + b"-",
        "wildcards": b'LIST "" ' + b"%*" * (K // 2),
        "patterns": b'LIST "" (' + b"% " * (K // 2) + b"%)",
        "spaces": b"NOOP" + b" " * K,
        "spaces inside": b"SEARCH SEEN" + b" " * K + b"SEEN",
        "capabilities": b"ENABLE " + b"A " * (K // 2),
        "base64": b"AUTHENTICATE PLAIN " + b"A" * (K - 1) + b"=",
        "word": b"A" * K,
        "sort keys": b"SORT (" + b"DATE " * (K // 5) + b"DATE) UTF-8 ALL",
        "status items": b"STATUS x (" + b"UNSEEN " * (K // 7) + b"UNSEEN)",
    }

    def test_cost(self) -> None:
        """No line costs half a second."""
        for name, line in self.HOSTILE.items():
            start = process_time()
            attempt([line])
            self.assertLess(process_time() - start, 0.5, name)

    def test_cost_of_literals(self) -> None:
        """Thousands of literals are counted like anything else (CVE-2024-34055)."""
        parts = [b"SEARCH SUBJECT "] + [MemoryLiteral(b"x"), b" SUBJECT "] * 6000
        start = process_time()
        self.assertEqual(attempt(parts).text, "The command has too many parts")
        self.assertLess(process_time() - start, 0.5)

    def test_allowances_hold_for_the_command(self) -> None:
        """Ranges are counted over all the sets of a command."""
        limits = GrammarLimits(max_ranges=10)
        self.assertIsInstance(parse([b"SEARCH 1,2,3,4,5 1,2,3,4,5"], limits=limits), Command)
        self.assertRaises(BadCommand, parse, [b"SEARCH 1,2,3,4,5 1,2,3,4,5,6"], limits=limits)

    def test_a_line_full_of_uids(self) -> None:
        """What mbsync and imapsync send is far from any allowance."""
        line = b"UID FETCH " + b",".join(b"%d" % i for i in range(1, 26000, 2)) + b" (UID FLAGS)"
        self.assertGreater(len(line), 60_000)
        self.assertEqual(len(parse([line]).sequence.ranges), 13_000)
