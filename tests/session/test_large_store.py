"""Commands with many responses share memory, and other sessions are served while they run."""

from array import array
from contextlib import ExitStack
from itertools import pairwise
from unittest import mock

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge import session_io
from imapshield.edge.write_buffer import WORK_PER_TURN, WriteBuffer
from imapshield.session import session as session_module
from imapshield.session import state
from imapshield.session.dispatcher import LONG_COMMAND
from imapshield.session.handlers import fetch, mailboxes, store_copy
from imapshield.session.state import PIECE_WORK
from imapshield.testing import Client, Server, memory_mailbox
from imapshield.wire.commands.messages import Store
from imapshield.wire.pieces import PIECE_SIZE
from imapshield.wire.sequence import SequenceSet
from tests.session.session_case import session_of, without_text


class LargeStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()
        for _ in range(5):
            self.client.append()
        self.client(b"s SELECT INBOX")

    def test_expected_flags_are_shared(self) -> None:
        """Messages with the same flags have one expected flag list, and their UIDs are an array."""
        session = session_of(self.client)
        keywords = [b"k%d" % i for i in range(100)]
        command = Store(SequenceSet.parse(b"1:5"), b"+", tuple(keywords))
        expected = store_copy._expected_flags(session, [1, 2, 3, 4, 5], command)
        self.assertEqual(expected, [(frozenset(keywords), array("I", [1, 2, 3, 4, 5]))])
        response = self.client(b"a STORE 1:5 +FLAGS.SILENT (" + b" ".join(keywords) + b")")
        self.assertTrue(without_text(response).endswith(b"a OK\r\n"))
        self.assertNotIn(b"FETCH", response)

    def test_fetch_responses_are_sent_in_batches(self) -> None:
        """Many FETCH responses are sent in batches, and changes by others in between follow them."""
        self.patch(store_copy, "STORE_CHUNK_RESPONSES", 2)
        session = session_of(self.client)
        pause = session.pause

        async def change_flags(*args: int) -> None:
            await session.mailbox.store_flags([1, 5], b"+", [b"other"], None)
            await pause(*args)

        session.pause = change_flags
        response = self.client(b"a STORE 1:5 +FLAGS (mine)").splitlines()
        numbers = [line.split()[1] for line in response if b"FETCH" in line]
        self.assertEqual(numbers, [b"1", b"2", b"3", b"4", b"5", b"1"])
        for line in response[-3:-1]:
            self.assertIn(b"mine other", line)

    def test_idle_sessions_are_scheduled(self) -> None:
        """Idle sessions get their updates when they are scheduled, with all changes up to that time."""
        idle = [self.server.login() for _ in range(3)]
        for client in idle:
            client(b"s SELECT INBOX")
            client(b"i IDLE")
        session = session_of(self.client)
        for keyword in (b"a", b"b"):
            done = session.mailbox.store_flags([1, 2], b"+", [keyword], None)
            self.assertRaises(StopIteration, done.send, None)
        self.assertEqual([client.transport.value() for client in idle], [b"", b"", b""])
        for client in idle:
            self.assertEqual(client.read().count(b"FETCH (FLAGS"), 2)

    def test_updates_of_an_idle_session_take_many_turns(self) -> None:
        """A client that reads at once is sent some updates in each turn, all of them in order, and without delay."""
        self.patch(session_module, "PIECE_SIZE", 1)  # an update at a time
        self.patch(session_io, "WORK_PER_TURN", 2)
        idle = self.server.login()
        idle(b"s SELECT INBOX")
        idle(b"i IDLE")
        lengths = self.lengths_at_turns(idle)
        self.client(b"a STORE 1:5 +FLAGS (keyword)")
        lines = idle.read().splitlines()
        numbers = [line.split()[1] for line in lines if b" FETCH " in line]
        self.assertEqual(numbers, [b"1", b"2", b"3", b"4", b"5"])
        self.assertGreaterEqual(len(lengths), 3)
        sent = [after - before for before, after in pairwise(lengths)]
        self.assertLessEqual(max(sent), 2 * len(lines[-1] + b"\r\n"))

    def test_long_response_takes_many_turns(self) -> None:
        """Each turn sends so many pieces of a long response, also if the client reads them at once."""
        lengths = self.lengths_at_turns(self.client)
        pieces = [b"x" * PIECE_SIZE] * 40
        done = Deferred.fromCoroutine(session_of(self.client).send(iter(pieces)))
        self.server.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(self.client.read(), b"".join(pieces))
        self.assertEqual(len(lengths), 40 // -(-WORK_PER_TURN // PIECE_WORK) - 1)

    def test_pieces_are_divided_as_there_is_room(self) -> None:
        """Each byte of a long piece is sent once, whether there is more or less room for what is left of it."""
        room = mock.PropertyMock(side_effect=[3, 100, 2, 0, 4, 1, 50, 3])
        self.patch(WriteBuffer, "room", room)
        pieces = [b"0123456789", b"", b"abcdefghij", b"xyz"]
        done = Deferred.fromCoroutine(session_of(self.client).send(iter(pieces)))
        self.server.clock.advance(0)
        self.assertEqual(self.client.read(), b"".join(pieces))
        self.assertRaises(StopIteration, room)
        self.successResultOf(done)

    def test_no_bye_within_a_response_that_is_not_read(self) -> None:
        """When the server stops, a client that reads slowly gets no BYE within a message: it would become mail."""
        self.client.append(b"x" * (PIECE_SIZE + 9))
        sent: list[bytes] = []

        def write(data: bytes) -> None:
            sent.append(data)
            self.client.protocol.write_buffer.pauseProducing()

        self.patch(self.client.transport, "write", write)
        self.client.protocol.dataReceived(b"f FETCH 6 BODY.PEEK[]\r\n")
        self.client.run_due_calls()
        self.server.factory.shutdown()
        self.assertTrue(b"".join(sent).endswith(b"x" * 1000))
        self.assertTrue(self.client.transport.disconnecting)

    def test_no_bye_while_a_message_is_read(self) -> None:
        """Nor does a client whose message comes slowly from the disk. Others do."""
        self.patch(memory_mailbox, "MAX_STRING_SIZE", PIECE_SIZE)
        self.client.append(b"x" * 40_000)
        other, mailbox = self.server.login(), session_of(self.client).mailbox
        second: Deferred[bytes] = Deferred()
        self.patch(mailbox, "read", mock.Mock(side_effect=[succeed(b"x" * PIECE_SIZE), second]))
        self.client.protocol.dataReceived(b"f FETCH 6 BODY.PEEK[]\r\n")
        self.assertTrue(self.client.read().endswith(b"x" * PIECE_SIZE))
        self.server.factory.shutdown()
        self.assertEqual(self.client.read(), b"")
        self.assertIn(b"* BYE", other.read())
        second.callback(b"")

    def test_change_reaches_idle_sessions_when_it_is_their_turn(self) -> None:
        """A change of the mailbox begins nothing in hundreds of idle sessions before their turns."""
        idle = [self.server.login() for _ in range(3)]
        for client in idle:
            client(b"s SELECT INBOX")
            client(b"i IDLE")
        sessions = [session_of(client) for client in idle]
        for session in sessions:
            self.patch(
                session.io, "run_in_background", mock.Mock(wraps=session.io.run_in_background)
            )
        done = session_of(self.client).mailbox.store_flags([1], b"+", [b"a"], None)
        self.assertRaises(StopIteration, done.send, None)
        self.assertEqual([s.io.run_in_background.call_count for s in sessions], [0, 0, 0])
        idle[0].lose_connection()
        self.server.clock.advance(0)
        self.assertEqual([s.io.run_in_background.call_count for s in sessions], [0, 1, 1])

    def test_many_numbers_are_looked_up_in_many_turns(self) -> None:
        """UIDs that a command names one by one, and messages whose MODSEQ is compared, are divided into turns."""
        validity = session_of(self.client).mailbox.uidvalidity
        self.client(b"e ENABLE QRESYNC")
        self.client(b"x STORE 5 +FLAGS (\\Deleted)")
        self.client(b"x EXPUNGE")
        commands = [
            b"a UID FETCH 1,3:5 (FLAGS)",
            b"a UID FETCH 1:3 (FLAGS) (CHANGEDSINCE 1 VANISHED)",
            b"a UID STORE 1,3 -FLAGS (x)",
            b"a UID EXPUNGE 1,3",
            b"a SELECT INBOX (QRESYNC (%d 1 1,3,5))" % validity,
        ]
        lengths = self.lengths_at_turns(self.client)
        for command in commands:
            undivided = self.client(command)
            before = len(lengths)
            with ExitStack() as smaller:
                for module in (state, fetch):
                    smaller.enter_context(mock.patch.object(module, "LOOKED_AT", 1))
                smaller.enter_context(mock.patch.object(session_io, "WORK_PER_TURN", 1))
                divided = self.client(command)
            self.assertGreaterEqual(len(lengths) - before, 2, command)
            self.assertEqual(without_text(divided), without_text(undivided))

    def lengths_at_turns(self, client: Client) -> list[int]:
        """Return the list to which each turn of `client` that ends adds how many bytes were sent before."""
        lengths: list[int] = []
        buffer = client.protocol.write_buffer
        drain = buffer.drain

        def record() -> object:
            done = drain()
            lengths.append(len(client.transport.value()))
            return done

        self.patch(buffer, "drain", record)
        return lengths

    def test_long_command_is_executed_in_another_turn(self) -> None:
        """A command of many kilobytes lets other connections run between its parsing and its execution."""
        self.client(b"s SELECT INBOX")
        drain = mock.Mock(wraps=self.client.protocol.write_buffer.drain)
        self.patch(self.client.protocol.write_buffer, "drain", drain)
        for size, drained in ((LONG_COMMAND // 4, 0), (LONG_COMMAND // 2, 1)):
            numbers = b",".join([b"1"] * size)
            self.assertIn(b"a OK", self.client(b"a SEARCH UID " + numbers))
            self.assertEqual(drain.call_count, drained)

    def test_list_responses_are_encoded_in_batches(self) -> None:
        """LIST of many mailboxes lets other connections run between batches, and is complete and in order."""
        self.patch(mailboxes, "LIST_CHUNK_RESPONSES", 3)
        for i in range(10):
            self.client(b"c CREATE m%d" % i)
        drain = mock.Mock(wraps=self.client.protocol.write_buffer.drain)
        self.patch(self.client.protocol.write_buffer, "drain", drain)
        lines = self.client(b'a LIST "" *').splitlines()
        self.assertGreaterEqual(drain.call_count, 3)
        self.assertEqual(
            [line.split()[-1] for line in lines[1:-1]], [b"m%d" % i for i in range(10)]
        )
