"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command, LiteralData


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND.

    `internaldate` in epoch seconds with `zone` minutes east of UTC, None is now. `content` of
    CATENATE (RFC 4469) are its parts: octets, and URLs as `bytes`.
    """

    flags: tuple[bytes, ...]
    internaldate: int | None
    content: LiteralData | tuple[LiteralData | bytes, ...]
    zone_minutes: int = 0


@dataclass(frozen=True, slots=True)
class Append(Command):
    """APPEND, several messages with MULTIAPPEND (RFC 3502)."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class Replace(Command):
    """REPLACE and UID REPLACE (RFC 8508) of the one message `number`; None is ``*``."""

    number: int | None
    mailbox: str
    message: AppendMessage
    uid: bool = False
