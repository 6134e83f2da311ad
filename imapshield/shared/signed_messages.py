"""Messages between servers, signed with the secret that they share. Pure.

A message is a signature, the name of its sender, and a report or a request. Whoever can write to Redis without knowing
the secret can only repeat messages, which changes nothing, and suppress them. Rates are not signed: they can be
changed, so that networks are refused, and banned for that.
"""

import hmac
import re
from hashlib import blake2b
from typing import NamedTuple

from imapshield.guard.guard_report import MAX_REPORT_BYTES, GuardReport, MalformedReport

MAX_MESSAGE_BYTES = MAX_REPORT_BYTES + 1024
"""Bytes of a message. A report is the longest."""

_SIGNATURE_SIZE = 32
_NAME = re.compile(rb"[0-9a-zA-Z._-]{1,80}", re.ASCII)


class Request(NamedTuple):
    """Asks the member `name` to tell all again; with `logins`, also its known users."""

    name: str
    logins: bool


class Message(NamedTuple):
    """What the member `sender` tells or asks."""

    sender: str
    content: GuardReport | Request


class SignedMessages:
    """Signs and verifies.

    Args:
        secret: that of all servers.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = blake2b(secret, digest_size=32, person=b"messages").digest()

    def encode(self, message: Message) -> bytes:
        """Return a message as bytes."""
        sender, content = message
        if isinstance(content, GuardReport):
            body = b"report " + content.encode()
        else:
            body = b"request " + content.name.encode() + b" logins" * content.logins
        signed = sender.encode() + b" " + body
        return self._sign(signed) + signed

    def decode(self, data: bytes) -> Message:
        """Return the message that `encode` has made `data` of.

        Raises:
            MalformedReport: it is none, or its signature is wrong.
        """
        signature, signed = data[:_SIGNATURE_SIZE], data[_SIGNATURE_SIZE:]
        if len(data) > MAX_MESSAGE_BYTES or not hmac.compare_digest(signature, self._sign(signed)):
            raise MalformedReport(
                "wrong signature: is --guard-secret the same on all servers of this Redis?"
            )
        sender, kind, *rest = [*signed.split(b" ", 2), b"", b""][:3]
        body = rest[0]
        if not _NAME.fullmatch(sender):
            raise MalformedReport("no name of a server")
        if kind == b"report":
            return Message(sender.decode(), GuardReport.decode(body))
        name, _, logins = body.partition(b" ")
        if kind != b"request" or not _NAME.fullmatch(name) or logins not in (b"", b"logins"):
            raise MalformedReport("neither a report nor a request")
        return Message(sender.decode(), Request(name.decode(), logins == b"logins"))

    def _sign(self, signed: bytes) -> bytes:
        return blake2b(signed, key=self._key, digest_size=_SIGNATURE_SIZE).digest()
