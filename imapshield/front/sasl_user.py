"""Finds the user in the first message of a SASL exchange, for the guard; the backend decides who logs in."""

import re
import secrets
from base64 import b64decode, b64encode

from imapshield.errors import BadCommand

# A server that is written in C may end a name at a NUL. The guard would count another name.
_SCRAM = re.compile(rb"[pny][^,]*,(?:a=([^,\0]*))?,(?:m=[^,]*,)?n=([^,\0]*),r=")
_BEARER = re.compile(rb"n,a=([^,\0\x01]+),\x01((?:[A-Za-z]+=[^\0\x01]*\x01)+)\x01?\Z")
# Nothing may follow: a server could take a second field for the user, and the guard would count another one.
_XOAUTH2 = re.compile(rb"user=([^\0\x01]+)\x01auth=([^\0\x01]*)\x01{0,2}\Z", re.IGNORECASE)
_AUTH = re.compile(rb"(\x01auth=)[^\x01]*", re.IGNORECASE)
_PROOF = re.compile(rb"(,p=)([^,]*)")
_PROOF_SIZE = 32  # of SHA-256
_LETTER = "\u00e9".encode()  # one that is not ASCII


def user_and_secret(mechanism: bytes, message: bytes) -> tuple[bytes, bytes | None]:
    """Return the user, and the secret that proves it; None for SCRAM, in which the client sends none.

    A user who acts for another one (an authorization identity) has both names, as Dovecot writes a master user. The
    failed logins count for the second one, whose password it is (`front_parts.BackendChecker.resolve`).

    Raises:
        BadCommand: the message is malformed, or names no user.
    """
    if mechanism == b"PLAIN":
        fields = message.split(b"\0")
        if len(fields) != 3 or not fields[1]:
            raise BadCommand("Invalid PLAIN response; expected NUL, user, NUL, password")
        acting_for, user, password = fields
        return _both(acting_for, user), password
    if mechanism == b"XOAUTH2":
        found = _XOAUTH2.match(message)
        if found is None:
            raise BadCommand("Invalid XOAUTH2 response")
        return found[1], found[2]
    if mechanism == b"OAUTHBEARER":
        found = _BEARER.match(message)
        if found is None:
            raise BadCommand("Invalid OAUTHBEARER response; it must name the user (a=)")
        return _saslname(found[1]), _token(found[2].split(b"\x01"))
    found = _SCRAM.match(message)
    if found is None or not found[2] or message[:1] == b"p":
        raise BadCommand("Invalid SCRAM message")
    return _both(_saslname(found[1] or b""), _saslname(found[2])), None


def _token(fields: list[bytes]) -> bytes:
    """Return the value of ``auth`` (RFC 7628 section 3.1).

    There must be one, and no other user: a server could take another field than the guard, which would then see the
    same token again and again while the server gets one guess after another.
    """
    pairs = [(name.lower(), value) for name, _, value in (each.partition(b"=") for each in fields)]
    tokens = [value for name, value in pairs if name == b"auth"]
    if len(tokens) != 1 or any(name == b"user" for name, _ in pairs):
        raise BadCommand(
            "Invalid OAUTHBEARER response; it must have one field auth, and no field user"
        )
    return tokens[0]


def _both(acting_for: bytes, user: bytes) -> bytes:
    if acting_for in (b"", user):
        return user
    if b"*" in acting_for + user:
        # A server could open the mailbox of another user than the one whose node is looked up.
        raise BadCommand("A user name with a star cannot act for another user")
    return acting_for + b"*" + user


def _saslname(name: bytes) -> bytes:
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def mailbox_user(user: bytes) -> str:
    """Return the name of the user whose mail is wanted, in lower case: without the master user after a star.

    The name is "" if it is not UTF-8: no map has it.
    """
    try:
        return user.partition(b"*")[0].decode("utf-8").lower()
    except UnicodeDecodeError:
        return ""


def wrong_secret(secret: bytes) -> bytes:
    """Return a wrong password or token, which costs a server as much as another one.

    It must be a literal if the secret is one, which takes longer than a string in quotes.
    """
    scheme = secret[:7] if secret[:7].lower() == b"bearer " else b""
    text = _random_text(len(secret) - len(scheme))
    return scheme + (text if secret.isascii() else (text[:-2] + _LETTER)[-len(text) :])


def wrong_proof(response: bytes) -> bytes:
    """Return a response of SCRAM, in base64, with a wrong proof if it has one. A malformed one is as wrong."""
    return b64encode(_PROOF.sub(_other_proof, b64decode(response)))


def _other_proof(field: re.Match[bytes]) -> bytes:
    try:
        size = len(b64decode(field[2], validate=True))
    except ValueError:
        size = _PROOF_SIZE
    return field[1] + b64encode(secrets.token_bytes(size or _PROOF_SIZE))


def _random_text(length: int) -> bytes:
    return secrets.token_hex(length).encode()[:length]


def replace_secret(message: bytes, other: bytes) -> bytes:
    """Return a message that `user_and_secret` has accepted, with another secret."""
    before, mark, _ = message.rpartition(b"\0")
    if mark:  # of the mechanisms with a secret, only PLAIN has a NUL
        return before + mark + other
    return _AUTH.sub(lambda field: field[1] + other, message)
