"""`LoginFailures`: counts failed logins per address, network and user, and distinguishes guessers from stale passwords.

Rules
-----
* A failure is a pair of user and password. The same pair counts once for each address, network and user, so a device
  that repeats an old password for months counts once. A pair is forgotten when it is not repeated for a day.
* `max_failed_pairs` pairs from one address ban it, and are then forgotten. The pairs of a wider network or of a user
  never ban, because they may be of different people. They delay the answer to a failure, those of a user by 2 seconds
  at most unless the address itself has failures. `GuessRates` limits them.
* A user who has logged in from an address is known there. The first `FREE_PAIRS` pairs of a known user do not count for
  the address and its networks, so thirty people behind one address may all have devices with an old password. Further
  pairs count, and so do those of other users. A login changes nothing about the pairs that count already.
* An address from which `SHARED_USERS` users have logged in is shared, by an office or a webmail host. Its ban is for
  strangers only: it refuses no connection, but the logins that `may_try` does not permit, whatever the password.
* The password of a SCRAM login is unknown. All such failures of a user and an address are one pair, as long as they are
  not more frequent than `SCRAM_SECONDS` and `SCRAM_BURST` permit. Each failure beyond that is another pair.
* Only keyed hashes are kept, of users, addresses and passwords; the last `MAX_HASHES` also with the name or the
  address. A full table forgets what is worth least. All tables together take at most 32 MB, of which strangers can fill
  a half.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

from imapshield.guard.guess_rates import LIMITS_OF_GUESSES, Guess, GuessRates
from imapshield.guard.login_news import FailedPair, LoginNews, News
from imapshield.guard.networks import Network, networks_of, wider_networks
from imapshield.guard.rates import RateTable, RecentItems
from imapshield.guard.verdicts import LimitReached
from imapshield.limits import Limits

PAIR_SECONDS = 86400
"""Seconds after which a pair that is not repeated is forgotten. Most clients poll more often."""

FREE_PAIRS = 3
"""Pairs of a known user that do not count: an old password, another one in a second device, and a typing error."""

FREE_OF_DELAY = 2
"""Pairs without a delay. The third is delayed by a second, and each further one by twice as much as the one before."""

USER_DELAY_SECONDS = 2.0
"""Maximum delay of an address with at most `FREE_OF_DELAY` pairs because of the pairs that its user has elsewhere, for
which the user is not to blame."""

SCRAM_SECONDS = 240
"""Seconds between two failed SCRAM logins of one user and address in the long run.

