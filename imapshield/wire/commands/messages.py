"""Commands that add, change, copy or remove messages: APPEND, REPLACE, STORE, COPY, MOVE and EXPUNGE."""

from dataclasses import dataclass

from imapshield.wire.commands.base import Command, LiteralData
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND or REPLACE.

    Args:
        flags: canonical flags.
        internaldate: seconds since the epoch; None means now.
        content: the message; with CATENATE (RFC 4469) its parts in order, where a URL is `bytes`.
    """

    flags: tuple[bytes, ...]
    internaldate: int | None
    content: LiteralData | tuple[LiteralData | bytes, ...]


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


@dataclass(frozen=True, slots=True)
class Expunge(Command):
    """EXPUNGE, or UID EXPUNGE of `uids` (RFC 4315)."""

    uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Store(Command):
    """STORE and UID STORE.

    Args:
        sequence: the messages.
        operation: b"+" adds the flags, b"-" removes them, b"" replaces all flags by them.
        flags: canonical flags, each once.
        silent: whether the FETCH responses are to be left out (.SILENT).
        uid: whether the command was UID STORE.
        unchanged_since: the MODSEQ of UNCHANGEDSINCE (RFC 7162).
    """

    sequence: SequenceSet
    operation: bytes
    flags: tuple[bytes, ...]
    silent: bool = False
    uid: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    """COPY and UID COPY, or MOVE and UID MOVE (RFC 6851) when `is_move`."""

    sequence: SequenceSet
    mailbox: str
    uid: bool = False
    is_move: bool = False
