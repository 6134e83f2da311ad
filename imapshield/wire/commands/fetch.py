"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Section:
    """What stands between the brackets of BODY[…]: part numbers, a text, header fields.

    `text` is b"" (all of the part), HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME.
    `fields` are as the client wrote them; compare them without case.
    """

    path: tuple[int, ...] = ()
    text: bytes = b""
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribute:
    """A FETCH item of one word.

    UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE MODSEQ …

    RFC822, RFC822.HEADER and RFC822.TEXT are `BodySection` with `label` set.
    """

    name: bytes


@dataclass(frozen=True, slots=True)
class BodySection:
    """BODY[section]<partial> and its PEEK.

    `label` is how the answer names it when that is not BODY[…].
    """

    section: Section
    peek: bool = False
    partial: tuple[int, int] | None = None
    label: bytes | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    """BINARY[part], BINARY.PEEK[part] or BINARY.SIZE[part] (RFC 3516)."""

    path: tuple[int, ...]
    peek: bool = False
    partial: tuple[int, int] | None = None
    size_only: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """PREVIEW [(LAZY)] (RFC 8970)."""

    lazy: bool = False


FetchItem = Attribute | BodySection | Binary | Preview


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """FETCH and UID FETCH; macros are expanded.

    CHANGEDSINCE and VANISHED are RFC 7162, PARTIAL is RFC 9394.
    """

    sequence: SequenceSet
    items: tuple[FetchItem, ...]
    uid: bool = False
    changed_since: int | None = None
    vanished: bool = False
    partial: tuple[int, int] | None = None
