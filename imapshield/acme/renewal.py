"""`Renewal`: obtains the certificate of ``--acme`` when there is none, and renews it after two thirds of its lifetime.

Rules
-----
* What waits for the authority runs in a thread of its own, which does not keep the process from ending.
* After `ATTEMPT_SECONDS` an attempt has failed, whatever the authority still sends. Its thread is left alone.
* A failure is one line in the log, with what to do. The earlier certificate stays in use.
* A certificate that cannot be used is a failure, too. The failures are counted until a certificate can be used.
* The time until the next attempt doubles, and differs from server to server: after an outage of the authority, not all
  servers of the world ask in the same second. SIGHUP and ``imapshield reload`` end the wait.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import random
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.acme.acme_files import AcmeError, AcmeFiles, Issued
from imapshield.acme.challenge_port import ChallengePort
from imapshield.certificates import Certificates, CertificateSource
from imapshield.tls import Certificate

FIRST_RETRY = 300.0
"""Seconds after the first failure. Let's Encrypt permits five failures of a name in an hour."""

MAX_RETRY = 12 * 3600.0
"""Seconds between two attempts, at most."""

ATTEMPT_SECONDS = 900.0
"""Seconds for one attempt, with DNS and all requests. An order alone may take `acme_client.MAX_SECONDS`."""

CHECK_SECONDS = 3600.0
"""Seconds after which the clock is read again: somebody may set it, and a laptop may sleep."""

JITTER = 0.01
"""Part of the lifetime by which a renewal may be later: most of a day for a certificate of 90 days."""

_log = Logger(namespace="imapshield")


def renewal_time(certificate: Certificate, chance: float) -> datetime:
    """Return when to renew a certificate; `chance` is from 0 to 1."""
    lifetime = certificate.expires - certificate.starts
    return certificate.starts + lifetime * (2 / 3 + JITTER * chance)


def retry_seconds(failures: int, chance: float) -> float:
    """Return the seconds to wait after a number of failures; `chance` is from 0 to 1."""
    return min(MAX_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 20)) * (0.8 + 0.4 * chance)


class Renewal:
    """Keeps one certificate valid.

    Args:
        names: the names of the server.
        files: where the certificate is.
        port: answers the authority.
        obtain: returns a new certificate, or raises `AcmeError`. Called in a thread.
        source: the certificate in use.
        certificates: those of the server, to which `source` belongs.
        clock: an `IReactorTime`.
        run_in_thread: calls a function in a thread.
        now: returns the time of day.
        chance: returns a random number from 0 to 1.
    """

    def __init__(
        self,
        names: Sequence[str],
        files: AcmeFiles,
        port: ChallengePort,
        obtain: Callable[[], Issued],
        source: CertificateSource,
        certificates: Certificates,
        clock: Any,
        run_in_thread: Callable[[Callable[[], Issued]], Deferred[Issued]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random,
    ) -> None:
        self._names, self._files, self._port, self._obtain = names, files, port, obtain
        self._source, self._certificates, self._clock = source, certificates, clock
        self._run_in_thread, self._now, self._chance = run_in_thread, now, chance
        self._failures = 0
        self._lateness = chance()
        self._call: Any = None
        self._is_running = self._is_stopped = False
        self._not_before = clock.seconds()

    def start(self) -> None:
        """Begin. A certificate that is missing or late is asked for at once."""
        if not self._source.certificates:
            _log.warn(
                "acme: there is no certificate yet for {names}; TLS fails for all clients until {server} has issued it",
                names=",".join(self._names),
                server=self._files.server,
            )
        self._schedule()

    def stop(self) -> None:
        """End. What an authority still sends is ignored."""
        self._is_stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def retry(self) -> list[str]:
        """Do not wait for longer after a failure. Returns no problems, because it does not wait for the authority."""
        if self._failures and not self._is_running and not self._is_stopped:
            self._not_before = self._clock.seconds()
            self._schedule()
        return []

    def seconds_to_wait(self) -> float:
        """Return the seconds until the next attempt; 0 or less for now."""
        return max(self._seconds_to_renewal(), float(self._not_before - self._clock.seconds()))

    def _seconds_to_renewal(self) -> float:
        """Return the seconds after which the certificate in use is not good enough; 0 or less if it is not now."""
        found = self._source.certificates
        if not found or not {*found[0].names} >= {name.encode() for name in self._names}:
            return 0.0
        return (renewal_time(found[0], self._lateness) - self._now()).total_seconds()

    def _schedule(self) -> None:
        if self._call is not None:
            self._call.cancel()
        wait = min(max(self.seconds_to_wait(), 0), CHECK_SECONDS)
        self._call = self._clock.callLater(wait, self._check)

    def _check(self) -> None:
        self._call = None
        if self.seconds_to_wait() > 0:
            self._schedule()
            return
        self._is_running = True
        attempt = Deferred.fromCoroutine(self._attempt())
        attempt.addBoth(self._ended).addErrback(
            lambda failure: _log.failure("error in acme", failure)
        )

    async def _attempt(self) -> Issued:
        """Obtain a certificate, and use it."""
        self._port.begin()
        try:
            obtaining = self._run_in_thread(self._obtain)
            issued = await obtaining.addTimeout(ATTEMPT_SECONDS, self._clock, self._too_slow)
        finally:
            self._port.end()
        if not self._is_stopped:
            problem = await self._certificates.reload_one(self._source)
            if problem:
                raise AcmeError(problem)
            if self._seconds_to_renewal() <= 0:
                raise AcmeError(
                    "what was issued lacks a name, or is too old; check the clock of this machine"
                )
        return issued

    def _too_slow(self, _: object, seconds: float) -> Issued:
        raise AcmeError(
            f"{self._files.server} has not finished within {seconds:.0f} s; check the network and --acme-server"
        )

    def _ended(self, outcome: Issued | Failure) -> None:
        self._is_running = False
        if self._is_stopped:
            return
        if isinstance(outcome, Failure):
            self._failed(self._problem(outcome))
        else:
            self._failures, self._lateness = 0, self._chance()
            _log.info(
                "acme: {server} has issued a certificate for {names}; its terms of service: {terms}",
                server=self._files.server,
                names=",".join(self._names),
                terms=outcome.terms or "none",
            )
        self._schedule()

    def _problem(self, failure: Failure) -> str:
        error = failure.value
        if isinstance(error, AcmeError):
            return str(error)
        if isinstance(error, OSError):
            where = error.filename or self._files.directory
            return f"{where}: {error.strerror}; free or repair it"
        _log.failure("error in acme", failure)
        return "internal error; the log has it"

    def _failed(self, problem: str) -> None:
        self._failures += 1
        wait = retry_seconds(self._failures, self._chance())
        self._not_before = self._clock.seconds() + wait
        has_one = bool(self._source.certificates)
        _log.error(
            "acme: no certificate for {names}: {problem}. {state}; next attempt in {minutes} min, or at once with"
            " `imapshield reload`",
            names=",".join(self._names),
            problem=problem.rstrip("."),
            state="The earlier one stays in use" if has_one else "TLS fails for all clients",
            minutes=round(wait / 60),
        )


def run_in_daemon_thread(reactor: Any, function: Callable[[], Any]) -> Deferred[Any]:
    """Call a function in a thread that does not keep the process from ending."""
    result: Deferred[Any] = Deferred()

    def run() -> None:
        try:
            outcome = function()
        except BaseException:
            outcome = Failure()
        reactor.callFromThread(result.callback, outcome)

    Thread(target=run, name="acme", daemon=True).start()
    return result
