"""A directory listing × the rows of the index → what happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from imapshield.maildir.filename import base

CUR = 0
NEW = 1
TMP = 2
"""Committed, but not yet given the name by which other programs see it; see `store`."""


class Known(NamedTuple):
    """A message as the index has it: `place` is CUR, NEW or TMP."""

    uid: int
    name: bytes
    place: int
    flags: bytes


class Listing(NamedTuple):
    """The file names of ``new/`` and, unless only that was looked at, of ``cur/``."""

    new: frozenset[bytes]
    cur: frozenset[bytes] | None


class Plan(NamedTuple):
    """What to do: files without a UID, messages found under another name or place, messages without a file."""

    fresh: list[tuple[int, bytes]]
    renamed: list[tuple[Known, int, bytes]]
    missing: list[Known]


def files(listing: Listing, known: Iterable[Known] = ()) -> dict[bytes, tuple[int, bytes]]:
    """Return base → (place, name).

    A file listed in both places was moved to ``cur/`` meanwhile. Of two files of one base in ``cur/`` (a backup
    restored over a live folder) the one that the index knows is the message; the other waits until that is gone.
    """
    found = {base(name): (NEW, name) for name in listing.new}
    if listing.cur is not None:
        found.update((base(name), (CUR, name)) for name in sorted(listing.cur))
        for row in known:
            if row.place == CUR and row.name in listing.cur:
                found[base(row.name)] = (CUR, row.name)
    return found


def reconcile(known: Iterable[Known], listing: Listing) -> Plan:
    """Compare. With only ``new/`` listed, `known` must be the messages in ``new/``."""
    rows = list(known)
    found = files(listing, rows)
    renamed: list[tuple[Known, int, bytes]] = []
    missing: list[Known] = []
    for row in rows:
        there = found.pop(base(row.name), None)
        if there is None:
            if row.place != TMP:  # which is not listed
                missing.append(row)
        elif there != (row.place, row.name):
            renamed.append((row, *there))
    return Plan(list(found.values()), renamed, missing)


def same(known: Iterable[tuple[int, bytes]], listing: Listing) -> bool:
    """Whether (place, name) of every message is what is listed and nothing else is: the common case, at no cost."""
    new: set[bytes] = set()
    cur: set[bytes] = set()
    for place, name in known:
        if place != TMP:
            (new if place else cur).add(name)
    return new == listing.new and (listing.cur is None or cur == listing.cur)
