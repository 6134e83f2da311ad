"""The rule where it counts: on TCP and TLS over loopback, with clients that are plain sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet import ssl as twisted_ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.events import BadCommandReceived, CommandFailed, Event, LimitTriggered, LoginFailed
from imapshield.limits import Limits
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL, MemoryRealm
from imapshield.wire.commands.base import MemoryLiteral
from tests.certificates import self_signed

T = TypeVar("T")
FRAME = b"a NOOP\r\n" * 187  # 1,496 octets: one full Ethernet frame


class Peer:
    """A blocking client."""

    def __init__(self, port: int, host: str = "127.0.0.1", context: Any = None) -> None:
        self.raw = socket.create_connection(("127.0.0.1", port), 10, source_address=(host, 0))
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: Any = self.raw
        if context is not None:
            self.start_tls(context)
        self.buffer = b""
        self.line()

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.raw, server_hostname="localhost")
        # Python's TLS shows a reset as an end; a second look at the same socket shows it as it is
        self.raw = socket.socket(fileno=os.dup(self.socket.fileno()))
        self.raw.settimeout(10)

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
        """How the connection ends: "reset", "closed", or "open" if it does not within five seconds."""
        self.raw.settimeout(5)
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


class Loopback(TestCase):
    """A server on a port of its own."""

    limits: dict[str, Any] = {}

    def setUp(self) -> None:
        self.facts: list[Event] = []
        self.realm = MemoryRealm()
        cert, key = self_signed()
        pair = twisted_ssl.PrivateCertificate.loadPEM(cert + key)
        self.factory = ShieldedIMAP4Factory(
            Portal(self.realm, [InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")]),
            limits=Limits(**self.limits),
            context_factory=pair.options(),
            tell=self.facts.append,
        )
        plain = reactor.listenTCP(0, self.factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        tls = reactor.listenSSL(0, self.factory, pair.options(), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.port, self.tls_port = plain.getHost().port, tls.getHost().port
        self.addCleanup(plain.stopListening)
        self.addCleanup(tls.stopListening)
        self.addCleanup(self.factory.shutdown)
        self.context = ssl.create_default_context(cadata=cert.decode())

    def client(self, script: Callable[..., T], *args: Any) -> Deferred[T]:
        """Run a client in a thread."""
        return deferToThread(script, *args)  # type: ignore[return-value]

    def peer(self, **more: Any) -> Peer:
        peer = Peer(self.port, **more)
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

    def ways(self) -> list[Callable[[], Peer]]:
        return [self.peer, self.tls_peer, self.starttls_peer]

    def log_in(self, **more: Any) -> Peer:
        peer = self.peer(**more)
        assert b" OK" in peer.command(b"LOGIN alice secret")
        return peer


class Rule(Loopback):
    async def test_hundred(self) -> None:
        """A hundred NOOPs in one send get a hundred answers, over TCP and over TLS."""

        def script(way: Callable[[], Peer]) -> int:
            peer = way()
            used = 1 if way == self.starttls_peer else 0  # STARTTLS was one of its hundred
            peer.send(b"a NOOP\r\n" * (100 - used))
            return peer.answers(100 - used) + used

        for way in self.ways():
            self.assertEqual(await self.client(script, way), 100)

    async def test_reset(self) -> None:
        """101 in one send get ECONNRESET, and so does one full frame, over TCP and over TLS."""

        def script(way: Callable[[], Peer], data: bytes) -> str:
            peer = way()
            try:
                peer.send(data)
            except (ConnectionError, ssl.SSLEOFError):  # before all of it was sent
                return "reset"
            return peer.ending()

        for way in self.ways():
            for data in (b"a NOOP\r\n" * 101, FRAME, FRAME * 20):
                self.assertEqual(await self.client(script, way, data), "reset")
        # after STARTTLS, which was one of its hundred, a stranger's hundredth NOOP is one too many as well
        self.assertLessEqual(
            {hit.limit for hit in self.facts if isinstance(hit, LimitTriggered)},
            {"backlog", "preauth_commands"},
        )

    async def test_nothing_is_executed(self) -> None:
        """Of a frame that is reset not one command is executed."""

        def script() -> str:
            peer = self.peer()
            peer.send(FRAME)
            return peer.ending()

        await self.client(script)
        gone = [fact for fact in self.facts if type(fact).__name__ == "ConnectionClosed"]
        self.assertEqual([fact.commands for fact in gone], [0])  # type: ignore[attr-defined]

    async def test_turns(self) -> None:
        """A stranger who sends ninety at a time and reads every answer is stopped too."""

        def script() -> str:
            peer = self.peer()
            peer.send(b"a NOOP\r\n" * 90)
            assert peer.answers(90) == 90
            peer.send(b"a NOOP\r\n" * 90)
            return peer.ending()

        self.assertEqual(await self.client(script), "reset")

    async def test_pipelining_user(self) -> None:
        """A user who pipelines 5,000 UID FETCHes gets every answer."""
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
            done = 0
            while done < 5000:
                line = peer.line()
                if line.startswith(b"f%d OK" % done):
                    done += 1
            return done

        self.assertEqual(await self.client(script), 5000)
        self.assertEqual([f for f in self.facts if isinstance(f, LimitTriggered)], [])

    async def test_starttls_injection(self) -> None:
        """What is sent in the clear behind STARTTLS is never answered (CVE-2011-0411, CVE-2021-33515)."""

        def script() -> bytes:
            peer = self.peer()
            peer.send(b"a STARTTLS\r\nb NOOP\r\nc LOGIN alice secret\r\n")
            assert peer.line().startswith(b"a OK")
            peer.start_tls(self.context)
            return peer.command(b"NOOP", b"d") + peer.buffer

        self.assertEqual(await self.client(script), b"d OK NOOP completed\r")

    async def test_hung_up(self) -> None:
        """A client that closes without a word, in the clear or in TLS, is gone at once and forgotten."""

        def script(way: Callable[[], Peer]) -> None:
            peer = way()
            assert b" OK" in peer.command(b"NOOP")
            peer.close()

        for way in self.ways():
            gone: Deferred[None] = Deferred()
            lost = self.factory._lost
            self.patch(
                self.factory, "_lost", lambda s, gone=gone, lost=lost: gone.callback(lost(s))
            )
            await self.client(script, way)
            await gone.addTimeout(10, reactor)  # type: ignore[arg-type]
            self.assertEqual(self.factory.connections, set())
            self.factory._lost = lost  # type: ignore[method-assign]

    async def test_no_delay(self) -> None:
        """TCP_NODELAY is set: an answer of several writes does not wait for an acknowledgement."""

        def script() -> None:
            self.log_in()

        await self.client(script)
        (server,) = self.factory.connections
        self.assertTrue(server.transport.getTcpNoDelay())


class Silent(Loopback):
    limits = {"stalled_seconds": 0.5, "unsent_seconds": 1.0}

    async def test_never_reads(self) -> None:
        """A user who sends and never reads is cut, and holds no memory meanwhile."""
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
            return "cut" if poll.poll(10_000) else "open"

        self.assertEqual(await self.client(script), "cut")
        limits = {hit.limit for hit in self.facts if isinstance(hit, LimitTriggered)}
        self.assertEqual(limits, {"stalled_seconds"})
        self.assertEqual([fact for fact in self.facts if isinstance(fact, CommandFailed)], [])


class Flood(Loopback):
    async def test_three_addresses(self) -> None:
        """Floods from three addresses that reconnect for ever leave memory flat, and a victim is answered."""
        await self.realm.account().append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))] * 10)
        until = time.monotonic() + 2

        def attack(host: str) -> int:
            resets = 0
            while time.monotonic() < until:
                with contextlib.suppress(ConnectionError, EOFError, TimeoutError):
                    peer = Peer(self.port, host)
                    try:
                        peer.send(FRAME)
                        resets += peer.ending() == "reset"
                    finally:
                        peer.close()
            return resets

        def victim() -> int:
            rounds = 0
            while time.monotonic() < until:
                peer = self.log_in(host="127.0.0.1")
                peer.command(b"SELECT INBOX")
                assert b" OK" in peer.command(b"FETCH 1:* (FLAGS)")
                peer.close()
                rounds += 1
            return rounds

        await self.client(attack, "127.0.0.2")
        until = time.monotonic() + 2
        before = resident()
        runs = [self.client(attack, f"127.0.0.{n}") for n in (2, 3, 4)]
        rounds = await self.client(victim)
        resets = [await run for run in runs]
        self.assertGreater(min(resets), 10)
        self.assertGreater(rounds, 3)
        self.assertLess(resident() - before, 8 << 20)
        self.assertLess(len(self.factory.connections), 10)


def resident() -> int:
    """Octets of memory that this process uses now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


