"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command, Secret


@dataclass(frozen=True, slots=True)
class Login(Command):
    """LOGIN user password."""

    user: bytes
    password: Secret


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """AUTHENTICATE; the initial response is decoded, ``=`` is empty, None is absent."""

    mechanism: bytes
    initial_response: Secret | None
