"""Inspects the index of a Maildir: whether SQLite can read it, and whether it agrees with itself and with the files."""

import os
import shlex
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

from imapshield.errors import StoreError
from imapshield.maildir import files
from imapshield.maildir.directory_state import MAX_TRUSTED_SECONDS
from imapshield.maildir.filename import base
from imapshield.maildir.folder_listing import list_folder
from imapshield.maildir.index_files import INDEX_FILE, IndexFiles
from imapshield.maildir.index_handover import mark_of
from imapshield.maildir.index_schema import VERSION
from imapshield.maildir.list_files import MAX_LIST_SIZE
from imapshield.maildir.mail_check import Finding, opened_folder, shown
from imapshield.maildir.message_table import MAX_UID
from imapshield.maildir.other_servers import (
    FORMATS,
    UidList,
    leaves_room,
    parse_uid_list,
    plan,
)
from imapshield.maildir.paths import TMP, folder_name
from imapshield.maildir.sqlite_file import BUSY_SECONDS

VALUE_ERRORS = (
    StoreError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What functions of this package raise for values that another program wrote into an index, such as the mailbox name
``a//b`` or a text as UIDNEXT."""

_EXPUNGED = "(SELECT count(*) FROM expunged WHERE expunged.mailbox = mailbox.id)"
_HIGHEST = "(SELECT coalesce(max(uid), 0) FROM message WHERE message.mailbox = mailbox.id)"
_COUNT = "(SELECT count(*) FROM message)"
_TOTAL = (
    "((SELECT coalesce(sum(physical), 0) FROM message)"
    " + (SELECT coalesce(sum(length(entry) + length(value)), 0) FROM metadata))"
)
_NO_MAILBOX = "mailbox <> 0 AND mailbox NOT IN (SELECT id FROM mailbox)"
_RECOUNT = f"UPDATE account SET messages = {_COUNT}, octets = {_TOTAL}"  # noqa: S608
_COUNTERS = (
    (
        "the number or size of all messages, which the quota uses, is wrong",
        f"SELECT 1 FROM account WHERE messages <> {_COUNT} OR octets <> {_TOTAL}",  # noqa: S608
        _RECOUNT,
    ),
    (
        "the number of expunged messages of a mailbox is wrong",
        f"SELECT 1 FROM mailbox WHERE logged <> {_EXPUNGED}",  # noqa: S608
        f"UPDATE mailbox SET logged = {_EXPUNGED}",  # noqa: S608
    ),
    (
        "the next UID of a mailbox is not above its highest UID",
        f"SELECT 1 FROM mailbox WHERE uidnext <= {_HIGHEST}",  # noqa: S608
        f"UPDATE mailbox SET uidnext = max(uidnext, 1 + {_HIGHEST})",  # noqa: S608
    ),
    *(
        (
            f"table {table} has rows of a mailbox that does not exist",
            f"SELECT 1 FROM {table} WHERE {_NO_MAILBOX} LIMIT 1",  # noqa: S608
            f"DELETE FROM {table} WHERE {_NO_MAILBOX}",  # noqa: S608
        )
        for table in ("message", "expunged", "answer", "metadata", "removed")
    ),
)
"""What is wrong, the query that finds it, and the statement that repairs it. No repair concerns a file. After each of
them, messages are counted again."""


def indexed_names(directory: bytes) -> set[bytes] | None:
    """Return the names of all message files that the index in a directory has; None if it cannot be read."""
    path = directory + b"/" + INDEX_FILE
    if not os.path.exists(path):
        return None
    try:
        with closing(_connect(path)) as db:
            rows = db.execute("SELECT name FROM message WHERE typeof(name) = 'blob'")
            return {name for (name,) in rows}
    except sqlite3.Error:
        return None


def check_index(
    root: bytes, now: float, directory: bytes | None = None, follow: bool = False
) -> Iterator[Finding]:
    """Find damage in the index of a Maildir; there is none if it has no index.

    Args:
        root: the Maildir.
        now: seconds since the epoch.
        directory: the directory of the index; None is the Maildir.
        follow: whether folders may be symbolic links to directories.
    """
    path = (root if directory is None else directory) + b"/" + INDEX_FILE
    if not os.path.exists(path):
        return
    try:
        with closing(_connect(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                yield _closed_or_too_new(path, version)
                return
            if version < VERSION:
                return  # empty, or changed to the current version when it is opened
            if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                yield _corrupt(path, now)
                return
            yield from _check_counters(path, db)
            yield from _check_restored(path, db)
            for row in db.execute(
                "SELECT id, name, uidvalidity, uidnext FROM mailbox ORDER BY name"
            ):
                try:
                    yield from _check_mailbox(root, path, db, now, follow, *row)
                except VALUE_ERRORS:
                    yield _unusable(path, f" for the mailbox {row[1]!r:.100}")
    except VALUE_ERRORS:
        yield _unusable(path)
    except sqlite3.OperationalError as error:
        yield Finding(path, f"cannot be read: {error}", "check the disk, the owner and the mode")
    except sqlite3.DatabaseError:
        yield _corrupt(path, now)


def _closed_or_too_new(path: bytes, version: int) -> Finding:
    mark = mark_of(os.path.dirname(path))
    if mark is not None:
        verb = "was moved" if mark.is_given_up else "is being moved"
        node = shlex.quote(mark.node)
        return Finding(
            path,
            f"{verb} to the node {mark.node!r:.100}",
            f"imapshield move USER {node:.100}",
        )
    return Finding(
        path,
        f"was written by a newer version of imapshield (format {version}, not {VERSION})",
        "upgrade imapshield",
    )


def _connect(path: bytes) -> sqlite3.Connection:
    db = sqlite3.connect(os.fsdecode(path), isolation_level=None, timeout=BUSY_SECONDS)
    db.execute("PRAGMA trusted_schema = OFF")  # the owner of the mail can write into the index
    return db


@contextmanager
def _index_files(path: bytes) -> Iterator[IndexFiles]:
    """Yield the files of the index that has this database."""
    with files.at(path) as entry:
        index_files = IndexFiles(os.path.dirname(path))
        index_files.directory = entry.directory
        yield index_files


def _corrupt(path: bytes, now: float) -> Finding:
    where = f"it to {shown(path)}.broken-{int(now)}; a new one is built, and mail clients download all mail again"
    repair = partial(_set_aside, path, now)
    return Finding(path, "is corrupt", f"move {where}", repair, f"moved {where}")


def _unusable(path: bytes, where: str = "") -> Finding:
    return Finding(
        path,
        f"has values{where} that imapshield does not write",
        "move it away while no server runs; mail clients download all mail again",
    )


def _set_aside(path: bytes, now: float) -> None:
    with _index_files(path) as index_files:
        index_files.move_aside(int(now))


def _check_counters(path: bytes, db: sqlite3.Connection) -> Iterator[Finding]:
    for problem, query, statement in _COUNTERS:
        if db.execute(query).fetchone():
            repair = partial(_repair, path, statement)
            yield Finding(path, problem, "count again", repair, "counted again")


def _repair(path: bytes, statement: str) -> None:
    for step in (statement, _RECOUNT):
        _execute(path, step)


def _execute(path: bytes, statement: str, *parameters: object) -> None:
    with closing(_connect(path)) as db:
        db.execute(statement, parameters)


def _check_restored(path: bytes, db: sqlite3.Connection) -> Iterator[Finding]:
    """Compare the inode that the index recorded, if it records one, with that of the file."""
    (inode,) = db.execute("SELECT inode FROM account").fetchone()
    if inode not in (0, os.stat(path).st_ino):
        yield Finding(
            path,
            "was restored from a backup or copied",
            "the next login gives new UIDVALIDITYs, and mail clients download all mail again; if "
            "the mail was moved here and its original is not used again, run check-mail --moved",
        )


def accept_moved(directory: bytes) -> None:
    """Declare that the index in a directory is not a copy of an older state, so that all UIDs stay."""
    path = directory + b"/" + INDEX_FILE
    if not os.path.exists(path):
        return
    with _index_files(path) as index_files:
        last = index_files.last_epoch()
    with suppress(sqlite3.Error):  # it is corrupt, or has another version
        _execute(path, "UPDATE mailbox SET cur_ino = 0, new_ino = 0")
        _execute(path, "UPDATE account SET inode = 0, generation = 0, epoch = max(epoch, ?)", last)


def _check_mailbox(
    root: bytes,
    path: bytes,
    db: sqlite3.Connection,
    now: float,
    follow: bool,
    key: int,
    name: str,
    uidvalidity: int,
    uidnext: int,
) -> Iterator[Finding]:
    folder_part = folder_name(name)
    folder = root + b"/" + folder_part if folder_part else root
    if folder_part and os.path.islink(folder) and not follow:
        return
    if not os.path.isdir(folder + b"/cur") or not os.path.isdir(folder + b"/new"):
        return
    if not leaves_room(uidnext):
        yield Finding(
            folder, f"has used UIDs up to {uidnext}; the last is {MAX_UID}", "nothing to do yet"
        )
    uids = {
        base(file): uid
        for file, uid in db.execute(
            "SELECT name, uid FROM message WHERE mailbox = ? AND place <> ?", (key, TMP)
        )
    }
    with opened_folder(folder, follow) as opened:
        by_base = list_folder(opened, cur=True).by_base()
    yield from _check_files(path, db, now, key, folder, uids.keys(), by_base.keys())
    yield from _check_lists(folder, UidList(uidvalidity, uidnext, uids), by_base)


def _check_files(
    path: bytes,
    db: sqlite3.Connection,
    now: float,
    key: int,
    folder: bytes,
    known: Collection[bytes],
    found: Collection[bytes],
) -> Iterator[Finding]:
    """Compare the messages of a mailbox with its files, if the next sync would not do that."""
    *stamps, untrusted, listed_at = db.execute(
        "SELECT cur_mtime, cur_ino, new_mtime, new_ino, hot & 3, scanned FROM mailbox WHERE id = ?",
        (key,),
    ).fetchone()
    cur, new = os.stat(folder + b"/cur"), os.stat(folder + b"/new")
    is_trusted = stamps == [cur.st_mtime_ns, cur.st_ino, new.st_mtime_ns, new.st_ino]
    if not is_trusted or untrusted or now - listed_at >= MAX_TRUSTED_SECONDS:
        return
    without_row = len(set(found) - set(known))
    without_file = len(set(known) - set(found))
    if without_row or without_file:
        yield Finding(
            folder,
            f"has {without_row} messages that the index lacks; the index has {without_file} without a file",
            "make imapshield read the folder again when it is opened",
            partial(_execute, path, "UPDATE mailbox SET scanned = 0 WHERE id = ?", key),
            "imapshield reads the folder again when it is opened",
        )


def _check_lists(folder: bytes, ours: UidList, by_base: Collection[bytes]) -> Iterator[Finding]:
    for form in FORMATS:
        path = folder + b"/" + form.file
        with files.at(path) as entry:
            content = files.read_small(entry, MAX_LIST_SIZE)
        if not content:
            continue
        theirs = parse_uid_list(content, form)
        if theirs is None:
            problem = "cannot be read, or gives one UID to two messages"
            yield Finding(path, problem, "stop both servers, and run imapshield export-uids")
        elif not leaves_room(theirs.uidnext):
            problem = f"has used UIDs up to {theirs.uidnext}"
            yield Finding(path, problem, "nothing to do; the mailbox gets a new UIDVALIDITY")
        elif theirs.uidvalidity == ours.uidvalidity and not plan(ours, theirs, by_base).uidvalidity:
            yield Finding(
                path,
                f"gives UIDs to messages that are other messages for imapshield ({form.server} has served the folder)",
                "nothing to do; the mailbox gets a new UIDVALIDITY when it is opened",
            )
