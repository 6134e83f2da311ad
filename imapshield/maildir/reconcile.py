"""Compares directory listings with the index, to find out what other programs did to the files. No I/O."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from imapshield.maildir.filename import base
from imapshield.maildir.folder_listing import Listing
from imapshield.maildir.paths import CUR, TMP


class IndexedFile(NamedTuple):
    """A message as the index has it; `directory` is CUR, NEW or TMP."""

    uid: int
    name: bytes
    directory: int
    flags: bytes


class Differences(NamedTuple):
    """The differences between the index and the disk.

    `added` are files that no message has, as (directory, name); `renamed` are messages whose file now has the given
    directory and name; `missing` are messages without a file.
    """

    added: list[tuple[int, bytes]]
    renamed: list[tuple[IndexedFile, int, bytes]]
    missing: list[IndexedFile]


def reconcile(known: Sequence[IndexedFile], listing: Listing) -> Differences:
    """Compare messages with a listing. If only ``new/`` was listed, `known` must be the messages in ``new/``.

    If two files in ``cur/`` have the same base name, because a backup was restored over a live folder, the one that the
    index has is the message. The other file becomes the message when the first one is removed.
    """
    found = listing.by_base()
    for row in known:
        if row.directory == CUR and listing.cur is not None and row.name in listing.cur:
            found[base(row.name)] = (CUR, row.name)
    renamed: list[tuple[IndexedFile, int, bytes]] = []
    missing: list[IndexedFile] = []
    for row in known:
        file = found.pop(base(row.name), None)
        if file is None:
            if row.directory != TMP:  # tmp/ is not listed
                missing.append(row)
        elif file != (row.directory, row.name):
            renamed.append((row, *file))
    return Differences(list(found.values()), renamed, missing)


def is_unchanged(known: Iterable[tuple[int, bytes]], listing: Listing) -> bool:
    """Whether the listing has exactly the files of the messages `known`, given as (directory, name).

    Nearly every listing is unchanged, and this comparison is much cheaper than finding `Differences`.
    """
    new: set[bytes] = set()
    cur: set[bytes] = set()
    for directory, name in known:
        if directory != TMP:
            (new if directory else cur).add(name)
    return new == listing.new and (listing.cur is None or cur == listing.cur)
