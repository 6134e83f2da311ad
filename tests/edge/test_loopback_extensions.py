"""COMPRESS and channel binding over real TCP, TLS and STARTTLS connections."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import zlib
from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.tcp import Connection

from imapshield.cred.passwords import ScramSecret
from imapshield.cred.sasl import ScramChecker, challengers
from imapshield.edge import write_buffer
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL
from imapshield.wire.commands.base import MemoryLiteral
from tests.edge import test_loopback
from tests.edge.test_loopback import Peer

SECRET = ScramSecret.make(b"pencil", b"salt" * 4, 4096)


class CompressedPeer:
    """Sends and receives compressed data on the socket of a peer."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.inflater = zlib.decompressobj(-15)

    def command(self, text: bytes) -> bytes:
        data = self.deflater.compress(b"t " + text + b"\r\n") + self.deflater.flush(
            zlib.Z_SYNC_FLUSH
        )
        self.peer.send(data)
        answer = b""
        while b"\r\nt " not in b"\r\n" + answer:
            answer += self.inflater.decompress(self.peer.socket.recv(1 << 16))
        return answer


class CompressTests(test_loopback.LoopbackCase):
    async def test_compressed_session_works_over_all_transports(self) -> None:
        """A session works under COMPRESS over TCP, TLS and STARTTLS, with a message too large for one batch."""

        def script(connect: Callable[[], Peer]) -> tuple[bytes, int]:
            peer = connect()
            assert b" OK" in peer.command(b"LOGIN alice secret")
            assert b" OK" in peer.command(b"COMPRESS DEFLATE")
            client = CompressedPeer(peer)
            client.command(b"CREATE x")
            mail = MAIL + b"y" * 200_000
            client.command(b"APPEND x {%d+}\r\n%b" % (len(mail), mail))
            client.command(b"SELECT x")
            answer = client.command(b"FETCH 1:* BODY.PEEK[]")
            assert mail in answer
            return client.command(b"NOOP"), len(answer)

        for connect in self.ways_to_connect():
            last, size = await self.client(script, connect)
            self.assertTrue(last.startswith(b"t OK"))
            self.assertGreater(size, 200_000)


class ChannelBindingTests(test_loopback.LoopbackCase):
    async def test_login_is_bound_to_the_server_certificate(self) -> None:
        """A client binds its login to the server's certificate; over TCP there is nothing to bind to."""
        checker = ScramChecker({b"alice": SECRET}.get)
        self.factory.portal = Portal(self.realm, [checker])
        self.factory.challengers = challengers([checker])

        def script(connect: Callable[[], Peer]) -> bytes:
            peer = connect()
            if not isinstance(peer.socket, ssl.SSLSocket):
                return peer.command(b"AUTHENTICATE SCRAM-SHA-256-PLUS")
            der = peer.socket.getpeercert(True)
            assert der is not None
            header = b"p=tls-server-end-point,,"
            bare = b"n=alice,r=abcdefgh"
            peer.send(b"t AUTHENTICATE SCRAM-SHA-256-PLUS %b\r\n" % base64.b64encode(header + bare))
            first = base64.b64decode(peer.line()[2:])
            nonce = first.split(b",")[0]
            bound = base64.b64encode(header + hashlib.sha256(der).digest())
            without = b"c=%b,%b" % (bound, nonce)
            signed = b",".join((bare, first, without))
            salted = hashlib.pbkdf2_hmac("sha256", b"pencil", SECRET.salt, 4096)
            key = hmac.digest(salted, b"Client Key", "sha256")
            signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
            proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
            peer.send(base64.b64encode(without + b",p=" + proof) + b"\r\n")
            assert base64.b64decode(peer.line()[2:]).startswith(b"v=")
            peer.send(b"\r\n")
            return peer.line()

        for connect, expected in (
            (self.peer, b"t NO"),
            (self.tls_peer, b"t OK"),
            (self.starttls_peer, b"t OK"),
        ):
            answer = await self.client(script, connect)
            self.assertTrue(answer.startswith(expected), answer)


class ResponseTests(test_loopback.LoopbackCase):
    async def test_long_response_is_sent_in_large_writes(self) -> None:
        """While the client reads, what the transport may hold is one write, not a piece."""
        sizes: list[int] = []
        send = write_buffer.send_at_once

        def send_at_once(transport: Any, data: bytes) -> bytes:
            sizes.append(len(data))
            return send(transport, data)

        self.patch(write_buffer, "send_at_once", send_at_once)
        content = MemoryLiteral(MAIL + b"x" * (4 << 20))
        await self.realm.account().append("INBOX", [NewMessage((), None, content)])

        def script() -> None:
            peer = self.log_in()
            peer.command(b"SELECT INBOX")
            peer.command(b"FETCH 1 BODY.PEEK[]")
            peer.close()

        await self.client(script)
        self.assertGreaterEqual(max(sizes), self.factory.limits.max_unsent_bytes)

    async def test_response_is_sent_at_once(self) -> None:
        """A short response goes to the socket when it is written, without a wait for the reactor, also with TLS."""
        waits: list[Connection] = []
        wait = Connection.startWriting

        def start_writing(connection: Connection) -> None:
            waits.append(connection)
            wait(connection)

        def script(connect: Callable[[], Peer]) -> None:
            peer = connect()
            peer.command(b"LOGIN alice secret")
            waits.clear()
            for _ in range(3):
                assert b" OK" in peer.command(b"NOOP")
            assert not waits
            peer.close()

        self.patch(Connection, "startWriting", start_writing)
        for connect in self.ways_to_connect():
            await self.client(script, connect)
