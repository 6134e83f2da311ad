"""LOGIN, AUTHENTICATE, ENABLE, COMPRESS and ID."""

from __future__ import annotations

from binascii import a2b_base64

from imapshield.errors import BadCommand
from imapshield.wire import abnf
from imapshield.wire.commands.base import Secret
from imapshield.wire.commands.enable import Compress, Enable, Id
from imapshield.wire.commands.login import Authenticate, Login
from imapshield.wire.cursor import Cursor

MAX_ID_FIELDS = 30
"""RFC 2971 section 3.3 lets nobody send more."""


def login(cursor: Cursor) -> Login:
    """``login = "LOGIN" SP userid SP password``, both astrings."""
    cursor.space("LOGIN")
    user = cursor.astring("a user name")
    cursor.space("the user name")
    return Login(user, Secret(cursor.astring("a password")))


def authenticate(cursor: Cursor) -> Authenticate:
    """``authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")]`` (RFC 4959)."""
    cursor.space("AUTHENTICATE")
    mechanism = cursor.atom("a mechanism").upper()
    if cursor.at_end():
        return Authenticate(mechanism, None)
    cursor.space("the mechanism")
    return Authenticate(mechanism, Secret(decode_base64(cursor.match(abnf.BASE64, "base64"))))


def decode_base64(octets: bytes) -> bytes:
    """Read a line of SASL: base64, or ``=`` or nothing for nothing; Malformed (CVE-2025-59028)."""
    if octets in (b"=", b""):
        return b""
    # Asked here, because even Python's strict mode lets "AGEA====" pass.
    if len(octets) % 4 or abnf.BASE64.fullmatch(octets) is None:
        raise BadCommand("The response is not valid base64")
    return a2b_base64(octets)


def enable(cursor: Cursor) -> Enable:
    """``enable = "ENABLE" 1*(SP capability)`` (RFC 5161)."""
    names: list[bytes] = []
    while not names or not cursor.at_end():
        cursor.space("ENABLE and each capability")
        cursor.count_term()
        names.append(cursor.atom("a capability").upper())
    return Enable(tuple(dict.fromkeys(names)))


def compress(cursor: Cursor) -> Compress:
    """``compress = "COMPRESS" SP algorithm`` (RFC 4978)."""
    cursor.space("COMPRESS")
    return Compress(cursor.atom("an algorithm").upper())


def identity(cursor: Cursor) -> Id:
    """``id = "ID" SP ("(" [string SP nstring *(SP string SP nstring)] ")" / nil)`` (RFC 2971)."""
    cursor.space("ID")
    if cursor.skip_word(b"NIL"):
        return Id(())

    cursor.expect(b"(", "Expected a parenthesised list of names and values")
    cursor.skip(b" ")  # aioimaplib puts a space inside each parenthesis
    fields: list[tuple[bytes, bytes | None]] = []
    while not cursor.skip(b")"):
        name = cursor.string("a field name as a string")
        cursor.space("the field name")
        fields.append((name, cursor.nstring("a string or NIL")))
        if len(fields) > MAX_ID_FIELDS:
            raise BadCommand("ID has more than 30 fields")
        cursor.skip(b" ")
    return Id(tuple(fields))
