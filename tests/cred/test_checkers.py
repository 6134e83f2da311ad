"""The password file checker verifies passwords in threads, bounded and cached; the chain tries several checkers."""

import os
import threading
from collections.abc import Sequence
from typing import Any
from unittest import mock

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from imapshield.cred import checkers, passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import CheckerUnavailable, PasswordFile, TooManyLogins
from imapshield.testing import Server
from tests.cred.fakes import FakePool, FakeReactor

ALICE = passwords.hash_scrypt(b"secret", ln=2)
BOB = passwords.hash_scrypt(b"other", ln=2)


class PasswordFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        users.set_hash(self.path, "alice", ALICE)
        self.reactor = FakeReactor()
        self.pool, self.reading_pool = FakePool(), FakePool()
        self.checker = PasswordFile(
            self.path,
            reactor=self.reactor,
            pool=self.pool,
            reading_pool=self.reading_pool,
            max_pending=3,
        )
        self.logged: list[dict[str, Any]] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def check(self, user: bytes, password: bytes) -> Deferred[Any]:
        return self.checker.requestAvatarId(UsernamePassword(user, password))

    def accepts(self, user: bytes, password: bytes) -> None:
        self.assertEqual(self.successResultOf(self.check(user, password)), user)

    def refuses(
        self, user: bytes, password: bytes, error: type[Exception] = UnauthorizedLogin
    ) -> Failure:
        failure: Failure = self.failureResultOf(self.check(user, password), error)
        return failure

    def warnings(self) -> list[dict[str, Any]]:
        return [e for e in self.logged if e["log_level"] is LogLevel.warn and "path" in e]

    def test_password_file_is_a_checker(self) -> None:
        """PasswordFile is a checker of twisted.cred."""
        verifyObject(ICredentialsChecker, self.checker)

    def test_only_the_correct_password_is_accepted(self) -> None:
        """The correct password gives the user name; anything else gives the same error."""
        self.accepts(b"alice", b"secret")
        for user, password in (
            (b"alice", b"Secret"),
            (b"alice", b""),
            (b"Alice", b"secret"),
            (b"bob", b"secret"),
            (b"\xff", b"x"),
            (b"", b""),
        ):
            self.refuses(user, password)

    def test_unknown_user_costs_one_hash(self) -> None:
        """The check of an unknown user computes one hash too, and refuses even a password that matches it."""
        with mock.patch.object(passwords, "verify", wraps=passwords.verify) as verify:
            self.refuses(b"nobody", b"secret")
        self.assertEqual(verify.call_count, 1)

    def test_scram_requires_secrets_for_all_users(self) -> None:
        """SCRAM can be offered while all users have SCRAM secrets, with which plain passwords work as well."""
        self.assertFalse(self.checker.ready)
        stored = passwords.hash_scram(b"secret", iterations=4096)
        users.set_hash(self.path, "alice", stored)
        self.checker.load()
        self.assertTrue(self.checker.ready)
        self.assertEqual(self.checker.secret(b"alice"), passwords.parse_scram(stored))
        self.accepts(b"alice", b"secret")
        self.refuses(b"alice", b"Secret")
        users.set_hash(self.path, "bob", BOB)
        self.checker.load()
        self.assertFalse(self.checker.ready)
        self.assertNotEqual(self.checker.secret(b"alice"), passwords.parse_scram(stored))
        users.remove(self.path, "bob")
        self.checker.load()
        self.assertTrue(self.checker.ready)
        os.unlink(self.path)
        self.checker.load()
        self.assertFalse(self.checker.ready)

    def test_the_first_question_reads_the_file(self) -> None:
        """Who does not load the file learns after the first question whether SCRAM can be offered."""
        users.set_hash(self.path, "alice", passwords.hash_scram(b"secret", iterations=4096))
        self.reading_pool.paused = True
        self.assertFalse(self.checker.ready)
        self.reading_pool.run_pending()
        self.assertTrue(self.checker.ready)

    def test_a_file_that_does_not_answer_stops_nothing(self) -> None:
        """While a thread waits for the file, logins wait some seconds and then use what was read last."""
        self.accepts(b"alice", b"secret")
        self.reading_pool.paused = True
        users.set_hash(self.path, "alice", BOB)
        logins = [self.check(b"alice", b"secret") for _ in range(2)]
        self.assertFalse(self.checker.ready)
        self.assertTrue(self.checker.has_user(b"alice"))
        self.assertNoResult(logins[0])
        self.reactor.advance(checkers.READ_SECONDS)
        for login in logins:
            self.assertEqual(self.successResultOf(login), b"alice")
        self.accepts(b"alice", b"secret")
        self.assertEqual(len(self.reading_pool.jobs), 1)
        (warning,) = self.warnings()
        self.assertIn("not read within 5 seconds", formatEvent(warning))
        self.reading_pool.paused = False
        self.reading_pool.run_pending()
        self.refuses(b"alice", b"secret")

    def test_a_login_that_ends_while_the_file_is_read(self) -> None:
        """A login that the server gives up says nothing about the file, and later logins wait for it."""
        self.reading_pool.paused = True
        first, second = self.check(b"alice", b"secret"), self.check(b"alice", b"secret")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.assertEqual(self.warnings(), [])
        self.reading_pool.run_pending()
        self.assertEqual(self.successResultOf(second), b"alice")

    def test_a_fifo_is_an_unreadable_file(self) -> None:
        """A FIFO in place of the file makes no thread wait: passwords cannot be checked, and the log says why."""
        os.unlink(self.path)
        os.mkfifo(self.path)
        self.refuses(b"alice", b"secret", CheckerUnavailable)
        (warning,) = self.warnings()
        self.assertIn("Not a regular file", formatEvent(warning))

    def test_users_because_of_whom_scram_is_not_offered_are_logged(self) -> None:
        """If some users have SCRAM secrets, the log names one who has none."""
        users.set_hash(self.path, "bob", passwords.hash_scram(b"x", iterations=4096))
        self.checker.load()
        (warning,) = self.warnings()
        advice = f"`imapshield passwd --scram {self.checker.path} alice` stores one"
        text = f"SCRAM is not offered, because alice has no SCRAM secret; {advice}"
        self.assertIn(text, formatEvent(warning))

    def test_disabled_user_is_refused_like_an_unknown_one(self) -> None:
        """A disabled user is refused at the cost of one hash, also while the password is cached."""
        self.accepts(b"alice", b"secret")
        users.set_disabled(self.path, "alice", is_disabled=True)
        with mock.patch.object(passwords, "verify", wraps=passwords.verify) as verify:
            users.set_hash(self.path, "bob", BOB)
            self.refuses(b"alice", b"secret")
        self.assertEqual(verify.call_count, 1)
        self.assertTrue(self.checker.has_user(b"alice"))
        users.set_disabled(self.path, "alice", is_disabled=False)
        self.accepts(b"alice", b"secret")

    def test_unknown_user_has_a_constant_salt(self) -> None:
        """An unknown user has a constant salt and the iterations of some known user, and no password matches."""
        for name, iterations in (("alice", 4096), ("bob", 5000)):
            users.set_hash(self.path, name, passwords.hash_scram(b"x", iterations=iterations))
        self.checker.load()
        unknown = [b"nobody%d" % i for i in range(40)] + [b"", b"\xff", b".."]
        secrets = {user: self.checker.secret(user) for user in unknown}
        self.assertEqual({s.iterations for s in secrets.values()}, {4096, 5000})
        for user, secret in secrets.items():
            again = self.checker.secret(user)
            self.assertEqual(secret[:2], again[:2])
            self.assertEqual(len(secret.salt), 16)
            self.assertNotEqual(secret.stored_key, again.stored_key)

    def test_empty_file_accepts_nobody(self) -> None:
        """With an empty file nobody can log in, and the log says so when the file is loaded."""
        users.remove(self.path, "alice")
        self.checker.load()
        (warning,) = self.warnings()
        text = f"no users; nobody can log in; add a user with `imapshield passwd {self.checker.path} USER`"
        self.assertEqual(formatEvent(warning), f"{self.checker.path}: {text}")
        self.refuses(b"alice", b"secret")

    def test_hashes_whose_package_is_not_installed(self) -> None:
        """Such users cannot be checked now, which is no wrong password. The log says what to install."""
        for name, value in (("_argon2", None), ("_import_argon2", lambda: None)):
            self.patch(passwords, name, value)
        self.addCleanup(setattr, passwords, "_next_attempt", 0.0)
        for name in ("carol", "dave"):
            users.set_hash(self.path, name, "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAA$AAAA")
        self.checker.decoy_key = b"k"
        self.refuses(b"carol", b"secret", CheckerUnavailable)
        self.accepts(b"alice", b"secret")
        # As unknown users: who gets which answer does not tell who exists.
        found = {type(self.failureResultOf(self.check(b"u%d" % n, b"x")).value) for n in range(9)}
        self.assertEqual(found, {CheckerUnavailable, UnauthorizedLogin})
        (warning,) = self.warnings()
        text = formatEvent(warning)
        self.assertRegex(text, "carol and 1 more cannot log in: argon2-cffi is not installed; type")
        self.assertEqual(CheckerChain([self.checker]).outages(), [text])
        self.assertIn("imapshield[argon2]", text)
        users.remove(self.path, "alice")
        self.refuses(b"nobody", b"secret", CheckerUnavailable)
        self.assertIn(": nobody can log in; carol and 1 more cannot", self.checker.outage)
        os.unlink(self.path)
        self.checker.load()
        self.assertIn("No such file", self.checker.outage)

    def test_package_that_is_installed_later(self) -> None:
        """A package that is installed while the server runs is used for hashes that are read later."""
        self.patch(passwords, "ARGON2", {"time_cost": 1, "memory_cost": 8, "parallelism": 1})
        dave = passwords.hash_password(b"secret")
        self.patch(passwords, "_argon2", None)
        self.patch(passwords, "_next_attempt", 0.0)
        with mock.patch.object(passwords, "_import_argon2", return_value=None) as attempt:
            for name in ("dave", "erin"):
                users.set_hash(self.path, name, dave)
                self.refuses(name.encode(), b"secret", CheckerUnavailable)
        attempt.assert_called_once_with()
        passwords._next_attempt = 0.0
        users.remove(self.path, "erin")
        self.accepts(b"dave", b"secret")
        self.assertEqual(self.checker.outage, "")

    def test_result_comes_after_a_thread_has_worked(self) -> None:
        """The result comes only after a thread has done the work."""
        self.pool.paused = True
        result = self.check(b"alice", b"secret")
        self.assertNoResult(result)
        self.pool.run_pending()
        self.assertEqual(self.successResultOf(result), b"alice")

    def test_check_beyond_the_maximum_fails_as_busy(self) -> None:
        """With the maximum of pending checks, the next one fails at once, as "busy" and not as "wrong"."""
        self.pool.paused = True
        pending = [self.check(b"alice", b"wrong") for _ in range(3)]
        failure = self.refuses(b"alice", b"secret", TooManyLogins)
        self.assertIsInstance(failure.value, LoginFailed)
        self.assertNotIsInstance(failure.value, UnauthorizedLogin)
        self.pool.run_pending()
        for result in pending:
            self.failureResultOf(result, UnauthorizedLogin)
        self.pool.paused = False
        self.accepts(b"alice", b"secret")

    def test_second_login_computes_no_hash(self) -> None:
        """A second login with the same password computes no hash, and succeeds even if the pool is full."""
        self.accepts(b"alice", b"secret")
        self.pool.paused = True
        pending = [self.check(b"alice", b"wrong") for _ in range(3)]
        self.accepts(b"alice", b"secret")
        self.assertEqual(self.pool.jobs_run, 1)
        self.pool.run_pending()
        for result in pending:
            self.failureResultOf(result, UnauthorizedLogin)

    def test_wrong_password_is_not_cached(self) -> None:
        """A wrong password between two correct ones is refused."""
        self.accepts(b"alice", b"secret")
        self.refuses(b"alice", b"wrong")
        self.accepts(b"alice", b"secret")

    def test_is_cached(self) -> None:
        """`is_cached` is true only of a correct password that was checked recently; it computes no hash."""
        alice = UsernamePassword(b"alice", b"secret")
        self.assertFalse(self.checker.is_cached(alice))
        self.accepts(b"alice", b"secret")
        self.assertTrue(self.checker.is_cached(alice))
        self.assertFalse(self.checker.is_cached(UsernamePassword(b"alice", b"wrong")))
        self.assertFalse(self.checker.is_cached(UsernamePassword(b"../alice", b"secret")))
        self.assertEqual(self.pool.jobs_run, 1)

    def test_cache_expires_after_five_minutes(self) -> None:
        """After five minutes the password is verified again."""
        self.accepts(b"alice", b"secret")
        self.reactor.advance(checkers.CACHE_SECONDS + 1)
        self.accepts(b"alice", b"secret")
        self.assertEqual(self.pool.jobs_run, 2)

    def test_cache_holds_the_most_recent_logins_only(self) -> None:
        """The cache holds the most recent logins only, as keyed hashes and not as passwords."""
        with mock.patch.object(checkers, "CACHE_SIZE", 2):
            for name in ("alice", "bob", "carol"):
                users.set_hash(self.path, name, ALICE)
            for user in (b"alice", b"bob", b"carol"):
                self.accepts(user, b"secret")
        self.assertEqual(list(self.checker._cache), ["bob", "carol"])
        self.assertNotIn("secret", repr(self.checker._cache))

    def test_changed_password_takes_effect_at_once(self) -> None:
        """A password that is changed in the file takes effect at once, despite the cache."""
        self.accepts(b"alice", b"secret")
        users.set_hash(self.path, "alice", BOB)
        self.refuses(b"alice", b"secret")
        self.accepts(b"alice", b"other")

    def test_removed_user_cannot_log_in(self) -> None:
        """A user who is removed from the file cannot log in any more, despite the cache."""
        self.accepts(b"alice", b"secret")
        users.remove(self.path, "alice")
        self.refuses(b"alice", b"secret")

    def test_unchanged_file_is_not_read_again(self) -> None:
        """An unchanged file is not read again."""
        self.refuses(b"alice", b"1")
        with mock.patch.object(users, "parse", side_effect=AssertionError):
            self.refuses(b"alice", b"2")

    def test_unreadable_file_makes_logins_fail_as_busy(self) -> None:
        """Without the file, logins fail as "busy" with one line in the log, and work again when it is back."""
        os.rename(self.path, self.path + ".away")
        self.refuses(b"alice", b"secret", CheckerUnavailable)
        self.refuses(b"alice", b"secret", CheckerUnavailable)
        self.assertEqual(len(self.warnings()), 1)
        os.rename(self.path + ".away", self.path)
        self.accepts(b"alice", b"secret")

    def test_plain_text_password_is_useless_and_never_logged(self) -> None:
        """A plain text password in the file is useless, logged once by its line number, and never itself logged."""
        with open(self.path, "ab") as file:
            file.write(b"bob:hunter2\n")
        self.refuses(b"bob", b"hunter2")
        self.refuses(b"bob", b"hunter2")
        self.accepts(b"alice", b"secret")
        (event,) = self.warnings()
        self.assertIn("line 2", event["problems"])
        self.assertNotIn("hunter2", repr(event))

    def test_close_stops_the_threads_once(self) -> None:
        """Closing stops the threads once; pending and later logins fail as "busy"."""
        self.pool.paused = True
        result = self.check(b"alice", b"secret")
        *_, shutdown_trigger = self.reactor.triggers
        self.checker.close()
        shutdown_trigger()
        self.assertEqual(self.pool.state, "stopped")
        self.pool.run_pending()
        self.failureResultOf(result, CheckerUnavailable)
        self.refuses(b"alice", b"secret", CheckerUnavailable)

    def test_close_of_an_unused_checker_stops_no_threads(self) -> None:
        """A checker that was never used has no threads to stop."""
        self.checker.close()
        self.assertEqual(self.pool.state, "new")

    def test_unexpected_error_is_busy_for_the_client(self) -> None:
        """An unexpected error is "busy" for the client and a traceback in the log."""
        with mock.patch.object(passwords, "verify", side_effect=MemoryError):
            self.refuses(b"alice", b"secret", CheckerUnavailable)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)


