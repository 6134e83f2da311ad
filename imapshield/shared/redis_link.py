"""`RedisLink`: the connection to Redis. It connects again and again, and never lets anybody wait.

Rules
-----
* There are two connections: one for messages, which are published on one channel, and one for commands.
* A reply that takes longer than `REPLY_SECONDS` ends both. So a Redis that is slow or stopped is as one that is down.
* The log has a line when Redis is lost, and one when it is back: when it has published a message.
"""

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionClosed
from twisted.internet.error import TimeoutError as NoReply
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from txredisapi import ResponseError

from imapshield.connection_errors import connection_error
from imapshield.events import printable
from imapshield.guard.guard_report import RateTaken
from imapshield.guard.rates import RateTable
from imapshield.shared.rate_script import SCRIPT, key_names, script_arguments, taken_by_all
from imapshield.shared.redis_address import RedisAddress
from imapshield.shared.redis_protocol import RedisCommands, RedisError

CONNECT_SECONDS = 5.0
"""Seconds that a connection may take."""

REPLY_SECONDS = 3.0
"""Seconds that a reply may take."""

RETRY_SECONDS = (1.0, 30.0)
"""Seconds until the first attempt to connect again, and at most; each takes twice as long as the one before."""

CLOCK_SECONDS = 10.0
"""Seconds between two looks at the clock of Redis."""

MAX_PROBLEM_BYTES = 200
"""Bytes of a text of Redis that reach the log and the terminal of an operator."""

_log = Logger(namespace="imapshield")


class _QuietFactory(Factory):
    protocol = RedisCommands
    noisy = False


