"""`LdapSettings`: how to find users in a directory, from the TOML file of ``--auth ldap:FILE``. Without Twisted."""

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self
from urllib.parse import urlsplit

from imapshield.regular_file import open_regular

USER = "{user}"
"""Stands for the name that the client gave."""

_TYPES = {"starttls": bool} | dict.fromkeys(
    ("uri", "ca-file", "bind-as", "base", "filter", "search-dn", "search-password", "user-attribute",
     "node-attribute"), str
)  # fmt: skip
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]*", re.ASCII)
_SAFE = frozenset("@-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """Where the directory is, and how a name leads to an entry.

    Attributes:
        uri: one or more servers, separated by spaces; the next one is asked if one cannot be reached.
        starttls: whether TLS begins after connecting. False for ``ldaps:`` and ``ldapi:``, and, if the file says so, on
            this machine.
        ca_file: certificates of authorities; "" for those of the system.
        bind_as: the DN of a user, with `USER`; "" if the entry is searched.
        base: the DN below which the entry is searched.
        filter: the filter of the search, with `USER`.
        search_dn: who searches; "" for an anonymous search.
        search_password: the password of `search_dn`.
        user_attribute: the attribute that has the name of the user.
        node_attribute: the attribute that has the mail node of the user; "" if ``--user-map`` does not use the file.
    """

    uri: str
    starttls: bool
    ca_file: str
    bind_as: str
    base: str
    filter: str
    search_dn: str
    search_password: str
    user_attribute: str
    node_attribute: str = ""

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a file. Blocking.

        Raises:
            OSError: it cannot be read.
            ValueError: something is wrong with it. The text says what to write, and has no password.
        """
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
        try:
            values = tomllib.loads(text.decode())
        except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are subclasses
            raise ValueError(f"invalid TOML: {error}") from None
        if "search-password" in values and mode & stat.S_IRWXO:
            raise ValueError(f"everybody can read search-password; run `chmod o= {path}`")
        return cls.parse(values)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Return the settings with these names and values.

        Raises:
            ValueError: as for `read`.
        """
        for name, value in values.items():
            if name not in _TYPES:
                similar = "".join(f" did you mean {n}?" for n in get_close_matches(name, _TYPES, 1))
                raise ValueError(f"unknown setting {name};{similar} known are {', '.join(_TYPES)}")
            if not isinstance(value, _TYPES[name]) or value == "":
                kind = "true or false" if _TYPES[name] is bool else "a text that is not empty"
                raise ValueError(f"{name} must be {kind}")
        template = values.get("bind-as") or values.get("filter", "")
        settings = cls(
            uri=values.get("uri", ""),
            starttls=_starttls(values.get("uri", ""), values.get("starttls")),
            ca_file=values.get("ca-file", ""),
            bind_as=values.get("bind-as", ""),
            base=values.get("base", ""),
            filter=values.get("filter", ""),
            search_dn=values.get("search-dn", ""),
            search_password=values.get("search-password", ""),
            user_attribute=values.get("user-attribute", "") or _attribute_of(template),
            node_attribute=values.get("node-attribute", ""),
        )
        settings._check(template)
        return settings

    def _check(self, template: str) -> None:
        if self.bind_as and (self.base or self.filter or self.search_dn):
            raise ValueError("bind-as needs no base, filter or search-dn; remove it or them")
        if not self.bind_as and not (self.base and self.filter):
            raise ValueError(
                'write bind-as = "uid={user},ou=people,dc=example,dc=org", or base and filter, such as'
                ' base = "dc=example,dc=org" and filter = "(mail={user})"'
            )
        if USER not in template:
            raise ValueError(f"{'bind-as' if self.bind_as else 'filter'} must contain {USER}")
        if bool(self.search_dn) != bool(self.search_password):
            raise ValueError("search-dn and search-password need each other")
        if not _ATTRIBUTE.fullmatch(self.user_attribute):
            raise ValueError(
                'write user-attribute = "uid", or another attribute that has the name of the user'
            )
        if self.node_attribute and not _ATTRIBUTE.fullmatch(self.node_attribute):
            raise ValueError('write node-attribute = "mailHost", or another name of an attribute')
        if self.ca_file and not os.access(self.ca_file, os.R_OK):
            raise ValueError(f"ca-file {self.ca_file} cannot be read; name a file in PEM format")


def escape(name: str) -> str:
    r"""Return a name in which nothing has a meaning in a DN (RFC 4514) or in a filter (RFC 4515).

    Both know ``\`` with the two hexadecimal digits of a byte of UTF-8.
    """
    return "".join(
        character if character in _SAFE else "".join(f"\\{byte:02x}" for byte in character.encode())
        for character in name
    )


def _attribute_of(template: str) -> str:
    """Return the attribute that a template compares with the name of the user."""
    match = re.search(r"([A-Za-z][A-Za-z0-9-]*)=\{user\}", template, re.ASCII)
    return "" if match is None else match[1]


def _starttls(uri: str, given: bool | None) -> bool:
    """Return whether TLS begins after connecting.

    Raises:
        ValueError: a server would get passwords without TLS, or `uri` is no list of servers.
    """
    schemes = set()
    for text in uri.split() or [""]:
        parts = urlsplit(text)
        has_server = bool(parts.netloc) and parts.path in ("", "/") and not parts.query
        if parts.scheme not in ("ldap", "ldaps", "ldapi") or not (
            has_server or text == "ldapi:///"
        ):
            raise ValueError('write uri = "ldaps://ldap.example.org", or ldap://, or ldapi://PATH')
        schemes.add(parts.scheme)
        is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme == "ldap" and given is False and not is_local:
            raise ValueError(
                f"{text}: passwords need TLS, except on this machine; remove starttls = false"
            )
    if len(schemes) > 1:
        raise ValueError("all servers of uri must begin with the same scheme")
    if schemes != {"ldap"} and given:
        raise ValueError("starttls is for ldap:// only; remove it")
    return schemes == {"ldap"} and given is not False
