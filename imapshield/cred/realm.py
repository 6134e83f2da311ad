"""Provides the Maildir account of a user, which all sessions of that user share."""

import json
import os
import re
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from glob import escape
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from imapshield.cred.moved_users import MovedCheck
from imapshield.cred.text_indexing import TextIndexing
from imapshield.cred.unused_stores import UnusedStores
from imapshield.cred.users import BadUserName, user_name
from imapshield.mailbox.account_api import IAccount, IMetadata, IQuota
from imapshield.mailbox.storage import IStore
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.store_helpers import ChangeNotifier
from imapshield.mailbox.values import Namespace, QuotaLimits
from imapshield.maildir import text_index_file
from imapshield.maildir.index_database import FIRST_BUSY_SECONDS
from imapshield.maildir.large_messages import LargeMessages
from imapshield.maildir.store import MaildirStore
from imapshield.maildir.store_threads import StoreThreads
from imapshield.maildir.watch import DirectoryWatcher
from imapshield.maildir.worker import SerialWorker, SharedThreads

T = TypeVar("T")

MAX_IDLE_ACCOUNTS = 100
"""Accounts that stay open without a session. Most clients reconnect within minutes, and opening takes a few ms."""

CLOSE_SECONDS = 1.0
"""Seconds that `MaildirRealm.close_account` waits for the end of sessions. A connection that is reset ends in the next
turn of the reactor."""

CLOSE_TURNS = 50
"""How often it looks in this time."""

_FIELD = re.compile(r"\{(user|local|domain)\}")
_ANY_FIELD = re.compile(r"\{[^{}/]*\}")


class MailRoot:
    """The rule for the path of each user's Maildir.

    Args:
        pattern: a directory, for ``DIR/<user>``, or a path with ``{user}``, ``{local}`` and ``{domain}``.

    Raises:
        ValueError: the pattern has an unknown field, or gives all users of a domain the same Maildir.
    """

    def __init__(self, pattern: str) -> None:
        for field in _ANY_FIELD.findall(pattern):
            if not _FIELD.fullmatch(field):
                raise ValueError(f"unknown {field}; use {{user}}, {{local}} or {{domain}}")
        fields = set(_FIELD.findall(pattern))
        if fields and not fields & {"user", "local"}:
            raise ValueError("a path with {domain} needs {local} or {user}, too")
        self.pattern = os.path.abspath(pattern if fields else os.path.join(pattern, "{user}"))

    @property
    def base(self) -> str:
        """The directory above all Maildirs, which must exist."""
        return os.path.dirname(_FIELD.split(self.pattern, maxsplit=1)[0] + "x")

    @property
    def glob(self) -> str:
        """The pattern for `glob.glob` that finds all Maildirs, and what else is at their places."""
        return "*".join(escape(part) for part in _FIELD.split(self.pattern)[::2])

    def maildir(self, user: str) -> str:
        """Return the path of a user's Maildir.

        Raises:
            BadUserName: a part of the name is missing, or is unsafe in a path.
        """
        local, domain = user.rsplit("@", 1) if "@" in user else (user, "")
        parts = {"user": user, "local": local, "domain": domain}
        for field in _FIELD.findall(self.pattern):
            if not parts[field]:
                raise BadUserName(f"the user name has no {{{field}}}, which --mail-root contains")
            user_name(parts[field].encode())
        return _FIELD.sub(lambda match: parts[match[1]], self.pattern)


class _Logout:
    """Closes an account for one session, once: a second call must not end another session of the user."""

    __slots__ = ("_account",)

    def __init__(self, account: StoreAccount) -> None:
        self._account: StoreAccount | None = account

    def __call__(self) -> None:
        account, self._account = self._account, None
        if account is not None:
            account.close()

    def refused(self, failure: Failure) -> Failure:
        """Close the account of a session that does not begin, and return why."""
        self()
        return failure


