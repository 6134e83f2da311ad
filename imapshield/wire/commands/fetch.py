"""FETCH and UID FETCH, and the items that they, NOTIFY and CONTEXT=SEARCH can ask for (RFC 9051 section 6.4.5)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Section:
    """The section specification between the brackets of ``BODY[…]``.

    Args:
        path: the part numbers, outermost first; empty for the whole message.
        text: HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME; b"" for the whole part.
        fields: the header field names of HEADER.FIELDS as the client wrote them. Compare them without case.
    """

    path: tuple[int, ...] = ()
    text: bytes = b""
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribute:
    """A FETCH item that is a single word, such as UID, FLAGS or ENVELOPE; `name` is in upper case.

    RFC822, RFC822.HEADER and RFC822.TEXT are not attributes but `BodySection` with `label` set.
    """

    name: bytes


@dataclass(frozen=True, slots=True)
class BodySection:
    r"""``BODY[section]<partial>`` or ``BODY.PEEK[section]<partial>``.

    Args:
        section: the section to return.
        peek: whether \Seen stays unchanged.
        partial: (offset, maximum size), both in bytes; None for the whole section.
        label: the item's name in the response where it is not ``BODY[…]``: ``RFC822`` and the like.
    """

    section: Section
    peek: bool = False
    partial: tuple[int, int] | None = None
    label: bytes | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    r"""``BINARY[part]``, ``BINARY.PEEK[part]`` or, when `size_only`, ``BINARY.SIZE[part]`` (RFC 3516).

    Args:
        path: the part numbers, outermost first; empty for the whole message.
        peek: whether \Seen stays unchanged.
        partial: (offset, maximum size) of the decoded part, both in bytes; None for the whole part.
        size_only: whether only the decoded size is wanted.
    """

    path: tuple[int, ...]
    peek: bool = False
    partial: tuple[int, int] | None = None
    size_only: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """PREVIEW (RFC 8970). `lazy` permits NIL for a preview that is not at hand."""

    lazy: bool = False


FetchItem = Attribute | BodySection | Binary | Preview


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """FETCH and UID FETCH.

    Args:
        sequence: the messages.
        items: the items, each once, with macros expanded.
        uid: whether the command was UID FETCH.
        changed_since: the MODSEQ of CHANGEDSINCE (RFC 7162).
        vanished: whether expunged UIDs are wanted too (RFC 7162 VANISHED).
        partial: the range of PARTIAL (RFC 9394): (1, 500), or (-1, -500) counted from the last message.
    """

    sequence: SequenceSet
    items: tuple[FetchItem, ...]
    uid: bool = False
    changed_since: int | None = None
    vanished: bool = False
    partial: tuple[int, int] | None = None
