"""The limits of one connection, tested without a reactor, a socket or a clock."""

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import (
    Accepted,
    AcceptLiteral,
    Disconnect,
    RejectLiteral,
    Reset,
    Verdict,
)
from imapshield.limits import Limits
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import LiteralAnnounced, RawCommand

BOTH = "backlog,preauth_commands"


def command(name: bytes = b"NOOP", text: bytes = b"") -> RawCommand:
    return RawCommand(b"a", name, (name + text,), len(name + text) + 4)


def literal(
    size: int, *, synchronizing: bool = True, name: bytes = b"LOGIN", **more: Any
) -> LiteralAnnounced:
    fields = {"texts": (name + b" ",), "literals": 0, "literal_octets": 0, **more}
    return LiteralAnnounced(b"a", name, size, synchronizing, **fields)


def after_command(guard: ConnectionGuard, count: Callable[[], None]) -> Verdict:
    """Run one command during which `count` is called, and return the verdict at its end."""
    guard.admit(command())
    guard.next_command()
    count()
    return guard.command_finished()


def authenticated_guard(**limits: Any) -> ConnectionGuard:
    guard = ConnectionGuard(Limits(**limits))
    guard.login()
    return guard


class BacklogTests(SynchronousTestCase):
    def test_100_commands_may_be_pending(self) -> None:
        """A hundred commands may be pending."""
        guard = ConnectionGuard(Limits())
        self.assertEqual([guard.admit(command()) for _ in range(100)], [Accepted()] * 100)
        self.assertEqual(guard.pending, 100)

    def test_101st_pending_command_is_a_permanent_reset(self) -> None:
        """The 101st pending command is a Reset, and every later verdict is the same Reset."""
        guard = ConnectionGuard(Limits())
        for _ in range(100):
            guard.admit(command())
        reset = Reset("backlog", 100, 101, binding=BOTH)
        self.assertEqual(guard.admit(command()), reset)
        self.assertEqual(guard.admit(command()), reset)
        self.assertTrue(guard.input_paused)

    def test_settings_that_bind(self) -> None:
        """The reset names the number of commands before login, too, if that is exceeded by the same command."""
        for preauth_commands, binding in ((99, BOTH), (100, BOTH), (101, ""), (102, "")):
            guard = ConnectionGuard(Limits(backlog=100, preauth_commands=preauth_commands))
            verdicts = [guard.admit(command()) for _ in range(101)]
            resets = [verdict for verdict in verdicts if isinstance(verdict, Reset)]
            if preauth_commands == 99:
                self.assertEqual(resets[0], Reset("preauth_commands", 99, 100))
            else:
                self.assertEqual(resets, [Reset("backlog", 100, 101, binding=binding)])

    def test_commands_that_were_not_started(self) -> None:
        """Waiting, incomplete and discarded commands were not started; a running one was."""
        guard = authenticated_guard()
        for _ in range(3):
            guard.admit(command())
        guard.admit(literal(5))
        self.assertEqual(guard.not_started, 4)
        guard.next_command()
        self.assertEqual(guard.not_started, 3)
        guard.discard()
        self.assertEqual(guard.not_started, 3)
        guard.discard()
        self.assertEqual(guard.not_started, 3)

    def test_running_command_is_pending_until_finished(self) -> None:
        """A running command is pending until it is finished."""
        guard = ConnectionGuard(Limits(preauth_commands=1000))
        for _ in range(100):
            guard.admit(command())
        self.assertIsNotNone(guard.next_command())
        self.assertIsInstance(guard.admit(command()), Reset)

    def test_finished_command_is_not_pending(self) -> None:
        """A finished command is not pending any more."""
        guard = ConnectionGuard(Limits(preauth_commands=1000))
        for _ in range(300):
            self.assertEqual(guard.admit(command()), Accepted())
            guard.next_command()
            guard.command_finished()
        self.assertEqual(guard.pending, 0)

    def test_command_is_pending_from_its_first_line(self) -> None:
        """A command is pending from its first line."""
        guard = ConnectionGuard(Limits())
        for _ in range(100):
            guard.admit(command())
        self.assertEqual(guard.admit(literal(5)), Reset("backlog", 100, 101, binding=BOTH))

    def test_command_of_several_lines_counts_once(self) -> None:
        """A command of several lines counts once."""
        guard = ConnectionGuard(Limits())
        guard.admit(literal(1))
        guard.admit(literal(1))
        guard.admit(command(b"LOGIN"))
        self.assertEqual(guard.pending, 1)

    def test_no_command_starts_while_another_runs(self) -> None:
        """No command leaves the backlog while another command runs."""
        guard = ConnectionGuard(Limits())
        guard.admit(command())
        guard.admit(command())
        self.assertIsNotNone(guard.next_command())
        self.assertIsNone(guard.next_command())
        guard.command_finished()
        self.assertIsNotNone(guard.next_command())

    def test_full_backlog_pauses_the_input_of_a_user(self) -> None:
        """A full backlog pauses the input of a user, until half of the backlog is done."""
        guard = authenticated_guard()
        for _ in range(100):
            self.assertFalse(guard.input_paused)
            guard.admit(command())
        self.assertTrue(guard.input_paused)
        for _ in range(50):
            self.assertTrue(guard.input_paused)
            self.assertTrue(guard.backlog_full())
            guard.next_command()
            guard.command_finished()
        self.assertFalse(guard.input_paused)
        self.assertFalse(guard.backlog_full())

    def test_strict_backlog_resets_a_user_too(self) -> None:
        """The option strict_backlog resets a user too."""
        guard = authenticated_guard(strict_backlog=True)
        for _ in range(100):
            guard.admit(command())
        self.assertFalse(guard.input_paused)
        self.assertIsInstance(guard.admit(command()), Reset)

    def test_large_pending_commands_pause_the_input(self) -> None:
        """Large pending commands pause the input even if there are fewer than a hundred."""
        guard = authenticated_guard(max_backlog_bytes=1000)
        guard.admit(RawCommand(b"a", b"UID", (b"UID FETCH",), 1001))
        self.assertTrue(guard.input_paused)

    def test_pending_literals_count_as_bytes(self) -> None:
        """Literals, in memory or in files, count as pending bytes until their command runs."""
        guard = authenticated_guard(max_backlog_bytes=1000)
        parts = (b"APPEND INBOX ", MemoryLiteral(bytes(600)), b"")
        for _ in range(2):
            self.assertFalse(guard.input_paused)
            guard.admit(RawCommand(b"a", b"APPEND", parts, 20))
        self.assertTrue(guard.input_paused)
        guard.next_command()
        self.assertTrue(guard.input_paused)
        guard.command_finished()
        guard.next_command()
        self.assertFalse(guard.input_paused)

    def test_large_commands_pause_the_input_with_strict_backlog_too(self) -> None:
        """With strict_backlog, large pending commands pause the input instead of resetting the connection.

        A client that pipelines two APPENDs is honest; the 101st pending command is a Reset all the same.
        """
        guard = authenticated_guard(strict_backlog=True, max_backlog_bytes=1000)
        large = RawCommand(b"a", b"UID", (b"UID FETCH",), 600)
        for paused in (False, True):
            self.assertEqual(guard.admit(large), Accepted())
            self.assertEqual(guard.input_paused, paused)
        for _ in range(98):
            self.assertEqual(guard.admit(command()), Accepted())
        self.assertIsInstance(guard.admit(command()), Reset)

    def test_input_resumes_with_strict_backlog(self) -> None:
        """With strict_backlog, input resumes when half of the bytes are done."""
        guard = authenticated_guard(strict_backlog=True, max_backlog_bytes=1000)
        for _ in range(2):
            guard.admit(RawCommand(b"a", b"UID", (b"UID FETCH",), 600))
        for paused in (True, False):
            guard.next_command()
            self.assertEqual(guard.input_paused, paused)
            guard.command_finished()

    def test_incomplete_command_does_not_pause_the_input(self) -> None:
        """An incomplete command does not pause the input, because it could never be completed."""
        guard = authenticated_guard()
        for _ in range(99):
            guard.admit(command())
        guard.admit(literal(5))
        self.assertFalse(guard.input_paused)

    def test_report_only_accepts_the_excess_command(self) -> None:
        """In report-only mode the excess command is reported and accepted, and a paused input bounds the memory."""
        guard = ConnectionGuard(Limits(report_only=True))
        verdicts = [guard.admit(command()) for _ in range(101)]
        self.assertEqual(verdicts[100], Reset("backlog", 100, 101))
        self.assertEqual(guard.pending, 101)
        self.assertTrue(guard.input_paused)

    def test_report_only_literals(self) -> None:
        """In report-only mode no literal above the limits is stored before login, so the memory stays bounded."""
        guard = ConnectionGuard(Limits(report_only=True, preauth_commands=1))
        verdict = guard.admit(literal(999_999_999, synchronizing=False))
        assert isinstance(verdict, Reset)
        self.assertEqual((verdict.limit, verdict.observed), ("preauth_literal_size", 999_999_999))
        self.assertIsInstance(verdict.instead, RejectLiteral)
        total = guard.admit(literal(4096, synchronizing=False, literals=16, literal_octets=65536))
        self.assertIsInstance(total, RejectLiteral)
        guard.admit(command(b"LOGIN"))
        for size, instead in ((4096, AcceptLiteral), (4097, RejectLiteral)):
            verdict = guard.admit(literal(size))
            assert isinstance(verdict, Reset)
            self.assertEqual(verdict.limit, "preauth_commands")
            self.assertIsInstance(verdict.instead, instead)
            guard.admit(command(b"LOGIN"))


