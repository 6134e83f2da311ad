"""COMPRESS=DEFLATE (RFC 4978) carries the same protocol, and compressed floods are limited like plain ones."""

import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.edge.compress import CHUNK_SIZE, FLUSH_MARK, BadStream, Deflater, Inflater
from imapshield.testing.in_process import MAIL, Client, Server


class CompressedClient:
    """A client that sends and receives compressed data."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.inflater = zlib.decompressobj(-15)

    def deflate(self, data: bytes) -> bytes:
        return self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)

    def __call__(self, line: bytes) -> bytes:
        return self.send(line + b"\r\n")

    def send(self, data: bytes) -> bytes:
        return self.inflater.decompress(self.client.send(self.deflate(data)))


class CompressTests(SynchronousTestCase):
    def start(self, **limits: Any) -> CompressedClient:
        self.server = Server(**limits)
        self.client = self.server.login()
        self.assertRegex(self.client(b"a COMPRESS DEFLATE"), rb"\Aa OK [^\r]*\r\n\Z")
        return CompressedClient(self.client)

    def test_compressed_session_works(self) -> None:
        """Commands, literals and responses work as without compression."""
        client = self.start()
        self.assertRegex(client(b"b NOOP"), rb"\Ab OK [^\r]*\r\n\Z")
        self.assertEqual(client(b"c APPEND INBOX {%d}" % len(MAIL)), b"+ Go ahead\r\n")
        self.assertIn(b"c OK [APPENDUID", client(MAIL))
        client(b"d SELECT INBOX")
        self.assertIn(MAIL, client(b"e FETCH 1 BODY[]"))
        self.assertRegex(client(b"f IDLE"), rb"\A\+ [^\r]*\r\n\Z")
        self.assertRegex(client(b"DONE"), rb"\Af OK [^\r]*\r\n\Z")
        self.assertIn(b"* BYE", client(b"g LOGOUT"))

    def test_stream_may_be_divided_anywhere(self) -> None:
        """The commands are the same however the stream is divided."""
        client = self.start()
        answer = b"".join(
            self.client.send(bytes([octet])) for octet in client.deflate(b"b NOOP\r\nc NOOP\r\n")
        )
        self.assertRegex(client.inflater.decompress(answer), rb"\Ab OK [^\r]*\r\nc OK [^\r]*\r\n\Z")

    def test_compress_is_offered_once_after_login(self) -> None:
        """COMPRESS is offered after login and only once; another algorithm is BAD."""
        before_login = Server().connect()
        self.assertNotIn(b"COMPRESS", before_login.greeting)
        self.assertIn(b"a BAD", before_login(b"a COMPRESS DEFLATE"))
        self.assertIn(b"a BAD", Server().login()(b"a COMPRESS LZMA"))
        client = self.start()
        self.assertIn(b"b BAD [COMPRESSIONACTIVE]", client(b"b COMPRESS DEFLATE"))
        self.assertNotIn(b"COMPRESS", client(b"c CAPABILITY"))

    def test_unauthenticate_ends_compression(self) -> None:
        """UNAUTHENTICATE ends compression in both directions, even if the client does not end its stream (RFC 8437)."""
        for cut in (None, 1, 3):
            for end in (zlib.Z_SYNC_FLUSH, zlib.Z_FINISH):
                client = self.start()
                data = client.deflater.compress(b"a NOOP\r\n") + client.deflater.flush(
                    zlib.Z_SYNC_FLUSH
                )
                data += client.deflater.compress(b"b UNAUTHENTICATE\r\n") + client.deflater.flush(
                    end
                )
                plain_input = b"c LOGIN bob word\r\n"
                answer = self.client.send(
                    data + (plain_input if cut is None else plain_input[:cut])
                )
                if cut is not None:
                    answer += self.client.send(plain_input[cut:])
                end_of = answer.rindex(FLUSH_MARK) + len(FLUSH_MARK)
                self.assertRegex(
                    client.inflater.decompress(answer[:end_of]),
                    rb"\Aa OK [^\r]*\r\nb OK [^\r]*\r\n\Z",
                )
                self.assertTrue(answer[end_of:].startswith(b"c OK [CAPABILITY "), answer)
                self.assertEqual(self.client(b"d COMPRESS DEFLATE")[:4], b"d OK")
                self.assertIn(b"e OK", CompressedClient(self.client)(b"e NOOP"))

    def test_input_sent_before_the_ok_is_processed(self) -> None:
        """Compressed input that a client sends without waiting for the OK is processed."""
        server = Server()
        plain = server.login()
        client = CompressedClient(plain)
        answer = plain.send(b"a COMPRESS DEFLATE\r\n" + client.deflate(b"b NOOP\r\n"))
        head, _, rest = answer.partition(b"\r\n")
        self.assertTrue(head.startswith(b"a OK"))
        self.assertRegex(client.inflater.decompress(rest), rb"\Ab OK [^\r]*\r\n\Z")

    def test_input_is_inflated_a_backlog_at_a_time(self) -> None:
        """Thousands of commands in a few bytes are all answered, and at most one backlog is inflated at a time."""
        client = self.start()
        data = client.deflate(b"b NOOP\r\n" * 20_000)
        self.assertLess(len(data), 1000)
        self.client.protocol.dataReceived(data)
        self.assertLess(len(self.client.protocol._buffer), 2 * CHUNK_SIZE)
        self.assertLessEqual(self.client.protocol.guard.pending, 100)
        answer = client.inflater.decompress(self.client.read())
        self.assertEqual(answer.count(b"b OK"), 20_000)

    def test_compression_bomb_is_a_reset(self) -> None:
        """Commands that inflate to over a hundred times their size reset the connection, and the limit is reported."""
        client = self.start()
        self.client.send(client.deflate(b"b NOOP\r\n" * 300_000))
        self.assertTrue(self.client.transport.aborted)
        (event,) = self.server.events_of(events.LimitTriggered)
        self.assertEqual((event.limit, event.action), ("max_inflate_ratio", "reset"))

    def test_compression_ratio_covers_the_whole_connection(self) -> None:
        """The ratio covers the whole connection: another login and another COMPRESS do not begin a new count."""
        client = self.start()
        part = b"b NOOP\r\n" * 80_000  # 640 kB, less than the amount that is never checked
        self.assertEqual(client.send(part).count(b"b OK"), 80_000)
        self.client.send(client.deflate(b"c UNAUTHENTICATE\r\n"))
        self.assertIn(b"d OK", self.client(b"d LOGIN alice secret"))
        self.assertIn(b"e OK", self.client(b"e COMPRESS DEFLATE"))
        self.client.send(CompressedClient(self.client).deflate(part))
        self.assertTrue(self.client.transport.aborted)
        (event,) = self.server.events_of(events.LimitTriggered)
        self.assertEqual((event.limit, event.action), ("max_inflate_ratio", "reset"))

    def test_plain_input_follows_the_compressed_rest(self) -> None:
        """Input that arrives while compressed input is still pending is processed after it."""
        client = self.start()
        protocol = self.client.protocol
        finish_command = protocol.update_reading

        def receive_more() -> None:
            finish_command()
            if not protocol.guard.authenticated and not protocol.paused:
                self.patch(protocol, "update_reading", finish_command)
                protocol.dataReceived(b"word\r\n")

        self.patch(protocol, "update_reading", receive_more)
        answer = self.client.send(client.deflate(b"b UNAUTHENTICATE\r\n") + b"c LOGIN bob ")
        self.assertIn(b"c OK", answer)

    def test_message_may_be_compressed_to_any_size(self) -> None:
        """A message may be compressed to any size."""
        client = self.start()
        mail = MAIL + b"A" * (5 << 20)
        self.assertIn(b"b OK", client.send(b"b APPEND INBOX {%d+}\r\n%b\r\n" % (len(mail), mail)))
        self.assertFalse(self.client.transport.aborted)

    def test_overlong_line_is_bad_under_compression(self) -> None:
        """An overlong line is answered BAD, as without compression."""
        client = self.start()
        self.assertIn(b"b BAD", client.send(b"b " + b"x" * 500_000 + b"\r\n"))
        self.assertRegex(client(b"c NOOP"), rb"\Ac OK [^\r]*\r\n\Z")

    def test_bad_stream_is_a_reported_reset(self) -> None:
        """Input that is not a deflate stream, or that ends the stream, resets the connection and is reported."""
        self.start()
        self.client.send(b"\xff" * 100)
        self.assertTrue(self.client.transport.aborted)
        reported = [event.text for event in self.server.events_of(events.BadCommandReceived)]
        self.assertEqual(reported, ["Invalid compressed data"])
        client = self.start()
        self.client.send(client.deflater.flush(zlib.Z_FINISH))
        self.assertTrue(self.client.transport.aborted)


class StreamTests(SynchronousTestCase):
    def test_stream_is_inflated_in_chunks_on_demand(self) -> None:
        """A megabyte of zeros is inflated in chunks, each only when it is taken."""
        deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
        inflater = Inflater()
        inflater.feed(deflated.compress(bytes(1 << 20)) + deflated.flush(zlib.Z_SYNC_FLUSH))
        self.assertLess(len(inflater._input), 2000)
        chunk_sizes = []
        while chunk := inflater.take():
            chunk_sizes.append(len(chunk))
        self.assertEqual((sum(chunk_sizes), max(chunk_sizes)), (1 << 20, CHUNK_SIZE))

    def test_inflater_restores_the_deflated_data(self) -> None:
        """The inflater restores what the deflater has compressed."""
        deflater, inflater = Deflater(), Inflater()
        for data in (b"hello", b"", b"hello" * 1000):
            inflater.feed(deflater(data))
            self.assertEqual(inflater.take(), data)

    def test_input_that_is_no_stream_raises_bad_stream(self) -> None:
        """Input that is no deflate stream raises BadStream."""
        inflater = Inflater()
        inflater.feed(b"\xff\xff\xff")
        self.assertRaises(BadStream, inflater.take)

    def test_flood_of_empty_blocks_raises_bad_stream(self) -> None:
        """A flood of empty blocks is processed in parts, and then raises BadStream."""
        stored, fixed = b"\0\0\0\xff\xff", b"\x02\x08\x20\x80\x00"
        for block in (stored, fixed):
            inflater = Inflater()
            inflater.feed(block * 100)
            for _ in range(100):
                self.assertEqual(inflater.take(), b"")
            self.assertFalse(inflater.has_input)
            inflater.feed(block * 13_000)
            if block is stored:
                self.assertEqual(inflater.take(), b"")
                self.assertTrue(inflater.has_input)
            with self.assertRaises(BadStream):
                while inflater.has_input:
                    inflater.take()

    def test_stream_may_flush_after_each_line(self) -> None:
        """Correct streams flush after each line, and some flush twice."""
        deflated, inflater = zlib.compressobj(6, zlib.DEFLATED, -15), Inflater()
        for _ in range(5000):
            inflater.feed(
                deflated.compress(b"a NOOP\r\n")
                + deflated.flush(zlib.Z_SYNC_FLUSH)
                + deflated.flush(zlib.Z_FULL_FLUSH)
            )
            self.assertEqual(inflater.take(), b"a NOOP\r\n")
            while inflater.has_input:
                self.assertEqual(inflater.take(), b"")
