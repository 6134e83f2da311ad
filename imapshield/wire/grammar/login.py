"""LOGIN and AUTHENTICATE (RFC 9051 section 6.2), and the base64 of SASL responses."""

from __future__ import annotations

from binascii import a2b_base64

from imapshield.errors import BadCommand
from imapshield.wire import abnf
from imapshield.wire.commands.base import Secret
from imapshield.wire.commands.login import Authenticate, Login
from imapshield.wire.cursor import Cursor


def login(cursor: Cursor) -> Login:
    """``login = "LOGIN" SP userid SP password``, both astrings."""
    cursor.space("LOGIN")
    user = cursor.astring("a user name")
    cursor.space("the user name")
    return Login(user, Secret(cursor.astring("a password")))


def authenticate(cursor: Cursor) -> Authenticate:
    """``authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")]`` (RFC 4959)."""
    cursor.space("AUTHENTICATE")
    mechanism = cursor.atom("a SASL mechanism").upper()
    if cursor.at_end():
        return Authenticate(mechanism, None)
    cursor.space("the mechanism")
    return Authenticate(mechanism, Secret(decode_base64(cursor.match(abnf.BASE64, "base64"))))


def decode_base64(response: bytes) -> bytes:
    """Decode a SASL response: base64, where ``=`` and an empty line are an empty response.

    Raises:
        BadCommand: it is not strict base64 (CVE-2025-59028).
    """
    if response in (b"=", b""):
        return b""
    # Python's decoder accepts "AGEA====" even in its strict mode.
    if len(response) % 4 or abnf.BASE64.fullmatch(response) is None:
        raise BadCommand("Expected a response in valid base64")
    return a2b_base64(response)
