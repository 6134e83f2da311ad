"""Reads the value of ``--backend``: where the other IMAP server is, and how the connection to it is protected."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

_FIELD = re.compile(r"(?:\[[^\]]*\]|\\.|[^:\\])*")
_EXAMPLES = "use tls:HOST:993, starttls:HOST:143, unix:PATH, or tcp:127.0.0.1:PORT for this machine"
_KINDS = ("tcp", "tls", "starttls", "unix")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})=(.*)", re.DOTALL)
_MAX_CONNECTIONS = 1_000_000

UNNAMED = "backend"
"""The name of the only backend if it was given none."""


@dataclass(frozen=True, slots=True)
class BackendAddress:
    """The address of a backend.

    Attributes:
        text: the value of the option.
        kind: ``tcp``, ``tls``, ``starttls`` or ``unix``.
        host: the host; the path of a UNIX socket.
        port: the port; 0 for a UNIX socket.
        name: the name in the certificate of the backend.
        authority: path of a PEM file with the certificates that may have signed it; "" for those of the system.
        node: the name by which the user map and the operator call it; `UNNAMED` if it was given none.
        connections: connections to it at the same time; 0 for the limit ``max_backend_connections``.
    """

    text: str
    kind: str
    host: str
    port: int = 0
    name: str = ""
    authority: str = ""
    node: str = UNNAMED
    connections: int = 0

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted before the login."""
        return self.kind in ("tls", "starttls")

    @classmethod
    def parse(cls, text: str) -> "BackendAddress":
        """Return the address that an operator has typed: ``ENDPOINT``, or ``NAME=ENDPOINT``.

        Raises:
            ValueError: it is none, or passwords would cross a network in the clear. The text says what to type.
        """
        named = _NAMED.fullmatch(text)
        node, endpoint = (named[1], named[2]) if named else (UNNAMED, text)
        return replace(cls._parse_endpoint(endpoint), text=text, node=node)

    @classmethod
    def _parse_endpoint(cls, text: str) -> "BackendAddress":
        kind, *fields = _fields(text)
        if kind not in _KINDS:
            raise ValueError(f"unknown kind {kind!r}; {_EXAMPLES}")
        plain = [field for field in fields if not re.match(r"(ca|name|connections)=", field)]
        options = dict(field.split("=", 1) for field in fields if field not in plain)
        connections = _number_of_connections(options.pop("connections", "0"))
        if kind == "unix":
            if len(plain) != 1 or not plain[0] or options:
                raise ValueError("write unix:PATH")
            return cls(text, kind, plain[0], connections=connections)
        if len(plain) != 2 or not plain[0] or not re.fullmatch(r"[0-9]{1,5}", plain[1]):
            raise ValueError(f"write {kind}:HOST:PORT; an IPv6 address is in brackets")
        host, port = plain[0].strip("[]"), int(plain[1])
        if not 0 < port < 1 << 16:
            raise ValueError("the port is not one of 1 to 65535")
        if kind == "tcp":
            if options:
                raise ValueError("ca= and name= are for tls: and starttls:")
            if not _is_loopback(host):
                raise ValueError(
                    f"{host} may be on another machine, and passwords would be sent to it in the clear;"
                    f" use tls:{plain[0]}:993, starttls:{plain[0]}:{port}, or tcp:127.0.0.1:{port} for this machine"
                )
            host = "127.0.0.1" if host == "localhost" else host  # whatever a name service says
        name, authority = options.get("name") or host, options.get("ca", "")
        return cls(text, kind, host, port, name, authority, connections=connections)


def parse_nodes(texts: Sequence[str]) -> list[BackendAddress]:
    """Return the addresses of all values of ``--backend``.

    Raises:
        ValueError: one of them is wrong, or they do not have different names. Each argument begins with the option.
    """
    addresses: list[BackendAddress] = []
    problems = []
    for text in texts:
        try:
            addresses.append(BackendAddress.parse(text))
        except ValueError as error:
            problems.append(f"--backend {text}: {error}")
        if len(texts) > 1 and _NAMED.fullmatch(text) is None:
            advice = f"write --backend mail1={text}"
            problems.append(f"--backend {text}: several backends need names; {advice}")
    if problems:
        raise ValueError(*problems)
    names = [address.node for address in addresses]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--backend {name}=…: two backends have this name; change one of them")
    return addresses


def _number_of_connections(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) > _MAX_CONNECTIONS:
        raise ValueError(f"connections={text}: write a number of at most {_MAX_CONNECTIONS}")
    return int(text)


def _fields(text: str) -> list[str]:
    """Return the fields of a description, which colons separate, without the backslashes before other characters."""
    fields, position = [], 0
    while position <= len(text):
        match = _FIELD.match(text, position)
        assert match is not None  # it may be empty
        fields.append(re.sub(r"\\(.)", r"\1", match[0]))
        position = match.end() + 1
    return fields


def _is_loopback(host: str) -> bool:
    """Return whether `host` is this machine; ``localhost`` becomes an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
