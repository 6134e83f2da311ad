"""Finds the user in the first message of a SASL exchange, for the guard; the backend decides who logs in."""

import re
import secrets
from base64 import b64decode, b64encode

from imapshield.errors import BadCommand

_SCRAM = re.compile(rb"[pny][^,]*,(?:a=([^,]*))?,(?:m=[^,]*,)?n=([^,]*),r=")
_BEARER = re.compile(rb"n,(?:a=([^,]*))?,\x01(.*)", re.DOTALL)
# Nothing may follow: a server could take a second field for the user, and the guard would count another one.
_XOAUTH2 = re.compile(rb"user=([^\x01]*)\x01auth=([^\x01]*)\x01{0,2}\Z", re.IGNORECASE)
_AUTH = re.compile(rb"auth=([^\x01]*)\x01", re.IGNORECASE)


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
        if found is None or not found[1]:
            raise BadCommand("Invalid XOAUTH2 response")
        return found[1], found[2]
    if mechanism == b"OAUTHBEARER":
        found = _BEARER.match(message)
        token = None if found is None else _AUTH.search(found[2])
        if found is None or token is None or not found[1]:
            raise BadCommand("Invalid OAUTHBEARER response; it must name the user (a=)")
        return _saslname(found[1]), token[1]
    found = _SCRAM.match(message)
    if found is None or not found[2] or message[:1] == b"p":
        raise BadCommand("Invalid SCRAM message")
    return _both(_saslname(found[1] or b""), _saslname(found[2])), None


def _both(acting_for: bytes, user: bytes) -> bytes:
    return user if acting_for in (b"", user) else acting_for + b"*" + user


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
    """Return a wrong password or token, which costs a server as much as another one."""
    scheme = secret[:7] if secret[:7].lower() == b"bearer " else b""
    return scheme + _random_text(len(secret) - len(scheme))


def wrong_proof(response: bytes) -> bytes:
    """Return a response of SCRAM, in base64, with a wrong proof if it has one."""
    before, mark, proof = b64decode(response).rpartition(b",p=")
    if not mark:
        return response
    return b64encode(before + mark + b64encode(secrets.token_bytes(len(b64decode(proof)))))


def _random_text(length: int) -> bytes:
    return secrets.token_hex(length).encode()[:length]


def replace_secret(message: bytes, secret: bytes | None, other: bytes | None) -> bytes:
    """Return the message of a SASL mechanism with another secret, which is the last of its fields."""
    before, _, after = message.rpartition(secret or b"")
    return before + (other or b"") + after