class PreAuthenticationTests(SynchronousTestCase):
    def test_client_may_send_100_commands_before_login(self) -> None:
        """A client may send a hundred commands before login, even if each is answered."""
        guard = ConnectionGuard(Limits())
        for _ in range(100):
            guard.admit(command())
            guard.next_command()
            guard.command_finished()
        self.assertEqual(guard.admit(command()), Reset("preauth_commands", 100, 101))

    def test_client_may_send_64_kib_before_login(self) -> None:
        """A client may send 64 KiB before login."""
        guard = ConnectionGuard(Limits())
        self.assertEqual(guard.bytes_received(65536), Accepted())
        self.assertEqual(guard.bytes_received(1), Reset("preauth_bytes", 65536, 65537))

    def test_user_may_send_any_amount(self) -> None:
        """A user may send any number of bytes."""
        self.assertEqual(authenticated_guard().bytes_received(1 << 30), Accepted())

    def test_large_literal_before_login_is_rejected(self) -> None:
        """Above 4 KiB before login, a synchronizing literal is rejected, and a non-synchronizing one is a Reset."""
        guard = ConnectionGuard(Limits())
        self.assertEqual(guard.admit(literal(4096)), AcceptLiteral())
        self.assertIsInstance(guard.admit(literal(4097)), RejectLiteral)
        self.assertIsInstance(guard.admit(literal(4097, synchronizing=False)), Reset)

    def test_one_nesting_level_is_allowed_before_login(self) -> None:
        """Before login one level of parentheses is allowed, counted from the left in any order of tokens."""
        for text in (b" ((", b" (((((", b' ("x" (', b" )(((", b' ("(((" ("', b" (()"):
            verdict = ConnectionGuard(Limits()).admit(literal(10, texts=(b"NOOP" + text,)))
            self.assertIsInstance(verdict, RejectLiteral, text)
            guard = ConnectionGuard(Limits())
            guard.admit(command(text=text))
            raw_command = guard.next_command()
            assert raw_command is not None
            self.assertIsInstance(raw_command.rejection, BadCommand, text)
            self.assertEqual(raw_command.parts, ())

    def test_id_uses_one_nesting_level(self) -> None:
        """ID uses one level, and quoted parentheses do not count."""
        guard = ConnectionGuard(Limits())
        guard.admit(RawCommand(b"a", b"ID", (b'ID ("name" "x (y) ((z")',), 30))
        raw_command = guard.next_command()
        assert raw_command is not None
        self.assertIsNone(raw_command.rejection)

    def test_third_bad_command_before_login_disconnects(self) -> None:
        """The third invalid command before login disconnects."""
        guard = ConnectionGuard(Limits())
        verdicts = [after_command(guard, guard.bad_command) for _ in range(3)]
        self.assertEqual(verdicts[:2], [Accepted()] * 2)
        self.assertIsInstance(verdicts[2], Disconnect)
        self.assertEqual(guard.command_finished(), Accepted())

    def test_third_failed_login_disconnects(self) -> None:
        """The third failed login disconnects."""
        guard = ConnectionGuard(Limits())
        verdicts = [after_command(guard, guard.login_failed) for _ in range(3)]
        self.assertEqual(verdicts[:2], [Accepted()] * 2)
        self.assertIsInstance(verdicts[2], Disconnect)


