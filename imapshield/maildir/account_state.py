"""What the parts of a store share: where things are, the index, unique names, keywords, which mtimes are trusted."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from imapshield.errors import BadMailboxName, NoSuchMailbox, StoreLimitExceeded
from imapshield.maildir import filename, files, layout
from imapshield.maildir.filename import Keywords
from imapshield.maildir.index import FILE, Index, MailboxRow
from imapshield.maildir.reconcile import CUR, NEW, TMP, Listing
from imapshield.wire.flags import RECENT, flag_list

HOT_SECONDS = 1.0
"""A directory that changed less long ago may change again without a newer mtime: one clock tick of the kernel is up
to 10 ms, some network file systems count in seconds."""

KEYWORDS = 1000
"""Keywords of one mailbox: those beyond 26 live in the index, and each one is told to every client."""

FLAG_OCTETS = 4096
"""Flags of one message, as they are sent: people have under ten keywords, and a mailbox opened holds all its lists."""

KEYWORD_FILE = b"/dovecot-keywords"
CUR_HOT = 1
NEW_HOT = 2
UNSETTLED = 4
"""In `MailboxRow.hot`: there are messages in ``tmp/``."""

_PARTS = (b"/cur/", b"/new/", b"/tmp/")


class DirectoryStamps(NamedTuple):
    """What stat() says of ``cur/`` and ``new/``; named as the index's columns."""

    cur_mtime: int
    cur_ino: int
    new_mtime: int
    new_ino: int


