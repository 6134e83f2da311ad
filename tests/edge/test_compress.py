"""COMPRESS=DEFLATE (RFC 4978): the same protocol in fewer octets, and no way to make many of few."""

import zlib

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.edge.compress import FLUSHED, PIECE, BadStream, Deflater, Inflater
from imapshield.events import BadCommandReceived
from imapshield.testing.in_process import MAIL, Client, Server


class Deflated:
    """A client that speaks deflated."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.out = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.come = zlib.decompressobj(-15)

    def deflate(self, data: bytes) -> bytes:
        return self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH)

    def __call__(self, line: bytes) -> bytes:
        return self.send(line + b"\r\n")

    def send(self, data: bytes) -> bytes:
        return self.come.decompress(self.client.send(self.deflate(data)))


class Compress(SynchronousTestCase):
    def compressed(self, **limits: int) -> Deflated:
        self.server = Server(**limits)
        self.client = self.server.login()
        self.assertEqual(self.client(b"a COMPRESS DEFLATE"), b"a OK Begin compression now\r\n")
        return Deflated(self.client)

    def test_session(self) -> None:
        """Commands, literals and answers go on as before."""
        client = self.compressed()
        self.assertEqual(client(b"b NOOP"), b"b OK NOOP completed\r\n")
        self.assertEqual(client(b"c APPEND INBOX {%d}" % len(MAIL)), b"+ Go ahead\r\n")
        self.assertIn(b"c OK [APPENDUID", client(MAIL))
        client(b"d SELECT INBOX")
        self.assertIn(MAIL, client(b"e FETCH 1 BODY[]"))
        self.assertEqual(client(b"f IDLE"), b"+ idling\r\n")
        self.assertEqual(client(b"DONE"), b"f OK Idle completed\r\n")
        self.assertIn(b"* BYE", client(b"g LOGOUT"))

    def test_octet_by_octet(self) -> None:
        """However the stream is cut, the commands are the same."""
        client = self.compressed()
        answer = b"".join(
            self.client.send(bytes([octet])) for octet in client.deflate(b"b NOOP\r\nc NOOP\r\n")
        )
        self.assertEqual(client.come.decompress(answer), b"b OK NOOP completed\r\nc OK NOOP completed\r\n")

    def test_once(self) -> None:
        """It is offered after login, and not again; another algorithm is BAD."""
        stranger = Server().connect()
        self.assertNotIn(b"COMPRESS", stranger.greeting)
        self.assertIn(b"a BAD", stranger(b"a COMPRESS DEFLATE"))
        self.assertIn(b"a BAD", Server().login()(b"a COMPRESS LZMA"))
        client = self.compressed()
        self.assertIn(b"b BAD [COMPRESSIONACTIVE]", client(b"b COMPRESS DEFLATE"))
        self.assertNotIn(b"COMPRESS", client(b"c CAPABILITY"))

    def test_unauthenticate(self) -> None:
        """UNAUTHENTICATE ends it for both sides, whether or not the client waits or ends its stream (RFC 8437)."""
        for cut in (None, 1, 3):
            for end in (zlib.Z_SYNC_FLUSH, zlib.Z_FINISH):
                client = self.compressed()
                data = client.out.compress(b"a NOOP\r\n") + client.out.flush(zlib.Z_SYNC_FLUSH)
                data += client.out.compress(b"b UNAUTHENTICATE\r\n") + client.out.flush(end)
                after = b"c LOGIN bob word\r\n"
                answer = self.client.send(data + (after if cut is None else after[:cut]))
                if cut is not None:
                    answer += self.client.send(after[cut:])
                end_of = answer.rindex(FLUSHED) + len(FLUSHED)
                self.assertEqual(
                    client.come.decompress(answer[:end_of]),
                    b"a OK NOOP completed\r\nb OK UNAUTHENTICATE completed\r\n",
                )
                self.assertTrue(answer[end_of:].startswith(b"c OK [CAPABILITY "), answer)
                self.assertEqual(self.client(b"d COMPRESS DEFLATE")[:4], b"d OK")
                self.assertEqual(Deflated(self.client)(b"e NOOP"), b"e OK NOOP completed\r\n")

    def test_before_the_ok(self) -> None:
        """What a client deflated without waiting for the OK is taken up."""
        server = Server()
        plain = server.login()
        client = Deflated(plain)
        answer = plain.send(b"a COMPRESS DEFLATE\r\n" + client.deflate(b"b NOOP\r\n"))
        head, _, rest = answer.partition(b"\r\n")
        self.assertTrue(head.startswith(b"a OK"))
        self.assertEqual(client.come.decompress(rest), b"b OK NOOP completed\r\n")

    def test_backlog(self) -> None:
        """Thousands of commands in a few octets are answered, a backlog at a time; nothing more is inflated meanwhile."""
        client = self.compressed()
        data = client.deflate(b"b NOOP\r\n" * 20_000)
        self.assertLess(len(data), 1000)
        self.client.protocol.dataReceived(data)
        self.assertLess(len(self.client.protocol._buffer), 2 * PIECE)
        self.assertLessEqual(self.client.protocol._guard.pending, 100)
        answer = client.come.decompress(self.client.read())
        self.assertEqual(answer.count(b"b OK"), 20_000)

    def test_bomb(self) -> None:
        """Commands that inflate a hundredfold and more are a reset, told with the limit's name."""
        client = self.compressed()
        self.client.send(client.deflate(b"b NOOP\r\n" * 300_000))
        self.assertTrue(self.client.transport.aborted)
        (hit,) = self.server.events_of(events.LimitTriggered)
        self.assertEqual((hit.limit, hit.action), ("max_inflate_ratio", "reset"))

    def test_zeros(self) -> None:
        """A message of nothing but zeros may be as small as it deflates to."""
        client = self.compressed()
        mail = MAIL + b"A" * (5 << 20)
        self.assertIn(b"b OK", client.send(b"b APPEND INBOX {%d+}\r\n%b\r\n" % (len(mail), mail)))
        self.assertFalse(self.client.transport.aborted)

    def test_long_line(self) -> None:
        """A line without an end is refused as ever."""
        client = self.compressed()
        self.assertIn(b"b BAD", client.send(b"b " + b"x" * 500_000 + b"\r\n"))
        self.assertEqual(client(b"c NOOP"), b"c OK NOOP completed\r\n")

    def test_garbage(self) -> None:
        """What is no deflated stream, or ends it, is a reset, and the log says so."""
        self.compressed()
        self.client.send(b"\xff" * 100)
        self.assertTrue(self.client.transport.aborted)
        told = [fact.text for fact in self.server.events if isinstance(fact, BadCommandReceived)]
        self.assertEqual(told, ["What is sent deflated cannot be read"])
        client = self.compressed()
        self.client.send(client.out.flush(zlib.Z_FINISH))
        self.assertTrue(self.client.transport.aborted)