class RedisLink:
    """The connection of one server to Redis.

    Args:
        address: where it is.
        read_password: returns the password, or None; it may raise `OSError`. Called for each connection, so a changed
            file is read again.
        tls_options: returns the options of a TLS client; None without TLS.
        key: the key of the hashes that are the names of keys.
        rate_table: returns the table of a rate.
        reactor: the reactor.

    Attributes:
        is_ready: whether Redis can be used.
        clock_offset: by how many seconds the clock of Redis is ahead of that of the process.
        problem: why it cannot be used; "" if it can.
        on_ready: called when it can be used again.
        on_message: called with each message.
    """

    def __init__(
        self,
        address: RedisAddress,
        read_password: Callable[[], bytes | None],
        tls_options: Callable[[], Any] | None,
        key: bytes,
        rate_table: Callable[[RateTaken], tuple[RateTable, Any]],
        reactor: Any,
    ) -> None:
        self.is_ready, self.clock_offset, self.problem = False, 0.0, "not connected yet"
        self.on_ready: Callable[[], object] = lambda: None
        self.on_message: Callable[[bytes], object] = lambda _: None
        self._address, self._read_password, self._tls_options = address, read_password, tls_options
        self._key, self._rate_table, self._reactor = key, rate_table, reactor
        self._commands: RedisCommands | None = None
        self._channel = f"{address.prefix}:reports"
        self._running: Deferred[None] | None = None
        self._works, self._has_clock, self._is_full = False, False, False
        self._is_loss_news = True

    def start(self) -> None:
        """Connect, and connect again after each end."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(_ignore_cancel)

    def stop(self) -> None:
        """End the connections."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        delay = RETRY_SECONDS[0]
        while True:
            self._works = False
            try:
                await self._session()
            except CancelledError:
                raise
            except Exception as error:  # of Twisted, txredisapi and OpenSSL, which raise many kinds
                self.problem = _text(error)
            if self._works:
                delay = RETRY_SECONDS[0]
            self.is_ready = False
            if self._is_loss_news:
                _log.warn(
                    "guard-redis {address}: {problem}; this server decides alone until it is back",
                    address=self._address.text,
                    problem=self.problem,
                )
            self._is_loss_news = False
            await deferLater(self._reactor, delay * (0.5 + random.random() / 2))  # noqa: S311
            delay = min(2 * delay, RETRY_SECONDS[1])

    async def _session(self) -> None:
        """Use Redis until a connection ends."""
        opened: list[RedisCommands] = []
        try:
            commands, listener = await self._connect(opened), await self._connect(opened)
            await self._read_clock(commands)
            listener.on_message = self._heard
            await self._ask(listener, "SUBSCRIBE", self._channel)
            self._commands, self.is_ready, self.problem = commands, True, ""
            self._is_full = False
            self.on_ready()
            self._heard_at = self._reactor.seconds()
            await self._until_lost(commands, listener)
        finally:
            self._commands = None
            for each in opened:
                each.on_message, each.on_lost = None, lambda: None
                each.transport.abortConnection()

    async def _until_lost(self, commands: RedisCommands, listener: RedisCommands) -> None:
        """Look at the clock regularly, until one of the connections has ended; then raise `RedisError`."""
        ended: Deferred[None] = Deferred()

        def lost(_: object = None) -> None:
            if not ended.called:
                ended.callback(None)

        commands.on_lost = listener.on_lost = lost
        loop = LoopingCall(self._check, commands)
        loop.clock = self._reactor
        checked = loop.start(CLOCK_SECONDS, now=False)
        checked.addErrback(self._end, commands)
        try:
            await ended
        finally:
            if loop.running:
                loop.stop()
        raise RedisError(commands.problem or listener.problem or "the connection has ended")

    def _end(self, failure: Failure, commands: RedisCommands) -> None:
        commands.problem = commands.problem or _text(failure.value)
        commands.transport.abortConnection()

    def _check(self, commands: RedisCommands) -> Deferred[None]:
        self._check_listener()
        return Deferred.fromCoroutine(self._read_clock(commands))

    def _heard(self, data: bytes) -> None:
        self._heard_at = self._reactor.seconds()
        self.on_message(data)

    def _check_listener(self) -> None:
        """Raise `RedisError` if the listener gets nothing any more: it also gets the messages of this server."""
        if self._reactor.seconds() - self._heard_at > CLOCK_SECONDS:
            raise RedisError("messages do not arrive any more")

    async def _connect(self, opened: list[RedisCommands]) -> RedisCommands:
        address, reactor = self._address, self._reactor
        endpoint: Any
        if address.path:
            endpoint = UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_SECONDS)
        else:
            endpoint = HostnameEndpoint(
                reactor, address.host, address.port, timeout=CONNECT_SECONDS
            )
        if self._tls_options is not None:
            endpoint = wrapClientTLS(self._tls_options(), endpoint)
        connection: RedisCommands = await endpoint.connect(_QuietFactory())
        opened.append(connection)
        try:
            password = self._read_password()
        except OSError as error:
            raise RedisError(f"--guard-redis-password: {error.strerror}") from None
        if password is not None:
            user = [address.user] if address.user else []
            await self._ask(connection, "AUTH", *user, password)
        if address.database:
            await self._ask(connection, "SELECT", address.database)
        return connection

    def _ask(self, connection: RedisCommands, *command: Any) -> Deferred[Any]:
        reply: Deferred[Any] = connection.execute_command(*command)
        reply.addTimeout(REPLY_SECONDS, self._reactor, onTimeoutCancel=_no_reply)

        def failed(failure: Failure) -> Failure:
            if connection.problem:  # why the connection has ended
                raise RedisError(connection.problem)
            return failure

        return reply.addErrback(failed)

    async def _read_clock(self, connection: RedisCommands) -> None:
        before = self._reactor.seconds()
        reply = await self._ask(connection, "TIME")
        try:
            seconds, microseconds = map(int, reply)
        except (TypeError, ValueError):
            raise RedisError("malformed reply to TIME") from None
        # The clock of Redis was read at some time between the two, which may be seconds if Redis is slow.
        time, after = seconds + microseconds / 1e6, self._reactor.seconds()
        known = self.clock_offset if self._has_clock else time - (before + after) / 2
        self.clock_offset, self._has_clock = min(max(known, time - after), time - before), True

    def send(self, data: bytes, rates: tuple[RateTaken, ...]) -> Deferred[list[float] | None]:
        """Publish a message, and add up rates.

        Fires with what all servers have taken of `rates`, or with None if Redis has no memory for them.
        """
        return Deferred.fromCoroutine(self._send(data, rates))

    async def _send(self, data: bytes, rates: tuple[RateTaken, ...]) -> list[float] | None:
        commands = self._commands
        if commands is None:
            raise RedisError(self.problem)
        published = self._ask(commands, "PUBLISH", self._channel, data)
        added = self._add_rates(commands, rates) if rates else None
        try:
            await published
            self._published()
            return None if added is None else await added
        except Exception as error:
            commands.problem = commands.problem or _text(error)
            if added is not None:
                added.addErrback(lambda _: None)
            commands.transport.abortConnection()
            raise RedisError(commands.problem) from None

    def _published(self) -> None:
        """Note that Redis can be used: one that permits too little lets clients connect, too."""
        if not self._is_loss_news:
            self._is_loss_news = True
            _log.info("guard-redis {address}: connected again", address=self._address.text)
        self._works = True

    def _add_rates(
        self, commands: RedisCommands, rates: tuple[RateTaken, ...]
    ) -> Deferred[list[float] | None]:
        values = [self._rate_table(rate)[0].rate for rate in rates]
        names = key_names(rates, self._address.prefix, self._key)
        reply: Deferred[Any] = commands.eval(SCRIPT, names, script_arguments(rates, values))
        reply.addTimeout(REPLY_SECONDS, self._reactor, onTimeoutCancel=_no_reply)
        return reply.addCallbacks(
            lambda answer: self._added(taken_by_all(answer, rates)), self._rates_refused
        )

    def _added(self, taken: list[float]) -> list[float]:
        if self._is_full:
            self._is_full = False
            _log.info("guard-redis {address}: adds up rates again", address=self._address.text)
        return taken

    def _rates_refused(self, failure: Any) -> None:
        """Go on without shared rates if Redis refuses the script, as it does without memory."""
        failure.trap(ResponseError)
        if not self._is_full:
            self._is_full = True
            _log.warn(
                "guard-redis {address}: {problem}; rates are counted by each server alone",
                address=self._address.text,
                problem=_text(failure.value),
            )


def _no_reply(*_: object) -> None:
    raise NoReply


def _ignore_cancel(failure: Failure) -> None:
    failure.trap(CancelledError)


def _text(error: BaseException | None) -> str:
    """Return in one line why Redis cannot be used."""
    if isinstance(error, NoReply):
        return f"no reply within {REPLY_SECONDS:.0f} seconds"
    if isinstance(error, ConnectionClosed):
        return "it closed the connection"
    text = connection_error(error) or " ".join(str(error).split()) or type(error).__name__
    return printable(text.encode("utf-8", "replace"), MAX_PROBLEM_BYTES)
