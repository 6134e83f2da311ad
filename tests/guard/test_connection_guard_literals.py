"""Which literals the guard accepts, at the exact limits."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import CommandRefused
from imapshield.guard import verdicts
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import (
    Accepted,
    AcceptLiteral,
    Disconnect,
    LimitReached,
    RejectLiteral,
    Reset,
)
from imapshield.limits import Limits
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import RawCommand
from tests.guard.test_connection_guard import authenticated_guard, literal


class LiteralTests(SynchronousTestCase):
    def refusal(self, guard: ConnectionGuard, size: int, **fields: Any) -> tuple[Any, str]:
        verdict = guard.admit(literal(size, **fields))
        assert isinstance(verdict, RejectLiteral)
        assert isinstance(verdict.rejection, CommandRefused)
        return verdict.rejection.code, verdict.rejection.text

    def test_metadata_value_has_a_limit_and_a_code_of_its_own(self) -> None:
        """A metadata value may have `max_metadata_size` bytes; a larger one is refused with MAXSIZE."""
        guard = authenticated_guard(max_metadata_size=100, max_literal_size=10)
        for size in (99, 100):
            self.assertEqual(guard.admit(literal(size, name=b"SETMETADATA")), AcceptLiteral())
        self.assertEqual(
            self.refusal(guard, 101, name=b"SETMETADATA"),
            (b"METADATA MAXSIZE 100", "Metadata value too large: the limit is 100 bytes"),
        )

    def test_number_of_literals(self) -> None:
        """A command may have `max_command_literals` literals; every further one is refused."""
        guard = authenticated_guard(max_command_literals=4)
        self.assertEqual(guard.admit(literal(1, literals=3)), AcceptLiteral())
        for before in (4, 5):
            verdict = guard.admit(literal(1, literals=before))
            assert isinstance(verdict, RejectLiteral)
            assert isinstance(verdict.rejection, CommandRefused)
            self.assertEqual(verdict.rejection.code, b"LIMIT")
            reached = LimitReached("max_command_literals", 4, before + 1)
            self.assertEqual(verdict.rejection.reached, reached)

    def test_number_of_literals_before_login(self) -> None:
        """A command before the login may have `preauth_literals` literals; every further one is refused."""
        guard = ConnectionGuard(Limits(preauth_literals=4))
        self.assertEqual(guard.admit(literal(1, literals=3)), AcceptLiteral())
        for before in (4, 5):
            self.assertIsInstance(guard.admit(literal(1, literals=before)), RejectLiteral)

    def test_literals_below_the_limit_are_accepted(self) -> None:
        """A literal below a limit is accepted, and so is one at the limit."""
        for size in (1, 99, 100):
            guard = authenticated_guard(max_literal_size=100)
            self.assertEqual(guard.admit(literal(size, name=b"SEARCH")), AcceptLiteral())
            guard = ConnectionGuard(Limits(preauth_literal_size=100))
            self.assertEqual(guard.admit(literal(size)), AcceptLiteral())

    def test_total_before_login_counts_everything(self) -> None:
        """The total of a command before the login counts its lines, its literals, and the announced one."""
        guard = ConnectionGuard(Limits(preauth_bytes=1000))
        for octets, before, size in ((700, 200, 100), (100, 200, 700), (1, 7, 992)):
            fields: dict[str, Any] = {"octets": octets, "literal_octets": before}
            self.assertEqual(guard.admit(literal(size, **fields)), AcceptLiteral())
            self.assertEqual(self.refusal(guard, size + 1, **fields)[0], b"TOOBIG")

    def test_total_counts_everything(self) -> None:
        """The total of a command counts its lines, its literals, and the announced one; so do the messages of one."""
        guard = authenticated_guard(max_command_size=1000, max_append_size=1000)
        for octets, before, size in ((700, 200, 100), (100, 200, 700), (1, 7, 992)):
            fields: dict[str, Any] = {"octets": octets, "literal_octets": before}
            self.assertEqual(guard.admit(literal(size, name=b"SEARCH", **fields)), AcceptLiteral())
            code, text = self.refusal(guard, size + 1, name=b"SEARCH", **fields)
            self.assertEqual(
                (code, text), (b"TOOBIG", "Command too large: the limit is 1000 bytes")
            )
        self.assertEqual(
            guard.admit(literal(400, name=b"APPEND", literal_octets=600)), AcceptLiteral()
        )
        self.assertEqual(
            self.refusal(guard, 401, name=b"APPEND", literal_octets=600),
            (b"TOOBIG", "Total size of the messages too large: the limit is 1000 bytes"),
        )

    def test_text_of_a_command_is_limited(self) -> None:
        """The text between the literals may have `max_command_size` bytes, for messages too."""
        guard = authenticated_guard(max_command_size=1000)
        self.assertEqual(guard.admit(literal(5, name=b"APPEND", octets=1000)), AcceptLiteral())
        self.assertEqual(self.refusal(guard, 5, name=b"APPEND", octets=1001)[0], b"TOOBIG")

    def test_bytes_of_lines_and_literals_add_up(self) -> None:
        """A waiting command counts with the bytes of its lines and of its literals."""
        parts = (b"APPEND INBOX ", MemoryLiteral(bytes(600)), b"")
        for limit, paused in ((1200, True), (1201, False)):
            guard = authenticated_guard(max_backlog_bytes=limit)
            guard.admit(RawCommand(b"a", b"APPEND", parts, 600))
            self.assertEqual(guard.input_paused, paused)

    def test_bytes_resume_reading_at_half_of_the_limit(self) -> None:
        """Reading resumes when at most half of `max_backlog_bytes` waits."""
        for size, paused in ((500, False), (501, True)):
            guard = authenticated_guard(max_backlog_bytes=1000)
            for octets in (1000, size):
                guard.admit(RawCommand(b"a", b"NOOP", (b"NOOP",), octets))
            guard.next_command()
            self.assertEqual(guard.input_paused, paused)

    def test_half_of_an_odd_limit_is_rounded_down(self) -> None:
        """Reading resumes when at most half of an odd `max_backlog_bytes` waits, rounded down."""
        for size, paused in ((501, False), (502, True)):
            guard = authenticated_guard(max_backlog_bytes=1003)
            for octets in (1000, size):
                guard.admit(RawCommand(b"a", b"NOOP", (b"NOOP",), octets))
            guard.next_command()
            self.assertEqual(guard.input_paused, paused)

    def test_half_of_an_odd_backlog_is_rounded_down(self) -> None:
        """Reading resumes when at most half of an odd `backlog` is pending, rounded down."""
        guard = authenticated_guard(backlog=7)
        for _ in range(7):
            guard.admit(RawCommand(b"a", b"NOOP", (b"NOOP",), 6))
        for paused in (True, True, True, False):
            guard.next_command()
            guard.command_finished()
            self.assertEqual(guard.input_paused, paused)

    def test_every_invalid_command_above_the_limit_disconnects(self) -> None:
        """Every invalid command from the limit on is a reason to disconnect, also if the one before is only reported."""
        guard = ConnectionGuard(Limits(preauth_bad_commands=2))
        for count in (1, 2, 3, 4):
            guard.bad_command()
            verdict = guard.command_finished()
            if count < 2:
                self.assertEqual(verdict, Accepted())
            else:
                assert isinstance(verdict, Disconnect)
                self.assertEqual((verdict.value, verdict.observed), (2, count))

    def test_lists_one_after_the_other_are_not_nested(self) -> None:
        """Before the login a list may follow another, because a closing parenthesis ends its level."""
        guard = ConnectionGuard(Limits())
        guard.admit(RawCommand(b"a", b"ID", (b"ID (a) (b) (c)",), 20))
        command = guard.next_command()
        assert command is not None
        self.assertIsNone(command.rejection)


class VerdictTests(SynchronousTestCase):
    def test_verdicts_are_small_values(self) -> None:
        """A verdict compares by its fields, is hashable, cannot be changed, and has no dictionary."""
        examples: list[Any] = [
            Accepted,
            AcceptLiteral,
            lambda: LimitReached("a", 1, 2),
            lambda: Reset("a", 1, 2),
            lambda: Disconnect("a", 1, 2, "b"),
        ]
        rejection = CommandRefused(None, "no")
        for make in [*examples, lambda: RejectLiteral(rejection)]:
            verdict: Any = make()
            self.assertEqual((verdict, hash(verdict)), (make(), hash(make())))
            self.assertFalse(hasattr(verdict, "__dict__"), verdict)
            field = next(iter(type(verdict).__dataclass_fields__), "field")
            self.assertRaises((AttributeError, TypeError), setattr, verdict, field, 1)
        self.assertEqual(Reset("a", 1, 2).instead, Accepted())
        self.assertEqual(verdicts.Verdict, verdicts.Admission | Disconnect)
