"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, LIST, LSUB and STATUS (RFC 9051 section 6.3)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command


@dataclass(frozen=True, slots=True)
class Create(Command):
    r"""CREATE. `special_use` are the attributes of the USE parameter, such as ``\Sent`` (RFC 6154)."""

    mailbox: str
    special_use: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete(Command):
    """DELETE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename(Command):
    """RENAME of the mailbox `old` to `new`."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """SUBSCRIBE, or UNSUBSCRIBE when `subscribe` is False."""

    mailbox: str
    subscribe: bool = True


@dataclass(frozen=True, slots=True)
class List(Command):
    r"""LIST, or LSUB when `lsub`.

    Args:
        reference: the reference name, decoded.
        patterns: the mailbox patterns, decoded like names; wildcards stay.
        lsub: whether the command was LSUB.
        selection: the selection options of RFC 5258, in upper case.
        returns: the return options of RFC 5258, in upper case.
        status_items: the items of the return option STATUS (RFC 5819).
        extended: whether the extended syntax was used; \HasChildren and the like then follow RFC 5258.
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
    """STATUS of a mailbox. `items` are in upper case, each once."""

    mailbox: str
    items: tuple[bytes, ...]