class AccountState:
    """One account's Maildir; see `MaildirStore` for the arguments."""

    def __init__(self, root: str, now: Callable[[], float], note: Callable[[str], None]) -> None:
        self.root = os.path.abspath(os.fsencode(root))
        self.now = now
        self.note = note
        self.index = Index(self.root + b"/" + FILE, now, note)
        self._keywords: dict[int, tuple[object, Keywords]] = {}
        self._counter = count()
        self._host = os.uname().nodename
        self._tag = secrets.token_hex(4)
        self._made = False

    def ready(self) -> None:
        """Make the Maildir if there is none, and open the index."""
        if not self._made:
            os.makedirs(self.root, 0o700, exist_ok=True)
            files.make(self.root)
            files.sweep(self.root, self.now())
            self.index.ready()
            self._settle_all()
            self._made = True
        self.index.ready()

    def forget(self) -> None:
        """Something failed: read again what was remembered."""
        self._keywords.clear()
        self._made = False

    def folder(self, name: str) -> bytes:
        """Return the path of a mailbox's folder."""
        below = layout.directory(name)
        return self.root + b"/" + below if below else self.root

    def known_folder(self, name: str) -> bytes:
        """Return the path of a folder that must be there: a name that can be nobody's is not. NoSuchMailbox."""
        try:
            return self.folder(name)
        except BadMailboxName:
            raise NoSuchMailbox from None

    def unique(self) -> bytes:
        """Return a base name for a new file."""
        return filename.unique(self.now(), os.getpid(), next(self._counter), self._host, self._tag)

    def look(self, folder: bytes) -> DirectoryStamps:
        """Stat the directories of a folder; makes what it lacks. NoSuchMailbox if the folder is gone."""
        for _ in range(2):
            try:
                cur = os.stat(folder + b"/cur")
                new = os.stat(folder + b"/new")
            except FileNotFoundError:
                if not os.path.isdir(folder):
                    raise NoSuchMailbox from None
                files.make(folder)
            else:
                return DirectoryStamps(cur.st_mtime_ns, cur.st_ino, new.st_mtime_ns, new.st_ino)
        raise NoSuchMailbox

    def is_hot(self, mtime: int) -> bool:
        """Whether a directory's mtime is too young to be trusted; one in the future always is."""
        return self.now() - mtime / 1e9 < HOT_SECONDS

    def touched(self, box: MailboxRow, before: DirectoryStamps) -> None:
        """Record, in a write transaction, what our own change made of the mtimes.

        Only where they were what the index knew: whatever else happened must be looked at. Somebody else's change in
        the moments between `before` and now is found when the directory has cooled.
        """
        after = self.look(self.folder(box.name))
        new: dict[str, object] = {}
        hot = box.hot
        if before[:2] == (box.cur_mtime, box.cur_ino) and before[:2] != after[:2]:
            new.update(cur_mtime=after.cur_mtime, cur_ino=after.cur_ino)
            hot |= CUR_HOT
        if before[2:] == (box.new_mtime, box.new_ino) and before[2:] != after[2:]:
            new.update(new_mtime=after.new_mtime, new_ino=after.new_ino)
            hot |= NEW_HOT
        if new:
            self.index.set(box.key, hot=hot, **new)

    def list(self, folder: bytes, cur: bool) -> Listing:
        """List a folder, ``new/`` first: a file that is moved meanwhile is then listed once at least.

        NoSuchMailbox if another program has removed it.
        """
        try:
            new = files.names(folder + b"/new")
            return Listing(new, files.names(folder + b"/cur") if cur else None)
        except FileNotFoundError:
            if os.path.isdir(folder):
                raise
            raise NoSuchMailbox from None

    def path(self, folder: bytes, place: int, name: bytes) -> bytes:
        """Return the path of a message file."""
        return folder + _PARTS[place] + name

    def _settle_all(self) -> None:
        """Go on where a process before this one ended; what cannot be renamed now can be read where it is."""
        pending = self.index.db.execute("SELECT id FROM mailbox WHERE hot & ?", (UNSETTLED,))
        for (key,) in pending.fetchall():
            self.settled(key)

    def settled(self, key: int, first: int = 1) -> None:
        """`settle` in a transaction of its own, for messages that are stored, whatever comes of this."""
        try:
            with self.index.write():
                self.settle(key, first)
        except (OSError, sqlite3.Error, NoSuchMailbox) as error:
            self.note(f"messages stay in tmp/ for now: {error}")

    def settle(self, key: int, first: int = 1) -> None:
        """Rename messages from ``tmp/`` into ``cur/``, UIDs from `first` on, in a write transaction."""
        db = self.index.db
        box = self.index.box(key)
        folder = self.folder(box.name)
        before = self.look(folder)
        those = f"mailbox = ? AND uid >= ? AND place = {TMP}"
        found = db.execute(f"SELECT name FROM message WHERE {those}", (key, first)).fetchall()  # noqa: S608
        scanned = box.scanned
        for (name,) in found:
            try:
                os.rename(self.path(folder, TMP, name), self.path(folder, CUR, name))
            except FileNotFoundError:  # a process that crashed had come so far, or somebody took it
                scanned = 0.0
        files.sync_directory(folder + b"/cur")
        db.execute(f"UPDATE message SET place = {CUR} WHERE {those}", (key, first))  # noqa: S608
        self.index.set(key, hot=box.hot & ~UNSETTLED, scanned=scanned)
        self.touched(self.index.box(key), before)

    def keywords(self, box: MailboxRow) -> Keywords:
        """Return the mailbox's keywords as the folder's file and the index have them now."""
        path = self.folder(box.name) + KEYWORD_FILE
        stamp: object = box.keywords
        with suppress(FileNotFoundError):
            status = os.stat(path)
            stamp = box.keywords, status.st_mtime_ns, status.st_ino, status.st_size
        known = self._keywords.get(box.key)
        if known is None or known[0] != stamp:
            found = filename.parse_keywords(files.read_small(path, 1 << 20), box.keywords)
            if len(self._keywords) > 32:
                self._keywords.clear()
            known = self._keywords[box.key] = (stamp, found)
        return known[1]

    def learn(self, box: MailboxRow, flags: Iterable[bytes]) -> Keywords:
        """Return the keywords with those of `flags` among them, in a write transaction. StoreLimitExceeded: too many."""
        keywords = self.keywords(box)
        fresh = {flag.lower(): flag for flag in flags if not keywords.knows(flag)}
        fresh.pop(RECENT.lower(), None)
        if not fresh:
            return keywords
        if len(keywords.lettered) + len(keywords.others) + len(fresh) > KEYWORDS:
            raise StoreLimitExceeded("This mailbox has too many different keywords")
        self._keywords.pop(box.key, None)
        lettered = [keywords.learn(flag) for flag in fresh.values()]
        if any(lettered):
            files.replace(self.folder(box.name) + KEYWORD_FILE, filename.format_keywords(keywords))
        if not all(lettered):
            self.index.set(box.key, keywords=b" ".join(keywords.others))
        return keywords

    def spelled(self, flags: Iterable[bytes], keywords: Keywords, most: int = FLAG_OCTETS) -> bytes:
        """Return `flags` as the mailbox spells and orders them; ``\\Recent`` is nobody's to set. StoreLimitExceeded."""
        text = flag_list([keywords.spell(flag) for flag in flags if flag.lower() != RECENT.lower()])
        if len(text) > most:
            raise StoreLimitExceeded("A message cannot have so many flags")
        return text


class Finder:
    """Finds a message whose file is not where the index has it: somebody renamed it a moment ago."""

    def __init__(self, core: AccountState, folder: bytes) -> None:
        self._core = core
        self._folder = folder
        self._found: dict[bytes, tuple[int, bytes]] | None = None

    def find(self, name: bytes) -> tuple[int, bytes] | None:
        """Return (place, name) of the file with the same base; one listing serves many."""
        if self._found is None:
            listing = self._core.list(self._folder, cur=True)
            assert listing.cur is not None
            self._found = {filename.base(n): (NEW, n) for n in listing.new}
            self._found.update((filename.base(n), (CUR, n)) for n in listing.cur)
        return self._found.get(filename.base(name))


def use_attributes(special_use: Sequence[bytes]) -> bytes:
    """Return special-use attributes as the index keeps them."""
    return b" ".join(special_use)
