"""Results that wait for a client that does not read are counted as what its connection holds."""

from __future__ import annotations

from imapshield.edge.user_turns import TURNS_PER_USER
from imapshield.events import LimitTriggered
from imapshield.guard.memory_budget import GRANULE
from imapshield.testing.in_process import MAIL, Client, MemoryRealm, Server, SlowWorker
from tests.session.test_unread_responses import MAX_UNSENT, MESSAGES, UnreadCase, unread

MESSAGE_SIZE = 1000
UNREAD = 100
"""Messages whose FETCH takes `UNREAD` times `MESSAGE_SIZE`."""


class ResultTests(UnreadCase):
    """A command counts its result until the client has read enough, or has left."""

    def held(self) -> int:
        """Return the bytes that the server counts, without unsent output."""
        connections = self.server.factory.connections
        unsent = sum(connection.write_buffer.unsent_bytes for connection in connections)
        return self.server.factory.shared.memory_budget.memory - unsent

    def assert_held(self, command: bytes, least: int, most: int, select: bool = True) -> None:
        """Check that `command` counts these bytes while its client does not read, and nothing afterwards."""
        for leaves in (False, True):
            client = self.login(*[b"s SELECT INBOX"] * select)
            client.protocol.dataReceived(b"C " + command + b"\r\n")
            client.run_due_calls()
            self.assertTrue(client.protocol.write_buffer.full, command)
            self.assertGreater(self.held(), least, command)
            self.assertLess(self.held(), most, command)
            if leaves:
                client.lose_connection()
                self.assertEqual(self.server.factory.shared.memory_budget.memory, 0)
            else:
                self.read_slowly(client)
                self.assertLess(self.held(), GRANULE, command)
                client.lose_connection()

    def test_fetch(self) -> None:
        """FETCH counts the values of the messages of one call of the store, with the objects that they are in."""
        inbox = self.store._mailboxes["INBOX"]
        for message in list(inbox.messages.values())[:UNREAD]:
            message.content = MAIL + b"x" * MESSAGE_SIZE
        size = len(MAIL) + MESSAGE_SIZE
        # The first call reads an eighth of a chunk.
        chunk = self.server.factory.shared.memory_budget.limits.fetch_chunk_size // 8
        self.assert_held(b"FETCH 1:%d BODY.PEEK[]" % UNREAD, chunk, 2 * chunk + size)

    def test_fetch_of_one_large_value(self) -> None:
        """A piece of a long message counts while it is sent."""
        self.assert_held(b"FETCH * BODY.PEEK[]", 16 << 10, 300 << 10)

    def test_search(self) -> None:
        """SEARCH and SORT count four bytes for each UID and each sequence number."""
        for command in (b"UID SEARCH ALL", b"UID SORT (SIZE) UTF-8 ALL"):
            self.assert_held(command, 8 * MESSAGES - GRANULE, 8 * MESSAGES + 2 * GRANULE)
        command = b"UID SEARCH RETURN (ALL) ALL"
        self.assert_held(command, 8 * MESSAGES - GRANULE, 8 * MESSAGES + 2 * GRANULE)

    def test_thread(self) -> None:
        """THREAD counts its encoded response."""
        command = b"UID THREAD ORDEREDSUBJECT UTF-8 ALL"
        self.assert_held(command, 12 * MESSAGES, 14 * MESSAGES)

    def test_list(self) -> None:
        """LIST and LSUB count their encoded responses, and LIST with STATUS the names."""
        names = 400
        self.assert_held(b'LIST "" *', 250 * names, 350 * names, select=False)
        self.assert_held(b'LSUB "" *', 250 * names, 350 * names, select=False)
        command = b'LIST "" * RETURN (STATUS (MESSAGES))'
        self.assert_held(command, 500 * names, 700 * names, select=False)

    def test_metadata(self) -> None:
        """GETMETADATA counts the values of one response."""
        command = b"GETMETADATA INBOX (/private/v/1)"
        self.assert_held(command, (32 << 10) - GRANULE, 72 << 10, select=False)


class LimitTests(UnreadCase):
    def test_results_of_one_user_are_limited(self) -> None:
        """Clients that read nothing of large results are reset when they hold too much, and other users are not."""
        self.server = Server(
            realm=MemoryRealm(open_store=lambda: self.store),
            max_unsent_bytes=MAX_UNSENT,
            max_user_bytes=500 << 10,
        )
        clients = [self.login(b"s SELECT INBOX") for _ in range(20)]
        budget = self.server.factory.shared.memory_budget
        for client in clients:
            client.protocol.dataReceived(b"c UID THREAD ORDEREDSUBJECT UTF-8 ALL\r\n")
            client.run_due_calls()
            self.assertLess(budget.memory, 500 << 10)
        aborted = [client.transport.aborted for client in clients]
        self.assertGreater(aborted.count(True), 10)
        self.assertIn(False, aborted)
        limits = {event.limit for event in self.server.events_of(LimitTriggered)}
        self.assertEqual(limits, {"max_user_bytes"})


class TurnTests(UnreadCase):
    """Few SORT and THREAD commands of one user compute at the same time."""

    def setUp(self) -> None:
        super().setUp()
        self.worker = SlowWorker()
        self.clients = [self.login(b"s SELECT INBOX") for _ in range(2 * TURNS_PER_USER)]
        self.bob = self.server.login(b"bob", b"word")
        unread(self.bob).deliver()
        self.run_command(self.bob, b"s SELECT INBOX")
        for account in self.server.realm.accounts.values():
            account._worker = self.worker

    def start(self, client: Client) -> None:
        """Send a THREAD, and run the server until it waits."""
        client.protocol.dataReceived(b"t UID THREAD ORDEREDSUBJECT UTF-8 ALL\r\n")
        client.run_due_calls()

    def test_commands_of_one_user_wait(self) -> None:
        """More commands wait for the first ones, and those of other users do not."""
        for client in self.clients:
            self.start(client)
        self.assertEqual(len(self.worker.jobs), TURNS_PER_USER)
        self.start(self.bob)
        self.assertEqual(len(self.worker.jobs), TURNS_PER_USER + 1)
        self.finish()
        for client in [*self.clients, self.bob]:
            self.assertIn(b"\r\nt OK", self.read_slowly(client))

    def finish(self) -> None:
        """Run all calls of the store, and what follows."""
        while self.worker.jobs:
            self.worker.step()
            self.bob.run_due_calls()

    def test_command_whose_client_leaves(self) -> None:
        """A client that leaves ends its turn, or no longer waits for one."""
        for client in self.clients:
            self.start(client)
        for client in self.clients[:-1]:
            client.lose_connection()
        self.finish()
        self.assertIn(b"\r\nt OK", self.read_slowly(self.clients[-1]))

    def test_client_that_does_not_read_gets_no_turn(self) -> None:
        """A client with a full write buffer waits without a turn, so other clients of its user are not delayed."""
        for client in self.clients[:-1]:
            client.protocol.write_buffer.write(b"* OK " + b"x" * 10_000 + b"\r\n")
            self.start(client)
        self.start(self.clients[-1])
        self.assertEqual(len(self.worker.jobs), 1)
        self.finish()
        self.assertIn(b"\r\nt OK", self.read_slowly(self.clients[-1]))
