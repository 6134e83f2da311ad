"""Turns a user name into a Maildir account, which all sessions of that user share."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import Interface, implementer

from imapshield.cred.users import BadUserName, user_name
from imapshield.mailbox.account_api import IAccount, IMetadata, IQuota
from imapshield.mailbox.storage import ChangeNotifier, IStore
from imapshield.mailbox.store_account import StoreAccount
from imapshield.maildir.store import MaildirStore
from imapshield.maildir.watch import DirectoryWatcher
from imapshield.maildir.worker import SerialWorker

THREADS = 4
MAX_IDLE_ACCOUNTS = 100
"""Accounts that stay open after their last session. Most clients come back within minutes; opening takes a few ms."""

_FIELD = re.compile(r"\{(user|local|domain)\}")


class MailRoot:
    """Where each user's Maildir is: ``DIR/<user>``, or a pattern with ``{user}``, ``{local}`` and ``{domain}``.

    Raises:
        ValueError: with this pattern all users of a domain would have the same mail.
    """

    def __init__(self, pattern: str) -> None:
        fields = set(_FIELD.findall(pattern))
        if fields and not fields & {"user", "local"}:
            raise ValueError("a mail root with {domain} requires {user} or {local} too")
        self.pattern = os.path.abspath(pattern if fields else os.path.join(pattern, "{user}"))

    @property
    def base(self) -> str:
        """The directory above all Maildirs, which must exist."""
        return os.path.dirname(_FIELD.split(self.pattern, maxsplit=1)[0] + "x")

    def maildir(self, user: str) -> str:
        """Return the path of a user's Maildir.

        Raises:
            BadUserName: a part of the name is missing or cannot be used in a path.
        """
        local, domain = user.rsplit("@", 1) if "@" in user else (user, "")
        parts = {"user": user, "local": local, "domain": domain}
        for field in _FIELD.findall(self.pattern):
            if not parts[field]:
                raise BadUserName(f"it has no {{{field}}}, which the mail root requires")
            user_name(parts[field].encode())
        return _FIELD.sub(lambda match: parts[match[1]], self.pattern)


@implementer(IRealm)
class MaildirRealm:
    """Makes an `IAccount` over the user's Maildir.

    Args:
        mail_root: a directory or a pattern, as `MailRoot` takes it.
        reactor: an `IReactorThreads`; the realm adds a trigger that stops its threads when the reactor stops.
        pool: the threads for disk access; by default four of the realm's own.
        change_notifier: reports mail that is delivered while clients are in IDLE; by default a `DirectoryWatcher`.
        max_idle_accounts: how many accounts without a session stay open.
        open_store: makes the store of a Maildir path; by default a `MaildirStore`.
        optional_interfaces: the optional account interfaces that a store of `open_store` supports.
        quota: the maximum number of bytes and of messages in one account; None is no limit.
    """

    _log = Logger()

    def __init__(
        self,
        mail_root: str,
        *,
        reactor: Any,
        pool: ThreadPool | None = None,
        change_notifier: ChangeNotifier | None = None,
        max_idle_accounts: int = MAX_IDLE_ACCOUNTS,
        open_store: Callable[[str], IStore] | None = None,
        optional_interfaces: Iterable[type[Interface]] = (),
        quota: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.mail_root = MailRoot(mail_root)
        self._notifier: ChangeNotifier = change_notifier or DirectoryWatcher(reactor)
        self._reactor = reactor
        self._pool = pool or ThreadPool(0, THREADS, "maildir")
        self._started = self._closed = False
        self._max_idle_accounts = max_idle_accounts
        self._open_store = open_store or self._open_maildir
        self._optional_interfaces = (
            tuple(optional_interfaces) if open_store else (IQuota, IMetadata)
        )
        self._quota = quota
        self._accounts: dict[str, StoreAccount] = {}
        self._idle: OrderedDict[str, StoreAccount] = OrderedDict()

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], StoreAccount, Callable[[], None]]:
        """Return the account of an authenticated user.

        Raises:
            UnauthorizedLogin: a user with this name cannot have mail here. The log says why.
        """
        if IAccount not in interfaces:
            raise NotImplementedError(
                "this realm provides only imapshield.mailbox.account_api.IAccount"
            )
        try:
            if not isinstance(avatarId, bytes):
                raise BadUserName("the login is anonymous")
            user = user_name(avatarId)
            maildir = self.mail_root.maildir(user)
        except BadUserName as error:
            self._log.warn(
                "user name refused: {reason} name={name!r}", reason=str(error), name=avatarId
            )
            raise UnauthorizedLogin from None
        account = self._account(user, maildir).acquire()
        return IAccount, account, _once(account.close)

    async def close(self) -> None:
        """Close every store, after the operations that sessions still wait for; then stop the threads."""
        if not self._closed:
            self._closed = True
            if isinstance(self._notifier, DirectoryWatcher):
                self._notifier.stop()
            accounts = [*self._accounts.values()]
            self._accounts.clear()
            self._idle.clear()
            if self._started:
                await DeferredList([self._shut_down(account) for account in accounts])
                self._pool.stop()

    def _account(self, user: str, maildir: str) -> StoreAccount:
        self._idle.pop(user, None)
        account = self._accounts.get(user)
        if account is None:
            self._start()
            account = self._accounts[user] = StoreAccount(
                user,
                lambda: self._open_store(maildir),
                SerialWorker(self._pool, self._reactor),
                change_notifier=self._notifier,
                on_idle=self._account_idle,
                features=self._optional_interfaces,
            )
        return account

    def _account_idle(self, account: StoreAccount) -> None:
        """Keep an account open without sessions; if there are too many, close the one that is idle for longest."""
        if self._closed:
            return
        self._idle[account.user] = account
        while len(self._idle) > self._max_idle_accounts:
            user, oldest = self._idle.popitem(last=False)
            del self._accounts[user]
            self._shut_down(oldest)

    def _shut_down(self, account: StoreAccount) -> Deferred[None]:
        shut_down = Deferred.fromCoroutine(account.shut_down())
        return shut_down.addErrback(
            lambda failure: self._log.failure(
                "cannot close the mail of {user}", failure=failure, user=account.user
            )
        )

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._pool.start()
            self._reactor.addSystemEventTrigger("after", "shutdown", self._stop_pool)

    def _stop_pool(self) -> None:
        """Stop the threads if nobody called `close`: they must not keep the process alive after the reactor."""
        if not self._closed:
            self._closed = True
            self._pool.stop()

    def _open_maildir(self, path: str) -> IStore:
        def note(text: str) -> None:  # runs in a thread of the pool
            self._reactor.callFromThread(self._log.warn, "{root}: {text}", root=path, text=text)

        store: IStore = MaildirStore(path, now=time.time, log_warning=note, quota=self._quota)
        return store


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `call` only the first time: a second logout must not end another session."""
    calls = [call]

    def logout() -> None:
        if calls:
            calls.pop()()

    return logout
