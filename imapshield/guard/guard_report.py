"""`GuardReport`: what one process tells the others that share a guard with it, as a value and as bytes.

The bytes are JSON with strict types and sizes. Whatever else arrives is a `MalformedReport`.
"""

import json
import struct
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from imapshield.guard.bans import SavedBan, ban_target
from imapshield.guard.login_news import FailedPair
from imapshield.guard.networks import Network, has_share

T = TypeVar("T")

MAX_ENTRIES = 500
"""Entries of one kind in a report. More are in the next one, so that no report keeps the reactor busy for long."""

MAX_REPORT_BYTES = 1 << 20
"""Bytes of a report. One with all entries is a third of that."""

RATES = ("connections", "guesses", "guesses of users", "scram")
"""The kinds of `RateTaken`. The keys of the first two are networks, as `network_bytes` returns them."""

MAX_TEXT = 300
"""Characters of a name, a network or a reason."""

_HASH_SIZE = 8
_KEY_SIZES = {"connections": 10, "guesses": 10, "guesses of users": 9, "scram": 16}
_NETWORK = struct.Struct(">BBQ")
_PAST = 1e12  # seconds, amounts and counts that nobody has


class MalformedReport(Exception):
    """Bytes that are no report."""


class RateTaken(NamedTuple):
    """How much `key` has taken of a rate, below 0 if it has given back more. `kind` is one of `RATES`."""

    kind: str
    key: bytes
    amount: float


class TalkerWork(NamedTuple):
    """The work of one key since the last report; `subject` and `measure` are those of ``observe.talkers``.

    The amount with the key "" is that of all keys together.
    """

    subject: str
    measure: str
    key: str
    amount: float