class AuthenticatedTests(SynchronousTestCase):
    def test_only_consecutive_bad_commands_count_after_login(self) -> None:
        """Only consecutive invalid commands of a user count."""
        guard = authenticated_guard(max_bad_commands=3)
        for _ in range(10):
            guard.bad_command()
            guard.bad_command()
            guard.command_parsed()
        guard.bad_command()
        self.assertEqual(after_command(guard, guard.bad_command), Accepted())
        self.assertIsInstance(after_command(guard, guard.bad_command), Disconnect)

    def test_too_large_message_is_rejected_before_it_is_sent(self) -> None:
        """A message that is too large is rejected before it is sent."""
        guard = authenticated_guard(max_message_size=1000)
        self.assertEqual(guard.admit(literal(1000, name=b"APPEND")), AcceptLiteral())
        verdict = guard.admit(literal(1001, name=b"APPEND"))
        assert isinstance(verdict, RejectLiteral) and isinstance(verdict.rejection, CommandRefused)
        self.assertEqual(verdict.rejection.code, b"TOOBIG")

    def test_argument_literals_are_limited(self) -> None:
        """Argument literals are limited in size, in number, and in total size (CVE-2024-34055)."""
        guard = authenticated_guard(
            max_literal_size=100, max_command_size=250, max_command_literals=4
        )
        self.assertEqual(
            guard.admit(literal(100, name=b"SEARCH", literal_octets=150)), AcceptLiteral()
        )
        self.assertIsInstance(guard.admit(literal(101, name=b"SEARCH")), RejectLiteral)
        self.assertIsInstance(
            guard.admit(literal(100, name=b"SEARCH", literal_octets=151)), RejectLiteral
        )
        self.assertIsInstance(guard.admit(literal(1, name=b"SEARCH", literals=4)), RejectLiteral)

    def test_unauthenticate_restores_the_limits_before_login(self) -> None:
        """After UNAUTHENTICATE the limits before login apply again, with new counts."""
        guard = ConnectionGuard(Limits())
        guard.bytes_received(65536)
        guard.admit(command())
        guard.next_command()
        guard.command_finished()
        guard.login()
        guard.bytes_received(1 << 20)
        for _ in range(500):
            guard.admit(command())
            guard.next_command()
            guard.command_finished()
        guard.logout()
        self.assertEqual(guard.bytes_received(65536), Accepted())
        for _ in range(100):
            self.assertEqual(guard.admit(command()), Accepted())
            guard.next_command()
            guard.command_finished()
        self.assertEqual(guard.admit(command()), Reset("preauth_commands", 100, 101))

    def test_login_failures_of_a_user(self) -> None:
        """A login does not reset the number of failed logins, so a user cannot try the passwords of others for ever."""
        guard = ConnectionGuard(Limits())
        for _ in range(2):
            self.assertEqual(after_command(guard, guard.login_failed), Accepted())
            guard.login()
            guard.logout()
        self.assertIsInstance(after_command(guard, guard.login_failed), Disconnect)

    def test_text_between_literals_and_all_messages_count(self) -> None:
        """The text between literals counts, and so do all messages of one APPEND together."""
        guard = authenticated_guard(
            max_command_size=1000, max_message_size=1000, max_append_size=2500
        )
        for name in (b"SEARCH", b"APPEND"):
            self.assertEqual(guard.admit(literal(10, name=name, octets=900)), AcceptLiteral())
            self.assertIsInstance(guard.admit(literal(10, name=name, octets=1001)), RejectLiteral)
        self.assertIsInstance(guard.admit(literal(200, name=b"SEARCH", octets=900)), RejectLiteral)
        self.assertEqual(
            guard.admit(literal(500, name=b"APPEND", literal_octets=2000)), AcceptLiteral()
        )
        self.assertIsInstance(
            guard.admit(literal(501, name=b"APPEND", literal_octets=2000)), RejectLiteral
        )

    def test_timeout_names_the_limit_of_the_state(self) -> None:
        """A timeout disconnects, and names the limit of the state that the connection is in."""
        guard = ConnectionGuard(Limits())
        self.assertEqual(guard.timed_out(60, in_literal=True).limit, "preauth_seconds")
        guard.login()
        self.assertEqual(guard.timed_out(60, in_literal=True).limit, "literal_seconds")
        verdict = guard.timed_out(1801, in_literal=False)
        self.assertEqual(
            (verdict.limit, verdict.value, verdict.observed), ("idle_seconds", 1800, 1801)
        )


