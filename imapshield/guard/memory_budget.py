"""`MemoryBudget`: all bytes that the server holds for its connections, with a victim when they are too many.

Input, waiting commands, literals, unsent output and temporary files are counted where they are held. The sum of all
connections has a limit, and so have one user and one client that has not logged in.

Rules
-----
* Clients that have not logged in come first. Among them the victim is the one that holds most; among users it is the
  largest connection of the user who holds most. "Most" is exact to a factor of two, so that a victim is found at once
  among any number of connections; of those that are equal in this sense it is the one that has been so for longest.
* An amount is recorded when it differs by `GRANULE` from the recorded one. A connection that holds less is not counted
  and is never a victim.
* Files have a budget of their own, and no victim: a user may hold as many bytes as stay free for the others. The
  first may take a half, the second a quarter. So there is always room for one more.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

GRANULE = 1 << 10
"""Bytes by which a recorded amount may be wrong. Recording smaller changes would double the cost of a NOOP."""

CONNECTION_BYTES = 10 << 10
"""Bytes of memory that one greeted connection takes at most, with its buffers empty (measured)."""

TLS_BYTES = 22 << 10
"""Bytes of memory that TLS adds to it at most, of which OpenSSL takes most (measured)."""

RECORD_BYTES = 17 << 10
"""Bytes of memory that OpenSSL takes while a record of TLS has not completely arrived, or a handshake has not ended."""


def stranger_cost(limits: Limits) -> dict[str, int]:
    """Return the parts of B, the most bytes of memory that one client takes that has not logged in.

    `Limits.preauth_held_bytes` covers the longest line, that of ID, as well as literals, pending commands and unsent
    responses. The kernel's socket buffers are not included.
    """
    return {
        "the connection": CONNECTION_BYTES,
        "TLS": TLS_BYTES,
        "a TLS record": RECORD_BYTES,
        "preauth_held_bytes": limits.preauth_held_bytes,
        "rounding": GRANULE,
    }


def bytes_per_stranger(limits: Limits) -> int:
    """Return B, the sum of `stranger_cost`."""
    return sum(stranger_cost(limits).values())


T = TypeVar("T")


class _BySize(Generic[T]):
    """A set of items that finds one of the largest: in each bucket are the items of less than twice the size."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, dict[T, None]] = {}

    def move(self, item: T, old: int, new: int) -> None:
        """Note that the size of `item` has changed. An item of size 0 is not in the set."""
        before, after = old.bit_length(), new.bit_length()
        if before == after:
            return
        if before:
            bucket = self._buckets[before]
            del bucket[item]
            if not bucket:
                del self._buckets[before]
        if after:
            self._buckets.setdefault(after, {})[item] = None

    def largest(self) -> T | None:
        """Return an item to which no other has twice the size; None if the set is empty."""
        return next(iter(self._buckets[max(self._buckets)])) if self._buckets else None


class _Group:
    """The connections of one user, or all those that have not logged in (`user` is None)."""

    __slots__ = ("connections", "file_bytes", "holders", "memory", "user")

    def __init__(self, user: str | None) -> None:
        self.user = user
        self.connections = self.memory = self.file_bytes = 0
        self.holders: _BySize[Holder] = _BySize()


class Holder:
    """What one connection holds.

    Attributes:
        reset: resets the connection because of a limit.
        memory: the recorded bytes of memory.
        file_bytes: the bytes in temporary files.
    """

    __slots__ = ("closed", "file_bytes", "group", "memory", "reset")

    def __init__(self, group: _Group, reset: Callable[[LimitReached], object]) -> None:
        self.group = group
        self.reset = reset
        self.memory = self.file_bytes = 0
        self.closed = False


