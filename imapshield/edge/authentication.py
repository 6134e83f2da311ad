"""`Authentication`: logs a client in through a Twisted Cred portal, with a password or by SASL."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, cast

from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.interfaces import IAccountIMAP

from imapshield.cred import sasl
from imapshield.cred.checkers import CheckerUnavailable
from imapshield.cred.twisted_mail_account import TwistedMailAccount
from imapshield.edge import peer
from imapshield.edge.answer_delay import AnswerDelay
from imapshield.edge.channel_binding import channel_bindings
from imapshield.edge.client_peaks import peaks_of_login, report_user_peaks
from imapshield.edge.connection_owner import ConnectionOwner
from imapshield.edge.login_checks import LEFT, Check, LoginAttempt, LoginNotChecked, RunsChecks
from imapshield.edge.write_buffer import Disconnected
from imapshield.errors import BadCommand, CommandRefused
from imapshield.guard.guess_rates import Guess
from imapshield.guard.login_failures import FREE_PAIRS
from imapshield.guard.process_guard import BANNED
from imapshield.guard.verdicts import LimitReached
from imapshield.mailbox.account_api import IAccount


class Authentication:
    """The part of `SessionIO` that identifies the peer, and logs users in and out.

    The realm of the owner's `portal` returns an avatar for `IAccount`, or for Twisted's `IAccountIMAP`, which is
    adapted. Its `challengers` are the SASL mechanisms besides PLAIN; name to factory of `IChallengeResponse`
    credentials.

    Attributes:
        peer_is_local: whether the peer is on this machine (a loopback address or a UNIX socket).
    """

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._logout: Callable[[], object] | None = None
        self._attempt: LoginAttempt | None = None
        self._delay: AnswerDelay | None = None
        self._guess: Guess | None = None  # the password that is being looked at
        self.peer_is_local = False

    def identify_peer(self) -> None:
        """Find out the peer's address."""
        self._owner.reporter.peer, self.peer_is_local = peer.identify(self._owner.transport)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, up to here or up to a configured proxy."""
        transport = self._owner.transport
        encrypted = ISSLTransport.providedBy(transport) or bool(self._owner.startedTLS)
        return encrypted or peer.uses_tls_to_proxy(transport)

    @property
    def secure(self) -> bool:
        """Whether a password may be sent: over TLS, and to a peer on this machine, which nobody can eavesdrop on."""
        return self.tls or self.peer_is_local

    @property
    def accepts_passwords(self) -> bool:
        """Whether a checker of the portal accepts a user name and a password."""
        return IUsernamePassword in self._owner.portal.listCredentialsInterfaces()

    def sasl_mechanisms(self) -> list[bytes]:
        """Return the SASL mechanisms that can be offered now; without PLAIN, which the session itself implements."""
        owner = self._owner
        others = {name: make for name, make in owner.challengers.items() if name != b"PLAIN"}
        if not others:
            return []
        bindings = channel_bindings(owner.transport)
        return sasl.offered(others, owner.portal, private=self.secure, bindings=bindings)

    def check_credentials(self, credentials: Any) -> Deferred[Any]:
        """Have the portal check `credentials`; fires with (interface, avatar, logout)."""
        interfaces = IAccount, IAccountIMAP
        return cast("Deferred[Any]", self._owner.portal.login(credentials, None, *interfaces))

    async def login(
        self,
        user: bytes,
        password: bytes | None,
        mechanism: str,
        check: Check | None = None,
        queue: Callable[[RunsChecks], RunsChecks] = lambda checks: checks,
    ) -> IAccount:
        """Log in with a password, which the client sent with LOGIN or `mechanism`.

        `check` may replace the portal, and `queue` that of the server, which it is given. If `check` asks the client
        for a proof, the password is None, and the login does not wait for its turn.

        Raises:
            CommandRefused: AUTHENTICATIONFAILED; or UNAVAILABLE if the password was not checked in time, or the address
                is banned.
        """
        check = check or partial(self._owner.authenticateLogin, user, password or b"")
        counted = self._resolve(user)
        if password is None:
            self._begin_guess(counted)
            login: Awaitable[Any] | None = check()
        elif not password:
            login = None  # RFC 4616 section 2 forbids it. An LDAP directory would take it for an anonymous bind.
        elif self._ask_checker("is_cached", UsernamePassword(user, password)):
            login = check()
        else:
            # After the cache: a ban must not stop a device whose password is known to be correct.
            self._refuse_banned(counted)
            login = self._check_in_turn(counted, check, queue)
        try:
            return await self._finish_login(login, user, mechanism, password, counted)
        finally:
            self._give_guess_back()

    def _ask_checker(self, method: str, argument: Any) -> Any:
        """Return what a method of the checker of passwords returns; None if it has none."""
        checkers = getattr(self._owner.portal, "checkers", {})
        ask = getattr(checkers.get(IUsernamePassword), method, None)
        return None if ask is None else ask(argument)

    def _resolve(self, user: bytes) -> bytes:
        """Return the name that counts, of all ways to write the name of a user (`CheckerChain.resolve`)."""
        resolved = self._ask_checker("resolve", user)
        return user if resolved is None else bytes(resolved)

    def master_name(self, master: bytes, user: bytes) -> bytes:
        """Return the name with which `master` logs in as `user` (`MasterUserChain`).

        Raises:
            CommandRefused: there are no master users, or no such name.
        """
        name = self._ask_checker("master_name", (master, user))
        if name is None:
            raise CommandRefused(
                b"AUTHORIZATIONFAILED", "Authorization as another user is not allowed"
            )
        return bytes(name)

    async def _check_in_turn(self, user: bytes, check: Check, queue: Any = lambda c: c) -> Any:
        """Wait for the turn of this client, and return the result of `check`.

        Raises:
            CheckerUnavailable: the password was not checked in time.
        """
        owner = self._owner
        attempt = self._attempt = LoginAttempt(
            owner.reporter.peer,
            owner.shared.login_checks.is_known(owner.reporter.peer, user),
            has_left=lambda: peer.has_left(owner.transport),
            abandon=partial(owner.reset, LEFT),
            note=owner.reporter.note_peak,
            report=lambda reached, holder: owner.reporter.limit_triggered(
                "none", reached, holder=holder
            ),
        )

        def begin() -> Deferred[Any]:
            # After `_refuse_banned` again, because logins may have failed while this one waited.
            self._begin_guess(user)
            return check()

        try:
            return await queue(owner.shared.login_checks).run(attempt, begin)
        except LoginNotChecked as error:
            owner.reporter.limit_triggered("refused", error.reached, holder=error.holder)
            raise CommandRefused(b"UNAVAILABLE", CheckerUnavailable.text) from None
        finally:
            self._attempt = None

    def cancel_login(self) -> None:
        """End a login that waits for its password check or for its answer, because the connection has ended."""
        if self._attempt is not None:
            self._attempt.drop()
        if self._delay is not None:
            self._delay.cancel()

    async def login_sasl(
        self, mechanism: bytes, challenge: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        """Log in with one of `sasl_mechanisms`, as `twisted.mail.interfaces.IChallengeResponseIMAP` describes.

        Args:
            mechanism: the name of the SASL mechanism.
            challenge: sends a challenge and returns the client's response, both decoded.

        Raises:
            CommandRefused: as `login` does.
            BadCommand: the client cancelled, or sent a response that is invalid for the mechanism.
        """
        try:
            return await self._login_sasl(mechanism, challenge)
        finally:
            self._give_guess_back()

    async def _login_sasl(
        self, mechanism: bytes, challenge: Callable[[bytes], Awaitable[bytes]]
    ) -> IAccount:
        credentials = self._owner.challengers[mechanism]()
        if hasattr(credentials, "bind_channel"):
            credentials.bind_channel(channel_bindings(self._owner.transport))
        has_proof = sasl.IScramProof.providedBy(credentials)
        for step in count():
            response = await challenge(credentials.getChallenge())
            if has_proof and step == 1:
                # Before the proof is verified: the answer to a correct one is another challenge.
                self._begin_guess(self._resolve(credentials.username))
            try:
                credentials.setResponse(response)
            except IllegalClientResponse:
                raise BadCommand("Invalid SASL response") from None
            if not credentials.moreChallenges():
                break
        user = getattr(credentials, "username", b"")
        counted = self._resolve(user)
        if not has_proof:
            self._refuse_banned(counted)
        login = self._check_sasl(credentials, counted)
        try:
            secret = getattr(credentials, "token", None)
            # With a token, the name that the client gave proves nothing.
            is_proved = not sasl.IBearerToken.providedBy(credentials)
            values = login, user, mechanism.decode(), secret, counted, is_proved
            return await self._finish_login(*values)
        except CommandRefused:
            if hasattr(credentials, "failure"):  # RFC 7628 section 3.2.3: sent before the NO
                with suppress(BadCommand):  # whatever the client answers, also "*"
                    await challenge(credentials.failure())
            raise

    def _check_sasl(self, credentials: Any, user: bytes) -> Awaitable[Any] | None:
        """Return the result of `check_credentials`; None for an empty token, which reaches no checker.

        A proof of SCRAM is verified already, so it does not wait in the queue.
        """
        if getattr(credentials, "token", None) == b"":
            return None
        if sasl.IScramProof.providedBy(credentials):
            return self.check_credentials(credentials)
        return self._check_in_turn(user, lambda: self.check_credentials(credentials))

    def _refuse_banned(self, user: bytes) -> None:
        """Refuse a login that need not wait for its turn, because its password may not be looked at."""
        reached = self._owner.shared.admission.refuse_login(self._owner.counted, user)
        # What is only reported is reported by `_begin_guess`.
        if reached is not None and not self._owner.limits.reports_only(reached.limit):
            self._refuse(reached)

    def _begin_guess(self, user: bytes) -> None:
        """Count that a password of `user` is looked at now, or refuse it."""
        self._give_guess_back()
        guess = self._owner.shared.admission.begin_login(self._owner.counted, user)
        if not isinstance(guess, LimitReached):
            self._guess = guess
        elif self._owner.limits.reports_only(guess.limit):
            self._owner.reporter.limit_triggered("none", guess)
        else:
            self._refuse(guess)

    def _refuse(self, reached: LimitReached) -> None:
        self._owner.reporter.limit_triggered("refused", reached)
        text = "Too many failed logins of your network or user; try again later"
        if reached == BANNED:
            text = "Your network is banned for some time; try again later"
        raise CommandRefused(b"UNAVAILABLE", text)

    def _give_guess_back(self) -> None:
        guess, self._guess = self._guess, None
        if guess is not None:
            self._owner.shared.admission.not_a_guess(guess)

    async def _finish_login(
        self,
        login: Awaitable[Any] | None,
        user: bytes,
        mechanism: str,
        secret: bytes | None,
        counted: bytes,
        is_proved: bool = True,
    ) -> IAccount:
        """Wait for the result of `check_credentials`, and log the user in.

        Args:
            login: the result; None for an empty password or token, which fails without a checker.
            user: the name that the client gave.
            mechanism: the name of the SASL mechanism, or LOGIN.
            secret: the password or token; None if the client has not sent it.
            counted: the name that counts (`_resolve`).
            is_proved: whether a correct password proves that name.
        """
        owner = self._owner
        try:
            if login is None:
                raise UnauthorizedLogin
            interface, account, logout = await login
        except CheckerUnavailable as error:
            if error.may_be_wrong:
                await self._login_undecided(user, counted, mechanism, secret)
            if owner.closed:
                raise Disconnected from None
            owner.reporter.login_refused(user, mechanism, "unavailable", error.node)
            raise CommandRefused(b"UNAVAILABLE", error.text) from None
        except (LoginFailed, UnhandledCredentials):
            await self._login_failed(user, counted, mechanism, secret)
            raise CommandRefused(b"AUTHENTICATIONFAILED", "Authentication failed") from None
        if owner.closed:
            logout()
            raise Disconnected
        # The account knows the name of its user.
        name = getattr(account, "user", "") or user.decode("utf-8", "replace")
        proved = counted if is_proved else name.encode()
        reached = owner.shared.admission.login(owner.counted, name, proved)
        if reached is not None:
            logout()
            owner.reporter.limit_triggered("refused", reached)
            raise CommandRefused(b"LIMIT", "Too many connections; close another one first")
        if interface is IAccountIMAP:
            account = TwistedMailAccount(account, name)
        self._logout = logout
        owner.account, owner.state = account, "auth"
        owner.MAX_LENGTH = owner.limits.max_line_length
        owner.write_buffer.set_high_water_mark(owner.limits.max_unsent_bytes)
        peaks = peaks_of_login(owner)
        owner.guard.login()
        owner.memory.set_user(name)
        owner.restart_timeout()
        owner.reporter.logged_in(name, mechanism, self.tls)
        owner.reporter.report_peaks(peaks)
        master = self._ask_checker("master_of", user)
        if master:
            owner.reporter.master_logged_in(master)
        return cast("IAccount", account)

    def _digest(self, secret: bytes | None) -> bytes | None:
        """Return what failed logins are compared by; only they need it."""
        return secret and self._owner.shared.admission.guard.failures.digest(secret)

    async def _login_undecided(
        self, user: bytes, counted: bytes, mechanism: str, secret: bytes | None
    ) -> None:
        """Count a password about which the checker has not decided; many different ones count as wrong."""
        owner = self._owner
        digest = self._digest(secret)
        passwords = owner.shared.admission.login_undecided(owner.counted, counted, digest)
        if passwords:
            self._guess = None
        if passwords > FREE_PAIRS:
            await self._login_failed(user, counted, mechanism, secret)

    async def _login_failed(
        self, user: bytes, counted: bytes, mechanism: str, secret: bytes | None
    ) -> None:
        """Count a failed login, and wait as long as its answer is delayed.

        Raises:
            Disconnected: the address is banned now, or the client has left.
        """
        owner, number = self._owner, self._owner.reporter.open_number
        digest = self._digest(secret)
        failed, ban = owner.shared.admission.login_failed(owner.counted, counted, digest, number)
        if failed.is_guess:
            self._guess = None
        delay = 0.0 if ban is not None else failed.delay
        is_disabled = bool(self._ask_checker("is_disabled", user))
        owner.reporter.login_failed(user, mechanism, failed.repeated, delay, is_disabled)
        owner.guard.login_failed()
        if failed.banned_for is not None and ban is None:
            owner.reporter.limit_triggered("none", failed.banned_for)
        if ban is not None:
            owner.bye("Too many failed logins; try again later")
        self._delay = AnswerDelay(owner)
        await self._delay.wait(delay)
        if owner.closed:
            raise Disconnected

    def log_out(self) -> None:
        """Continue the connection without a user, with the limits that apply before login (RFC 8437)."""
        owner = self._owner
        report_user_peaks(owner)
        self.release_account()
        owner.shared.admission.logout(owner.counted)
        owner.reporter.user, owner.reporter.master, owner.state = "", "", "unauth"
        owner.MAX_LENGTH = owner.limits.preauth_line_length
        owner.write_buffer.set_high_water_mark(owner.limits.preauth_unsent_bytes)
        owner.guard.logout()
        owner.memory.set_user(None)
        owner.setTimeout(owner.limits.preauth_seconds)

    def release_account(self) -> None:
        """Call the logout function that came from the portal, if a user is logged in."""
        logout, self._logout, self._owner.account = self._logout, None, None
        if logout is not None:
            logout()
