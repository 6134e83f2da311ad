"""LOGIN and AUTHENTICATE (RFC 9051 section 6.2)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command, Secret


@dataclass(frozen=True, slots=True)
class Login(Command):
    """LOGIN with a user name and a password."""

    user: bytes
    password: Secret


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """AUTHENTICATE with a SASL mechanism, in upper case.

    `initial_response` (RFC 4959) is decoded from base64: empty for ``=``, None when the client sent none.
    """

    mechanism: bytes
    initial_response: Secret | None
