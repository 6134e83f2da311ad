"""Writes UIDs, keywords and subscriptions for Dovecot or Courier, so that clients need not download all mail again.

The lists of UIDs reserve UIDs like those of `uid_exchange`. So messages that arrive between the export and the end of
imapshield do no harm.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from imapshield.errors import NoSuchMailbox, StoreBusy
from imapshield.maildir import filename, files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.entry import Entry
from imapshield.maildir.folders import mailboxes
from imapshield.maildir.keywords import KEYWORD_FILE
from imapshield.maildir.list_files import write_marker
from imapshield.maildir.mailbox_row import MailboxRow
from imapshield.maildir.open_folders import Folder
from imapshield.maildir.other_servers import (
    COURIER_KEYWORDS,
    COURIER_SUBSCRIPTIONS,
    DOVECOT,
    KEYWORD_LIST,
    UidListFormat,
    format_courier_keywords,
    to_courier_subscriptions,
)
from imapshield.maildir.paths import CUR, NEW, folder_name
from imapshield.maildir.subscription_file import convert_courier_file, subscriptions
from imapshield.maildir.sync import find_or_add, synchronize
from imapshield.maildir.uid_exchange import write_lists
from imapshield.wire.names import DELIMITER

_FORWARDED = b"$Forwarded"
"""imapshield and mbsync write it as the letter ``P``. Dovecot gives it a letter of the folder, like any keyword."""


class ExportedMailbox(NamedTuple):
    """A mailbox whose UIDs were written; `lost_keywords` are those that Dovecot's file has no letter for."""

    name: str
    messages: int
    highestmodseq: int
    lost_keywords: list[bytes]

    @property
    def dovecot_name(self) -> str:
        """Its name for Dovecot with the default settings: the levels are separated by dots."""
        return self.name.replace(DELIMITER, ".")


def export(
    account: AccountState, form: UidListFormat, on_mailbox: Callable[[int, int], None]
) -> list[ExportedMailbox]:
    """Write the files of another server for all mailboxes of a prepared account.

    Args:
        account: the account.
        form: the list of UIDs of that server.
        on_mailbox: called with the number of finished mailboxes and of all mailboxes.

    Raises:
        StoreBusy: Dovecot holds the lock of a list.
    """
    names = [info.name for info in mailboxes(account) if info.selectable]
    exported = []
    for number, name in enumerate(names):
        on_mailbox(number, len(names))
        account.folders.release()
        with suppress(NoSuchMailbox):  # another program has just removed it
            exported.append(_export_mailbox(account, form, name))
    if form is DOVECOT:
        convert_courier_file(account)
    else:
        content = to_courier_subscriptions(map(folder_name, subscriptions(account)))
        entry = Entry(account.folders.fd, COURIER_SUBSCRIPTIONS)
        files.replace(entry, content, account.folders.owner)
    return exported


def _export_mailbox(account: AccountState, form: UidListFormat, name: str) -> ExportedMailbox:
    account.index.begin_operation()
    mailbox, _ = synchronize(account, find_or_add(account, name), claim=False)
    folder = account.folders.folder(name)
    with account.index.write():
        mailbox = account.index.mailbox(mailbox.key)
        rows = account.index.db.execute(
            "SELECT name, place, flags FROM message WHERE mailbox = ?", (mailbox.key,)
        ).fetchall()
        keywords = {
            filename.base(file): [flag for flag in flags.split() if flag[:1] != b"\\"]
            for file, _, flags in rows
        }
        if form is DOVECOT:
            _write_forwarded(account, mailbox, folder, rows)
        else:
            _write_courier_keywords(folder, {name: some for name, some in keywords.items() if some})
        seen = write_lists(account, mailbox, folder, form, create=True)
        if seen is None:
            raise StoreBusy
    write_marker(folder, seen)
    used = {word for some in keywords.values() for word in some}
    lost = [word for word in mailbox.keywords.split() if word in used] if form is DOVECOT else []
    return ExportedMailbox(name, len(rows), mailbox.highestmodseq, lost)


def _write_forwarded(
    account: AccountState,
    mailbox: MailboxRow,
    folder: Folder,
    rows: Sequence[tuple[bytes, int, bytes]],
) -> None:
    """Give ``$Forwarded`` a letter of the folder instead of ``P``, if any message has it."""
    forwarded = [(name, place) for name, place, flags in rows if _FORWARDED in flags.split()]
    lettered = list(account.keywords.get(mailbox).lettered)
    if not forwarded or not account.keywords.can_have_letters(folder):
        return
    letter = filename.lettered_letter(lettered, _FORWARDED)
    if not letter:
        return
    content = filename.format_keywords(filename.FolderFlags(lettered))
    files.replace(folder.file(KEYWORD_FILE), content, folder.owner)
    for name, place in forwarded:
        if place in (CUR, NEW):
            with suppress(FileNotFoundError):  # renamed by another program
                new_name = filename.with_letter(name, letter, b"P")
                files.rename(folder.entry(place, name), folder.entry(CUR, new_name))


def _write_courier_keywords(folder: Folder, keywords: Mapping[bytes, Sequence[bytes]]) -> None:
    entry = folder.file(COURIER_KEYWORDS)
    if keywords:
        with suppress(FileExistsError):
            files.make_directory(entry, folder.owner)
    try:
        fd = files.open_directory(entry)
    except FileNotFoundError:
        return
    try:
        files.replace(Entry(fd, KEYWORD_LIST), format_courier_keywords(keywords), folder.owner)
        for name in files.names(fd):
            if name != KEYWORD_LIST:  # a change that would replace what the list says
                files.unlink(Entry(fd, name))
    finally:
        os.close(fd)
