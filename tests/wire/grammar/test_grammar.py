"""Properties of the whole grammar: a written command is parsed again, and no input has harmful effects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.base import BareCommand, Command, LiteralData, MemoryLiteral
from imapshield.wire.commands.fetch import Fetch
from imapshield.wire.commands.messages import Expunge
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import PARSERS, parse
from imapshield.wire.names import NameFormat
from tests.cpu_time import check_cpu_time
from tests.wire.command_writer import write
from tests.wire.grammar.typed_parse import parse_as
from tests.wire.strategies import COMMANDS, LAWS

SEEDS = st.integers(0, 2**32)


def attempt(parts: Sequence[bytes | LiteralData]) -> Command | BadCommand | CommandRefused:
    """Parse `parts`; return the command or the error."""
    try:
        return parse(parts)
    except (BadCommand, CommandRefused) as error:
        return error


def error_text(parts: Sequence[bytes | LiteralData]) -> str:
    """Parse `parts`, which are not a valid command; return the error text."""
    outcome = attempt(parts)
    assert isinstance(outcome, (BadCommand, CommandRefused))
    return outcome.text


class PropertyTests(SynchronousTestCase):
    @LAWS
    @given(COMMANDS, SEEDS)
    def test_written_command_is_parsed(self, command: Command, seed: int) -> None:
        """A command that a client writes is parsed as the same command, whatever choices the client makes."""
        parts = write(command, Random(seed))
        self.assertEqual(parse(parts), command, parts)

    @LAWS
    @given(COMMANDS, SEEDS)
    def test_written_command_is_parsed_in_utf8(self, command: Command, seed: int) -> None:
        """A written command is parsed as the same command after ENABLE IMAP4rev2 too, when names are UTF-8."""
        parts = write(command, Random(seed), utf8=True)
        self.assertEqual(parse(parts, names=NameFormat(utf8=True)), command, parts)

    @LAWS
    @given(COMMANDS, SEEDS)
    def test_trailing_spaces_change_nothing(self, command: Command, seed: int) -> None:
        """Spaces at the end of a command change nothing."""
        parts = write(command, Random(seed))
        last = parts[-1]
        assert isinstance(last, bytes)
        parts[-1] = last + b"  "
        self.assertEqual(parse(parts), command, parts)

    @LAWS
    @given(COMMANDS, SEEDS, st.data())
    def test_damaged_command_is_parsed_or_refused(
        self, command: Command, seed: int, data: st.DataObject
    ) -> None:
        """A damaged command is parsed, BadCommand or CommandRefused; the error text is printable ASCII."""
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
            start = data.draw(st.integers(0, len(part)))
            stop = data.draw(st.integers(start, min(len(part), start + 4)))
            filler = data.draw(
                st.sampled_from([b"", b"(", b")", b'"', b"\\", b" ", b"\0", b"\xff", b"*", b"0"])
                | st.binary(max_size=3)
            )
            parts[i] = part[:start] + filler + part[stop:]
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
    def test_random_tokens_raise_only_refusals(self, name: bytes, tokens: list[bytes]) -> None:
        """Tokens in any order raise nothing but BadCommand and CommandRefused."""
        attempt([name + b" " + b"".join(tokens)])
        attempt([name + b" " + b" ".join(tokens), MemoryLiteral(b"x"), b"".join(tokens)])

    @LAWS
    @given(
        st.lists(
            st.binary(max_size=20) | st.builds(MemoryLiteral, st.binary(max_size=9)), max_size=5
        )
    )
    def test_random_parts_raise_only_refusals(self, parts: list[bytes | MemoryLiteral]) -> None:
        """Parts of any kind raise nothing but BadCommand and CommandRefused."""
        attempt(parts)


class TableTests(SynchronousTestCase):
    def test_commands_are_recognised_in_any_case(self) -> None:
        """Commands without arguments are recognised in any case."""
        for name in (b"NOOP", b"noop", b"NoOp  "):
            self.assertEqual(parse([name]), BareCommand(b"NOOP"))
        self.assertEqual(parse([b"EXPUNGE"]), Expunge())

    def test_unexpected_arguments_are_refused(self) -> None:
        """Commands without arguments refuse arguments and literals."""
        for parts in ([b"NOOP x"], [b"NOOP(("], [b"NOOP ", MemoryLiteral(b""), b""]):
            self.assertRaises(BadCommand, parse, parts)

    def test_unknown_command_is_not_echoed(self) -> None:
        """The error text for an unknown command contains no part of the command."""
        for line in (b"XYZZY", b"UID NOOP", b"UID", b"", b"\xff\xfe", b"({[", b"__class__"):
            error = self.assertRaises(BadCommand, parse, [line])
            self.assertNotIn("XYZZY", error.text)

    def test_command_names_are_looked_up_only_in_the_table(self) -> None:
        """A command name is looked up in the table and nowhere else."""
        for name in (b"PARSE", b"PARTIAL", b"FETCH.FETCH", b"COMMAND"):
            self.assertEqual(error_text([name]), "Unknown command")


KIB_64 = 1 << 16


class CostTests(SynchronousTestCase):
    """Any line of 64 KiB is parsed or refused in linear time.

    The limit is about twenty times what the slowest line takes, so that a busy machine does not fail, and about a tenth
    of what anything quadratic took.
    """

    HOSTILE = {
        "parentheses": b"SEARCH " + b"(" * KIB_64,
        "NOT": b"SEARCH " + b"NOT " * (KIB_64 // 4) + b"SEEN",
        "OR": b"SEARCH " + b"OR SEEN " * (KIB_64 // 8) + b"SEEN",
        "OR first": b"SEARCH " + b"OR " * 2400 + b"SEEN " * 2400 + b"SEEN",
        "NOT OR": b"SEARCH " + b"NOT OR SEEN " * (KIB_64 // 12) + b"SEEN",
        "keys": b"SEARCH " + b"SEEN " * (KIB_64 // 5),
        "lists of one": b"SEARCH " + b"(SEEN) " * (KIB_64 // 7),
        "HEADER": b"SEARCH " + b'HEADER x "" ' * (KIB_64 // 12),
        "BODY": b"SEARCH " + b"BODY x " * (KIB_64 // 7),
        "1,1,1": b"FETCH " + b"1," * (KIB_64 // 2 - 20) + b"1 UID",
        "descending": b"FETCH " + b",".join(b"%d" % i for i in range(19999, 10000, -1)) + b" UID",
        "*,*,*": b"FETCH " + b"*," * (KIB_64 // 2 - 20) + b"* UID",
        "1:1:1": b"FETCH " + b"1:" * (KIB_64 // 2) + b" UID",
        "commas": b"FETCH 1" + b"," * KIB_64 + b" UID",
        "digits": b"FETCH " + b"1" * KIB_64 + b" UID",
        "digits of a part": b"FETCH 1 BODY[" + b"1" * KIB_64 + b"]",
        "digits of a size": b"SEARCH LARGER " + b"9" * KIB_64,
        "path": b"FETCH 1 BODY[" + b"1." * (KIB_64 // 2) + b"1]",
        "items": b"FETCH 1 (" + b"BODY[] " * (KIB_64 // 7) + b"UID)",
        "different items": b"FETCH 1 (" + b" ".join(b"BODY[%d]" % i for i in range(1, 6000)) + b")",
        "fields": b"FETCH 1 BODY[HEADER.FIELDS (" + b"a " * (KIB_64 // 2) + b"a)]",
        "flags": b"STORE 1 FLAGS (" + b"a " * (KIB_64 // 2) + b"a)",
        "flags without": b"STORE 1 FLAGS " + b"a " * (KIB_64 // 2),
        "one flag": b"STORE 1 FLAGS " + b"a" * KIB_64,
        "escapes": b'SELECT "' + b'\\"' * (KIB_64 // 2),
        "escapes, ended": b'SELECT "' + b'\\"' * (KIB_64 // 2) + b'"',
        "quote": b'SELECT "' + b"a" * KIB_64,
        "shifts": b"SELECT " + b"&-" * (KIB_64 // 2),
        "open shifts": b"SELECT " + b"&" * KIB_64,
        "one shift": b"SELECT &" + b"A" * KIB_64 + b"-",
        "wildcards": b'LIST "" ' + b"%*" * (KIB_64 // 2),
        "patterns": b'LIST "" (' + b"% " * (KIB_64 // 2) + b"%)",
        "spaces": b"NOOP" + b" " * KIB_64,
        "spaces inside": b"SEARCH SEEN" + b" " * KIB_64 + b"SEEN",
        "capabilities": b"ENABLE " + b"A " * (KIB_64 // 2),
        "base64": b"AUTHENTICATE PLAIN " + b"A" * (KIB_64 - 1) + b"=",
        "word": b"A" * KIB_64,
        "sort keys": b"SORT (" + b"DATE " * (KIB_64 // 5) + b"DATE) UTF-8 ALL",
        "status items": b"STATUS x (" + b"UNSEEN " * (KIB_64 // 7) + b"UNSEEN)",
    }

    def test_time_is_linear(self) -> None:
        """No line takes half a second."""
        for name, line in self.HOSTILE.items():
            check_cpu_time(self, 0.5, partial(attempt, [line]), name)

    def test_literals_are_counted_like_other_elements(self) -> None:
        """Thousands of literals are counted like other elements (CVE-2024-34055)."""
        parts: list[bytes | LiteralData] = [b"SEARCH SUBJECT "]
        parts += [MemoryLiteral(b"x"), b" SUBJECT "] * 6000

        def refuse() -> None:
            text = "Too many parts in one command: the limit is 5000"
            self.assertEqual(error_text(parts), text)

        check_cpu_time(self, 0.5, refuse)

    def test_limits_are_for_the_whole_command(self) -> None:
        """Ranges are counted over all sequence sets of a command."""
        limits = GrammarLimits(max_ranges=10)
        self.assertIsInstance(parse([b"SEARCH 1,2,3,4,5 1,2,3,4,5"], limits=limits), Command)
        self.assertRaises(BadCommand, parse, [b"SEARCH 1,2,3,4,5 1,2,3,4,5,6"], limits=limits)

    def test_long_uid_sets_of_real_clients_are_accepted(self) -> None:
        """The long UID sets of mbsync and imapsync are far below every limit."""
        line = b"UID FETCH " + b",".join(b"%d" % i for i in range(1, 26000, 2)) + b" (UID FLAGS)"
        self.assertGreater(len(line), 60_000)
        self.assertEqual(len(parse_as(Fetch, [line]).sequence.ranges), 13_000)
