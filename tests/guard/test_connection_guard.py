"""What one connection may do, judged without a reactor, a socket or a clock."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.connection_guard import ConnectionGuard
from imapshield.guard.verdicts import Accepted, AcceptLiteral, Disconnect, RejectLiteral, Reset
from imapshield.limits import Limits
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.framing import LiteralAnnounced, RawCommand


def noop(name: bytes = b"NOOP", text: bytes = b"") -> RawCommand:
    return RawCommand(b"a", name, (name + text,), 8)


def literal(
    size: int, *, waits: bool = True, name: bytes = b"LOGIN", **more: Any
) -> LiteralAnnounced:
    values = {"texts": (name + b" ",), "literals": 0, "literal_octets": 0, "octets": 0, **more}
    return LiteralAnnounced(
        b"a",
        name,
        size,
        waits,
        values["texts"],
        values["literals"],
        values["literal_octets"],
        values["octets"],
    )


def user(**limits: Any) -> ConnectionGuard:
    guard = ConnectionGuard(Limits(**limits))
    guard.login()
    return guard


class Backlog(SynchronousTestCase):
    def test_hundred(self) -> None:
        """A hundred commands may be pending."""
        guard = ConnectionGuard(Limits())
        self.assertEqual([guard.check(noop()) for _ in range(100)], [Accepted()] * 100)
        self.assertEqual(guard.pending, 100)

    def test_hundred_and_first(self) -> None:
        """The 101st pending command is an abort, and after it nothing else is ever said."""
        guard = ConnectionGuard(Limits())
        for _ in range(100):
            guard.check(noop())
        abort = Reset("backlog", 100, 101)
        self.assertEqual(guard.check(noop()), abort)
        self.assertEqual(guard.check(noop()), abort)
        self.assertTrue(guard.input_paused)

    def test_running_is_pending(self) -> None:
        """The command that is being executed is pending until it is answered."""
        guard = ConnectionGuard(Limits(preauth_commands=1000))
        for _ in range(100):
            guard.check(noop())
        self.assertIsNotNone(guard.next_command())
        self.assertIsInstance(guard.check(noop()), Reset)

    def test_answered_is_not(self) -> None:
        """An answered command is not pending any more."""
        guard = ConnectionGuard(Limits(preauth_commands=1000))
        for _ in range(300):
            self.assertEqual(guard.check(noop()), Accepted())
            guard.next_command()
            guard.command_finished()
        self.assertEqual(guard.pending, 0)

    def test_half_a_command_is_pending(self) -> None:
        """A command is pending from its first line on."""
        guard = ConnectionGuard(Limits())
        for _ in range(100):
            guard.check(noop())
        self.assertEqual(guard.check(literal(5)), Reset("backlog", 100, 101))

    def test_literal_counts_once(self) -> None:
        """However many lines a command has, it is one."""
        guard = ConnectionGuard(Limits())
        guard.check(literal(1))
        guard.check(literal(1))
        guard.check(noop(b"LOGIN"))
        self.assertEqual(guard.pending, 1)

    def test_one_at_a_time(self) -> None:
        """While a command runs, no other is taken."""
        guard = ConnectionGuard(Limits())
        guard.check(noop())
        guard.check(noop())
        self.assertIsNotNone(guard.next_command())
        self.assertIsNone(guard.next_command())
        guard.command_finished()
        self.assertIsNotNone(guard.next_command())

    def test_user_is_held(self) -> None:
        """A user is held at the cap and not reset, and let on when half of it is done."""
        guard = user()
        for _ in range(100):
            self.assertFalse(guard.input_paused)
            guard.check(noop())
        self.assertTrue(guard.input_paused)
        for _ in range(50):
            self.assertTrue(guard.input_paused)
            self.assertTrue(guard.backlog_full())
            guard.next_command()
            guard.command_finished()
        self.assertFalse(guard.input_paused)
        self.assertFalse(guard.backlog_full())

    def test_strict(self) -> None:
        """With strict_backlog a user is reset like anybody."""
        guard = user(strict_backlog=True)
        for _ in range(100):
            guard.check(noop())
        self.assertFalse(guard.input_paused)
        self.assertIsInstance(guard.check(noop()), Reset)

    def test_octets(self) -> None:
        """A user whose pending commands are large is held before there are a hundred."""
        guard = user(max_backlog_bytes=1000)
        guard.check(RawCommand(b"a", b"UID", (b"UID FETCH",), 1001))
        self.assertTrue(guard.input_paused)

    def test_literal_octets(self) -> None:
        """Literals count among the octets that are pending, those in files too, until their command runs."""
        guard = user(max_backlog_bytes=1000)
        parts = (b"APPEND INBOX ", MemoryLiteral(bytes(600)), b"")
        for _ in range(2):
            self.assertFalse(guard.input_paused)
            guard.check(RawCommand(b"a", b"APPEND", parts, 20))
        self.assertTrue(guard.input_paused)
        guard.next_command()
        self.assertTrue(guard.input_paused)
        guard.command_finished()
        guard.next_command()
        self.assertFalse(guard.input_paused)

    def test_held_in_the_middle(self) -> None:
        """A command that has begun is let in whole: held, it could never leave."""
        guard = user()
        for _ in range(99):
            guard.check(noop())
        guard.check(literal(5))
        self.assertFalse(guard.input_paused)

    def test_report_only(self) -> None:
        """In report-only mode the excess is told, taken up all the same, and held so that memory is bounded."""
        guard = ConnectionGuard(Limits(report_only=True))
        verdicts = [guard.check(noop()) for _ in range(101)]
        self.assertEqual(verdicts[100], Reset("backlog", 100, 101))
        self.assertEqual(guard.pending, 101)
        self.assertTrue(guard.input_paused)


class Stranger(SynchronousTestCase):
    def test_commands(self) -> None:
        """A stranger has a hundred commands in all, even if each is answered."""
        guard = ConnectionGuard(Limits())
        for _ in range(100):
            guard.check(noop())
            guard.next_command()
            guard.command_finished()
        self.assertEqual(guard.check(noop()), Reset("preauth_commands", 100, 101))

    def test_octets(self) -> None:
        """A stranger has 64 KiB in all."""
        guard = ConnectionGuard(Limits())
        self.assertEqual(guard.bytes_received(65536), Accepted())
        self.assertEqual(guard.bytes_received(1), Reset("preauth_bytes", 65536, 65537))

    def test_user_octets(self) -> None:
        """A user may send as much as it likes."""
        self.assertEqual(user().bytes_received(1 << 30), Accepted())

    def test_literal(self) -> None:
        """A stranger's literal has 4 KiB; a client that waits is told, one that does not is reset."""
        guard = ConnectionGuard(Limits())
        self.assertEqual(guard.check(literal(4096)), AcceptLiteral())
        self.assertIsInstance(guard.check(literal(4097)), RejectLiteral)
        self.assertIsInstance(guard.check(literal(4097, waits=False)), Reset)

    def test_depth(self) -> None:
        """One level of parentheses, counted as they open, in whatever order the tokens come."""
        for text in (b" ((", b" (((((", b' ("x" (', b" )(((", b' ("(((" ("', b" (()"):
            verdict = ConnectionGuard(Limits()).check(literal(10, texts=(b"NOOP" + text,)))
            self.assertIsInstance(verdict, RejectLiteral, text)
            guard = ConnectionGuard(Limits())
            guard.check(noop(text=text))
            frame = guard.next_command()
            assert frame is not None
            self.assertIsInstance(frame.rejection, BadCommand, text)
            self.assertEqual(frame.parts, ())

    def test_depth_of_id(self) -> None:
        """ID needs one level, and quoted parentheses are none."""
        guard = ConnectionGuard(Limits())
        guard.check(RawCommand(b"a", b"ID", (b'ID ("name" "x (y) ((z")',), 30))
        frame = guard.next_command()
        assert frame is not None
        self.assertIsNone(frame.rejection)

    def test_bad(self) -> None:
        """The third malformed command is the last."""
        guard = ConnectionGuard(Limits())
        self.assertEqual([guard.bad_command() for _ in range(2)], [Accepted()] * 2)
        self.assertIsInstance(guard.bad_command(), Disconnect)

    def test_failures(self) -> None:
        """The third failed login is the last."""
        guard = ConnectionGuard(Limits())
        self.assertEqual([guard.login_failed() for _ in range(2)], [Accepted()] * 2)
        self.assertIsInstance(guard.login_failed(), Disconnect)


