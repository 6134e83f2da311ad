"""Reads the value of ``--user-map``. It makes nothing; `map_sources` does."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

KINDS = ("file", "http", "https", "ldap", "redis", "rediss")
_EXAMPLES = "use file:PATH, https://HOST/PATH, ldap:FILE or redis://HOST"


@dataclass(frozen=True, slots=True)
class MapOption:
    """The value of ``--user-map``.

    Attributes:
        kind: one of `KINDS`.
        target: the path of a file; otherwise the whole URL.
    """

    kind: str
    target: str

    @property
    def text(self) -> str:
        """The value, without the password of a URL."""
        if self.kind in ("file", "ldap"):
            return f"{self.kind}:{self.target}"
        return re.sub(r"//[^/]*@", "//…@", self.target).partition("?")[0]

    @classmethod
    def parse(cls, text: str, *, sends_password: bool = False) -> "MapOption":
        """Return what an operator has typed. `sends_password`: whether the service gets passwords.

        Raises:
            ValueError: it is wrong; the text says what to type.
        """
        kind, _, rest = text.partition(":")
        if kind not in KINDS or not rest:
            raise ValueError(f"unknown kind {kind!r}; {_EXAMPLES}")
        if kind in ("file", "ldap"):
            return cls(kind, rest)
        try:
            url = urlsplit(text)
            is_url = bool(url.hostname) and url.port != 0 and not url.fragment and text.isascii()
        except ValueError:
            is_url = False
        if not is_url or not text.isprintable() or " " in text:
            raise ValueError(f"not a URL with a host; write {kind}://HOST/PATH")
        if kind in ("http", "https") and url.username is not None:
            raise ValueError(
                "a user in the URL is not sent; put a secret into the query, which no log has"
            )
        if sends_password and kind == "http" and not _is_loopback(str(url.hostname)):
            raise ValueError("passwords would be sent in the clear; use https:")
        return cls(kind, text)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
