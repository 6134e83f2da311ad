"""What connections hold is counted where it is held, and has limits, on in-memory transports."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.compress import STREAM_BYTES
from imapshield.events import LimitTriggered
from imapshield.guard.memory_budget import GRANULE
from imapshield.testing.in_process import Server
from imapshield.wire.framing import RawCommand

KB = 1 << 10


def half_a_search(literals: int, size: int) -> bytes:
    """Return a SEARCH that lacks the end of its last literal."""
    literal = b"SUBJECT {%d+}\r\n%b " % (size, b"x" * size)
    return (b"a SEARCH " + literal * literals)[: -size // 2]


class MemoryCase(SynchronousTestCase):
    def limits_triggered(self, server: Server) -> list[tuple[str, str, str]]:
        """Return limit, action and user of each limit that triggered."""
        found = server.events_of(LimitTriggered)
        return [(event.limit, event.action, event.user) for event in found]


class CountTests(MemoryCase):
    """What a connection holds is counted, and released when it no longer holds it."""

    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()

    def assert_held(self, expected: int) -> None:
        """Check that the server counts `expected` bytes, and a few hundred for the objects that describe them."""
        held = self.server.factory.shared.memory_budget.memory
        self.assertGreaterEqual(held, expected - GRANULE)
        self.assertLess(held, expected + 2 * GRANULE)

    def test_half_a_line(self) -> None:
        """A line counts while it arrives."""
        self.client.send(b"a SEARCH " + b"x" * 30_000)
        self.assert_held(30_000)
        self.client.send(b"\r\n")
        self.assert_held(0)

    def test_small_result_of_a_command_that_waits(self) -> None:
        """A result of some kilobytes counts as soon as its command waits, and until the command has ended."""
        answer: Deferred[None] = Deferred()

        async def run(command: RawCommand) -> None:
            with self.client.protocol._io.hold_result(5000):
                self.assert_held(0)
                await answer

        self.patch(self.client.protocol._session, "run", run)
        self.client.send(b"a NOOP\r\n")
        self.assert_held(5000)
        answer.callback(None)
        self.assert_held(0)

    def test_half_a_literal(self) -> None:
        """A literal counts with its whole size from its announcement, with the text before it."""
        self.client.send(b"a SEARCH " + b"x" * 3000 + b" {20000+}\r\n" + b"x" * 10)
        self.assert_held(23_000)
        self.client.send(b"x" * 19_990 + b"\r\n")
        self.assert_held(0)

    def test_literal_that_waits_for_its_turn(self) -> None:
        """A literal whose bytes have arrived, and wait for the next turn, counts once."""
        self.patch(self.server.factory.shared.input_turns, "is_over", lambda: True)
        literal = b" {20000+}\r\n" + b"x" * 20_000
        self.client.protocol.dataReceived(b"a SEARCH SUBJECT" + literal)
        self.assertEqual(len(self.client.protocol._buffer), 20_000)
        self.assert_held(20_000)
        self.client.protocol.dataReceived(b" BODY" + literal)
        self.assert_held(40_000)

    def test_rejected_command(self) -> None:
        """A rejected command holds none of its literals, although more of them arrive."""
        self.client.send(half_a_search(3, 20_000))
        self.assert_held(60_000)
        self.client.send(b"x" * 10_000 + b" {99999+}\r\n" + b"x" * 50)
        self.assert_held(0)

    def test_large_message(self) -> None:
        """A message that is in a file counts as bytes of disk, and no longer as memory."""
        self.client.send(b"a APPEND INBOX {300000+}\r\n" + b"x" * 200_000)
        self.assert_held(200_000)
        self.client.send(b"x" * 99_000)
        self.assert_held(8 * KB)
        self.assertEqual(self.server.factory.shared.memory_budget.file_bytes, 299_000)
        self.client.lose_connection()
        self.assertEqual(self.server.factory.shared.memory_budget.file_bytes, 0)

    def test_backlog(self) -> None:
        """Commands that wait count, and so does the one that runs."""
        self.client.protocol.write_buffer.pauseProducing()
        for _ in range(3):
            self.client.send(b"a SEARCH SUBJECT " + b"x" * 10_000 + b"\r\n")
        self.assert_held(30_000)
        self.client.protocol.write_buffer.resumeProducing()
        self.client.read()
        self.assert_held(0)

    def test_compression(self) -> None:
        """The streams of COMPRESS count until the connection ends."""
        self.client(b"a COMPRESS DEFLATE")
        self.client.send(b"\0" * 2)
        self.assert_held(STREAM_BYTES)
        self.client.lose_connection()
        self.assert_held(0)

    def test_overlong_line(self) -> None:
        """What is kept of an overlong line counts until the line has ended."""
        self.client.send(b"a SEARCH " + b"x" * 100_000)
        self.assert_held(64 * KB)
        self.client.send(b"\r\n")
        self.assert_held(0)


class LimitTests(MemoryCase):
    def test_user_who_holds_too_much_gets_literals_refused(self) -> None:
        """Literals beyond the budget of a user are refused on every connection, and all stay in sync."""
        server = Server(max_user_bytes=100 * KB)
        first, second = server.login(), server.login()
        first.send(half_a_search(2, 40_000))
        response = second.send(half_a_search(1, 30_000))
        self.assertEqual(
            response, b""
        )  # the client did not wait, so the response follows the command
        response = second.send(b"x" * 15_000 + b"\r\nb NOOP\r\n")
        self.assertIn(b"a NO [LIMIT] Too much data", response)
        self.assertIn(b"b OK", response)
        self.assertIn(b"c NO [LIMIT]", second(b"c SEARCH SUBJECT {30000}"))
        self.assertIn(b"d OK", second(b"d NOOP"))
        self.assertIn(b"a BAD Select", first.send(b"x" * 20_000 + b"\r\n"))
        self.assertEqual(
            self.limits_triggered(server), [("max_user_bytes", "refused", "alice")] * 2
        )

    def test_other_users_are_not_refused(self) -> None:
        """The budget of one user does not apply to another."""
        server = Server(max_user_bytes=100 * KB)
        server.login().send(half_a_search(2, 45_000))
        bob = server.login(b"bob", b"word")
        response = bob.send(half_a_search(2, 45_000) + b"x" * 22_500 + b"\r\n")
        self.assertIn(b"a BAD Select a mailbox first", response)

    def test_user_who_holds_too_many_lines_loses_the_largest_connection(self) -> None:
        """A line cannot be refused before it has arrived, so the user's largest connection is reset."""
        server = Server(max_user_bytes=50 * KB)
        clients = [server.login() for _ in range(4)]
        for client, size in zip(clients, (9_000, 20_000, 9_000, 15_000), strict=True):
            client.send(b"a SEARCH SUBJECT " + b"x" * size)
        self.assertEqual([c.transport.aborted for c in clients], [False, True, False, False])
        (event,) = server.events_of(LimitTriggered)
        self.assertEqual(
            (event.limit, event.action, event.user, event.connection),
            ("max_user_bytes", "reset", "alice", clients[1].protocol.reporter.number),
        )

    def test_full_memory_resets_the_largest_stranger(self) -> None:
        """When the server holds too much, one event names the limit and the largest stranger, which is reset."""
        server = Server(max_memory_bytes=50 * KB)
        user, largest, small, newcomer = (
            server.login(),
            server.connect("192.0.2.1"),
            server.connect("192.0.2.2"),
            server.connect("192.0.2.3"),
        )
        user.send(b"a SEARCH SUBJECT " + b"x" * 40_000)
        largest.send(b"a ID (" + b"x" * 7_000)
        small.send(b"a ID (" + b"x" * 2_000)
        newcomer.send(b"a ID (" + b"x" * 3_000)
        aborted = [c.transport.aborted for c in (user, largest, small, newcomer)]
        self.assertEqual(aborted, [False, True, False, False])
        (event,) = server.events_of(LimitTriggered)
        self.assertEqual((event.limit, event.peer), ("max_memory_bytes", "192.0.2.1"))

    def test_report_only_resets_nobody(self) -> None:
        """In report-only mode each limit is reported once for each victim, and nobody is reset."""
        server = Server(max_memory_bytes=10 * KB, report_only=True)
        client = server.connect()
        for _ in range(5):
            client.send(b"x" * 4000 + b"\r\n" if _ == 4 else b"a ID (" + b"x" * 3000)
        self.assertFalse(client.transport.aborted)
        self.assertIn(("max_memory_bytes", "none", ""), self.limits_triggered(server))

    def test_disk_budget_refuses_a_message_before_it_is_sent(self) -> None:
        """A message that does not fit into the disk budget is refused at its announcement, and the session is in sync."""
        server = Server(max_spool_bytes=500_000)
        client = server.login()
        self.assertIn(b"a NO [LIMIT]", client(b"a APPEND INBOX {300000}"))
        self.assertIn(b"b OK", client(b"b NOOP"))
        self.assertEqual(self.limits_triggered(server), [("max_spool_bytes", "refused", "alice")])

    def test_disk_budget_refuses_the_rest_of_a_message(self) -> None:
        """Messages that together do not fit are refused while they arrive; the others are stored."""
        server = Server(max_spool_bytes=900_000)
        first, second = server.login(), server.login()
        for client in (first, second):
            client.send(b"a APPEND INBOX {300000+}\r\n" + b"x" * 290_000)
        self.assertIn(b"a OK", first.send(b"x" * 10_000 + b"\r\n"))
        response = second.send(b"x" * 10_000 + b"\r\nb NOOP\r\n")
        self.assertIn(b"a NO [LIMIT]", response)
        self.assertIn(b"b OK", response)
        self.assertEqual(server.factory.shared.memory_budget.file_bytes, 0)

    def test_compression_is_refused_to_a_user_who_holds_too_much(self) -> None:
        """COMPRESS is refused when its memory does not fit, and the session continues without it."""
        server = Server(max_user_bytes=300 * KB)
        clients = [server.login() for _ in range(3)]
        self.assertIn(b"a OK", clients[0](b"a COMPRESS DEFLATE"))
        clients[0].send(b"\0" * 2)
        self.assertIn(b"a OK", clients[1](b"a COMPRESS DEFLATE"))
        clients[1].send(b"\0" * 2)
        self.assertIn(b"a NO [LIMIT]", clients[2](b"a COMPRESS DEFLATE"))
        self.assertIn(b"b OK", clients[2](b"b NOOP"))

    def test_too_many_literals_before_login(self) -> None:
        """The 65th literal of a command before login is refused, because each takes memory even if it is empty."""
        client = Server().connect()
        response = client.send(b"a ID (" + b"{0+}\r\n " * 65 + b")\r\nb NOOP\r\n")
        self.assertIn(b"a BAD Too many literals", response)
        self.assertIn(b"b OK", response)
        fields = b" ".join(b"{4+}\r\nname {5+}\r\nvalue" for _ in range(30))
        self.assertIn(b"c OK", client.send(b"c ID (" + fields + b")\r\n"))

    def test_client_that_was_closed_counts_until_it_has_read_all(self) -> None:
        """Responses that a closed connection has not sent yet count until it ends."""
        server = Server()
        client = server.connect()
        buffer = client.protocol.write_buffer
        vars(client.transport)["dataBuffer"] = b"x" * 5000  # as Twisted's TCP transport has it
        client.protocol.close()
        self.assertEqual(server.factory.shared.memory_budget.memory, 0)
        buffer.on_flushed(False)
        self.assertEqual(server.factory.shared.memory_budget.memory, 5000)
        client.lose_connection()
        self.assertEqual(server.factory.shared.memory_budget.memory, 0)
