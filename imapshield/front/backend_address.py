"""Reads the value of ``--backend``: where the other IMAP server is, and how the connection to it is protected."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

_FIELD = re.compile(r"(?:\[[^\]]*\]|\\.|[^:\\])*")
_EXAMPLES = "use tls:HOST:993, starttls:HOST:143, unix:PATH, or tcp:127.0.0.1:PORT for this machine"
_KINDS = ("tcp", "tls", "starttls", "unix")


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
    """

    text: str
    kind: str
    host: str
    port: int = 0
    name: str = ""
    authority: str = ""

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted before the login."""
        return self.kind in ("tls", "starttls")

    @classmethod
    def parse(cls, text: str) -> "BackendAddress":
        """Return the address that an operator has typed.

        Raises:
            ValueError: it is none, or passwords would cross a network in the clear. The text says what to type.
        """
        kind, *fields = _fields(text)
        if kind not in _KINDS:
            raise ValueError(f"unknown kind {kind!r}; {_EXAMPLES}")
        plain = [field for field in fields if not re.match(r"(ca|name)=", field)]
        options = dict(field.split("=", 1) for field in fields if field not in plain)
        if kind == "unix":
            if len(plain) != 1 or not plain[0] or options:
                raise ValueError("write unix:PATH")
            return cls(text, kind, plain[0])
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
        return cls(text, kind, host, port, options.get("name") or host, options.get("ca", ""))


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
