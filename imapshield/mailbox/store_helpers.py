"""What a `StoreAccount` needs besides the store: a worker, what notifies it of changes, parts of stored messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from typing import Protocol, TypeVar, cast

from imapshield.mailbox.storage import ICachingStore, IInPlaceStore, IStore
from imapshield.wire.commands.fetch import FetchItem

T = TypeVar("T")

ShortKind = tuple[str, Hashable] | None
"""What a short call does, such as ``fetch``, and with which mailbox; None for a call that may be long."""


def volumes_of(store: IStore | None) -> Collection[int]:
    """Return the file systems of a store whose calls may run in place (`IInPlaceStore`); none of another store.

    Before its first call, which runs in a thread, an account has no store.
    """
    return store.volumes if IInPlaceStore.providedBy(store) else ()


def release_memory_of(store: IStore | None) -> None:
    """Let a store free memory that its next call can do without (`ICachingStore`). Another store does nothing."""
    if ICachingStore.providedBy(store):
        cast("ICachingStore", store).release_memory()


class Worker(Protocol):
    """Runs the blocking calls of one account, one after the other.

    A worker may have two more methods. ``run_in_background`` is like `run`, for calls that no client waits for.
    ``run_short(function, kind, volumes, writes=…)`` may run a short call at once, in the reactor's thread (`in_place`),
    or wait for a moment for one that writes.
    """

    def run(self, function: Callable[..., T], *args: object) -> Awaitable[T]:
        """Run ``function(*args)`` after every call that was submitted earlier.

        If the caller cancels the awaitable, a call that has not started may be dropped. A call that runs is not
        stopped, and its result is dropped.

        Returns:
            an awaitable of the result, which arrives on the reactor's thread. It raises what `function` raises.
        """


class ChangeNotifier(Protocol):
    """Notifies about changes to directories of the file system, such as mail that another program delivers."""

    def watch(
        self, paths: Sequence[str], callback: Callable[[], object], *, must_notify: bool = True
    ) -> Subscription:
        """Call `callback`, on the reactor's thread, whenever one of the directories `paths` may have changed.

        Notifications may be late, combined or unnecessary: the receiver polls the store and finds out what changed.

        If `callback` returns a coroutine or a Deferred, the notifier runs it, and does not call `callback` again before
        it has ended.

        Args:
            paths: the directories.
            callback: the function to call.
            must_notify: whether to call it once in any case, because the caller has looked at the directories before.
        """


class Subscription(Protocol):
    """A request for notifications, as `ChangeNotifier.watch` returns it."""

    def stop(self) -> None:
        """Cancel the subscription: the callback is not called again."""


class StoredPart:
    """A part of a stored message as content of a new one (`LiteralData`, RFC 4469).

    `IStore.append` reads it in the worker, while the store is open.

    Args:
        store: returns the store.
        key: the mailbox.
        uid: the message.
        item: the part.
        size: its size in bytes.
    """

    binary = False

    def __init__(
        self, store: Callable[[], IStore | None], key: int, uid: int, item: FetchItem, size: int
    ) -> None:
        self._store = store
        self._source = key, uid, item
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`.

        Raises:
            MessageExpunged: the message was expunged.
        """
        store = self._store()
        assert store is not None  # its `append` is the caller
        return store.read(*self._source, offset, size)

    def close(self) -> None:
        """Do nothing: no resource is held."""