class Proxied(Loopback):
    """Behind ``haproxy:``, the address that counts is the one in the PROXY header."""

    def setUp(self) -> None:
        super().setUp()
        endpoint = serverFromString(reactor, "haproxy:tcp:0:interface=127.0.0.1")
        port = self.successResultOf(endpoint.listen(self.factory))
        self.addCleanup(port.stopListening)
        self.proxied_port = port.getHost().port

    async def test_far_away(self) -> None:
        """Who comes from elsewhere through a proxy on this machine may not log in in the clear."""

        def script() -> tuple[bytes, bytes]:
            raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
            greeting = raw.recv(1000)
            raw.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4444 143\r\na LOGIN alice secret\r\n")
            answer = raw.recv(1000)
            raw.close()
            return greeting, answer

        greeting, answer = await self.client(script)
        self.assertIn(b"LOGINDISABLED", greeting)
        self.assertNotIn(b"AUTH=PLAIN", greeting)
        self.assertTrue(answer.startswith(b"a NO [PRIVACYREQUIRED]"), answer)

    async def test_no_address(self) -> None:
        """What a header says instead of an address does not get into the log, nor past where passwords may be sent."""

        def script() -> None:
            for said in (b"127.0.0.1\nlogin", b"127.%b" % (b"1" * 64), b'127.1"', b"x" * 80):
                raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
                raw.recv(1000)
                raw.sendall(b"PROXY TCP4 %b 127.0.0.1 44 143\r\na LOGIN alice wrong\r\n" % said)
                self.assertIn(b"PRIVACYREQUIRED", raw.recv(1000))
                raw.sendall(b"b XYZZY\r\n")
                raw.recv(1000)
                raw.close()

        await self.client(script)
        self.assertEqual(
            {f.peer for f in self.facts if isinstance(f, BadCommandReceived)}, {"unknown"}
        )

    async def test_wrong_password(self) -> None:
        """The log names the client and not the proxy, or fail2ban would shut out everybody."""

        def script() -> None:
            raw = socket.create_connection(("127.0.0.1", self.proxied_port), 10)
            raw.recv(1000)
            raw.sendall(b"PROXY TCP4 127.0.0.9 127.0.0.1 4444 143\r\na LOGIN alice wrong\r\n")
            raw.recv(1000)
            raw.close()

        await self.client(script)
        failed = [fact.peer for fact in self.facts if isinstance(fact, LoginFailed)]
        self.assertEqual(failed, ["127.0.0.9"])
