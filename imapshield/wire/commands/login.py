"""Commands about the connection and the login: ID, ENABLE, COMPRESS, LOGIN and AUTHENTICATE."""

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


@dataclass(frozen=True, slots=True)
class Id(Command):
    """ID (RFC 2971): pairs of field name and value. A value of None is NIL; no fields at all is ``ID NIL``."""

    fields: tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Enable(Command):
    """ENABLE (RFC 5161): capability names in upper case, each once."""

    capabilities: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Compress(Command):
    """COMPRESS (RFC 4978): the name of the algorithm in upper case."""

    algorithm: bytes
