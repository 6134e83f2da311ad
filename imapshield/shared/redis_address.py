"""Reads the value of ``--guard-redis``: where Redis is, and how the connection to it is protected. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT = 6379
DEFAULT_PREFIX = "imapshield"

_EXAMPLES = "write redis://HOST, rediss://HOST?ca=FILE or unix:PATH"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a Redis server.

    Attributes:
        text: the value of the option.
        host: the host; "" for a UNIX socket.
        port: the port; 0 for a UNIX socket.
        path: the path of the UNIX socket, or "".
        uses_tls: whether the connection is encrypted.
        authority: path of a PEM file with the certificates that may have signed that of Redis; "" for the system's.
        user: the name for AUTH; "" for the default user.
        database: the number of the database.
        prefix: what the names of keys and of the channel begin with.
    """

    text: str
    host: str = ""
    port: int = 0
    path: str = ""
    uses_tls: bool = False
    authority: str = ""
    user: str = ""
    database: int = 0
    prefix: str = DEFAULT_PREFIX

    @property
    def is_local(self) -> bool:
        """Whether the connection does not leave this machine."""
        try:
            return bool(self.path) or self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def parse(cls, text: str) -> "RedisAddress":
        """Return the address that an operator has typed.

        Raises:
            ValueError: it is none. The text says what to type.
        """
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError:
            raise ValueError(_EXAMPLES) from None
        if url.scheme not in ("redis", "rediss", "unix") or url.fragment:
            raise ValueError(_EXAMPLES)
        if url.password is not None:
            raise ValueError(
                "a password on the command line can be read by others; use --guard-redis-password FILE"
            )
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        allowed = {"redis": {"prefix"}, "rediss": {"ca", "prefix"}, "unix": {"db", "prefix"}}
        unknown = options.keys() - allowed[url.scheme]
        if unknown:
            raise ValueError(
                f"unknown {min(unknown)}=; known are {', '.join(sorted(allowed[url.scheme]))}"
            )
        prefix = options.get("prefix", DEFAULT_PREFIX)
        if not re.fullmatch(r"[\w.:-]{1,64}", prefix, re.ASCII):
            raise ValueError("prefix= must have 1 to 64 letters, digits and -_.:")
        user = unquote(url.username or "")
        if url.scheme == "unix":
            database = _database(options.get("db", "0"))
            if url.netloc or not url.path.startswith("/"):
                raise ValueError("write unix:/PATH")
            return cls(text, path=unquote(url.path), database=database, prefix=prefix)
        if not url.hostname:
            raise ValueError(_EXAMPLES)
        return cls(
            text,
            url.hostname,
            DEFAULT_PORT if port is None else port,
            uses_tls=url.scheme == "rediss",
            authority=options.get("ca", ""),
            user=user,
            database=_database(url.path.removeprefix("/") or "0"),
            prefix=prefix,
        )


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise ValueError("the database must be a number; usually it is left out")
    return int(text)


def redis_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``--guard-redis``, ``--guard-redis-password`` and ``--guard-secret``.

    Args:
        options: the options by their long names.

    Raises:
        ValueError: they are wrong. The text is one line for the operator.
    """
    names = ("guard-redis", "guard-redis-password", "guard-secret")
    url, password, secret = [options.get(name) for name in names]
    if url is None:
        for name in names:
            if options.get(name):
                raise ValueError(f"--{name} needs --guard-redis: add --guard-redis redis://HOST")
        return {}
    try:
        address = RedisAddress.parse(url)
    except ValueError as error:
        raise ValueError(f"--guard-redis {_without_password(url)}: {error}") from None
    if secret is None:
        raise ValueError(
            "--guard-redis needs --guard-secret FILE: a file with the same secret on all servers, such as one that"
            " `openssl rand -hex 32` prints"
        )
    if password is not None and not address.uses_tls and not address.is_local:
        raise ValueError(
            f"--guard-redis {url}: the password would cross a network in the clear; use rediss://"
        )
    return {name.replace("-", "_"): options.get(name) for name in names}


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)
