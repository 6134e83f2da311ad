"""FETCH reads little for a client that has not read anything yet."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.write_buffer import UNREAD_BYTES
from imapshield.testing.in_process import MAIL, Server
from tests.session.session_case import session_of


class ChunkSizeTests(SynchronousTestCase):
    def test_chunks_grow_while_the_client_reads(self) -> None:
        """A session reads an eighth of `fetch_chunk_size`, and twice as much each time once the client reads."""
        client = Server(fetch_chunk_size=8000).login()
        session = session_of(client)
        self.assertEqual([session.next_chunk_size() for _ in range(3)], [1000, 1000, 1000])
        client.protocol.write_buffer.bytes_written = UNREAD_BYTES + 1
        client.protocol.write_buffer.resumeProducing()
        self.assertEqual(
            [session.next_chunk_size() for _ in range(5)], [1000, 2000, 4000, 8000, 8000]
        )

    def test_a_client_that_reads_nothing_holds_one_small_chunk(self) -> None:
        """For a client that reads nothing, one small chunk is read however many messages it fetches."""
        server = Server()
        client = server.login()
        for _ in range(100):
            client.append(MAIL + b"x" * 10_000)
        client(b"a SELECT INBOX")
        client.protocol.write_buffer.set_high_water_mark(1)
        sent: list[bytes] = []
        transport = client.transport

        def write(data: bytes) -> None:
            sent.append(data)
            client.protocol.write_buffer.pauseProducing()

        self.patch(transport, "write", write)
        client.protocol.dataReceived(b"b FETCH 1:* BODY.PEEK[]\r\n")
        client.run_due_calls()
        held = sum(map(len, sent)) + client.protocol.write_buffer.unsent_bytes
        self.assertGreater(held, 10_000)
        self.assertLess(held, 100_000)
