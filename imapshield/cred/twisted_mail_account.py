"""Adapts an `IAccountIMAP` of `twisted.mail` to `IAccount`, so that accounts written for Twisted also work here.

A realm that returns an `IAccountIMAP` needs no change: the connection wraps the account in a `TwistedMailAccount`. The
interfaces of `twisted.mail` lack some data, which is replaced in a way that is slow but never misleads clients:

* A MODSEQ is a time in milliseconds. When a mailbox is opened, all its messages get the time of opening. So a client
  that reconnects gets the flags of every message again, and with QRESYNC all UIDs that do not exist.
* Each poll of a mailbox reads UID, flags and date of every message. An `IStore` of your own is faster.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zope.interface import implementer

from imapshield.cred.twisted_mail_mailbox import TwistedMailMailbox, as_text, call, mailbox_id
from imapshield.errors import CommandRefused, MailboxExists, NoSuchMailbox, NotAllowed
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.mailbox.values import AppendResult, MailboxInfo, MailboxStatus, NewMessage
from imapshield.wire.flags import DELETED, SEEN
from imapshield.wire.names import DELIMITER, INBOX, parent_names


@implementer(IAccount)
class TwistedMailAccount:
    """An `IAccount` that wraps an `IAccountIMAP`, for one session.

    Args:
        account: the `IAccountIMAP`.
        user: the name of the user, for logs.
        now: returns seconds since the epoch.
    """

    unsupported_capabilities = (b"CREATE-SPECIAL-USE", b"MULTIAPPEND", b"OBJECTID", b"SAVEDATE")
    """MULTIAPPEND: messages are added one by one. OBJECTID: ids are derived from mailbox names and UIDs, so that a copy
    gets a new id. Special uses and save dates are not stored."""

    def __init__(self, account: Any, user: str, now: Callable[[], float] = time.time) -> None:
        self.user = user
        self._account = account
        self._now = now
        # The delimiter of the wrapped account. It is learned from the first mailbox that the account returns.
        self._delimiter = DELIMITER

    def _to_wrapped(self, name: str) -> str:
        return name.replace(DELIMITER, self._delimiter)

    def _from_wrapped(self, name: str | bytes) -> str:
        converted = as_text(name).replace(self._delimiter, DELIMITER)
        return INBOX if converted.upper() == INBOX else converted

    async def _select(self, name: str, writable: bool) -> Any:
        """Return the `IMailboxIMAP` called `name`. Raises `NoSuchMailbox`."""
        mailbox = await call(self._account.select, self._to_wrapped(name), writable)
        if mailbox is None:
            raise NoSuchMailbox
        self._delimiter = mailbox.getHierarchicalDelimiter()
        return mailbox

    async def _mailbox(self, name: str, writable: bool = True) -> TwistedMailMailbox:
        wrapped = await self._select(name, writable)
        return TwistedMailMailbox(name, wrapped, self._mailbox, self._now)

    async def mailboxes(self) -> Iterable[MailboxInfo]:
        """Return the mailboxes, and as \\Noselect their parents that do not exist (`IAccount.mailboxes`)."""
        infos: dict[str, MailboxInfo] = {}
        for wrapped_name, mailbox in await call(self._account.listMailboxes, "", "*"):
            self._delimiter = mailbox.getHierarchicalDelimiter()
            flags = {as_text(flag).lower() for flag in mailbox.getFlags()}
            name = self._from_wrapped(wrapped_name)
            infos[name] = MailboxInfo(name, "\\noselect" not in flags)
        for name in list(infos):
            for parent in parent_names(name):
                infos.setdefault(parent, MailboxInfo(parent, False))
        return [infos[name] for name in sorted(infos)]

    async def subscriptions(self) -> set[str]:
        names = [info.name for info in await self.mailboxes()]
        return {n for n in names if await call(self._account.isSubscribed, self._to_wrapped(n))}

    async def set_subscribed(self, name: str, subscribed: bool) -> None:
        wrapped_name = self._to_wrapped(name)
        if subscribed:
            await call(self._account.subscribe, wrapped_name)
        elif await call(self._account.isSubscribed, wrapped_name):
            await call(self._account.unsubscribe, wrapped_name)

    async def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        if special_use:
            raise CommandRefused(b"USEATTR", "Special-use attributes are not supported")
        if not await call(self._account.create, self._to_wrapped(name)):
            raise MailboxExists
        return mailbox_id(name)

    async def delete(self, name: str) -> None:
        if name == INBOX:
            raise NotAllowed
        await self._select(name, True)
        await call(self._account.delete, self._to_wrapped(name))

    async def rename(self, old: str, new: str) -> None:
        await self._select(old, True)
        await call(self._account.rename, self._to_wrapped(old), self._to_wrapped(new))

    async def status(self, name: str) -> MailboxStatus:
        mailbox = await self._mailbox(name, False)
        await mailbox.poll()
        columns = mailbox.columns
        await mailbox.load_sizes(columns.uids)
        seen, deleted = columns.flag_ids_with(SEEN), columns.flag_ids_with(DELETED)
        sizes = zip(columns.sizes, columns.flag_ids, strict=True)
        deleted_sizes = [size for size, flags in sizes if flags in deleted]
        return MailboxStatus(
            messages=len(columns.uids),
            recent=await call(mailbox.wrapped.getRecentCount),
            unseen=sum(flags not in seen for flags in columns.flag_ids),
            deleted=len(deleted_sizes),
            uidnext=columns.uidnext,
            uidvalidity=mailbox.uidvalidity,
            highestmodseq=columns.highestmodseq,
            size=sum(columns.sizes),
            mailbox_id=mailbox.mailbox_id,
            deleted_size=sum(deleted_sizes),
        )

    async def open(self, name: str, claim_recent: bool) -> tuple[IMailbox, frozenset[int]]:
        mailbox = await self._mailbox(name, claim_recent)
        await mailbox.poll()
        return mailbox, frozenset(mailbox.recent if claim_recent else ())

    async def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        return await (await self._mailbox(name)).append(messages)

    def close(self) -> None:
        """Do nothing. The session calls the logout function of the realm."""
