"""ID, ENABLE and COMPRESS: what client and server tell each other about themselves and switch on."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command


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
