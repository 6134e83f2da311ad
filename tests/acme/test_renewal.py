"""When the certificate is obtained and renewed, and what happens if that fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import enumerate as threads
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield import certificates
from imapshield.acme.acme_files import AcmeError, AcmeFiles, Issued
from imapshield.acme.renewal import (
    ATTEMPT_SECONDS,
    FIRST_RETRY,
    MAX_RETRY,
    Renewal,
    renewal_time,
    retry_seconds,
    run_in_daemon_thread,
)
from imapshield.certificates import Certificates, PairFiles
from tests.certificates import self_signed
from tests.handshakes import handshake, sent_certificates

HOST = "mail.example.org"
DAY = 86400.0


class Port:
    """Notes whether connections are accepted."""

    is_open = False

    def begin(self) -> None:
        self.is_open = True

    def end(self) -> None:
        self.is_open = False


class RenewalCase(SynchronousTestCase):
    """`outcomes` has what the authority does: a certificate for a host with a number of days, or an exception."""

    def setUp(self) -> None:
        self.patch(certificates, "SETTLED_SECONDS", 0)
        self.clock, self.begin = Clock(), datetime.now(UTC)
        self.files = AcmeFiles(str(Path(self.mktemp()).absolute()), "https://ca.example/dir")
        self.files.prepare()
        self.port = Port()
        self.outcomes: list[tuple[str, int] | Exception] = []
        self.asked: list[float] = []
        self.waiting: list[Deferred[Issued]] = []

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=self.clock.seconds())

    def make(self, run_in_thread: Callable[..., Deferred[Any]] = maybeDeferred) -> Renewal:
        own = Certificates(self.clock, maybeDeferred, self.now)
        pair = PairFiles(self.files.certificate, option="--acme x", is_automatic=True)
        own.main = own.add(pair)
        self.source = own.main
        port: Any = self.port
        arguments = [HOST], self.files, port, self.obtain, self.source, own, self.clock
        return Renewal(*arguments, run_in_thread, self.now, lambda: 0.5)

    def obtain(self) -> Issued:
        self.assertTrue(self.port.is_open)
        self.asked.append(self.clock.seconds())
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        host, days = outcome
        pem = b"".join(self_signed(host, days=days))
        self.files.save(pem)
        return Issued(pem, "")

    def run_for(self, seconds: float, step: float = 1800) -> list[str]:
        """Let time pass, and return what is logged."""
        with capturedLogs() as logged:
            for _ in range(round(seconds / step)):
                self.clock.advance(step)
        return [formatEvent(event) for event in logged]


class RenewalTests(RenewalCase):
    def test_first_certificate_and_renewal(self) -> None:
        """A missing certificate is asked for at once, and renewed after two thirds of its lifetime, a little later."""
        self.outcomes = [(HOST, 90), (HOST, 300)]
        self.make().start()
        lines = self.run_for(0.1, 0.1)
        self.assertEqual(self.asked, [0.1])
        self.assertIn("ca.example/dir has issued a certificate for mail.example.org", lines[-1])
        self.assertFalse(self.port.is_open)
        lines = self.run_for(70 * DAY)
        late = 90 * DAY * (2 / 3 + 0.005) - 2 * DAY  # the certificate was valid from two days ago
        self.assertEqual(len(self.asked), 2)
        self.assertTrue(late <= self.asked[1] < late + 3600, (self.asked, late))
        self.assertEqual([line for line in lines if "expires" in line], [])

    def test_certificate_that_is_there(self) -> None:
        """A certificate of an earlier run is used, and the authority is not asked before it is time."""
        self.files.save(b"".join(self_signed(HOST)))
        renewal = self.make()
        renewal.start()
        self.run_for(50 * DAY)
        self.assertEqual(self.asked, [])
        renewal.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_names(self) -> None:
        """If the option has a name that the certificate lacks, a new one is asked for at once."""
        self.files.save(b"".join(self_signed("old.example.org")))
        self.outcomes = [(HOST, 90)]
        self.make().start()
        self.run_for(1, 1)
        self.assertEqual(len(self.asked), 1)

    def test_failure(self) -> None:
        """A failure is one line with what to do; the next attempts are after times that double, up to a bound."""
        self.outcomes = [*[AcmeError("refused; open port 80.")] * 4, (HOST, 90)]
        self.make().start()
        lines = self.run_for(FIRST_RETRY * 8, 60)
        (first, *_) = lines = [line for line in lines if "no certificate" in line]
        self.assertEqual(
            first,
            "acme: no certificate for mail.example.org: refused; open port 80. TLS fails for all clients;"
            " next attempt in 5 min, or at once with `imapshield reload`",
        )
        self.assertEqual(self.asked, [60, 360, 960, 2160])
        self.run_for(FIRST_RETRY * 8, 60)
        self.assertEqual(self.asked[4:], [4560])
        self.assertEqual([retry_seconds(n, 0.5) for n in (1, 2, 9999)], [300, 600, MAX_RETRY])
        self.assertEqual([round(retry_seconds(1, chance)) for chance in (0, 1)], [240, 360])

    def test_earlier_certificate_stays(self) -> None:
        """If the renewal fails, the earlier certificate stays in use, and the log says so, in time also when it ends."""
        pem, key = self_signed(HOST, days=12)
        self.files.save(pem + key)
        self.outcomes = [OSError(28, "No space left", "/x"), *[AcmeError("down")] * 99]
        self.make().start()
        lines = self.run_for(9 * DAY)
        failed = [line for line in lines if "no certificate" in line]
        self.assertIn(
            ": /x: No space left; free or repair it. The earlier one stays in use", failed[0]
        )
        client = handshake(self.source.serverConnectionForTLS(None))
        self.assertEqual(sent_certificates(client), [pem])

    def test_warning_of_the_end(self) -> None:
        """The log warns when a fifth of the lifetime is left: until then the renewal has had its time."""
        self.files.save(b"".join(self_signed(HOST, days=10)))
        self.outcomes = [AcmeError("down")] * 99
        renewal = self.make()
        renewal.start()
        own = renewal._certificates
        for days, count in ((5.9, 0), (0.2, 1)):
            self.clock.advance(days * DAY)
            with capturedLogs() as logged:
                own.warn_of_expiry()
            warned = [e for e in logged if "expires in" in formatEvent(e)]
            self.assertEqual(len(warned), count)

    def test_reload_ends_the_wait(self) -> None:
        """A reload after a failure asks at once, and only after a failure."""
        self.outcomes = [AcmeError("down"), (HOST, 90)]
        renewal = self.make()
        renewal.start()
        self.run_for(1, 1)
        self.successResultOf(Deferred.fromCoroutine(renewal.retry()))
        self.run_for(1, 1)
        self.assertEqual(self.asked, [1, 2])
        self.successResultOf(Deferred.fromCoroutine(renewal.retry()))
        self.run_for(3600)
        self.assertEqual(len(self.asked), 2)

    def test_useless_certificate(self) -> None:
        """A certificate without the name, or one that is too old when it comes, is a failure as any other."""
        for outcome in (("other.example.org", 90), (HOST, 2)):
            self.outcomes, self.asked = [outcome] * 9, []
            begin, renewal = self.clock.seconds(), self.make()
            renewal.start()
            lines = self.run_for(FIRST_RETRY * 8, 60)
            self.assertIn("check the clock of this machine", lines[-1])
            self.assertEqual([asked - begin for asked in self.asked], [60, 360, 960, 2160])
            renewal.stop()

    def test_clock_that_is_far_ahead(self) -> None:
        """If each certificate is too old when it comes, a day has nine orders. A good one ends the count."""
        self.outcomes = [(HOST, 2)] * 99
        self.make().start()
        self.run_for(DAY, 60)
        self.assertEqual(len(self.asked), 9)
        self.outcomes = [(HOST, 90), AcmeError("down"), AcmeError("down"), (HOST, 400)]
        self.run_for(DAY)
        self.assertEqual(len(self.asked), 10)
        self.run_for(90 * DAY)
        _, first, second, third = self.asked[9:]
        self.assertTrue(0 <= second - first - FIRST_RETRY < 1800, self.asked)
        self.assertTrue(0 <= third - second - 2 * FIRST_RETRY < 1800, self.asked)

    def test_unusable_certificate(self) -> None:
        """If the file cannot be used, that is the failure, and the waits become longer."""

        def obtain() -> Issued:
            self.asked.append(self.clock.seconds())
            self.files.save(b"nonsense")
            return Issued(b"", "")

        renewal = self.make()
        renewal._obtain = obtain
        renewal.start()
        lines = self.run_for(FIRST_RETRY * 8, 60)
        self.assertIn("--acme x: no PEM certificate in it", " ".join(lines))
        self.assertEqual(self.asked, [60, 360, 960, 2160])

    def test_problem_of_another_certificate(self) -> None:
        """A certificate that the server does not obtain may be damaged: that is no failure of this one."""
        other = Path(self.mktemp()).absolute()
        other.write_bytes(b"".join(self_signed()))
        self.outcomes = [(HOST, 90)]
        renewal = self.make()
        renewal._certificates.add(PairFiles(str(other)))
        other.write_bytes(b"nonsense")
        renewal.start()
        lines = self.run_for(60, 1)
        self.assertIn("has issued a certificate", lines[-1])

    def test_error_after_the_thread(self) -> None:
        """An error in what follows the thread, and one of the port, is in the log, and counted."""
        for broken in ("reload_one", "end"):
            self.outcomes, self.asked = [(HOST, 2)] * 9, []
            begin, renewal = self.clock.seconds(), self.make()
            owner: Any = self.port if broken == "end" else renewal._certificates
            self.patch(owner, broken, lambda *_: 1 / 0)
            renewal.start()
            self.run_for(FIRST_RETRY * 4, 60)
            self.assertEqual([asked - begin for asked in self.asked], [60, 360, 960])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
            renewal.stop()

    def test_authority_that_never_ends(self) -> None:
        """An attempt ends after a time, and the port with it. What comes later is ignored, and there is a next one."""
        results: list[Deferred[Issued]] = []

        def run(_: object) -> Deferred[Issued]:
            results.append(Deferred())
            return results[-1]

        self.make(run).start()
        lines = self.run_for(ATTEMPT_SECONDS + 60, 60)
        self.assertIn("ca.example/dir has not finished within 900 s; check", lines[-1])
        self.assertFalse(self.port.is_open)
        results[0].callback(Issued(b"", ""))
        self.run_for(FIRST_RETRY, 60)
        self.assertEqual(len(results), 2)
        self.assertTrue(self.port.is_open)

    def test_unexpected_error(self) -> None:
        """An unexpected error is in the log, and a failure like any other."""
        self.outcomes = [ZeroDivisionError(), (HOST, 90)]
        self.make().start()
        lines = self.run_for(3600, 1)
        self.assertIn("internal error; the log has it", " ".join(lines))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.asked, [1, 301])

    def test_stop_while_the_authority_is_asked(self) -> None:
        """What comes after the end of the server is ignored."""
        results: list[Deferred[Issued]] = []

        def run(_: object) -> Deferred[Issued]:
            results.append(Deferred())
            return results[-1]

        renewal = self.make(run)
        renewal.start()
        self.clock.advance(0)
        self.successResultOf(Deferred.fromCoroutine(renewal.retry()))
        renewal.stop()
        results[0].callback(Issued(b"", ""))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.port.is_open)

    def test_clock_that_is_set(self) -> None:
        """The renewal is when the clock of the machine says so, even if somebody has set it."""
        self.files.save(b"".join(self_signed(HOST)))
        self.outcomes = [(HOST, 300)]
        self.make().start()
        self.begin += timedelta(days=70)
        self.run_for(3600)
        self.assertEqual(len(self.asked), 1)


class NoCertificateTests(RenewalCase):
    def test_handshake_fails_at_once(self) -> None:
        """Before the first certificate, a client that begins TLS is refused; it is not left without TLS."""
        self.make()
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            peer = self.source.serverConnectionForTLS(None)
            self.assertRaises(SSL.Error, handshake, peer, version=version)

    def test_renewal_time(self) -> None:
        """The time of renewal is between two thirds of the lifetime and a hundredth more."""
        self.files.save(b"".join(self_signed(HOST, days=90)))
        self.make()
        (certificate,) = self.source.certificates
        for chance, days in ((0, 60), (1, 60.9)):
            self.assertEqual(
                renewal_time(certificate, chance), certificate.starts + timedelta(days)
            )


class ThreadTests(SynchronousTestCase):
    def test_results_come_in_the_reactor(self) -> None:
        """The result of the thread, or its exception, reaches the Deferred through the reactor."""
        calls: list[tuple[Any, ...]] = []

        class Reactor:
            def callFromThread(self, *call: Any) -> None:
                calls.append(call)

        def fail() -> None:
            raise ZeroDivisionError

        for function in (lambda: 7, fail):
            result = run_in_daemon_thread(Reactor(), function)
            for thread in [each for each in threads() if each.name == "acme"]:
                self.assertTrue(thread.daemon)
                thread.join()
            call, outcome = calls.pop()
            call(outcome)
            if function is fail:
                self.failureResultOf(result, ZeroDivisionError)
            else:
                self.assertEqual(self.successResultOf(result), 7)
