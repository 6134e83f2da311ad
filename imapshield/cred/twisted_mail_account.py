"""Accounts and mailboxes written for `twisted.mail`'s own IMAP server, served by this one.

A realm that returns an `IAccountIMAP` needs no change: the connection puts `TwistedMailAccount` around it. What those
interfaces do not know is made up so that clients are never misled:

* MODSEQs are times in milliseconds, and all messages have that of the opening: a client that comes back is told the
  flags of every message anew, and by QRESYNC of every UID that is not there. That is slow, and right.
* Every look at the mailbox reads UID, flags and date of each message. An `IStore` of one's own does better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zope.interface import implementer

from imapshield.cred.twisted_mail_mailbox import TwistedMailMailbox, as_added, ask, mailbox_id, text
from imapshield.errors import CommandRefused, MailboxExists, NoSuchMailbox, NotAllowed
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.mailbox.values import AppendResult, MailboxInfo, MailboxStatus, NewMessage
from imapshield.wire.flags import DELETED, SEEN
from imapshield.wire.names import DELIMITER, INBOX


@implementer(IAccount)
class TwistedMailAccount:
    """An `IAccountIMAP` as an `IAccount`, for one session.

    Args:
        account: the account.
        user: whose it is, for logs.
        now: seconds since the epoch.
    """

    unsupported_capabilities = (b"CREATE-SPECIAL-USE", b"MULTIAPPEND", b"OBJECTID", b"SAVEDATE")
    """Messages are stored one by one; ids are made of names, and no copy has the original's; the rest is not kept."""

    def __init__(self, account: Any, user: str, now: Callable[[], float] = time.time) -> None:
        self.user = user
        self._account = account
        self._now = now
        self._delimiter = DELIMITER

    def _theirs(self, name: str) -> str:
        return name.replace(DELIMITER, self._delimiter)

    def _ours(self, name: str | bytes) -> str:
        shown = text(name).replace(self._delimiter, DELIMITER)
        return INBOX if shown.upper() == INBOX else shown

    async def _select(self, name: str, writing: bool) -> Any:
        mailbox = await ask(self._account.select, self._theirs(name), writing)
        if mailbox is None:
            raise NoSuchMailbox
        self._delimiter = mailbox.getHierarchicalDelimiter()
        return mailbox

    async def mailboxes(self) -> Iterable[MailboxInfo]:
        """See `IAccount`, also for what follows."""
        found: dict[str, MailboxInfo] = {}
        for name, mailbox in await ask(self._account.listMailboxes, "", "*"):
            self._delimiter = mailbox.getHierarchicalDelimiter()
            selectable = "\\noselect" not in {text(flag).lower() for flag in mailbox.getFlags()}
            found[self._ours(name)] = MailboxInfo(self._ours(name), selectable)
        for name in list(found):
            for i, c in enumerate(name):
                if c == DELIMITER:
                    found.setdefault(name[:i], MailboxInfo(name[:i], False))
        return [found[name] for name in sorted(found)]

    async def subscriptions(self) -> set[str]:
        names = [info.name for info in await self.mailboxes()]
        return {n for n in names if await ask(self._account.isSubscribed, self._theirs(n))}

    async def set_subscribed(self, name: str, on: bool) -> None:
        if on or await ask(self._account.isSubscribed, self._theirs(name)):
            call = self._account.subscribe if on else self._account.unsubscribe
            await ask(call, self._theirs(name))

    async def create(self, name: str, special_use: Sequence[bytes]) -> bytes:
        if special_use:
            raise CommandRefused(b"USEATTR", "Special uses cannot be kept here")
        if not await ask(self._account.create, self._theirs(name)):
            raise MailboxExists
        return mailbox_id(name)

    async def delete(self, name: str) -> None:
        if name == INBOX:
            raise NotAllowed
        await self._select(name, True)
        await ask(self._account.delete, self._theirs(name))

    async def rename(self, old: str, new: str) -> None:
        await self._select(old, True)
        await ask(self._account.rename, self._theirs(old), self._theirs(new))

    async def status(self, name: str) -> MailboxStatus:
        mailbox = TwistedMailMailbox(self._select, name, await self._select(name, False), self._now)
        await mailbox.poll()
        columns = mailbox.columns
        await mailbox.load_sizes(columns.uids)
        seen, deleted = columns.flag_ids_with(SEEN), columns.flag_ids_with(DELETED)
        gone = [size for size, f in zip(columns.sizes, columns.flag_ids, strict=True) if f in deleted]
        return MailboxStatus(
            messages=len(columns.uids),
            recent=await ask(mailbox.theirs.getRecentCount),
            unseen=sum(f not in seen for f in columns.flag_ids),
            deleted=len(gone),
            uidnext=columns.uidnext,
            uidvalidity=mailbox.uidvalidity,
            highestmodseq=columns.highestmodseq,
            size=sum(columns.sizes),
            mailbox_id=mailbox.mailbox_id,
            deleted_size=sum(gone),
        )

    async def open(self, name: str, claim_recent: bool) -> tuple[IMailbox, frozenset[int]]:
        mailbox = TwistedMailMailbox(
            self._select, name, await self._select(name, claim_recent), self._now
        )
        await mailbox.poll()
        return mailbox, frozenset(mailbox.recent if claim_recent else ())

    async def append(self, name: str, messages: Sequence[NewMessage]) -> AppendResult:
        mailbox = TwistedMailMailbox(self._select, name, await self._select(name, True), self._now)
        return await mailbox.add([as_added(message) for message in messages])

    def close(self) -> None:
        """The realm's own logout says good-bye."""
