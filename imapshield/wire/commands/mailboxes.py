"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command
from imapshield.wire.sequence import SequenceSet


@dataclass(frozen=True, slots=True)
class Qresync:
    """The QRESYNC parameter of SELECT (RFC 7162 section 3.2.5)."""

    uidvalidity: int
    modseq: int
    known_uids: SequenceSet | None = None
    match_sequence: SequenceSet | None = None
    match_uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT, or EXAMINE when `readonly`."""

    mailbox: str
    readonly: bool = False
    condstore: bool = False
    qresync: Qresync | None = None


@dataclass(frozen=True, slots=True)
class Create(Command):
    """CREATE; `special_use` are the USE attributes of RFC 6154."""

    mailbox: str
    special_use: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """DELETE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RENAME old new."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """SUBSCRIBE, or UNSUBSCRIBE when not `on`."""

    mailbox: str
    subscribe: bool = True


@dataclass(frozen=True, slots=True)
class List(Command):
    r"""LIST, with RFC 5258's selection and return options (upper case); LSUB when `lsub`.

    `patterns` are decoded like names, wildcards kept. `status_items` belongs to RETURN (STATUS (…))
    of RFC 5819. `extended` says that the extended syntax was used, in which case \HasChildren and
    friends follow RFC 5258.
    """

    reference: str
    patterns: tuple[str, ...]
    lsub: bool = False
    selection: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status_items: tuple[bytes, ...] = ()
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Status(Command):
    """STATUS mailbox (items), items in upper case."""

    mailbox: str
    items: tuple[bytes, ...]
