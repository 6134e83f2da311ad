"""What is theirs: the realm that turns a user name into a Maildir account, shared by all sessions of that user."""

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
from imapshield.mailbox.storage import IStore
from imapshield.mailbox.store_account import ChangeNotifier, StoreAccount
from imapshield.maildir.store import MaildirStore
from imapshield.maildir.watch import DirectoryWatcher
from imapshield.maildir.worker import SerialWorker

THREADS = 4
IDLE_ACCOUNTS = 100
"""Accounts kept open after their last session: most clients come back within minutes, and opening costs a few ms."""

_FIELD = re.compile(r"\{(user|local|domain)\}")


class MailRoot:
    """Where each user's Maildir is: ``DIR/<user>``, or a pattern with ``{user}``, ``{local}`` and ``{domain}``.

    Raises:
        ValueError: a pattern which would give all users of a domain the same mail.
    """

    def __init__(self, pattern: str) -> None:
        fields = set(_FIELD.findall(pattern))
        if fields and not fields & {"user", "local"}:
            raise ValueError("a mail root with {domain} needs {user} or {local} too")
        self.pattern = os.path.abspath(pattern if fields else os.path.join(pattern, "{user}"))

    @property
    def base(self) -> str:
        """The folder that holds all of them, and must exist."""
        return os.path.dirname(_FIELD.split(self.pattern, maxsplit=1)[0] + "x")

    def place(self, user: str) -> str:
        """The user's Maildir.

        Raises:
            BadUserName: the name has no place here; the text says why.
        """
        local, domain = user.rsplit("@", 1) if "@" in user else (user, "")
        parts = {"user": user, "local": local, "domain": domain}
        for field in _FIELD.findall(self.pattern):
            if not parts[field]:
                raise BadUserName(f"it has no {{{field}}}, which the mail root asks for")
            user_name(parts[field].encode())
        return _FIELD.sub(lambda found: parts[found.group(1)], self.pattern)


@implementer(IRealm)
class MaildirRealm:
    """Gives an `IAccount` on the user's Maildir.

    Args:
        mail_root: see `MailRoot`.
        reactor: an `IReactorThreads`; also asked to stop the threads when it stops.
        pool: threads for the disk; by default four of the realm's own.
        bell: rings when mail is delivered while clients idle; by default a `DirectoryWatcher` of the realm's own.
        idle: accounts kept open without a session.
        open_store: makes the store of a Maildir; for stores of one's own.
        powers: the optional interfaces whose store interface that store provides.
        quota: the most octets and messages of one account; None is no limit.
    """

    _log = Logger()

    def __init__(
        self,
        mail_root: str,
        *,
        reactor: Any,
        pool: ThreadPool | None = None,
        bell: ChangeNotifier | None = None,
        idle: int = IDLE_ACCOUNTS,
        open_store: Callable[[str], IStore] | None = None,
        powers: Iterable[type[Interface]] = (),
        quota: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.mail_root = MailRoot(mail_root)
        self.bell: ChangeNotifier = bell or DirectoryWatcher(reactor)
        self._reactor = reactor
        self._pool = pool or ThreadPool(0, THREADS, "maildir")
        self._started = self._closed = False
        self._keep = idle
        self._open_store = open_store or self._maildir
        self._powers = tuple(powers) if open_store else (IQuota, IMetadata)
        self._quota = quota
        self._accounts: dict[str, StoreAccount] = {}
        self._idle: OrderedDict[str, StoreAccount] = OrderedDict()

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], StoreAccount, Callable[[], None]]:
        """The account of a user who has proved to be who it says.

        Raises:
            UnauthorizedLogin: no such name can have mail here; the log says why.
        """
        if IAccount not in interfaces:
            raise NotImplementedError("this realm has accounts of imapshield alone")
        try:
            if not isinstance(avatarId, bytes):
                raise BadUserName("it is not a name")
            user = user_name(avatarId)
            root = self.mail_root.place(user)
        except BadUserName as refused:
            self._log.warn(
                "user name refused: {reason} name={name!r}", reason=str(refused), name=avatarId
            )
            raise UnauthorizedLogin from None
        account = self._account(user, root).acquire()
        return IAccount, account, _once(account.close)

    async def close(self) -> None:
        """Close every store, then the threads. What sessions still await is finished first."""
        if not self._closed:
            self._closed = True
            if isinstance(self.bell, DirectoryWatcher):
                self.bell.stop()
            accounts = [*self._accounts.values()]
            self._accounts.clear()
            self._idle.clear()
            if self._started:
                await DeferredList([self._shut(account) for account in accounts])
                self._pool.stop()

    def _account(self, user: str, root: str) -> StoreAccount:
        self._idle.pop(user, None)
        account = self._accounts.get(user)
        if account is None:
            self._start()
            account = self._accounts[user] = StoreAccount(
                user,
                lambda: self._open_store(root),
                SerialWorker(self._pool, self._reactor),
                bell=self.bell,
                on_idle=self._left,
                powers=self._powers,
            )
        return account

    def _left(self, account: StoreAccount) -> None:
        """The last session of an account has gone."""
        if self._closed:
            return
        self._idle[account.user] = account
        while len(self._idle) > self._keep:
            user, oldest = self._idle.popitem(last=False)
            del self._accounts[user]
            self._shut(oldest)

    def _shut(self, account: StoreAccount) -> Deferred[None]:
        shut = Deferred.fromCoroutine(account.shut_down())
        return shut.addErrback(
            lambda failure: self._log.failure(
                "closing the mail of {user}", failure=failure, user=account.user
            )
        )

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._pool.start()
            self._reactor.addSystemEventTrigger("after", "shutdown", self._stop_pool)

    def _stop_pool(self) -> None:
        """The reactor ends and nobody has called `close`: the threads must not keep the process alive."""
        if not self._closed:
            self._closed = True
            self._pool.stop()

    def _maildir(self, root: str) -> IStore:
        def log_warning(text: str) -> None:  # in a thread of the pool
            self._reactor.callFromThread(self._log.warn, "{root}: {text}", root=root, text=text)

        store: IStore = MaildirStore(root, now=time.time, log_warning=log_warning, quota=self._quota)
        return store


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """`call`, the first time: a logout said twice must not count another session out."""
    calls = [call]

    def logout() -> None:
        if calls:
            calls.pop()()

    return logout
