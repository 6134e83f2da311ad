"""`MaildirStore`: one user's Maildir as an `IStore`.

Each method of the store is a function of another module. These modules explain how the store works, and why:

=======================  ==============================================================================================
`sync`                   how changes by other programs are noticed, and which are not
`index_database`         the lock between processes, durability, a corrupt index
`index_files`            how a restored backup is detected
`open_folders`           why files are reached through descriptors
`append_copy`            the order of steps in which a crash loses no message
`recovery`               what a power failure undoes, and how it is done again
`staging`                several messages that are stored together
`text_index`             how SEARCH finds text without reading every message
`watch`                  inotify, and why it is only a hint
`account_state`          what all operations share
=======================  ==============================================================================================
"""

import os
import sqlite3
import traceback
from collections.abc import Callable
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from zope.interface import implementer

from imapshield.errors import NoSpace, NoSuchMailbox, StoreError, StoreIOError
from imapshield.mailbox.in_place import may_block
from imapshield.mailbox.storage import (
    ICachingStore,
    IInPlaceStore,
    IMetadataStore,
    IQuotaStore,
    IStore,
)
from imapshield.mailbox.values import QuotaLimits
from imapshield.maildir import (
    append_copy,
    flags_expunge,
    folders,
    mailbox_status,
    message_fetch,
    message_search,
    metadata_table,
    move_log,
    new_account,
    recovery,
    subscription_file,
    sync,
    text_search,
)
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.entry import store_error
from imapshield.maildir.large_messages import LargeMessages
from imapshield.message.pauses import pause_point

P = ParamSpec("P")
R = TypeVar("R")

_UNEXPECTED = (AttributeError, OverflowError, TypeError, ValueError)
"""What code raises for a value that the index, or a file, should not have."""