class GuardReport(NamedTuple):
    """What one process tells the others.

    Attributes:
        number: counts the reports of the process, from 1.
        time: when the report was made, in seconds of the clock that all processes share.
        is_first: whether `connections` and `users` of this and of the following reports are all that there are, so that
            earlier ones must be forgotten when these have arrived: with a report that has fewer than `MAX_ENTRIES`.
        bans: the bans that are new or have changed, also those that have ended but make the next one longer.
        unbans: the networks whose ban was ended by hand, with the time.
        failures: failed logins. The last value of each, and of each of `logins` and `violations`, is how many seconds
            ago it was.
        logins: the hashes of users who have logged in, with the hash of the address.
        connections: how many connections without a login an address has now.
        users: the hash of each user, and how many connections with a login the user has now.
        violations: the violations of addresses, each with its number, which no other one has.
        rates: what was taken since the last report.
        talkers: who has worked most since the last report.
    """

    number: int
    time: float
    is_first: bool = False
    bans: tuple[SavedBan, ...] = ()
    unbans: tuple[tuple[str, float], ...] = ()
    failures: tuple[tuple[FailedPair, float], ...] = ()
    logins: tuple[tuple[tuple[bytes, bytes], float], ...] = ()
    connections: tuple[tuple[Network, int], ...] = ()
    users: tuple[tuple[bytes, int], ...] = ()
    violations: tuple[tuple[tuple[Network, bytes], float], ...] = ()
    rates: tuple[RateTaken, ...] = ()
    talkers: tuple[TalkerWork, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the report is empty."""
        return not (self.is_first or any(self[3:]))

    @property
    def is_full(self) -> bool:
        """Whether another report may have to follow."""
        return any(len(entries) >= MAX_ENTRIES for entries in self[3:])

    def encode(self) -> bytes:
        """Return the report as bytes."""
        pairs = [
            [
                *(_network_text(p.network), p.user.hex(), p.pair.hex(), p.wide_pair.hex()),
                *(p.is_free, age),
            ]
            for p, age in self.failures
        ]
        fields = (
            *(self.number, self.time, self.is_first, self.bans, self.unbans, pairs),
            [(user.hex(), address.hex(), age) for (user, address), age in self.logins],
            [(_network_text(network), count) for network, count in self.connections],
            [(user.hex(), count) for user, count in self.users],
            [(_network_text(network), item.hex(), age) for (network, item), age in self.violations],
            [(kind, key.hex(), amount) for kind, key, amount in self.rates],
            self.talkers,
        )
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "GuardReport":
        """Return the report that `encode` has made `data` of.

        Raises:
            MalformedReport: it is none.
        """
        if len(data) > MAX_REPORT_BYTES:
            raise MalformedReport(f"a report of {len(data)} bytes; at most {MAX_REPORT_BYTES}")
        try:
            fields = _items(json.loads(data), 12)
            return cls(
                _count(fields[0]),
                _number(fields[1]),
                _bool(fields[2]),
                _each(_ban, fields[3]),
                _each(_unban, fields[4]),
                _each(_pair, fields[5]),
                _each(_login, fields[6]),
                _each(lambda entry: (_address(entry[0]), _count(entry[1])), fields[7], 2),
                _each(lambda entry: (_hash(entry[0]), _count(entry[1])), fields[8], 2),
                _each(_violation, fields[9]),
                _each(_rate, fields[10], most=len(RATES)),
                _each(_talker, fields[11]),
            )
        except (ValueError, RecursionError) as error:
            raise MalformedReport(f"malformed report: {error}"[:MAX_TEXT]) from None


def network_bytes(network: Network) -> bytes:
    """Return an address or a network with a share as 10 bytes."""
    return _NETWORK.pack(*network)


def network_from(data: bytes) -> Network:
    """Return the network that `network_bytes` has made `data` of.

    Raises:
        ValueError: it has made them of none.
    """
    if len(data) != _NETWORK.size:
        raise ValueError("no network")
    version, prefix, number = _NETWORK.unpack(data)
    if not has_share(version, prefix) or number >> prefix:
        raise ValueError("no network")
    return version, prefix, number


def _network_text(network: Network) -> str:
    return network_bytes(network).hex()


def _items(value: Any, number: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != number:
        raise ValueError("no list of the right length")
    return value


def _each(parse: Callable[[Any], T], value: Any, size: int = 0, most: int = 1) -> tuple[T, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES * most:
        raise ValueError("no list, or too many entries")
    return tuple([parse(_items(entry, size) if size else entry) for entry in value])


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= _PAST:
        raise ValueError("no number, or too large")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _PAST:
        raise ValueError("no count")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not true or false")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError("no text, or too long")
    return value


def _hex(value: Any, size: int) -> bytes:
    if type(value) is not str or len(value) != 2 * size:
        raise ValueError("no hash")
    return bytes.fromhex(value)


def _hash(value: Any) -> bytes:
    return _hex(value, _HASH_SIZE)


def _address(value: Any) -> Network:
    network = network_from(_hex(value, _NETWORK.size))
    if network[:2] not in ((4, 32), (6, 64)):
        raise ValueError("no address")
    return network


def _ban(value: Any) -> SavedBan:
    network, reason, remaining, seconds, number, strangers_only = _items(value, 6)
    ban_target(_text(network))
    times = _number(remaining), _number(seconds)
    return SavedBan(network, _text(reason), *times, _count(number), _bool(strangers_only))


def _unban(value: Any) -> tuple[str, float]:
    network, time = _items(value, 2)
    ban_target(_text(network))
    return network, _number(time)


def _age(value: Any) -> float:
    age = _number(value)
    if age < 0:
        raise ValueError("of the future")
    return age


def _pair(value: Any) -> tuple[FailedPair, float]:
    network, user, pair, wide_pair, is_free, age = _items(value, 6)
    hashes = _hash(user), _hash(pair), _hash(wide_pair)
    return FailedPair(_address(network), *hashes, _bool(is_free)), _age(age)


def _login(value: Any) -> tuple[tuple[bytes, bytes], float]:
    user, address, age = _items(value, 3)
    return (_hash(user), _hash(address)), _age(age)


def _violation(value: Any) -> tuple[tuple[Network, bytes], float]:
    network, number, age = _items(value, 3)
    return (_address(network), _hash(number)), _age(age)


def _rate(value: Any) -> RateTaken:
    kind, key, amount = _items(value, 3)
    if kind not in RATES:
        raise ValueError("no kind of rate")
    taken = RateTaken(kind, _hex(key, _KEY_SIZES[kind]), _number(amount))
    if len(taken.key) == _NETWORK.size:
        network_from(taken.key)
    return taken


def _talker(value: Any) -> TalkerWork:
    subject, measure, key, amount = _items(value, 4)
    work = TalkerWork(_text(subject), _text(measure), _text(key), _number(amount))
    if work.amount < 0:
        raise ValueError("less than no work")
    return work


def rate_taken(kind: str, key: Hashable, amount: float) -> RateTaken:
    """Return what was taken of a rate whose key in its table is `key`."""
    if isinstance(key, bytes):
        return RateTaken("scram", key, amount)
    assert isinstance(key, tuple)
    if len(key) == 2:
        return RateTaken("guesses of users", key[0] + bytes([key[1]]), amount)
    return RateTaken(kind, network_bytes(key), amount)