@implementer(IRealm)
class MaildirRealm:
    """Provides an `IAccount` for the Maildir of a user.

    Args:
        mail_root: a directory or a pattern (`MailRoot`).
        reactor: an `IReactorThreads`; the realm adds a trigger that stops its threads when the reactor stops.
        pool: the threads for disk access; by default those of the realm.
        change_notifier: reports mail that is delivered while clients are in IDLE; by default a `DirectoryWatcher`, of
            which each user has a share.
        max_idle_accounts: the maximum number of accounts that stay open without a session.
        open_store: returns the store for the path of a Maildir; by default a `MaildirStore`.
        optional_interfaces: the optional account interfaces that the stores of `open_store` support.
        quota: the maximum number of bytes and of messages in one account; None means no limit.
        index_root: a directory or a pattern, in which each user's index gets a directory of its own; by default it is
            in the Maildir.
        follow_symlinks: whether the folders of a Maildir may be symbolic links to directories.
        has_text_index: whether the text of messages is indexed for SEARCH TEXT and BODY (`maildir.text_index`).
        has_special_folders: whether new accounts get mailboxes with special uses, and mailboxes of other accounts
            have them because of their names (`maildir.special_use`).
        separator: the character between the levels of mailbox names, as clients see them. Stores always use ``/``.
        prefix: what all mailbox names except INBOX begin with, as clients see them, such as ``INBOX.``; it ends with
            the separator, or is empty. The names of the store do not have it.

    Attributes:
        max_idle_accounts: as above. It may be changed.
        quota: as above. It may be changed.
        quota_of: returns the maximum number of bytes and of messages of one user. None means that of `quota`, 0 no
            limit. It is called in threads.
        quota_setting: returns what changes ``quota_bytes`` or ``quota_messages`` for a user, as
            `limits.LimitReached.binding`. It is called in threads.
    """

    _log = Logger()

    def __init__(
        self,
        mail_root: str,
        *,
        reactor: Any,
        pool: Any = None,
        change_notifier: ChangeNotifier | None = None,
        max_idle_accounts: int = MAX_IDLE_ACCOUNTS,
        open_store: Callable[[str], Any] | None = None,  # as for `StoreAccount`
        optional_interfaces: Iterable[type[Interface]] = (),
        quota: tuple[int | None, int | None] = (None, None),
        index_root: str | None = None,
        follow_symlinks: bool = False,
        has_text_index: bool = True,
        has_special_folders: bool = False,
        separator: str = "/",
        prefix: str = "",
    ) -> None:
        self.mail_root = MailRoot(mail_root)
        self.index_root = None if index_root is None else MailRoot(index_root)
        self._follow_symlinks = follow_symlinks
        self._has_text_index = has_text_index and open_store is None
        self._has_special_folders = has_special_folders
        self._text_indexing = TextIndexing(reactor)
        self._large_messages = LargeMessages()
        self._unused_stores = UnusedStores(
            reactor,
            self._run_in_thread,
            lambda: self._large_messages.strings.close_unused(time.time()),
        )
        self._notifier: ChangeNotifier = change_notifier or DirectoryWatcher(
            reactor, self._run_in_thread
        )
        self._reactor = reactor
        self._pool: Any = pool or StoreThreads()
        self._threads = SharedThreads(self._pool, reactor, on_slow_volumes=self._log_slow_volumes)
        self._started = self._closed = False
        self.max_idle_accounts = max_idle_accounts
        self._open_store: Callable[[str], IStore] | None = open_store
        self._optional_interfaces = (
            tuple(optional_interfaces) if open_store else (IQuota, IMetadata)
        )
        self.quota = quota
        self.quota_of: Callable[[str], QuotaLimits] = lambda _: (None, None)
        self.quota_setting: Callable[[str, str], str] = lambda _user, _limit: ""
        self._namespace = Namespace.as_shown(prefix, separator)
        self._accounts: dict[str, StoreAccount] = {}
        self._idle: OrderedDict[str, StoreAccount] = OrderedDict()
        # Of the accounts in `_accounts`; a store of `open_store` knows nothing of moves.
        self._moved_checks: WeakKeyDictionary[StoreAccount, MovedCheck] = WeakKeyDictionary()

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: type[Interface]
    ) -> Any:  # Twisted calls it, which accepts both
        """Return the interface, the account of an authenticated user, and what closes it; or a Deferred of these.

        Raises:
            UnauthorizedLogin: the user name is not valid in the mail root. The log says why.
            CheckerUnavailable: the mail of the user was moved to another node.
        """
        if IAccount not in interfaces:
            raise NotImplementedError(
                "this realm supports only imapshield.mailbox.account_api.IAccount"
            )
        try:
            if not isinstance(avatarId, bytes):
                raise BadUserName("the login is anonymous")
            user = user_name(avatarId)
            maildir = self.mail_root.maildir(user)
            index = None if self.index_root is None else self.index_root.maildir(user)
        except BadUserName as error:
            name = avatarId.decode("utf-8", "replace") if isinstance(avatarId, bytes) else ""
            self._log.warn(
                "login of {name_json} refused after a correct password: {reason};"
                " rename the user or change --mail-root",
                name_json=json.dumps(name),
                reason=str(error),
            )
            raise UnauthorizedLogin from None
        account = self._account(user, maildir, index).acquire()
        avatar = IAccount, account, _Logout(account)
        moved_check = self._moved_checks.get(account)
        if moved_check is None:
            return avatar
        return moved_check.require_here(account).addCallbacks(lambda _: avatar, avatar[2].refused)

    async def close_account(self, user: str) -> bool:
        """Close the store of a user whose connections are ending, and return whether it was open.

        Raises:
            TimeoutError: sessions of the user have not ended within `CLOSE_TURNS`.
        """
        account = self._accounts.get(user)
        if account is None:
            return False
        for _ in range(CLOSE_TURNS):
            if not account.sessions:
                break
            await deferLater(self._reactor, CLOSE_SECONDS / CLOSE_TURNS)
        if account.sessions:
            raise TimeoutError
        self._idle.pop(user, None)
        if self._accounts.get(user) is account:
            del self._accounts[user]
        await account.shut_down()
        return True

    async def close(self) -> None:
        """Close every store after its pending operations, and then stop the threads."""
        if not self._closed:
            self._closed = True
            self._text_indexing.stop()
            self._unused_stores.stop()
            if isinstance(self._notifier, DirectoryWatcher):
                self._notifier.stop()
            if self._started:
                await DeferredList([self._shut_down(a) for a in [*self._accounts.values()]])
                self._threads.stop()
                self._pool.stop()

    def _account(self, user: str, maildir: str, index: str | None) -> StoreAccount:
        self._idle.pop(user, None)
        account = self._accounts.get(user)
        if account is None:
            self._start()
            worker = SerialWorker(self._threads)
            account = self._accounts[user] = StoreAccount(
                user,
                lambda: self._open_account(user, maildir, index),
                worker,
                change_notifier=self._notifier_of(user),
                on_idle=self._account_idle,
                optional_interfaces=self._optional_interfaces,
                namespace=self._namespace,
                on_text_added=self._text_indexing.add if self._has_text_index else None,
                on_use=self._unused_stores.used,
            )
            if self._open_store is None:
                self._moved_checks[account] = MovedCheck(worker, maildir, self._reactor)
        return account

    def _run_in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._pool, function)

    def _log_slow_volumes(self, volumes: Sequence[int], seconds: float) -> None:
        self._log.warn(
            "slow disk: the file system {volumes} made a short call wait {seconds:.3f} s; calls for its mail run in"
            " threads while that goes on, so that no client waits for the disk of another, and take more processor"
            " time; find the disk with findmnt -o MAJ:MIN,TARGET, and check its load and health",
            volumes=" ".join(f"{os.major(volume)}:{os.minor(volume)}" for volume in volumes),
            seconds=seconds,
        )

    def _notifier_of(self, user: str) -> ChangeNotifier:
        notifier = self._notifier
        return notifier.for_user(user) if isinstance(notifier, DirectoryWatcher) else notifier

    def _account_idle(self, account: StoreAccount) -> None:
        """Keep an account open without sessions. If there are too many, close the one that is idle for longest."""
        if self._closed:
            return
        self._idle[account.user] = account
        while len(self._idle) > self.max_idle_accounts:
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
            if self._has_text_index and not text_index_file.is_available():
                self._has_text_index = False
                self._log.warn(
                    "SQLite {version} has no FTS5 with trigrams: SEARCH TEXT and BODY read all messages; install"
                    " SQLite 3.34 or later",
                    version=sqlite3.sqlite_version,
                )
            self._pool.start()
            self._reactor.addSystemEventTrigger("after", "shutdown", self._stop_pool)

    def _stop_pool(self) -> None:
        """Stop the threads if `close` was not called, so that they do not keep the process alive after the reactor."""
        if not self._closed:
            self._closed = True
            self._text_indexing.stop()
            self._unused_stores.stop()
            self._pool.stop()

    def _quota(self, user: str) -> QuotaLimits:
        octets, messages = (
            default if own is None else own or None
            for own, default in zip(self.quota_of(user), self.quota, strict=True)
        )
        return octets, messages

    def _open_account(self, user: str, path: str, index: str | None) -> IStore:
        if self._open_store is not None:
            return self._open_store(path)

        def log_warning(text: str) -> None:  # runs in a thread of the pool
            self._reactor.callFromThread(self._log.warn, "{root}: {text}", root=path, text=text)

        def log_created() -> None:  # runs in a thread of the pool, too
            self._reactor.callFromThread(
                self._log.info,
                "created {path}, a new, empty Maildir for {user_json}; if this user has mail elsewhere, correct"
                " --mail-root {pattern}",
                path=path,
                user_json=json.dumps(user),
                pattern=self.mail_root.pattern,
            )

        store: IStore = MaildirStore(
            path,
            now=time.time,
            log_warning=log_warning,
            quota=lambda: self._quota(user),
            quota_setting=lambda limit: self.quota_setting(user, limit),
            base=self.mail_root.base,
            index_directory=index,
            follow_symlinks=self._follow_symlinks,
            first_busy_seconds=FIRST_BUSY_SECONDS,
            large_messages=self._large_messages,
            has_text_index=self._has_text_index,
            has_special_folders=self._has_special_folders,
            on_created=log_created,
        )
        return store
