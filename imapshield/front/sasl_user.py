"""Finds the user in the first message of a SASL exchange, for the guard; the backend decides who logs in."""

import re

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
