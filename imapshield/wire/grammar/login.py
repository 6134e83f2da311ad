"""LOGIN and AUTHENTICATE (RFC 9051 section 6.2), ID (RFC 2971), ENABLE (RFC 5161) and COMPRESS (RFC 4978)."""

from binascii import a2b_base64

from imapshield.errors import BadCommand
from imapshield.wire import abnf
from imapshield.wire.commands.base import Secret
from imapshield.wire.commands.login import Authenticate, Compress, Enable, Id, Login
from imapshield.wire.cursor import Cursor, too_many

MAX_ID_FIELDS = 30
"""RFC 2971 section 3.3: "Implementations MUST NOT send more than 30 field-value pairs"."""


def login(cursor: Cursor) -> Login:
    """``login = "LOGIN" SP userid SP password``, both astrings."""
    # Python's imaplib does not quote the user, and the name of a master user has a "*" (`cred.master_users`).
    user = cursor.list_mailbox("a user name")
    cursor.space("the user name")
    return Login(user, Secret(cursor.astring("a password")))


def authenticate(cursor: Cursor) -> Authenticate:
    """``authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")]`` (RFC 4959)."""
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


def identity(cursor: Cursor) -> Id:
    """``id = "ID" SP ("(" [string SP nstring *(SP string SP nstring)] ")" / nil)`` (RFC 2971)."""
    if cursor.skip_word(b"NIL"):
        return Id(())
    cursor.expect(b"(", "Expected NIL or a parenthesised list of names and values")
    cursor.skip(b" ")  # aioimaplib puts a space inside each parenthesis
    fields: list[tuple[bytes, bytes | None]] = []
    while not cursor.skip(b")"):
        name = cursor.string("a field name as a string")
        cursor.space("the field name")
        fields.append((name, cursor.nstring("a string or NIL")))
        if len(fields) > MAX_ID_FIELDS:
            raise BadCommand(too_many("fields in ID", MAX_ID_FIELDS))
        cursor.skip(b" ")
    return Id(tuple(fields))


def enable(cursor: Cursor) -> Enable:
    """``enable = "ENABLE" 1*(SP capability)`` (RFC 5161)."""
    names = cursor.list_to_end(lambda: cursor.atom("a capability").upper(), "capability")
    return Enable(tuple(dict.fromkeys(names)))


def compress(cursor: Cursor) -> Compress:
    """``compress = "COMPRESS" SP algorithm`` (RFC 4978)."""
    return Compress(cursor.atom("a compression algorithm").upper())