def _operation(
    function: Callable[Concatenate[AccountState, P], R], *, is_short: bool = False
) -> Callable[Concatenate["MaildirStore", P], R]:
    """Return a method that calls `function` on the prepared account, and raises a `StoreError` if that fails.

    Args:
        function: the function.
        is_short: whether it may run in place (`mailbox.in_place`).
    """

    @wraps(function)
    def method(store: "MaildirStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not is_short:
            may_block()
        account = store._account
        # The content of a message that is appended may be read from this store (CATENATE).
        is_nested, account.is_running = account.is_running, True
        try:
            if not is_nested:
                if function is not message_search.search:
                    account.text_index.forget_candidates()
                account.index.begin_operation()
                if recovery.open_account(account):
                    new_account.add_special_folders(account)
            pause_point()
            call = function if is_nested else partial(_call, function)
            return call(account, *args, **kwargs)
        except (StoreIOError, OSError, sqlite3.Error, *_UNEXPECTED) as error:
            may_block()  # what follows is done once, in a thread
            account.reset()
            if isinstance(error, StoreIOError):
                raise
            raise _failure(account, error) from error
        finally:
            account.is_running = is_nested
            if not is_nested:
                account.folders.release()

    return method


def _call(
    function: Callable[Concatenate[AccountState, P], R],
    account: AccountState,
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    try:
        return function(account, *args, **kwargs)
    except NoSuchMailbox:
        # An interrupted RENAME of another process may have taken it away.
        if not move_log.undo_interrupted(account, of_folders=True):
            raise
    return function(account, *args, **kwargs)


def _failure(account: AccountState, error: Exception) -> StoreError:
    """Return the error that a session sends for `error`, after what the operator should know was logged."""
    if isinstance(error, _UNEXPECTED):
        account.log_warning(_unexpected(account, error))
        return StoreIOError()
    if isinstance(error, OSError):
        failure = store_error(error, account.folders.root, account.log_warning)
    else:
        assert isinstance(error, sqlite3.Error)
        failure = account.index.store_error(error)
    if isinstance(failure, NoSpace):
        account.log_full_disk()
    return failure


def _unexpected(account: AccountState, error: Exception) -> str:
    """Return the line for the operator about a value that the index or a file should not have."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)} line {frames[-1].lineno}"
    root = os.fsdecode(account.folders.root)
    return (
        f"{root!r} has an unexpected value in its index or in a file ({type(error).__name__} in "
        f"{where}); run imapshield check-mail on it, and report this line if that finds nothing"
    )


@implementer(IStore, IQuotaStore, IMetadataStore, IInPlaceStore, ICachingStore)
class MaildirStore:
    """One user's mail in the Maildir `root`, which is created if it does not exist.

    The methods are blocking and must be called from one thread at a time. Each raises a `StoreError` if the disk or the
    index fails. The interfaces describe the methods.

    Args:
        root: the directory that holds ``cur``, ``new`` and ``tmp``.
        now: returns seconds since the epoch; file times are compared with it.
        log_warning: called with one line for the operator: what failed, the path, and what to do.
        quota: the maximum of bytes and of messages of the account, or returns it; None is no limit.
        quota_setting: returns what changes ``quota_bytes`` or ``quota_messages``, as `limits.LimitReached.binding`.
        base: a directory above `root` that the owner of the mail cannot replace; by default the parent directory. Below
            it, symbolic links are not followed, except those of root and of the server's own user.
        index_directory: the directory of the index, which is created if it does not exist; by default `root`.
        follow_symlinks: whether folders may be symbolic links to directories.
        first_busy_seconds: seconds to wait for the lock of the index before a method raises `IndexLocked`, if it has
            done nothing yet; by default it waits `BUSY_SECONDS`. The caller repeats the call later.
        large_messages: what all stores of the server keep of large messages; by default, this store keeps its own.
        has_text_index: whether there is an index of the text of messages (`text_index`).
        has_special_folders: whether a new account gets mailboxes for drafts, sent mail, junk, trash and the archive
            (`new_account`), and those of another account have special uses because of their names (`special_use`).
        on_created: called, in the thread of the method, after a Maildir was created because there was none.
    """

    def __init__(
        self,
        root: str,
        *,
        now: Callable[[], float],
        log_warning: Callable[[str], None],
        quota: QuotaLimits | Callable[[], QuotaLimits] = (None, None),
        quota_setting: Callable[[str], str] = lambda _: "",
        base: str | None = None,
        index_directory: str | None = None,
        follow_symlinks: bool = False,
        first_busy_seconds: float | None = None,
        large_messages: LargeMessages | None = None,
        has_text_index: bool = True,
        has_special_folders: bool = False,
        on_created: Callable[[], object] = lambda: None,
    ) -> None:
        self._account = AccountState(
            root,
            now,
            log_warning,
            quota=quota,
            quota_setting=quota_setting,
            base=base,
            index_directory=index_directory,
            follow_symlinks=follow_symlinks,
            first_busy_seconds=first_busy_seconds,
            large_messages=large_messages,
            has_text_index=has_text_index,
            has_special_folders=has_special_folders,
            on_created=on_created,
        )

    @property
    def volumes(self) -> frozenset[int]:
        return self._account.local_volumes()

    mailboxes = _operation(folders.mailboxes)
    create = _operation(folders.create)
    delete = _operation(folders.delete)
    rename = _operation(folders.rename)
    subscriptions = _operation(subscription_file.subscriptions)
    set_subscribed = _operation(subscription_file.set_subscribed)

    mailbox_key = _operation(sync.mailbox_key, is_short=True)
    open = _operation(sync.open_mailbox)
    changes = _operation(sync.changes, is_short=True)
    watch_paths = _operation(AccountState.watch_paths, is_short=True)
    mailbox_paths = _operation(AccountState.mailbox_paths)

    status = _operation(mailbox_status.status, is_short=True)
    sizes = _operation(mailbox_status.sizes, is_short=True)
    quota = _operation(mailbox_status.quota)
    metadata = _operation(metadata_table.metadata)
    metadata_sizes = _operation(metadata_table.metadata_sizes)
    set_metadata = _operation(metadata_table.set_metadata)

    append = _operation(append_copy.append)
    replace = _operation(append_copy.replace)
    copy = _operation(append_copy.copy)
    store_flags = _operation(flags_expunge.store_flags)
    expunge = _operation(flags_expunge.expunge)

    fetch = _operation(message_fetch.fetch, is_short=True)
    read = _operation(message_fetch.read)
    search = _operation(message_search.search, is_short=True)
    index_text = _operation(text_search.index_text)

    def release_memory(self) -> None:
        self._account.release_memory()

    def close(self) -> None:
        self._account.close()
