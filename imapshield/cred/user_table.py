"""`UserTable`: what a password file said when it was read last. Without Twisted."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Self

from imapshield.cred import decoys, passwords, users

UNVERIFIABLE = ""
"""In place of the cost of a hash that needs a package which is not installed."""


class _Hash(NamedTuple):
    """What is computed from a stored hash: its SCRAM secret, if it is one, and its `passwords.cost`."""

    scram: passwords.ScramSecret | None
    cost: str


@dataclass(frozen=True, slots=True)
class UserTable:
    """One state of a password file. It never changes, so that the reactor uses it without a lock while a thread reads.

    Attributes:
        version: which state of the file it is; None if the file could not be read the last time.
        entries: the lines, by user.
        hashes: the hashes of the users who can log in.
        lacking: the users who cannot, because a package is not installed that verifies their hashes.
        scram_secrets: their SCRAM secrets; empty if a user has another kind of hash.
        without_scram: the first user without a SCRAM secret, if others have one; otherwise "".
        costs: how many users have hashes of each cost (`decoys.frequencies`), which is `UNVERIFIABLE` for `lacking`.
        examples: a hash of each other cost.
        scram_forms: how many users have secrets of each form: iterations and length of the salt.
        decoy_key: derived from the hash of the first user.
    """

    version: object = None
    entries: Mapping[str, users.UserEntry] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    lacking: Set[str] = frozenset()
    scram_secrets: Mapping[bytes, passwords.ScramSecret] = field(default_factory=dict)
    without_scram: str = ""
    costs: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    scram_forms: Mapping[tuple[int, int], int] = field(default_factory=dict)
    decoy_key: bytes = bytes(32)
    _known: Mapping[str, _Hash] = field(default_factory=dict)

    def next(self, version: object, entries: dict[str, users.UserEntry]) -> Self:
        """Return the table of other entries. Hashes that this table has, too, cost little."""
        hashes = users.usable(entries)
        stored = hashes.values()
        known = {each: self._known.get(each) or _parse(each) for each in stored}
        parsed = {user: known[each].scram for user, each in hashes.items()}
        secrets = {user.encode(): scram for user, scram in parsed.items() if scram is not None}
        lacking = [user for user, entry in entries.items() if entry.lacks]
        without = [*lacking, *(user for user, scram in parsed.items() if scram is None)]
        if without and secrets:
            secrets.clear()
        else:
            without.clear()
        first = next(iter(stored), "").encode("utf-8", "surrogateescape")
        return type(self)(
            version=version,
            entries=entries,
            hashes=hashes,
            lacking=frozenset(lacking),
            scram_secrets=secrets,
            without_scram=without[0] if without else "",
            costs=decoys.frequencies(
                [*(known[each].cost for each in stored), *(UNVERIFIABLE for _ in lacking)]
            ),
            examples={known[each].cost: each for each in stored},
            scram_forms=decoys.frequencies(
                (each.iterations, len(each.salt)) for each in secrets.values()
            ),
            decoy_key=blake2b(first, key=b"decoys", digest_size=32).digest(),
            _known=known,
        )


def _parse(stored: str) -> _Hash:
    return _Hash(passwords.parse_scram(stored), passwords.cost(stored))
