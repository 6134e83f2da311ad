"""`MapRedis`: asks a hash of Redis which node a user has. It needs txredisapi, as ``--guard-redis`` does."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory

from imapshield.front.backend_address import BackendAddress
from imapshield.front.node_names import node_named
from imapshield.front.user_map import Answer, LookUpFailed, Query
from imapshield.shared.redis_address import RedisAddress
from imapshield.shared.redis_protocol import RedisCommands


class MapRedis:
    """A hash in Redis: the fields are users, ``*@domain`` and ``*``, and the values are names of nodes.

    Args:
        address: where Redis is; the hash is ``PREFIX:nodes``.
        nodes: the addresses of all nodes.
        read_password: returns the password, or None; it may raise `OSError`. Called for each connection.
        tls_options: returns the options of a TLS client; None without TLS.
        reactor: the reactor.
    """

    caches = True

    def __init__(
        self,
        address: RedisAddress,
        nodes: Sequence[BackendAddress],
        read_password: Callable[[], bytes | None],
        tls_options: Callable[[], Any] | None,
        reactor: Any,
    ) -> None:
        self.text = address.text.partition("?")[0]
        self._address, self._nodes, self._reactor = address, nodes, reactor
        self._read_password, self._tls_options = read_password, tls_options
        self._connection: RedisCommands | None = None
        self._waiters: list[Deferred[None]] | None = None  # while a connection is made
        self._problem = ""

    async def ask(self, query: Query) -> Answer:
        """Return the node of a user, of the domain, or of everybody.

        Raises:
            LookUpFailed: Redis says none. Other exceptions mean that it could not be asked.
        """
        connection = await self._connected()
        user = query.user.encode("utf-8", "replace")
        fields = (user, b"*@" + user.rpartition(b"@")[2], b"*")
        try:
            values = await connection.execute_command(
                "HMGET", f"{self._address.prefix}:nodes", *fields
            )
        except BaseException:
            # Also if the login gives up: a late reply would be taken for that to the next question.
            self._drop(connection)
            raise
        is_reply = isinstance(values, list) and len(values) == len(fields)
        # Not an integer: `bytes` of it is as many bytes.
        if not is_reply or not all(value is None or isinstance(value, bytes) for value in values):
            self._drop(connection)
            raise LookUpFailed("malformed reply to HMGET")
        found = next((value for value in values if value is not None), b"")
        if not found:
            await self._require_hash(connection)
            return Answer("")
        return Answer(node_named(self._nodes, found.decode("utf-8", "replace")))

    async def _require_hash(self, connection: RedisCommands) -> None:
        """Look whether there is a hash at all. A Redis that has lost its data must not make all users unknown.

        They would get the answer to a wrong password, and their addresses would be banned.
        """
        name = f"{self._address.prefix}:nodes"
        try:
            there_is = await connection.execute_command("EXISTS", name)
        except BaseException:
            self._drop(connection)
            raise
        if not there_is:
            raise LookUpFailed(
                f"there is no hash {name}; HSET it, with the field * for everybody else"
            )

    async def _connected(self) -> RedisCommands:
        """Return the connection. One is made if there is none; others wait for it."""
        if self._connection is not None:
            return self._connection
        if self._waiters is not None:
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter
            if self._connection is None:
                raise LookUpFailed(self._problem)
            return self._connection
        self._waiters = []
        try:
            connection = self._connection = await self._connect()
        except Exception as error:
            self._problem = str(error) or type(error).__name__
            raise
        finally:
            waiters, self._waiters = self._waiters, None
            for each in waiters:
                if not each.called:
                    each.callback(None)
        return connection

    async def _connect(self) -> RedisCommands:
        address, reactor = self._address, self._reactor
        endpoint: Any
        if address.path:
            endpoint = UNIXClientEndpoint(reactor, address.path)
        else:
            endpoint = HostnameEndpoint(reactor, address.host, address.port)
        if self._tls_options is not None:
            endpoint = wrapClientTLS(self._tls_options(), endpoint)
        factory = Factory.forProtocol(RedisCommands)
        factory.noisy = False
        connection: RedisCommands = await endpoint.connect(factory)
        try:
            password = self._read_password()
            if password is not None:
                user = [address.user] if address.user else []
                await connection.execute_command("AUTH", *user, password)
            if address.database:
                await connection.execute_command("SELECT", address.database)
        except BaseException:
            self._drop(connection)
            raise
        connection.on_lost = lambda: self._lost(connection)
        return connection

    def _lost(self, connection: RedisCommands) -> None:
        if self._connection is connection:
            self._connection = None

    def _drop(self, connection: RedisCommands) -> None:
        self._lost(connection)
        connection.transport.abortConnection()

    def stop(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._drop(self._connection)
