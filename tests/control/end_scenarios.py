"""Scenarios in which connections end, each with what `imapshield why` must say after it."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from imapshield.control.commands import BanCommands, ConnectionCommands
from imapshield.control.end_history import EndHistory
from imapshield.control.request_lines import Request
from imapshield.edge import peer
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.login_checks import LEFT
from imapshield.edge.reading_check import ReadingCheck
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.verdicts import LimitReached
from imapshield.process.user_watch import UserWatch
from imapshield.testing import MemoryRealm, MemoryStore
from imapshield.testing.in_process import Client, Server

HERE, OTHER = "192.0.2.7", "198.51.100.9"
LOCAL = "127.0.0.9"
"""An address of this machine, from which a login without TLS is permitted."""


class Why(NamedTuple):
    """What `why` must say: the cause and action, whether there is a limit, and the last commands."""

    cause: str
    action: str
    has_limit: bool = True
    commands: tuple[str, ...] = ()
    who: str = HERE


class EndScenarios(SynchronousTestCase):
    """Each scenario is a method ``end_…``, which returns what `why` must say after it."""

    def serve(self, *, trust: bool = False, realm: Any = None, **limits: Any) -> None:
        self.clock = Clock()
        self.history = EndHistory(self.clock.seconds)
        self.server = Server(clock=self.clock, observers=[self.history], realm=realm, **limits)
        factory = self.server.factory
        if not trust:
            self.server.factory = ShieldedIMAP4Factory(
                factory.portal,
                limits=factory.limits,
                observers=factory.observers,
                reactor=self.clock,
                guard=ProcessGuard(factory.limits, key=b"key"),
            )

    def user(self, *lines: bytes) -> Client:
        """Return a client that has logged in from this machine, and has sent commands."""
        client = self.server.login()
        for line in lines:
            client(b"a " + line)
        return client

    def why(self, who: str) -> list[dict[str, Any]]:
        for connection in list(self.server.factory.connections):
            connection.connectionLost(Failure(ConnectionDone()))
        answer = Deferred.fromCoroutine(self.history.why(Request("why", {"who": who})))
        return list(self.successResultOf(answer)["ends"])

    # Limits before login

    def end_backlog(self) -> Why:
        self.serve()
        self.server.connect(HERE).send(b"a NOOP\r\n" * 101)
        return Why("backlog", "reset")

    def end_preauth_commands(self) -> Why:
        self.serve(preauth_commands=3)
        client = self.server.connect(HERE)
        for _ in range(4):
            client(b"a NOOP")
        return Why("preauth_commands", "reset", commands=("NOOP", "NOOP", "NOOP"))

    def end_preauth_bytes(self) -> Why:
        self.serve(preauth_bytes=20)
        client = self.server.connect(HERE)
        client(b"a NOOP")
        client(b"a CAPABILITY and more")
        return Why("preauth_bytes", "reset", commands=("NOOP",))

    def end_preauth_literal_size(self) -> Why:
        self.serve()
        self.server.connect(HERE)(b"a LOGIN {5000+}")
        return Why("preauth_literal_size", "reset")

    def end_preauth_line_length(self) -> Why:
        self.serve()
        self.server.connect(HERE).send(b"a NOOP " + b"x" * 9000 + b"\r\n")
        return Why("preauth_line_length", "bye")

    def end_bad_commands(self) -> Why:
        self.serve()
        client = self.server.connect(HERE)
        for _ in range(3):
            client(b"a FETCH")
        return Why("preauth_bad_commands", "bye", commands=("FETCH", "FETCH", "FETCH"))

    def end_login_failures(self) -> Why:
        self.serve(max_login_delay_seconds=0)
        client = self.server.connect("127.0.0.1")
        for _ in range(3):
            client(b"a LOGIN alice wrong")
        return Why("max_login_failures", "bye", commands=("LOGIN",) * 3, who="127.0.0.1")

    def end_login_timeout(self) -> Why:
        self.serve()
        self.server.connect(HERE)(b"a NOOP")
        self.clock.advance(60)
        return Why("preauth_seconds", "bye", commands=("NOOP",))

    def end_unread_bye(self) -> Why:
        """The last BYE is not read: the connection is reset, and the cause is still what led to the BYE."""
        self.serve()
        self.server.connect(HERE)
        self.clock.advance(60)
        self.clock.advance(5)
        return Why("preauth_seconds", "bye")

    # Limits of users

    def end_idle(self) -> Why:
        self.serve()
        self.user(b"NOOP")
        self.clock.advance(1800)
        return Why("idle_seconds", "bye", commands=("LOGIN", "NOOP"), who="alice")

    def end_unread(self) -> Why:
        self.serve()
        client = self.user(b"NOOP")
        client.protocol.write_buffer.pauseProducing()
        client.protocol.write_buffer.write(b"x" * 100_000)
        client.protocol.write_buffer.flush()
        self.clock.pump([30] * 12)
        return Why("unsent_seconds", "reset", commands=("LOGIN", "NOOP"), who="alice")

    def end_invalid_compression(self) -> Why:
        self.serve()
        client = self.user(b"COMPRESS DEFLATE")
        client.send(b"\xff" * 100)
        return Why(*("invalid compressed data", "reset", False, ("LOGIN", "COMPRESS")), who="alice")

    def end_compression_bomb(self) -> Why:
        self.serve()
        client = self.user(b"COMPRESS DEFLATE")
        deflate = zlib.compressobj(wbits=-15)
        client.send(deflate.compress(b"b NOOP\r\n" * 300_000) + deflate.flush(zlib.Z_SYNC_FLUSH))
        return Why("max_inflate_ratio", "reset", commands=("NOOP",) * 3, who="alice")

    def end_memory(self) -> Why:
        self.serve(preauth_held_bytes=3000)
        self.server.connect(HERE).send(b"a NOOP " + b"x" * 5000)
        return Why("preauth_held_bytes", "reset")

    def end_memory_of_closed(self) -> Why:
        """A connection that was closed with BYE holds output, and must make room."""
        self.serve(preauth_held_bytes=3000)
        client = self.server.connect(HERE)
        client.protocol.write_buffer.pauseProducing()
        client.protocol.write_buffer.write(b"x" * 5000)
        client.protocol.bye("The end")
        client.protocol.memory._reset(LimitReached("preauth_held_bytes", 3000, 5000))
        return Why("The end", "reset", False)

    def end_stalled(self) -> Why:
        self.serve()
        client = self.user(b"NOOP")
        owner = client.protocol
        check = ReadingCheck(owner, lambda: None)
        owner.guard.backlog_full = lambda: True  # type: ignore[method-assign]
        check._hold(self.clock.seconds())
        self.clock.advance(30)
        check._hold(self.clock.seconds())
        return Why("stalled_seconds", "reset", commands=("LOGIN", "NOOP"), who="alice")

    # Shares and bans

    def end_share(self) -> Why:
        self.serve(max_preauth_per_address=2)
        first = self.server.connect(HERE)
        first(b"a NOOP")
        for _ in range(2):
            self.server.connect(HERE)
        return Why("max_preauth_per_address", "reset", commands=("NOOP",))

    def end_share_after_bye(self) -> Why:
        """One that has been sent BYE, and makes room before it has read it, has ended for the BYE."""
        self.serve(max_preauth_per_address=2)
        first = self.server.connect(HERE)
        for _ in range(3):
            first(b"a FETCH")
        for _ in range(2):
            self.server.connect(HERE)
        return Why("preauth_bad_commands", "bye", commands=("FETCH",) * 3)

    def end_guessing(self) -> Why:
        self.serve(max_failed_pairs=2, max_login_delay_seconds=0)
        other, client = self.server.connect(LOCAL), self.server.connect(LOCAL)
        other(b"a NOOP")
        for number in range(2):
            client(b"a LOGIN alice wrong%d" % number)
        return Why("max_failed_pairs", "bye", commands=("LOGIN", "LOGIN"), who=LOCAL)

    def end_ban_of_others(self) -> Why:
        self.end_guessing()
        return Why("ban", "reset", False, ("NOOP",), LOCAL)

    def end_kick(self) -> Why:
        self.serve()
        self.user(b"NOOP")
        commands = ConnectionCommands(self.server.factory, self.clock.seconds)
        self.successResultOf(
            Deferred.fromCoroutine(commands.kick(Request("kick", {"who": "alice"})))
        )
        return Why("operator", "reset", False, ("LOGIN", "NOOP"), "alice")

    def end_ban_by_operator(self) -> Why:
        self.serve()
        self.server.connect(HERE)(b"a NOOP")
        commands = BanCommands(self.server.factory, self.clock.seconds)
        self.successResultOf(
            Deferred.fromCoroutine(commands.ban(Request("ban", {"network": HERE})))
        )
        return Why("ban", "reset", False, ("NOOP",))

    def end_removed_user(self) -> Why:
        self.serve()
        self.user(b"NOOP")
        UserWatch(self.server.factory, [], self.clock)._gone({"alice"})
        return Why("user_removed", "reset", False, ("LOGIN", "NOOP"), "alice")

    # Ends for other reasons

    def end_shutdown(self) -> Why:
        self.serve()
        self.user(b"NOOP")
        self.server.factory.shutdown()
        return Why("Server is shutting down", "bye", False, ("LOGIN", "NOOP"), "alice")

    def end_bye_of_a_session(self) -> Why:
        """A session says BYE, as that of front mode does when the backend has left."""
        self.serve()
        self.user(b"NOOP").protocol._io.bye("The mail server has closed the connection")
        cause = "The mail server has closed the connection"
        return Why(cause, "bye", False, ("LOGIN", "NOOP"), "alice")

    def end_logout(self) -> Why:
        self.serve()
        self.user(b"NOOP", b"LOGOUT")
        return Why("logged out", "", False, ("LOGIN", "NOOP", "LOGOUT"), "alice")

    def end_internal_error(self) -> Why:
        self.serve()
        client = self.user(b"NOOP")
        client.protocol.session_failed(Failure(ValueError("bug")), "FETCH")
        return Why("internal error in FETCH", "reset", False, ("LOGIN", "NOOP"), "alice")

    def end_bug_outside_of_commands(self) -> Why:
        self.serve()
        client = self.user(b"NOOP")

        async def fail(_: object) -> None:
            raise ValueError("bug")

        client.protocol._runner._session.run = fail  # type: ignore[assignment,method-assign]
        client(b"a CHECK")
        return Why("internal error in CHECK", "reset", False, ("LOGIN", "NOOP", "CHECK"), "alice")

    def end_bug_after_a_command_has_waited(self) -> Why:
        self.serve()
        client = self.user(b"NOOP")
        waiting = Deferred[None]()

        async def fail(_: object) -> None:
            await waiting
            raise ValueError("bug")

        client.protocol._runner._session.run = fail  # type: ignore[assignment,method-assign]
        client(b"a CHECK")
        waiting.callback(None)
        return Why("internal error in CHECK", "reset", False, ("LOGIN", "NOOP", "CHECK"), "alice")

    def end_bug_after_a_wait(self) -> Why:
        self.serve()
        client, waiting = self.user(), Deferred[None]()

        async def fail(_: object) -> None:
            await waiting
            raise ValueError("bug")

        client.protocol._runner._session.run = fail  # type: ignore[assignment,method-assign]
        client(b"a CHECK")
        waiting.callback(None)
        return Why("internal error in CHECK", "reset", False, ("LOGIN", "CHECK"), "alice")

    def _fetch(self, error: Exception | None) -> Why:
        store = MemoryStore(self.clock_of_store)
        self.serve(realm=MemoryRealm(open_store=lambda: store), trust=True)
        client = self.user()
        client.append(b"Subject: x\r\n\r\n" + b"x" * 1_000_000)
        client(b"a SELECT INBOX")
        read, calls = store.read, list[int]()

        def fail_later(*arguments: Any) -> bytes:
            calls.append(1)
            if len(calls) > 1:
                store.damaged.add(1)
                if error is not None:
                    raise error
            return bytes(read(*arguments))

        self.patch(store, "read", fail_later)
        client(b"a FETCH 1 BODY[]")
        cause = "a message cannot be read to its end"
        cause = cause if error is None else "internal error in FETCH"
        return Why(cause, "reset", False, ("APPEND", "SELECT", "FETCH"), "alice")

    @staticmethod
    def clock_of_store() -> float:
        return 1_700_000_000.0

    def end_damaged_message(self) -> Why:
        return self._fetch(None)

    def end_bug_in_a_message(self) -> Why:
        return self._fetch(ValueError("bug"))

    def end_left_during_login(self) -> Why:
        self.serve()
        client = self.server.connect(LOCAL)
        for number in range(3):
            client(b"a LOGIN alice wrong%d" % number)
        with mock.patch.object(peer, "has_left", lambda _: True):
            self.clock.advance(1)
        return Why(LEFT, "reset", False, ("LOGIN",) * 3, LOCAL)
