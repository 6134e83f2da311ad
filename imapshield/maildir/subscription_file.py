"""Subscriptions: the file ``subscriptions`` in the Maildir, as Dovecot writes it.

Version 1 has one folder name without its leading dot per line. Version 2 begins with ``V`` TAB ``2`` and an empty line,
and separates the levels of a name by TAB. Lines that are no mailbox name are kept when the file is written.

As long as there is no such file, the subscriptions are those of Courier's file.
"""

from collections.abc import Iterable
from contextlib import suppress

from imapshield.errors import StoreLimitExceeded
from imapshield.limits import LimitReached
from imapshield.maildir import files
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.entry import Entry
from imapshield.maildir.other_servers import COURIER_SUBSCRIPTIONS, from_courier_subscriptions
from imapshield.maildir.paths import folder_name, mailbox_name
from imapshield.wire.names import INBOX, fold_inbox

MAX_SUBSCRIPTIONS = 10_000
"""Lines of the file, as many as an account may have mailboxes. Each LSUB, and each change, reads the whole file."""

MAX_FILE_SIZE = 4 << 20
"""Bytes of the file that are read: more than all subscriptions with the longest names."""

_FILE = b"subscriptions"
_VERSION_2 = b"V\t2\n\n"


def subscriptions(account: AccountState) -> set[str]:
    """Return the subscribed names; they do not depend on which mailboxes exist."""
    _, lines = _read(account)
    return {name for name in lines.values() if name is not None}


def set_subscribed(account: AccountState, name: str, subscribed: bool) -> None:
    """Subscribe, or unsubscribe if `subscribed` is False.

    Raises:
        BadMailboxName: no mailbox can have the name that is to be subscribed.
        StoreLimitExceeded: there are too many subscriptions.
    """
    name = fold_inbox(name)
    folder = folder_name(name) if subscribed else b""
    with account.index.write():
        version_2, lines = _read(account)
        if subscribed == (name in lines.values()):
            return
        if not subscribed:
            lines = {line: other for line, other in lines.items() if other != name}
        elif len(lines) >= MAX_SUBSCRIPTIONS:
            text = f"Account has {MAX_SUBSCRIPTIONS} subscriptions already"
            reached = LimitReached("MAX_SUBSCRIPTIONS", MAX_SUBSCRIPTIONS, len(lines) + 1)
            raise StoreLimitExceeded(text, reached)
        else:
            lines[_format(folder, version_2)] = name
        content = (_VERSION_2 if version_2 else b"") + b"".join(line + b"\n" for line in lines)
        files.replace(_entry(account), content, account.folders.owner)


def subscribe_first(account: AccountState, names: Iterable[str]) -> None:
    """Write the file with these names, in an account without subscriptions."""
    with account.index.write():
        lines = (_format(folder_name(name), False) + b"\n" for name in names)
        files.replace(_entry(account), b"".join(lines), account.folders.owner)


def _entry(account: AccountState) -> Entry:
    return Entry(account.folders.fd, _FILE)


def unreadable_lines(root: int) -> list[bytes]:
    """Return the lines of the file in an open Maildir that are no mailbox name."""
    _, lines = _parse_file(files.read_small(Entry(root, _FILE)))
    return [line for line, name in lines.items() if name is None]


def _read(account: AccountState) -> tuple[bool, dict[bytes, str | None]]:
    """Return whether the file is version 2, and the mailbox name of each line, None for a line that is no name."""
    content = files.read_small(_entry(account), MAX_FILE_SIZE) or _courier_content(account)
    return _parse_file(content)


def _parse_file(content: bytes) -> tuple[bool, dict[bytes, str | None]]:
    version_2 = content.startswith(_VERSION_2)
    lines = content[len(_VERSION_2) if version_2 else 0 :].split(b"\n")
    lines = lines[: 2 * MAX_SUBSCRIPTIONS]  # another program may have added some
    return version_2, {line: _parse(line, version_2) for line in lines if line}


def _courier_content(account: AccountState) -> bytes:
    """Return the content of Courier's file as that of this one, b"" if this one exists."""
    with suppress(FileNotFoundError):
        files.status(_entry(account))
        return b""
    courier = Entry(account.folders.fd, COURIER_SUBSCRIPTIONS)
    return from_courier_subscriptions(files.read_small(courier))


def convert_courier_file(account: AccountState) -> None:
    """Write the file if only Courier's exists."""
    if content := _courier_content(account):
        files.replace(_entry(account), content, account.folders.owner)


def _format(folder: bytes, version_2: bool) -> bytes:
    levels = folder[1:].split(b".") if folder else [INBOX.encode()]
    return (b"\t" if version_2 else b".").join(levels)


def _parse(line: bytes, version_2: bool) -> str | None:
    levels = line.split(b"\t" if version_2 else b".")
    if levels == [INBOX.encode()]:
        return INBOX
    return mailbox_name(b"." + b".".join(levels))
