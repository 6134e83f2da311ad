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
from imapshield.maildir.folders import mailboxes
from imapshield.maildir.index import MailboxRow
from imapshield.maildir.keywords import KEYWORD_FILE
from imapshield.maildir.list_files import write_marker
from imapshield.maildir.other_servers import (
    COURIER_KEYWORDS,
    COURIER_SUBSCRIPTIONS,
    DOVECOT,
    KEYWORD_LIST,
    UidListFormat,
    format_courier_keywords,
    to_courier_subscriptions,
)
from imapshield.maildir.paths import CUR, NEW, folder_name, message_path
from imapshield.maildir.subscription_file import convert_courier_file, subscriptions
from imapshield.maildir.sync import find_or_add, synchronize
from imapshield.maildir.uid_exchange import write_lists

_FORWARDED = b"$Forwarded"
"""imapshield and mbsync write it as the letter ``P``. Dovecot gives it a letter of the folder, like any keyword."""


class ExportedMailbox(NamedTuple):
    """A mailbox whose UIDs were written; `lost_keywords` are those that Dovecot's file has no letter for."""

    name: str
    messages: int
    highestmodseq: int
    lost_keywords: list[bytes]


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
        with suppress(NoSuchMailbox):  # another program has just removed it
            exported.append(_export_mailbox(account, form, name))
    if form is DOVECOT:
        convert_courier_file(account)
    else:
        content = to_courier_subscriptions(map(folder_name, subscriptions(account)))
        files.replace(account.paths.root + b"/" + COURIER_SUBSCRIPTIONS, content)
    return exported


def _export_mailbox(account: AccountState, form: UidListFormat, name: str) -> ExportedMailbox:
    mailbox, _ = synchronize(account, find_or_add(account, name), claim=False)
    folder = account.paths.folder(name)
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
    folder: bytes,
    rows: Sequence[tuple[bytes, int, bytes]],
) -> None:
    """Give ``$Forwarded`` a letter of the folder instead of ``P``, if any message has it."""
    forwarded = [(name, place) for name, place, flags in rows if _FORWARDED in flags.split()]
    lettered = list(account.keywords.get(mailbox).lettered)
    if not forwarded:
        return
    letter = filename.lettered_letter(lettered, _FORWARDED)
    if not letter:
        return
    path = folder + b"/" + KEYWORD_FILE
    files.replace(path, filename.format_keywords(filename.FolderFlags(lettered)))
    for name, place in forwarded:
        if place in (CUR, NEW):
            with suppress(FileNotFoundError):  # renamed by another program
                new_name = filename.with_letter(name, letter, b"P")
                os.rename(message_path(folder, place, name), message_path(folder, CUR, new_name))


def _write_courier_keywords(folder: bytes, keywords: Mapping[bytes, Sequence[bytes]]) -> None:
    directory = folder + b"/" + COURIER_KEYWORDS
    if not keywords and not os.path.isdir(directory):
        return
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    files.replace(directory + b"/" + KEYWORD_LIST, format_courier_keywords(keywords))
    for name in os.listdir(directory):
        if name != KEYWORD_LIST:  # a change that would replace what the list says
            os.unlink(directory + b"/" + name)