class RealThreadTests(TestCase):
    async def test_hashing_runs_in_another_thread(self) -> None:
        """With a real pool, hashing runs in another thread."""
        path = self.mktemp()
        users.set_hash(path, "alice", ALICE)
        checker = PasswordFile(path, reactor=reactor)
        self.addCleanup(checker.close)
        threads = []

        def verify(stored: str, password: bytes) -> bool:
            threads.append(threading.current_thread())
            return True

        self.patch(passwords, "verify", verify)
        self.assertEqual(await checker.requestAvatarId(UsernamePassword(b"alice", b"x")), b"alice")
        self.assertIsNot(threads[0], threading.main_thread())


class FixedChecker:
    """A checker that gives one result for all credentials."""

    def __init__(
        self, result: bytes | Exception, interfaces: Sequence[Any] = (IUsernamePassword,)
    ) -> None:
        self.result = result
        self.credentialInterfaces = interfaces

    def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
        return fail(self.result) if isinstance(self.result, Exception) else succeed(self.result)


class ClientTextTests(SynchronousTestCase):
    def test_texts(self) -> None:
        """A client learns whether the passwords cannot be checked or there are too many logins, and nothing else."""
        for error, text in (
            (CheckerUnavailable("LDAP is down"), b"Cannot check passwords now; try again later"),
            (TooManyLogins(), b"Too many simultaneous logins; try again later"),
        ):
            checker: Any = FixedChecker(error)
            answer = Server(checker=checker).connect()(b"a LOGIN alice secret")
            self.assertEqual(answer, b"a NO [UNAVAILABLE] %b\r\n" % text)


