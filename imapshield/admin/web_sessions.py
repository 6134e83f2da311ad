"""Who is logged in to the status page, and who may try. Pure: the time is an argument.

Rules
-----
* A session ends `IDLE_SECONDS` after its last request, and `MAX_SECONDS` after its login in any case.
* A form is accepted only with a token that belongs to the cookie of the request. Another site can neither read nor
  guess it, because it is a MAC of the cookie with a key of this process.
* Login attempts have a rate for each address, and one for all together, because a password check costs 0.1 s.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from imapshield.guard.networks import Network, networks_of
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
"""The same for all addresses together."""

MAX_ADDRESSES = 1000
"""Addresses whose attempts are counted."""


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
    """How often somebody may try to log in."""

    def __init__(self) -> None:
        self._each = RateTable(ATTEMPTS_PER_SECOND, ATTEMPTS, MAX_ADDRESSES)
        self._all = RateTable(ALL_ATTEMPTS_PER_SECOND, ALL_ATTEMPTS, 1)

    def take(self, address: str, now: float) -> float:
        """Count an attempt; returns 0.0 if it may be made, otherwise the seconds to wait."""
        networks = networks_of(address)
        key: Network | str = networks[0] if networks else ""
        wait = self._each.take(key, now)
        if wait:
            return wait
        wait = self._all.take("", now)
        if wait:
            self._each.give_back(key, now)
        return wait

    def give_back(self, address: str, now: float) -> None:
        """Undo a `take` that has returned 0.0: the password was right."""
        networks = networks_of(address)
        self._each.give_back(networks[0] if networks else "", now)
        self._all.give_back("", now)