Three devices that poll 96 times a day each make one every 300 seconds.
"""

SCRAM_BURST = 10
"""Failed SCRAM logins of one user and address at once: three devices that wake up together, three connections each."""

SCRAM_KNOWN_COST = 0.25
"""What a failed SCRAM login of a known user costs: a device may poll every minute."""

MAX_HASHES = 256
"""Hashes that are remembered, because a login needs those of its user and of its address several times."""

SHARED_USERS = 5
"""Users who must have logged in from an address to make it a shared one."""

SHARED_SECONDS = 30 * 86400
"""Seconds in which they must have logged in."""

MAX_ADDRESSES = 16384
"""Addresses, and pairs of a user and an address, whose logins are remembered."""

MAX_NETWORKS = 4096
"""Wider networks, and users, existing or not, whose failed logins are remembered; also users of trusted addresses."""

MAX_NETWORK_PAIRS = 63
"""Pairs of one network or user that are remembered. They delay every further failure by 15 seconds."""

MAX_KNOWN_USERS = 16384
"""Users whose addresses are remembered. The one who has not logged in for longest is dropped."""

MAX_KNOWN_ADDRESSES = 32
"""Addresses of one user that are remembered. The least recent is dropped, so a user can only displace own addresses."""

# How many pairs delay as much as one pair of a single address: of the wider networks, from the smallest, which many
# people share; and of a user over all addresses.
_NETWORK_SHARES = (3, 9, 9)
_USER_SHARE = 3

# Latest addresses of a user that may be shared ones after a restart, and that other processes are told when they start.
# A limit, because a start must not take seconds.
_RESTORED_SHARES = 8

_HASH_SIZE = 8  # bytes


@dataclass(frozen=True, slots=True)
class FailedLogin:
    """What follows from a failed login.

    Attributes:
        delay: the seconds by which the answer is to be delayed.
        banned_for: the limit that this failure has reached, so that the address is to be banned; or None.
        repeated: whether the address has failed with this pair before.
        is_guess: whether the pair is not known to be wrong for its user from anywhere. With SCRAM each is a guess.
    """

    delay: float
    banned_for: LimitReached | None = None
    repeated: bool = field(default=False, compare=False)
    is_guess: bool = field(default=True, compare=False)


class LoginFailures:
    """The failed logins of all addresses, and the addresses from which users have logged in.

    Args:
        limits: has `max_failed_pairs` and `max_login_delay_seconds`, and those of `GuessRates`.
        key: a secret of up to 64 bytes for the hashes. Known users can be restored only with the same key.

    Attributes:
        changed_users: collects the hashes of users whose entry in `known_addresses` changes. None collects nothing.
        news: collects what other processes must know (`share`). None collects nothing.
    """

    def __init__(self, limits: Limits, key: bytes) -> None:
        self._limits = limits
        self.changed_users: set[bytes] | None = None
        self.news: LoginNews | None = None
        self._rate_news: News[Hashable] | None = None
        self._member = b""
        self.restart(key)

    def restart(self, key: bytes) -> None:
        """Forget everything, and use another key, with which known users can be restored."""
        limits, self._key = self._limits, key
        # Of users and addresses. Hashes of guesses are needed once, and would displace those of honest logins.
        self._hash = lru_cache(MAX_HASHES)(self._new_hash)
        self._addresses = RecentItems(PAIR_SECONDS, MAX_ADDRESSES, limits.max_failed_pairs)
        self._free = RecentItems(PAIR_SECONDS, MAX_ADDRESSES, FREE_PAIRS)
        self._networks = RecentItems(PAIR_SECONDS, MAX_NETWORKS, MAX_NETWORK_PAIRS)
        self._users = RecentItems(PAIR_SECONDS, MAX_NETWORKS, MAX_NETWORK_PAIRS)
        self.scram_rate = RateTable(1 / SCRAM_SECONDS, SCRAM_BURST, MAX_ADDRESSES, self._rate_news)
        self._scram_excess = 0
        self.guess_rates = GuessRates(limits, self._rate_news)
        self._uncounted = RecentItems(PAIR_SECONDS, MAX_NETWORKS, FREE_PAIRS + 1)
        self._users_at = RecentItems(SHARED_SECONDS, MAX_ADDRESSES, SHARED_USERS)
        # hash of a user → hashes of addresses, the latest last
        self._known: dict[bytes, bytes] = {}

    def set_limits(self, limits: Limits) -> None:
        """Apply other limits from now on. What was counted for a limit that changes is forgotten."""
        old, self._limits = self._limits, limits
        if limits.max_failed_pairs != old.max_failed_pairs:
            self._addresses = RecentItems(PAIR_SECONDS, MAX_ADDRESSES, limits.max_failed_pairs)
        if any(getattr(limits, name) != getattr(old, name) for name in LIMITS_OF_GUESSES):
            self.guess_rates = GuessRates(limits, self._rate_news)

    def share(self, member: bytes, rates: News[Hashable], news: LoginNews) -> None:
        """Forget everything, and collect from now on what other processes must know, in `news` and in `rates`.

        `member` is a name that no other process has or had, so that no two count the same excess of SCRAM logins.
        """
        self._member, self._rate_news, self.news = member, rates, news
        self.restart(self._key)

    def digest(self, password: bytes) -> bytes:
        """Return what the other methods take as `secret`: the same in all processes that have the same key."""
        return blake2b(password, digest_size=16, key=self._key, person=b"password").digest()

    def begin_guess(self, address: str, user: bytes, now: float) -> Guess | LimitReached | None:
        """Count a password that is about to be looked at.

        Returns:
            what `not_a_guess` takes; the limit because of which the password must not be looked at; or None if the
            user is known at the address, or the client has no address.
        """
        networks = networks_of(address)
        if not networks or self.is_known(address, user):
            return None
        is_clean = not self._networks.count(networks[1], now)
        guess = Guess(networks[1:], self._hash(b"user", user), is_clean)
        return self.guess_rates.take(guess, now) or guess

    def not_a_guess(self, guess: Guess, now: float) -> None:
        """Undo a `begin_guess`: the password was correct or not looked at, or its failure has no `is_guess`."""
        self.guess_rates.give_back(guess, now)

    def failed(self, address: str, user: bytes, secret: bytes | None, now: float) -> FailedLogin:
        """Count a failed login.

        Args:
            address: the client's address.
            user: the name that the client gave.
            secret: the `digest` of the password; None for SCRAM.
            now: the time in seconds, of a clock that never goes back.
        """
        networks = networks_of(address)
        user_hash, address_hash = self._hash(b"user", user), self._address_hash(networks)
        source = user_hash + address_hash
        known = address_hash in _split(self._known.get(user_hash, b""))
        if secret is not None:
            pair = wide_pair = self._pair(user_hash, secret)
        elif self.scram_rate.take(source, now, SCRAM_KNOWN_COST if known else 1):
            self._scram_excess += 1
            excess = b"%d %b" % (self._scram_excess, self._member)
            pair = wide_pair = self._new_hash(b"scram", excess)
        else:
            # Without the address, guesses from a thousand addresses would be one pair of their network.
            pair, wide_pair = user_hash, self._new_hash(b"source", source)
        is_guess = secret is None or not self._users.has(user_hash, wide_pair, now)
        user_pairs = self._users.add(user_hash, wide_pair, now)
        if not networks:
            return FailedLogin(0.0)
        address_key = networks[0]
        repeated = self._addresses.has(address_key, pair, now) or self._free.has(source, pair, now)
        if known and (free := self._free.add_if_room(source, pair, now)):
            if self.news is not None:
                self.news.pairs.add(FailedPair(address_key, user_hash, pair, wide_pair, True), now)
            return FailedLogin(self._delay(free), repeated=repeated)
        if self.news is not None:
            self.news.pairs.add(FailedPair(address_key, user_hash, pair, wide_pair, False), now)
        count, limit = self._addresses.add(address_key, pair, now), self._limits.max_failed_pairs
        counts: list[float] = [count]
        for network, share in zip(networks[1:], _NETWORK_SHARES, strict=False):
            counts.append(self._networks.add(network, wide_pair, now) / share)
        if count >= limit:
            self._addresses.forget(address_key)
            return FailedLogin(self._delay(count), LimitReached("max_failed_pairs", limit, count))
        user_delay = self._delay(user_pairs / _USER_SHARE)
        if count <= FREE_OF_DELAY:
            user_delay = min(user_delay, USER_DELAY_SECONDS)
        delay = max(user_delay, self._delay(max(counts)))
        return FailedLogin(delay, repeated=repeated, is_guess=is_guess)

    def add_pair(self, failed: FailedPair, now: float, time: float) -> LimitReached | None:
        """Count a failed login of another process, which was at `time`.

        Returns:
            the limit that its address has reached, or None.
        """
        network, user, pair, wide_pair, is_free = failed
        self._users.add(user, wide_pair, now, time)
        if is_free:
            self._free.add(user + self._address_hash((network,)), pair, now, time)
            return None
        count, limit = self._addresses.add(network, pair, now, time), self._limits.max_failed_pairs
        for wider in wider_networks(network):
            self._networks.add(wider, wide_pair, now, time)
        if count < limit:
            return None
        self._addresses.forget(network)
        return LimitReached("max_failed_pairs", limit, count)

    def tell_all(self, news: News[tuple[bytes, bytes]], now: float) -> None:
        """Add all known users to `news`, with their latest addresses."""
        for user_hash, addresses in self._known.items():
            for address_hash in _split(addresses)[-_RESTORED_SHARES:]:
                time = self._users_at.time_of(address_hash, user_hash)
                # One that does not count any more for `is_shared` must not count again elsewhere.
                news.add((user_hash, address_hash), now - SHARED_SECONDS if time is None else time)

    def pair_tables(self) -> dict[str, RecentItems]:
        """Return the tables of failed logins that all processes have in common."""
        names = ("addresses", "free", "networks", "users")
        return dict(
            zip(names, (self._addresses, self._free, self._networks, self._users), strict=True)
        )

    def forget_pairs(self, network: Network) -> None:
        """Forget the pairs of an address that another process has banned for them."""
        self._addresses.forget(network)

    def is_repeated(self, address: str, user: bytes, secret: bytes | None, now: float) -> bool:
        """Return whether a failed login repeats one of the last day, and remember it without counting it for anything.

        For trusted addresses. The arguments are those of `failed`. The last pairs of each user are known.
        """
        user_hash = self._hash(b"user", user)
        source = user_hash + self._address_hash(networks_of(address))
        pair = user_hash if secret is None else self._pair(user_hash, secret)
        is_repeated = self._uncounted.has(source, pair, now)
        self._uncounted.add(source, pair, now)
        return is_repeated

    def undecided(self, address: str, user: bytes, secret: bytes | None, now: float) -> int:
        """Count a password that a checker has got, without saying whether it is correct.

        A server that fails answers so to correct passwords, which devices repeat. If it answers so to wrong ones, their
        number gives a guesser away. The arguments are those of `failed`.

        Returns:
            how many passwords of the user came from the address in the last day, `FREE_PAIRS` and one at most; 0 if
            this one is repeated, so that it is no guess. Each SCRAM login counts as the first one.
        """
        if secret is None:
            return 1
        user_hash = self._hash(b"user", user)
        source = user_hash + self._address_hash(networks_of(address))
        pair = self._pair(user_hash, secret)
        is_repeated = self._uncounted.has(source, pair, now)
        passwords = self._uncounted.add(source, pair, now)
        return 0 if is_repeated else passwords

    def succeeded(self, address: str, user: bytes, now: float) -> None:
        """Remember that the user has logged in from the address."""
        if not (networks := networks_of(address)):
            return
        user_hash, address_hash = self._hash(b"user", user), self._address_hash(networks)
        if self.news is not None:
            self.news.logins.add((user_hash, address_hash), now)
        self.add_login(user_hash, address_hash, now)

    def add_login(
        self, user_hash: bytes, address_hash: bytes, now: float, time: float | None = None
    ) -> None:
        """Do what `succeeded` does, for a login in another process, which was at `time`."""
        self._users_at.add(address_hash, user_hash, now, time)
        addresses = self._known.pop(user_hash, b"")
        if not addresses.endswith(address_hash):
            others = [each for each in _split(addresses) if each != address_hash]
            addresses = b"".join([*others, address_hash])[-MAX_KNOWN_ADDRESSES * _HASH_SIZE :]
            self._note_change(user_hash)
        self._put_known(user_hash, addresses)

    def is_known(self, address: str, user: bytes) -> bool:
        """Return whether the user has logged in from the address (IPv6: from its /64)."""
        networks = networks_of(address)
        addresses = self._known.get(self._hash(b"user", user), b"")
        return self._address_hash(networks) in _split(addresses)

    def has_users(self, address: str, now: float) -> bool:
        """Return whether anybody has logged in from the address in the last 30 days."""
        return self._users_at.count(self._address_hash(networks_of(address)), now) > 0

    def pairs_of(self, address: str, now: float) -> int:
        """Return how many pairs of the address count for `max_failed_pairs`."""
        networks = networks_of(address)
        return self._addresses.count(networks[0], now) if networks else 0

    def is_shared(self, address: str, now: float) -> bool:
        """Return whether so many users have logged in from the address that a ban of it is for strangers only."""
        address_hash = self._address_hash(networks_of(address))
        return self._users_at.count(address_hash, now) >= SHARED_USERS

    def may_try(self, address: str, user: bytes, now: float) -> bool:
        """Return whether a user may try to log in from an address whose ban is for strangers only.

        True for a user who is known there and has not used up the pairs that are free.
        """
        source = self._hash(b"user", user) + self._address_hash(networks_of(address))
        return self.is_known(address, user) and self._free.count(source, now) < FREE_PAIRS

    def known_users(self) -> Iterator[bytes]:
        """Yield the hashes of all users who are known somewhere, the first to be dropped first."""
        return iter(self._known)

    def known_addresses(self, user_hash: bytes) -> bytes:
        """Return the hashes of the addresses of a user, for a file; empty if there are none any more."""
        return self._known.get(user_hash, b"")

    def restore_known(self, user_hash: bytes, addresses: bytes, now: float) -> None:
        """Restore what `known_addresses` returned. The user who is restored first is the first to be dropped."""
        if len(user_hash) == _HASH_SIZE and addresses and not len(addresses) % _HASH_SIZE:
            addresses = addresses[-MAX_KNOWN_ADDRESSES * _HASH_SIZE :]
            self._put_known(user_hash, addresses)
            for address_hash in _split(addresses)[-_RESTORED_SHARES:]:
                self._users_at.add(address_hash, user_hash, now)

    def _put_known(self, user_hash: bytes, addresses: bytes) -> None:
        if len(self._known) >= MAX_KNOWN_USERS and user_hash not in self._known:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._note_change(oldest)
        self._known[user_hash] = addresses

    def _note_change(self, user_hash: bytes) -> None:
        if self.changed_users is not None:
            self.changed_users.add(user_hash)

    def _delay(self, pairs: float) -> float:
        if pairs <= FREE_OF_DELAY:
            return 0.0
        longer: float = 2 ** min(pairs - FREE_OF_DELAY - 1, 64)
        return min(longer, self._limits.max_login_delay_seconds)

    def _new_hash(self, kind: bytes, data: bytes) -> bytes:
        return blake2b(data, digest_size=_HASH_SIZE, key=self._key, person=kind).digest()

    def _pair(self, user_hash: bytes, secret: bytes) -> bytes:
        return self._new_hash(b"pair", user_hash + secret)

    def _address_hash(self, networks: tuple[Network, ...]) -> bytes:
        return self._hash(b"address", repr(networks[:1]).encode())

    def hash_account(self, user: str) -> bytes:
        """Return the keyed hash of the name of an account, by which other processes count its connections."""
        return self._hash(b"account", user.encode(errors="surrogateescape"))


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[n : n + _HASH_SIZE] for n in range(0, len(hashes), _HASH_SIZE)]
