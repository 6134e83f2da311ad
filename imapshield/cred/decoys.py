"""Chooses what unknown users have in place of a salt and a hash, so that nobody can find out who exists.

Rules
-----
* What an unknown user has does not change more often than what a known user has: not at a restart, and as a rule not
  when another user is added, changed or removed.
* Each value is as frequent among unknown users as among known users.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

MAX_VALUES = 16
"""Values from which one is chosen, the most frequent ones, because each costs a hash. Most files have one value."""


def frequencies(values: Iterable[T]) -> dict[T, int]:
    """Return how many known users have each value, for the `MAX_VALUES` most frequent ones."""
    return dict(Counter(values).most_common(MAX_VALUES))


def choose(key: bytes, user: bytes, counts: Mapping[T, int]) -> T | None:
    """Return the value of the unknown `user`, one of `counts`; None if there are none.

    This is weighted rendezvous hashing: if one of `n` known users gets another value, the value changes for about one
    in `n` unknown users, and for none if all known users have the same one.

    Args:
        key: a secret of up to 64 bytes.
        user: the name.
        counts: how many known users have each value (`frequencies`).
    """

    def waiting_time(value: T) -> float:
        text = repr(value).encode() + b"\0" + user
        number = int.from_bytes(blake2b(text, key=key, digest_size=8).digest())
        return -math.log((number + 1) / (1 << 64)) / counts[value]

    return min(counts, key=waiting_time, default=None)
