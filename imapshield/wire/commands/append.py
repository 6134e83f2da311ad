"""APPEND and REPLACE (RFC 9051 section 6.3.12, RFC 3502, RFC 4469, RFC 8508)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command, LiteralData


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND or REPLACE.

    Args:
        flags: canonical flags.
        internaldate: seconds since the epoch; None means now.
        content: the message; with CATENATE (RFC 4469) its parts in order, where a URL is `bytes`.
        zone_minutes: the time zone of `internaldate`, in minutes east of UTC.
    """

    flags: tuple[bytes, ...]
    internaldate: int | None
    content: LiteralData | tuple[LiteralData | bytes, ...]
    zone_minutes: int = 0


@dataclass(frozen=True, slots=True)
class Append(Command):
    """APPEND of one message, or of several with MULTIAPPEND (RFC 3502)."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class Replace(Command):
    """REPLACE and UID REPLACE (RFC 8508).

    Args:
        number: the sequence number of the message to replace, or its UID when `uid`; None means ``*``.
        mailbox: where the new message is stored.
        message: the new message.
        uid: whether the command was UID REPLACE.
    """

    number: int | None
    mailbox: str
    message: AppendMessage
    uid: bool = False