class MemoryBudget:
    """The bytes that all connections of one server hold.

    Args:
        limits: `max_memory_bytes`, `max_user_bytes`, `preauth_held_bytes` and `max_spool_bytes` apply.

    Attributes:
        memory: the sum of the recorded bytes of memory.
        file_bytes: the sum of the bytes in temporary files.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.memory = self.file_bytes = 0
        self._strangers = _Group(None)
        self._users: dict[str, _Group] = {}
        self._by_size: _BySize[_Group] = _BySize()  # without the strangers

    @property
    def memory_of_users(self) -> int:
        """The recorded bytes of memory of connections with a login."""
        return self.memory - self._strangers.memory

    def largest_user(self) -> tuple[str, int]:
        """Return a user who holds at least half as much memory as any other, and how much; "" if there is none."""
        group = self._by_size.largest()
        return ("", 0) if group is None else (group.user or "", group.memory)

    def open(self, reset: Callable[[LimitReached], object]) -> Holder:
        """Return the account of a new connection, which has not logged in. `reset`: as in `Holder`."""
        self._strangers.connections += 1
        return Holder(self._strangers, reset)

    def close(self, holder: Holder) -> None:
        """Release the memory that `holder` has recorded, because its connection has ended. May be called again."""
        if not holder.closed:
            self._record(holder, 0)
            self._leave(holder)
            holder.closed = True

    def set_user(self, holder: Holder, user: str | None) -> None:
        """Note that the connection has logged in as `user`, or has logged out (None)."""
        if holder.closed:
            return
        memory, file_bytes = holder.memory, holder.file_bytes
        self._record(holder, 0)
        self.hold_file_bytes(holder, -file_bytes)
        self._leave(holder)
        if user is None:
            holder.group = self._strangers
        else:
            holder.group = self._users.get(user) or self._users.setdefault(user, _Group(user))
        holder.group.connections += 1
        self._record(holder, memory)
        self.hold_file_bytes(holder, file_bytes)

    def _leave(self, holder: Holder) -> None:
        holder.group.connections -= 1
        self._forget_unused(holder.group)

    def _forget_unused(self, group: _Group) -> None:
        # A command that still runs when its connection ends keeps its files until it is done.
        # Meanwhile the user may have logged in again: the name then belongs to the same group, or to a new one.
        if group.user is None or group.connections or group.file_bytes:
            return
        if self._users.get(group.user) is group:
            del self._users[group.user]

    def hold(self, holder: Holder, memory: int) -> bool:
        """Record that the connection holds `memory` bytes now; return whether a limit is exceeded.

        Then the caller has the connection of `excess` reset, until there is none.
        """
        change = memory - holder.memory
        if -GRANULE < change < GRANULE or holder.closed:
            return False
        self._record(holder, memory)
        return change >= GRANULE and self.excess(holder) is not None

    def _record(self, holder: Holder, memory: int) -> None:
        group, old = holder.group, holder.memory
        holder.memory = memory
        group.holders.move(holder, old, memory)
        change = memory - old
        if group.user is not None:
            self._by_size.move(group, group.memory, group.memory + change)
        group.memory += change
        self.memory += change

    def excess(self, holder: Holder) -> tuple[LimitReached, Holder] | None:
        """Return the limit that is exceeded since `holder` holds more, and the holder to reset; None if none is."""
        limits, group = self.limits, holder.group
        if group.user is None:
            if holder.memory > limits.preauth_held_bytes:
                return _reached(limits, "preauth_held_bytes", holder.memory), holder
        elif group.memory > limits.max_user_bytes:
            largest = group.holders.largest()
            if largest is not None:
                return _reached(limits, "max_user_bytes", group.memory), largest
        if self.memory > limits.max_memory_bytes:
            victim = self._strangers.holders.largest()
            if victim is None:
                largest_user = self._by_size.largest()
                victim = largest_user.holders.largest() if largest_user is not None else None
            if victim is not None:
                return _reached(limits, "max_memory_bytes", self.memory), victim
        return None

    def refusal(self, holder: Holder, size: int) -> LimitReached | None:
        """Return the limit that forbids the user to store `size` bytes more in memory; None if none does."""
        group, limits = holder.group, self.limits
        if group.user is not None and group.memory + size > limits.max_user_bytes:
            return _reached(limits, "max_user_bytes", group.memory + size)
        return None

    def file_refusal(self, holder: Holder, size: int) -> LimitReached | None:
        """Return the limit that forbids the user to store `size` bytes more in temporary files; None if none does."""
        mine, others = holder.group.file_bytes + size, self.file_bytes - holder.group.file_bytes
        if mine > self.limits.max_spool_bytes - others - mine:
            return _reached(self.limits, "max_spool_bytes", others + mine)
        return None

    def hold_file_bytes(self, holder: Holder, change: int) -> None:
        """Record that the connection has `change` bytes more (or, below 0, fewer) in temporary files."""
        holder.file_bytes += change
        holder.group.file_bytes += change
        self.file_bytes += change
        self._forget_unused(holder.group)


def _reached(limits: Limits, name: str, observed: int) -> LimitReached:
    return LimitReached(name, getattr(limits, name), observed)
