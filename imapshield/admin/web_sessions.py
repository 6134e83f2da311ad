"""Who is logged in to the status page, and who may try. Pure: the time is an argument.

Rules
-----
* A session ends `IDLE_SECONDS` after its last request, and `MAX_SECONDS` after its login in any case.
* A form is accepted only with a token that belongs to the cookie of the request. Another site can neither read nor
  guess it, because it is a MAC of the cookie with a key of this process.
* Login attempts have a rate for each address, and one for all together, because a password check costs 0.1 s. Of that,
  one wide network has at most half, so that somebody with all its addresses leaves something to the others. Addresses
  from which somebody has logged in have as much again for themselves.
"""

import hashlib
import hmac
import secrets
from collections.abc import Hashable
from dataclasses import dataclass

from imapshield.guard.bounded_table import BoundedTable
from imapshield.guard.networks import networks_of
from imapshield.guard.rates import RateTable

IDLE_SECONDS = 1800.0
"""Seconds without a request after which a session ends. A page that is open and visible asks all the time."""

MAX_SECONDS = 12 * 3600.0
"""Seconds after the login after which a session ends."""

MAX_SESSIONS = 100
"""Sessions at the same time; one more ends the one that has been idle for longest."""

ATTEMPTS_PER_SECOND, ATTEMPTS = 0.1, 5
"""Login attempts of one address (IPv6: one /64): a few at once, and then one in ten seconds."""

ALL_ATTEMPTS_PER_SECOND, ALL_ATTEMPTS = 1.0, 20
"""The same for all addresses together, once for those that have logged in and once for the others, of which an IPv4 /21
or an IPv6 /32 has half."""

CACHED_ATTEMPTS_PER_SECOND, CACHED_ATTEMPTS = 10.0, 200
"""Further attempts that are compared with tokens and with passwords that were right lately, which costs no check."""

MAX_ADDRESSES = 1000
"""Addresses, and wide networks, whose attempts are counted."""

MAX_KNOWN_ADDRESSES = 100
"""Addresses that are remembered because somebody has logged in; one more replaces the one that did so first."""


@dataclass(slots=True)
class Session:
    """One login.

    Attributes:
        user: the name with which somebody has logged in.
        begun: when.
        used: when the last request came.
    """

    user: str
    begun: float
    used: float


class WebSessions:
    """The sessions of one status page. `now` is in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._sessions: dict[str, Session] = {}  # the one that was used last is the last

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, user: str, now: float) -> str:
        """Begin a session, and return the value of its cookie."""
        cookie = secrets.token_urlsafe(32)
        self._sessions[cookie] = Session(user, now, now)
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return cookie

    def find(self, cookie: str, now: float) -> Session | None:
        """Return the session of a cookie, which is used now; None if there is none any more."""
        session = self._sessions.pop(cookie, None)
        if (
            session is None
            or now - session.used > IDLE_SECONDS
            or now - session.begun > MAX_SECONDS
        ):
            return None
        session.used = now
        self._sessions[cookie] = session
        return session

    def end(self, cookie: str) -> None:
        """End a session."""
        self._sessions.pop(cookie, None)

    def form_token(self, cookie: str) -> str:
        """Return what a form must send together with `cookie`, which need not be that of a session."""
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, cookie: str, token: str) -> bool:
        """Return whether `token` is that of `cookie`."""
        expected = self.form_token(cookie).encode()
        return bool(cookie) and hmac.compare_digest(expected, token.encode(errors="replace"))


class LoginRate:
    """How often somebody may try to log in. An attempt needs `take`, and then `take_check` or `take_cached`."""

    def __init__(self) -> None:
        self._each = RateTable(ATTEMPTS_PER_SECOND, ATTEMPTS, MAX_ADDRESSES)
        self._wide = RateTable(ALL_ATTEMPTS_PER_SECOND / 2, ALL_ATTEMPTS / 2, MAX_ADDRESSES)
        self._all = RateTable(ALL_ATTEMPTS_PER_SECOND, ALL_ATTEMPTS, 2)
        self._cached = RateTable(CACHED_ATTEMPTS_PER_SECOND, CACHED_ATTEMPTS, 1)
        self._known: BoundedTable[Hashable, float] = BoundedTable(MAX_KNOWN_ADDRESSES, float)

    def take(self, address: str, now: float) -> float:
        """Count an attempt of an address; returns 0.0 if it may be made, otherwise the seconds to wait."""
        return self._each.take(_ends(address)[0], now)

    def take_check(self, address: str, now: float) -> float:
        """Count an attempt among those of all; returns 0.0 if a password may be checked, or the seconds to wait."""
        own, wide = _ends(address)
        is_known = self._known.get(own) is not None
        wait = 0.0 if is_known else self._wide.take(wide, now)
        if wait:
            return wait
        wait = self._all.take(is_known, now)
        if wait and not is_known:
            self._wide.give_back(wide, now)
        return wait

    def take_cached(self, now: float) -> bool:
        """Return whether an attempt that has no check may be compared with what is known to be right."""
        return self._cached.take("", now) == 0

    def give_check_back(self, address: str, now: float) -> None:
        """Undo a `take_check` that has returned 0.0, because the password was right."""
        own, wide = _ends(address)
        is_known = self._known.get(own) is not None
        self._all.give_back(is_known, now)
        if not is_known:
            self._wide.give_back(wide, now)

    def succeeded(self, address: str, now: float) -> None:
        """Undo the `take` of an attempt, because the password was right, and remember the address."""
        own, _ = _ends(address)
        self._each.give_back(own, now)
        self._known.put(own, now)


def _ends(address: str) -> tuple[Hashable, Hashable]:
    """Return what stands for an address, and the widest of its networks."""
    networks = networks_of(address) or ("",)
    return networks[0], networks[-1]
