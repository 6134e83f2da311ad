"""`GuardSharing`: what a server with ``--guard-redis`` has besides."""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from imapshield.config import ConfigError, Settings
from imapshield.credentials import credential_path
from imapshield.edge.admission import Admission
from imapshield.extras import install_command
from imapshield.front.backend_address import BackendAddress
from imapshield.front.backend_tls import BackendTls, reload_tls, tls_options
from imapshield.guard.shared_guard import SharedGuard
from imapshield.guard_state import GuardState
from imapshield.observe.talkers import Talkers
from imapshield.regular_file import open_regular
from imapshield.shared.redis_address import RedisAddress
from imapshield.shared.server_exchange import ServerExchange
from imapshield.shared.signed_messages import SignedMessages

MIN_SECRET_BYTES = 16
"""Bytes of the file of ``--guard-secret``. Fewer can be guessed."""


class GuardSharing:
    """Shares the guard of a server through Redis.

    Args:
        settings: the configuration.
        admission: that of the server.
        state: keeps known users, whose hashes have the key of all servers from now on.
        talkers: the work of clients, or None.
        reactor: the reactor.

    Attributes:
        shared: the guard.
        exchange: exchanges it.
        link: the connection to Redis.

    Raises:
        ConfigError: a file cannot be used, or txredisapi is missing.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        state: GuardState,
        talkers: Talkers | None,
        reactor: Any,
    ) -> None:
        make_link = link_class()
        address = RedisAddress.parse(settings.guard_redis or "")
        secret = read_secret(settings)
        state.failures_key = derived_key(secret, b"failures")
        name = member_name()
        shared = self.shared = SharedGuard(admission.guard, name)
        self._tls = redis_tls(address)
        self.link = make_link(
            address,
            lambda: read_password(settings),
            self._tls,
            derived_key(secret, b"rates"),
            shared.rate_table,
            reactor,
        )
        messages = SignedMessages(derived_key(secret, b"messages"))
        self.exchange = ServerExchange(
            *(shared, admission, messages, name, self.link, talkers, reactor)
        )
        self.link.on_ready, self.link.on_message = self.exchange.connected, self.exchange.message

    async def reload(self) -> Sequence[str]:
        """Read the file of ``ca=`` again, for the connections that come; return one line if it cannot be used."""
        return await reload_tls("--guard-redis", [self._tls])

    def start(self) -> None:
        """Connect."""
        self.exchange.start()
        self.link.start()

    def stop(self) -> None:
        """Disconnect."""
        self.exchange.stop()
        self.link.stop()

    async def status(self) -> dict[str, Any]:
        """Return whether Redis can be used, and who else does, for the command ``status``."""
        exchange, link = self.exchange, self.link
        return {
            "connected": link.is_ready,
            "problem": link.problem,
            "others": exchange.members,
            "reports": exchange.received,
            "refused": exchange.malformed,
            "refusal": exchange.last_refusal,
        }


def member_name() -> str:
    """Return a name that no other process has or had."""
    host = re.sub(r"[^0-9A-Za-z.-]", "-", socket.gethostname())[:40] or "server"
    return f"{host}_{os.urandom(6).hex()}"


def derived_key(secret: bytes, purpose: bytes) -> bytes:
    """Return a key that depends on the secret of all servers."""
    return blake2b(purpose, key=blake2b(secret).digest(), digest_size=32).digest()


def _read(option: str, path: str) -> bytes:
    with open_regular(credential_path(path, option)) as file:
        content: bytes = file.read(4096).strip()
    return content


def check_sharing(settings: Settings) -> None:
    """Check the options of ``--guard-redis`` as the start does. Redis is not asked.

    Raises:
        ConfigError: as for `GuardSharing`, or the file of the password cannot be read.
    """
    address = RedisAddress.parse(settings.guard_redis or "")
    problems: list[str] = []
    for part in (
        link_class,
        lambda: read_secret(settings),
        lambda: read_password(settings),
        lambda: redis_tls(address),
    ):
        try:
            part()
        except ConfigError as error:
            problems += error.args
        except OSError as error:
            problems.append(f"{error.filename}: {error.strerror}")
    if problems:
        raise ConfigError(*problems)


def link_class() -> Any:
    """Return `RedisLink`, which needs an optional package.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        from imapshield.shared.redis_link import RedisLink
    except ImportError:
        raise ConfigError(f"--guard-redis needs txredisapi: {install_command('redis')}") from None
    return RedisLink


def read_secret(settings: Settings) -> bytes:
    """Return the secret of all servers.

    Raises:
        ConfigError: the file cannot be read, or has none.
    """
    path = settings.guard_secret or ""
    try:
        secret = _read("--guard-secret", path)
    except OSError as error:
        raise ConfigError(
            f"--guard-secret {path}: {error.strerror}; name a readable file"
        ) from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(
            f"--guard-secret {path}: has less than {MIN_SECRET_BYTES} bytes; write one with"
            f" `openssl rand -hex 32 > {path}`, and copy it to all servers"
        )
    return secret


def read_password(settings: Settings) -> bytes | None:
    """Return the password of Redis, or None.

    Raises:
        OSError: the file cannot be read.
        ConfigError: systemd has passed no such credential.
    """
    path = settings.guard_redis_password
    return None if path is None else _read("--guard-redis-password", path)


def redis_tls(
    address: RedisAddress, earlier: Mapping[str, bytes] = MappingProxyType({})
) -> BackendTls | None:
    """Return what has the options of a TLS client; None without TLS. `earlier` is as for `tls_options`.

    Raises:
        ConfigError: the file of ``ca=`` or the name cannot be used.
    """
    if not address.uses_tls:
        return None
    as_backend = BackendAddress(
        *(address.text, "tls", address.host, address.port, address.host, address.authority)
    )
    try:
        return tls_options(as_backend, earlier)
    except ValueError as error:
        raise ConfigError(f"--guard-redis {address.text}: {error}") from None