class SuspendedInputTests(SynchronousTestCase):
    def test_no_line_is_read_until_idle_expects_one(self) -> None:
        """No line is read after IDLE until IDLE expects one, and then only that line."""
        guard = authenticated_guard()
        guard.admit(command(b"IDLE"))
        self.assertTrue(guard.input_paused)
        guard.next_command()
        guard.line_expected = True
        self.assertFalse(guard.input_paused)
        self.assertTrue(guard.consume_expected_line())
        self.assertTrue(guard.input_paused)
        guard.command_finished()
        self.assertFalse(guard.input_paused)

    def test_rejected_authenticate_does_not_suspend_the_input(self) -> None:
        """A rejected AUTHENTICATE does not suspend the input."""
        guard = ConnectionGuard(Limits())
        guard.admit(RawCommand(b"a", b"AUTHENTICATE", (), 20, BadCommand("no")))
        self.assertFalse(guard.input_paused)


class ReportOnlyLimitTests(SynchronousTestCase):
    """One limit can be report-only while the others are enforced."""

    def test_other_limits_are_enforced(self) -> None:
        """With a report-only backlog, a flood is reset when it reaches the limit on commands."""
        guard = ConnectionGuard(
            Limits(backlog=2, preauth_commands=4, report_only_limits=frozenset({"backlog"}))
        )
        verdicts = [guard.admit(command()) for _ in range(6)]
        self.assertEqual(verdicts[:2], [Accepted(), Accepted()])
        self.assertEqual(verdicts[2:4], [Reset("backlog", 2, 3), Reset("backlog", 2, 4)])
        self.assertEqual(verdicts[4:], [Reset("preauth_commands", 4, 5)] * 2)

    def test_report_only_limit_is_not_enforced(self) -> None:
        """A flood that exceeds only a report-only limit is reported, and its commands are executed."""
        guard = ConnectionGuard(
            Limits(preauth_commands=1, report_only_limits=frozenset({"preauth_commands"}))
        )
        guard.admit(command())
        self.assertEqual(guard.admit(command()), Reset("preauth_commands", 1, 2))
        self.assertEqual(guard.pending, 2)
        for _ in range(98):
            guard.admit(command())
        self.assertEqual(guard.admit(command()), Reset("backlog", 100, 101))