class CheckerChainTests(SynchronousTestCase):
    def check(self, *results: bytes | Exception) -> Deferred[Any]:
        chain = CheckerChain([FixedChecker(result) for result in results])
        return chain.requestAvatarId(UsernamePassword(b"a", b"b"))

    def test_first_accepting_checker_decides(self) -> None:
        """The first checker that accepts the credentials decides."""
        result = self.check(UnauthorizedLogin(), CheckerUnavailable(), b"x", b"y")
        self.assertEqual(self.successResultOf(result), b"x")

    def test_login_is_refused_if_no_checker_accepts(self) -> None:
        """If all refuse, the login is refused; if one is busy and none accepts, the chain is busy."""
        refused, busy = UnauthorizedLogin(), CheckerUnavailable()
        self.failureResultOf(self.check(refused, UnauthorizedLogin()), UnauthorizedLogin)
        self.failureResultOf(self.check(refused, busy, UnauthorizedLogin()), CheckerUnavailable)

    def test_is_cached_asks_the_first_checker_of_passwords(self) -> None:
        """A password is cached if the first checker of passwords has cached it; a later one would answer too late."""
        credentials = UsernamePassword(b"alice", b"secret")
        caching, other = FixedChecker(b"alice"), FixedChecker(b"alice")
        caching.is_cached = lambda given: given is credentials  # type: ignore[attr-defined]
        anonymous = FixedChecker(b"alice", (IAnonymous,))
        for chain, expected in (
            ([anonymous, caching, other], True),
            ([other, caching], False),
            ([anonymous], False),
        ):
            self.assertEqual(CheckerChain(chain).is_cached(credentials), expected)

    def test_checkers_get_only_credentials_they_accept(self) -> None:
        """The chain accepts the credentials of all its checkers, and calls only those that accept them."""
        chain = CheckerChain([FixedChecker(b"anonymous", (IAnonymous,)), FixedChecker(b"named")])
        verifyObject(ICredentialsChecker, chain)
        self.assertEqual(len(chain.credentialInterfaces), 2)
        result = chain.requestAvatarId(UsernamePassword(b"a", b"b"))
        self.assertEqual(self.successResultOf(result), b"named")