class User(SynchronousTestCase):
    def test_bad_in_a_row(self) -> None:
        """A user's malformed commands count only in a row."""
        guard = user(max_bad_commands=3)
        for _ in range(10):
            guard.bad_command()
            guard.bad_command()
            guard.command_parsed()
        guard.bad_command()
        guard.bad_command()
        self.assertIsInstance(guard.bad_command(), Disconnect)

    def test_message(self) -> None:
        """A message may be large, one that is too large is refused before it is sent."""
        guard = user(max_message_size=1000)
        self.assertEqual(guard.check(literal(1000, name=b"APPEND")), AcceptLiteral())
        verdict = guard.check(literal(1001, name=b"APPEND"))
        assert isinstance(verdict, RejectLiteral) and isinstance(verdict.rejection, CommandRefused)
        self.assertEqual(verdict.rejection.code, b"TOOBIG")

    def test_arguments(self) -> None:
        """Literals that are arguments are bounded each, in number, and all together (CVE-2024-34055)."""
        guard = user(max_literal_size=100, max_command_size=250, max_command_literals=4)
        self.assertEqual(
            guard.check(literal(100, name=b"SEARCH", literal_octets=150)), AcceptLiteral()
        )
        self.assertIsInstance(guard.check(literal(101, name=b"SEARCH")), RejectLiteral)
        self.assertIsInstance(
            guard.check(literal(100, name=b"SEARCH", literal_octets=151)), RejectLiteral
        )
        self.assertIsInstance(guard.check(literal(1, name=b"SEARCH", literals=4)), RejectLiteral)

    def test_stranger_again(self) -> None:
        """Who was a user and is a stranger again has what is left of a stranger's allowance, and no less."""
        guard = ConnectionGuard(Limits())
        guard.check(noop())
        guard.next_command()
        guard.command_finished()
        guard.login()
        guard.bytes_received(1 << 20)
        for _ in range(500):
            guard.check(noop())
            guard.next_command()
            guard.command_finished()
        guard.logout()
        self.assertEqual(guard.bytes_received(1000), Accepted())
        for _ in range(99):
            self.assertEqual(guard.check(noop()), Accepted())
            guard.next_command()
            guard.command_finished()
        self.assertIsInstance(guard.check(noop()), Reset)

    def test_between_literals(self) -> None:
        """The text between literals counts too, and so do the messages of one APPEND together."""
        guard = user(max_command_size=1000, max_message_size=1000, max_append_size=2500)
        for name in (b"SEARCH", b"APPEND"):
            self.assertEqual(guard.check(literal(10, name=name, octets=900)), AcceptLiteral())
            self.assertIsInstance(guard.check(literal(10, name=name, octets=1001)), RejectLiteral)
        self.assertIsInstance(guard.check(literal(200, name=b"SEARCH", octets=900)), RejectLiteral)
        self.assertEqual(
            guard.check(literal(500, name=b"APPEND", literal_octets=2000)), AcceptLiteral()
        )
        self.assertIsInstance(
            guard.check(literal(501, name=b"APPEND", literal_octets=2000)), RejectLiteral
        )


class Exclusive(SynchronousTestCase):
    def test_idle_holds(self) -> None:
        """Nothing behind IDLE is read before IDLE asks for its line, and then only that line."""
        guard = user()
        guard.check(noop(b"IDLE"))
        self.assertTrue(guard.input_paused)
        guard.next_command()
        guard.expect_line()
        self.assertFalse(guard.input_paused)
        self.assertTrue(guard.consume_expected_line())
        self.assertTrue(guard.input_paused)
        guard.command_finished()
        self.assertFalse(guard.input_paused)

    def test_refused_idle_does_not(self) -> None:
        """A malformed AUTHENTICATE asks for nothing."""
        guard = ConnectionGuard(Limits())
        guard.check(RawCommand(b"a", b"AUTHENTICATE", (), 20, BadCommand("no")))
        self.assertFalse(guard.input_paused)
