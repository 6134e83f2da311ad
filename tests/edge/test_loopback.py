"""The rule about pending commands on real connections: TCP and TLS over loopback, with plain sockets as clients."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet import ssl as twisted_ssl
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from imapshield.edge import write_buffer as write_buffer_module
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.write_buffer import WriteBuffer
from imapshield.events import (
    CommandFailed,
    ConnectionClosed,
    Event,
    LimitTriggered,
)
from imapshield.limits import Limits
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL, MemoryRealm
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.pieces import PIECE_SIZE
from tests.certificates import self_signed

T = TypeVar("T")
MAX_WAIT = 60
"""Seconds that a client waits for the server at most: a busy machine needs more than a few."""
FULL_PACKET = b"a NOOP\r\n" * 187  # 1,496 bytes: the payload of a full Ethernet packet


class Peer:
    """A blocking client on a socket."""

    def __init__(self, port: int, host: str = "127.0.0.1", context: Any = None) -> None:
        self.raw = socket.create_connection(("127.0.0.1", port), MAX_WAIT, source_address=(host, 0))
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: Any = self.raw
        if context is not None:
            self.start_tls(context)
        self.buffer = b""
        self.line()

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.raw, server_hostname="localhost")
        # Python's TLS reports a reset as an end of file; a second socket for the same descriptor reports the reset.
        self.raw = socket.socket(fileno=os.dup(self.socket.fileno()))
        self.raw.settimeout(MAX_WAIT)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def command(self, text: bytes, tag: bytes = b"t") -> bytes:
        self.send(tag + b" " + text + b"\r\n")
        while not (line := self.line()).startswith(tag + b" "):
            pass
        return line

    def answers(self, count: int) -> int:
        return sum(b" OK" in self.line() for _ in range(count))

    def ending(self) -> str:
        """Return how the connection ends: "reset", "closed", or "open" if it does not end."""
        try:
            while self.raw.recv(1 << 16):
                pass
        except ConnectionResetError:
            return "reset"
        except TimeoutError:
            return "open"
        return "closed"

    def close(self) -> None:
        self.socket.close()
        self.raw.close()


class LoopbackCase(TestCase):
    """A test with a server on two ports: `port` (TCP, with STARTTLS) and `tls_port`."""

    limits: dict[str, Any] = {}

    def setUp(self) -> None:
        self.events: list[Event] = []
        self.realm = MemoryRealm()
        cert, key = self_signed()
        self.pem = cert + key
        pair = twisted_ssl.PrivateCertificate.loadPEM(self.pem)
        self.factory = ShieldedIMAP4Factory(
            Portal(self.realm, [InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")]),
            limits=Limits(**self.limits),
            context_factory=pair.options(),
            observers=[self.events.append],
        )
        plain: Any = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        tls = reactor.listenSSL(0, self.factory, pair.options(), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.port, self.tls_port = plain.getHost().port, tls.getHost().port
        self.addCleanup(plain.stopListening)
        self.addCleanup(tls.stopListening)
        self.addCleanup(self.rested)
        self.addCleanup(self.factory.shutdown)
        self.context = ssl.create_default_context(cadata=cert.decode())

    async def rested(self) -> None:
        """Wait until no user of the fair queue rests: on a busy machine, work takes long."""
        while self.factory.shared.fair_queue._resting:
            await deferLater(reactor, 0.01)

    def client(self, script: Callable[..., T], *args: Any) -> Deferred[T]:
        """Run a client in a thread."""
        return deferToThread(script, *args)

    def peer(self, **options: Any) -> Peer:
        peer = Peer(self.port, **options)
        self.addCleanup(peer.close)
        return peer

    def tls_peer(self) -> Peer:
        peer = Peer(self.tls_port, context=self.context)
        self.addCleanup(peer.close)
        return peer

    def starttls_peer(self) -> Peer:
        peer = self.peer()
        assert b" OK" in peer.command(b"STARTTLS")
        peer.start_tls(self.context)
        return peer

    def ways_to_connect(self) -> list[Callable[[], Peer]]:
        return [self.peer, self.tls_peer, self.starttls_peer]

    def log_in(self, **options: Any) -> Peer:
        peer = self.peer(**options)
        assert b" OK" in peer.command(b"LOGIN alice secret")
        return peer


class PendingCommandTests(LoopbackCase):
    async def test_100_commands_get_100_responses(self) -> None:
        """A hundred NOOPs in one send get a hundred responses, over TCP, TLS and STARTTLS."""

        def script(connect: Callable[[], Peer]) -> int:
            peer = connect()
            used = (
                1 if connect == self.starttls_peer else 0
            )  # STARTTLS is one of the hundred commands
            peer.send(b"a NOOP\r\n" * (100 - used))
            return peer.answers(100 - used) + used

        for connect in self.ways_to_connect():
            self.assertEqual(await self.client(script, connect), 100)

    async def test_101_commands_end_in_a_reset(self) -> None:
        """101 NOOPs in one send end in ECONNRESET, and so does one full packet, over TCP, TLS and STARTTLS."""

        def script(connect: Callable[[], Peer], data: bytes) -> str:
            peer = connect()
            try:
                peer.send(data)
            except (ConnectionError, ssl.SSLEOFError):  # the reset came before everything was sent
                return "reset"
            return peer.ending()

        for connect in self.ways_to_connect():
            for data in (b"a NOOP\r\n" * 101, FULL_PACKET, FULL_PACKET * 20):
                self.assertEqual(await self.client(script, connect, data), "reset")
        # STARTTLS counts as a command: after it, the hundredth NOOP exceeds the limit for commands before login too.
        self.assertLessEqual(
            {event.limit for event in self.events if isinstance(event, LimitTriggered)},
            {"backlog", "preauth_commands"},
        )

    async def test_no_command_before_a_reset_is_executed(self) -> None:
        """No command of a packet that leads to a reset is executed."""

        def script() -> str:
            peer = self.peer()
            peer.send(FULL_PACKET)
            return peer.ending()

        await self.client(script)
        await self.everyone_has_left()
        closed = [event for event in self.events if isinstance(event, ConnectionClosed)]
        self.assertEqual([(event.commands, event.executed) for event in closed], [(101, 0)])

    async def test_reasons_of_ends(self) -> None:
        """The event of the end of a connection says in plain words how it has ended, with and without TLS."""

        def script(connect: Callable[[], Peer]) -> None:
            flood, user = connect(), connect()
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
                flood.send(FULL_PACKET)
            flood.ending()
            user.command(b"LOGOUT")
            user.close()

        for connect in self.ways_to_connect():
            del self.events[:]
            await self.client(script, connect)
            await self.everyone_has_left()
            self.assertEqual(self.reasons(), ["logged out", "reset by the server"])
        del self.events[:]
        await self.client(lambda: self.peer().close())
        await self.everyone_has_left()
        self.assertEqual(self.reasons(), ["closed by the client"])

    async def everyone_has_left(self) -> None:
        while self.factory.connections:
            await deferLater(reactor, 0.01)

    def reasons(self) -> list[str]:
        return sorted(e.reason for e in self.events if isinstance(e, ConnectionClosed))

    async def test_batches_of_90_end_in_a_reset_too(self) -> None:
        """A client that sends 90 commands at a time and reads every response is reset too."""

        def script() -> str:
            peer = self.peer()
            peer.send(b"a NOOP\r\n" * 90)
            assert peer.answers(90) == 90
            peer.send(b"a NOOP\r\n" * 90)
            return peer.ending()

        self.assertEqual(await self.client(script), "reset")

    async def test_pipelining_user_gets_every_response(self) -> None:
        """A user who pipelines 5,000 UID FETCH commands gets every response."""
        await self.realm.account().append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))] * 10)

        def script() -> int:
            peer = self.log_in()
            peer.command(b"SELECT INBOX")
            peer.send(
                b"".join(
                    b"f%d UID FETCH %d (FLAGS BODY.PEEK[])\r\n" % (i, i % 10 + 1)
                    for i in range(5000)
                )
            )
            responses = 0
            while responses < 5000:
                line = peer.line()
                if line.startswith(b"f%d OK" % responses):
                    responses += 1
            return responses

        self.assertEqual(await self.client(script), 5000)
        limits = [event for event in self.events if isinstance(event, LimitTriggered)]
        self.assertEqual([event for event in limits if event.action != "paused"], [])

    async def test_plaintext_after_starttls_is_never_answered(self) -> None:
        """Plaintext sent after STARTTLS is never answered (CVE-2011-0411, CVE-2021-33515)."""

        def script() -> bytes:
            peer = self.peer()
            peer.send(b"a STARTTLS\r\nb NOOP\r\nc LOGIN alice secret\r\n")
            assert peer.line().startswith(b"a OK")
            peer.start_tls(self.context)
            return peer.command(b"NOOP", b"d") + peer.buffer

        self.assertRegex(await self.client(script), rb"\Ad OK [^\r]*\r\Z")

    async def test_connection_closed_without_logout_is_released(self) -> None:
        """A connection that the client closes without LOGOUT is released at once, over TCP, TLS and STARTTLS."""

        def script(connect: Callable[[], Peer]) -> None:
            peer = connect()
            assert b" OK" in peer.command(b"NOOP")
            peer.close()

        for connect in self.ways_to_connect():
            released: Deferred[None] = Deferred()
            connection_lost = self.factory._connection_lost
            self.patch(
                self.factory,
                "_connection_lost",
                lambda s, released=released, lost=connection_lost: released.callback(lost(s)),
            )
            await self.client(script, connect)
            await released.addTimeout(MAX_WAIT, reactor)
            self.assertEqual(self.factory.connections, set())
            self.factory._connection_lost = connection_lost  # type: ignore[method-assign]

    async def test_tcp_nodelay_is_set(self) -> None:
        """TCP_NODELAY is set: a response of several writes does not wait for an acknowledgement."""

        def script() -> None:
            self.log_in()

        await self.client(script)
        (server,) = self.factory.connections
        self.assertTrue(server.transport.getTcpNoDelay())


class UnreadResponseTests(LoopbackCase):
    limits = {"stalled_seconds": 0.5, "unsent_seconds": 1.0}

    async def test_user_who_never_reads_is_reset(self) -> None:
        """A user who sends and never reads is reset, and until then its responses use no memory."""
        await self.realm.account().append(
            "INBOX", [NewMessage((), None, MemoryLiteral(MAIL + b"x" * 200_000))] * 20
        )

        def script() -> str:
            peer = self.log_in()
            peer.command(b"SELECT INBOX")
            peer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.raw.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                for _ in range(2000):
                    peer.send(b"f FETCH 1:* BODY.PEEK[]\r\n" * 10)
            poll = select.poll()
            poll.register(peer.raw, select.POLLHUP | select.POLLERR)
            return "reset" if poll.poll(1000 * MAX_WAIT) else "open"

        self.assertEqual(await self.client(script), "reset")
        limits = {event.limit for event in self.events if isinstance(event, LimitTriggered)}
        self.assertEqual(limits, {"stalled_seconds"})
        self.assertEqual([event for event in self.events if isinstance(event, CommandFailed)], [])


class UnsentBytesTests(LoopbackCase):
    limits = {"max_unsent_bytes": 4096}

    async def test_unsent_bytes_of_all_transports(self) -> None:
        """A client that stops reading leaves no more unsent bytes than the limit and two pieces, with and without TLS."""
        peaks: list[int] = []
        pass_on = WriteBuffer._pass_on

        def measured_pass_on(write_buffer: WriteBuffer) -> None:
            pass_on(write_buffer)
            peaks.append(write_buffer.unsent_bytes)

        full = threading.Event()
        pause = WriteBuffer.pauseProducing

        def pause_producing(write_buffer: WriteBuffer) -> None:
            pause(write_buffer)
            if write_buffer.client_reads:
                full.set()

        self.patch(write_buffer_module, "UNREAD_BYTES", 0)  # the buffer soon has its full size
        self.patch(WriteBuffer, "_pass_on", measured_pass_on)
        self.patch(WriteBuffer, "pauseProducing", pause_producing)
        content = MemoryLiteral(MAIL + b"x" * (1 << 20))
        await self.realm.account().append("INBOX", [NewMessage((), None, content)])

        def script(connect: Callable[[], Peer]) -> None:
            peer = connect()
            peer.command(b"LOGIN alice secret")
            peer.command(b"SELECT INBOX")
            full.clear()
            peer.send(b"f FETCH 1 BODY.PEEK[]\r\n")
            assert full.wait(MAX_WAIT)
            peer.close()

        for connect in (self.peer, self.tls_peer, self.starttls_peer):
            peaks.clear()
            await self.client(script, connect)
            self.assertGreaterEqual(max(peaks), PIECE_SIZE)
            # TLS adds 22 bytes to each record.
            limit = self.factory.limits.max_unsent_bytes
            self.assertLessEqual(max(peaks), limit + 2 * PIECE_SIZE + 200)


class LargeUnsentBytesTests(UnsentBytesTests):
    limits = {"max_unsent_bytes": 4 * PIECE_SIZE}


class FloodTests(LoopbackCase):
    async def test_flood_from_three_addresses_leaves_memory_flat(self) -> None:
        """Floods from three addresses that reconnect endlessly leave memory flat, and another user is served."""
        await self.realm.account().append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))] * 10)
        resets = dict.fromkeys(("127.0.0.2", "127.0.0.3", "127.0.0.4"), 0)

        def flood(host: str, is_over: Callable[[], bool]) -> None:
            while not is_over():
                with contextlib.suppress(ConnectionError, EOFError, TimeoutError):
                    peer = Peer(self.port, host)
                    try:
                        peer.send(FULL_PACKET)
                        resets[host] += peer.ending() == "reset"
                    finally:
                        peer.close()

        def user(rounds: int) -> None:
            for _ in range(rounds):
                peer = self.log_in(host="127.0.0.1")
                peer.command(b"SELECT INBOX")
                assert b" OK" in peer.command(b"FETCH 1:* (FLAGS)")
                peer.close()

        await self.client(flood, "127.0.0.2", lambda: resets["127.0.0.2"] >= 200)
        resets["127.0.0.2"] = 0
        before, is_served = resident_bytes(), threading.Event()

        def is_over() -> bool:
            return is_served.is_set() and min(resets.values()) >= 100

        runs = [self.client(flood, host, is_over) for host in resets]
        await self.client(user, 5)
        is_served.set()
        for run in runs:
            await run
        self.assertLess(resident_bytes() - before, 8 << 20)
        self.assertLess(len(self.factory.connections), 10)


def resident_bytes() -> int:
    """Return how many bytes of memory this process uses."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
