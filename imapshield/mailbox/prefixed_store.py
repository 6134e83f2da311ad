"""`PrefixedStore`: a store as clients see it whose mailbox names have a prefix, such as Courier's ``INBOX.``.

Rules
-----
* INBOX is INBOX. Every other name of the wrapped store gets the prefix: with the prefix ``INBOX/``, its mailbox
  ``Sent`` is ``INBOX/Sent``. A name without the prefix is no mailbox's name.
* With that prefix, ``INBOX/INBOX`` is no mailbox's name either, because the wrapped store has only one INBOX.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from imapshield.errors import BadMailboxName, NoSuchMailbox
from imapshield.mailbox import values
from imapshield.mailbox.storage import IStore
from imapshield.wire.names import INBOX, NameFormat, fold_inbox, parent_names


class PrefixedStore:
    """An `IStore` with the mailboxes of another one. Methods that take no name are those of the other store.

    Args:
        store: the other store.
        namespace: the prefix, and the separator for error texts.
    """

    def __init__(self, store: IStore, namespace: values.Namespace) -> None:
        self._store: Any = store
        self._prefix = namespace.prefix
        self._shown_prefix = NameFormat(separator=namespace.separator).exchange(namespace.prefix)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _with_prefix(self, name: str) -> str:
        return name if name == INBOX else self._prefix + name

    def _existing(self, name: str) -> str:
        """Return a name without the prefix.

        Raises:
            NoSuchMailbox: no mailbox can have this name.
        """
        if name == INBOX:
            return name
        rest = name.removeprefix(self._prefix)
        if rest in (name, INBOX) or fold_inbox(rest) != rest:
            raise NoSuchMailbox
        return rest

    def _new(self, name: str) -> str:
        """Return the name of a mailbox that is to be created, without the prefix.

        Raises:
            BadMailboxName: no mailbox can have this name.
        """
        try:
            return self._existing(name)
        except NoSuchMailbox:
            outside = not name.startswith(self._prefix)
            text = f'Mailbox names must begin with "{self._shown_prefix}"'
            raise BadMailboxName(text if outside else None) from None

    def mailboxes(self) -> Iterable[values.MailboxInfo]:
        """Return every mailbox, and as not selectable the parents that the prefix consists of."""
        infos: dict[str, values.MailboxInfo] = {}
        for info in self._store.mailboxes():
            name = self._with_prefix(info.name)
            infos[name] = info._replace(name=name)
        for name in list(infos):
            for parent in parent_names(name):
                infos.setdefault(parent, values.MailboxInfo(parent, False))
        return infos.values()

    def subscriptions(self) -> set[str]:
        """Return the subscribed names."""
        return set(map(self._with_prefix, self._store.subscriptions()))

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """Subscribe or unsubscribe a name."""
        if subscribed:
            self._store.set_subscribed(self._new(name), True)
            return
        try:
            self._store.set_subscribed(self._existing(name), False)
        except NoSuchMailbox:
            return  # such a name cannot be subscribed

    def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        """Create a mailbox."""
        mailbox_id: bytes = self._store.create(self._new(name), special_use)
        return mailbox_id

    def delete(self, name: str) -> None:
        """Delete a mailbox."""
        self._store.delete(self._existing(name))

    def rename(self, old: str, new: str) -> None:
        """Rename a mailbox and its inferiors."""
        self._store.rename(self._existing(old), self._new(new))

    def status(self, name: str) -> values.MailboxStatus:
        """Return the state of a mailbox."""
        status: values.MailboxStatus = self._store.status(self._existing(name))
        return status

    def mailbox_key(self, name: str) -> int:
        """Return the key of a mailbox."""
        key: int = self._store.mailbox_key(self._existing(name))
        return key

    def mailbox_paths(self, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the directories of mailboxes."""
        own_names = {}
        for name in names:
            with suppress(NoSuchMailbox):
                own_names[self._existing(name)] = name
        found = self._store.mailbox_paths(list(own_names))
        return {own_names[name]: paths for name, paths in found.items()}

    def open(self, name: str, claim_recent: bool) -> values.OpenedMailbox:
        """Open a mailbox."""
        opened: values.OpenedMailbox = self._store.open(self._existing(name), claim_recent)
        return opened._replace(name=name)

    def append(self, name: str, messages: Sequence[values.NewMessage]) -> values.AppendResult:
        """Append messages to a mailbox."""
        appended: values.AppendResult = self._store.append(self._existing(name), messages)
        return appended

    def copy(
        self, key: int, uids: Sequence[int], target: str, move: bool, since: int
    ) -> values.CopyResult:
        """Copy or move messages to another mailbox."""
        copied: values.CopyResult = self._store.copy(key, uids, self._existing(target), move, since)
        return copied

    def replace(
        self, key: int, uid: int, target: str, message: values.NewMessage, since: int
    ) -> values.ReplaceResult:
        """Store a message in a mailbox and remove another one."""
        replaced: values.ReplaceResult = self._store.replace(
            key, uid, self._existing(target), message, since
        )
        return replaced

    def metadata(self, name: str, entries: Sequence[bytes] | None = None) -> dict[bytes, bytes]:
        """Return metadata entries of a mailbox, or of the account if `name` is empty."""
        values: dict[bytes, bytes] = self._store.metadata(name and self._existing(name), entries)
        return values

    def metadata_sizes(self, name: str) -> dict[bytes, int]:
        """Return the sizes of all metadata values of a mailbox, or of the account if `name` is empty."""
        sizes: dict[bytes, int] = self._store.metadata_sizes(name and self._existing(name))
        return sizes

    def set_metadata(self, name: str, entries: Mapping[bytes, bytes | None]) -> None:
        """Set metadata entries of a mailbox, or of the account if `name` is empty."""
        self._store.set_metadata(name and self._existing(name), entries)