class Streams(SynchronousTestCase):
    def test_piecewise(self) -> None:
        """A megabyte of zeros comes out in pieces, and as long as none is taken nothing is inflated."""
        deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
        inflater = Inflater()
        inflater.feed(deflated.compress(bytes(1 << 20)) + deflated.flush(zlib.Z_SYNC_FLUSH))
        self.assertEqual(inflater.octets_out, 0)
        pieces = []
        while piece := inflater.take():
            pieces.append(len(piece))
        self.assertEqual((sum(pieces), max(pieces)), (1 << 20, PIECE))

    def test_there_and_back(self) -> None:
        """What is deflated is what is inflated."""
        deflater, inflater = Deflater(), Inflater()
        for data in (b"hello", b"", b"hello" * 1000):
            inflater.feed(deflater(data))
            self.assertEqual(inflater.take(), data)

    def test_bad(self) -> None:
        """Anything else raises BadStream."""
        inflater = Inflater()
        inflater.feed(b"\xff\xff\xff")
        self.assertRaises(BadStream, inflater.take)

    def test_empty_blocks(self) -> None:
        """A flood of blocks that hold nothing is looked at a part at a time, and then is no stream."""
        stored, fixed = b"\0\0\0\xff\xff", b"\x02\x08\x20\x80\x00"
        for block in (stored, fixed):
            inflater = Inflater()
            inflater.feed(block * 100)
            for _ in range(100):
                self.assertEqual(inflater.take(), b"")
            self.assertFalse(inflater.waiting)
            inflater.feed(block * 13_000)
            if block is stored:
                self.assertEqual(inflater.take(), b"")
                self.assertTrue(inflater.waiting)
            with self.assertRaises(BadStream):
                while inflater.waiting:
                    inflater.take()

    def test_flushes(self) -> None:
        """Honest streams flush after each line, and some flush twice."""
        deflated, inflater = zlib.compressobj(6, zlib.DEFLATED, -15), Inflater()
        for _ in range(5000):
            inflater.feed(
                deflated.compress(b"a NOOP\r\n")
                + deflated.flush(zlib.Z_SYNC_FLUSH)
                + deflated.flush(zlib.Z_FULL_FLUSH)
            )
            self.assertEqual(inflater.take(), b"a NOOP\r\n")
            while inflater.waiting:
                self.assertEqual(inflater.take(), b"")
