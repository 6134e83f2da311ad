"""Subscriptions: the file ``subscriptions`` in the Maildir, as Dovecot writes it.

Version 1 has one folder name without its leading dot per line. Version 2 begins with ``V`` TAB ``2`` and an empty line,
and separates the levels of a name by TAB. Lines that are no mailbox name are kept when the file is written.
"""

from __future__ import annotations

from imapshield.errors import StoreLimitExceeded
from imapshield.maildir import files, layout
from imapshield.maildir.account_state import AccountState
from imapshield.wire.names import INBOX, fold_inbox

MAX_SUBSCRIPTIONS = 10_000

_VERSION_2 = b"V\t2\n\n"


class SubscriptionFile:
    """The subscriptions of one account; they exist whether or not such mailboxes do."""

    def __init__(self, account: AccountState) -> None:
        self._index = account.index
        self._path = account.paths.root + b"/subscriptions"

    def names(self) -> set[str]:
        """Return the subscribed names."""
        _, lines = self._read()
        return {name for name in lines.values() if name is not None}

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """Subscribe, or unsubscribe if `subscribed` is False.

        Raises:
            BadMailboxName: no mailbox can have the name that is to be subscribed.
            StoreLimitExceeded: there are too many subscriptions.
        """
        name = fold_inbox(name)
        folder_name = layout.folder_name(name) if subscribed else b""
        with self._index.write():
            version_2, lines = self._read()
            if subscribed == (name in lines.values()):
                return
            if subscribed:
                if len(lines) >= MAX_SUBSCRIPTIONS:
                    raise StoreLimitExceeded(
                        f"Account has {MAX_SUBSCRIPTIONS} subscriptions already"
                    )
                lines[_format(folder_name, version_2)] = name
            else:
                lines = {line: other for line, other in lines.items() if other != name}
            head = _VERSION_2 if version_2 else b""
            files.replace(self._path, head + b"".join(line + b"\n" for line in lines))

    def _read(self) -> tuple[bool, dict[bytes, str | None]]:
        """Return whether the file is version 2, and its lines with the mailbox name of each, None if it is no name."""
        content = files.read_small(self._path)
        version_2 = content.startswith(_VERSION_2)
        lines = content[len(_VERSION_2) if version_2 else 0 :].split(b"\n")
        return version_2, {line: _parse(line, version_2) for line in lines if line}


def _format(folder_name: bytes, version_2: bool) -> bytes:
    levels = folder_name[1:].split(b".") if folder_name else [INBOX.encode()]
    return (b"\t" if version_2 else b".").join(levels)


def _parse(line: bytes, version_2: bool) -> str | None:
    levels = line.split(b"\t" if version_2 else b".")
    if levels == [INBOX.encode()]:
        return INBOX
    return layout.mailbox_name(b"." + b".".join(levels))
