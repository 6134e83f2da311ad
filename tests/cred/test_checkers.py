import os
import threading
from unittest import mock

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.defer import fail, succeed
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from imapshield.cred import checkers, passwords, users
from imapshield.cred.checkers import Busy, CheckerChain, PasswordFile
from tests.cred.fakes import Pool, Reactor

ALICE = passwords.hash_scrypt(b"secret", ln=2)
BOB = passwords.hash_scrypt(b"other", ln=2)


class PasswordFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        users.set_hash(self.path, "alice", ALICE)
        self.reactor = Reactor()
        self.pool = Pool()
        self.checker = PasswordFile(self.path, reactor=self.reactor, pool=self.pool, waiting=3)
        self.logged = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def ask(self, user, password):
        return self.checker.requestAvatarId(UsernamePassword(user, password))

    def accepts(self, user, password) -> None:
        self.assertEqual(self.successResultOf(self.ask(user, password)), user)

    def refuses(self, user, password, why=UnauthorizedLogin):
        return self.failureResultOf(self.ask(user, password), why)

    def warnings(self):
        return [e for e in self.logged if e["log_level"] is LogLevel.warn and "path" in e]

    def test_interface(self) -> None:
        """It is a checker of twisted.cred."""
        verifyObject(ICredentialsChecker, self.checker)

    def test_right_and_wrong(self) -> None:
        """The right password gives the name, all else the one answer."""
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

    def test_unknown_users_cost_the_same(self) -> None:
        """A hash is computed for a user who does not exist too, and never leads in."""
        with mock.patch.object(passwords, "verify", wraps=passwords.verify) as verify:
            self.refuses(b"nobody", b"secret")
        self.assertEqual(verify.call_count, 1)

    def test_scram(self) -> None:
        """SCRAM can be offered while every user has its kind of hash, with which a password can be sent as well."""
        self.assertFalse(self.checker.ready)
        row = passwords.hash_scram(b"secret", iterations=4096)
        users.set_hash(self.path, "alice", row)
        self.assertTrue(self.checker.ready)
        self.assertEqual(self.checker.secret(b"alice"), passwords.scram(row))
        self.accepts(b"alice", b"secret")
        self.refuses(b"alice", b"Secret")
        users.set_hash(self.path, "bob", BOB)
        self.assertFalse(self.checker.ready)
        self.assertNotEqual(self.checker.secret(b"alice"), passwords.scram(row))
        os.unlink(self.path)
        self.assertFalse(self.checker.ready)

    def test_scram_unknown_users(self) -> None:
        """Who does not exist has a salt that stays and as many iterations as somebody who does, and no password fits."""
        for name, iterations in (("alice", 4096), ("bob", 5000)):
            users.set_hash(self.path, name, passwords.hash_scram(b"x", iterations=iterations))
        names = [b"nobody%d" % i for i in range(40)] + [b"", b"\xff", b".."]
        secrets = {name: self.checker.secret(name) for name in names}
        self.assertEqual({s.iterations for s in secrets.values()}, {4096, 5000})
        for name, secret in secrets.items():
            again = self.checker.secret(name)
            self.assertEqual(secret[:2], again[:2])
            self.assertEqual(len(secret.salt), 16)
            self.assertNotEqual(secret.stored_key, again.stored_key)

    def test_no_users(self) -> None:
        """An empty file lets nobody in."""
        users.remove(self.path, "alice")
        self.refuses(b"alice", b"secret")

    def test_nothing_runs_on_the_reactor(self) -> None:
        """Until a thread has done the work there is no answer."""
        self.pool.held = True
        answer = self.ask(b"alice", b"secret")
        self.assertNoResult(answer)
        self.pool.perform()
        self.assertEqual(self.successResultOf(answer), b"alice")

    def test_busy_before_full(self) -> None:
        """When as many wait as may, the next is refused at once, as "later" and not as "wrong"."""
        self.pool.held = True
        waiting = [self.ask(b"alice", b"wrong") for _ in range(3)]
        failure = self.refuses(b"alice", b"secret", Busy)
        self.assertIsInstance(failure.value, LoginFailed)
        self.assertNotIsInstance(failure.value, UnauthorizedLogin)
        self.pool.perform()
        for answer in waiting:
            self.failureResultOf(answer, UnauthorizedLogin)
        self.pool.held = False
        self.accepts(b"alice", b"secret")

    def test_remembered(self) -> None:
        """A client that comes back with the same password costs no hash, even when the threads are busy."""
        self.accepts(b"alice", b"secret")
        self.pool.held = True
        waiting = [self.ask(b"alice", b"wrong") for _ in range(3)]
        self.accepts(b"alice", b"secret")
        self.assertEqual(self.pool.ran, 1)
        self.pool.perform()
        for answer in waiting:
            self.failureResultOf(answer, UnauthorizedLogin)

    def test_wrong_is_never_remembered_as_right(self) -> None:
        """A wrong password between two right ones is refused."""
        self.accepts(b"alice", b"secret")
        self.refuses(b"alice", b"wrong")
        self.accepts(b"alice", b"secret")

    def test_forgotten_after_a_while(self) -> None:
        """After five minutes the password is looked at again."""
        self.accepts(b"alice", b"secret")
        self.reactor.advance(checkers.REMEMBER_SECONDS + 1)
        self.accepts(b"alice", b"secret")
        self.assertEqual(self.pool.ran, 2)

    def test_memory_is_bounded(self) -> None:
        """Only the last so many are remembered, as a keyed hash and not as passwords."""
        with mock.patch.object(checkers, "REMEMBERED", 2):
            for name in ("alice", "bob", "carol"):
                users.set_hash(self.path, name, ALICE)
            for name in (b"alice", b"bob", b"carol"):
                self.accepts(name, b"secret")
        self.assertEqual(list(self.checker._remembered), ["bob", "carol"])
        self.assertNotIn("secret", repr(self.checker._remembered))

    def test_changed_password(self) -> None:
        """A password that was changed in the file counts at once, and the remembered one does not."""
        self.accepts(b"alice", b"secret")
        users.set_hash(self.path, "alice", BOB)
        self.refuses(b"alice", b"secret")
        self.accepts(b"alice", b"other")

    def test_removed_user(self) -> None:
        """A user who was removed is out at once."""
        self.accepts(b"alice", b"secret")
        users.remove(self.path, "alice")
        self.refuses(b"alice", b"secret")

    def test_file_not_read_again_without_need(self) -> None:
        """An unchanged file is not read again."""
        self.refuses(b"alice", b"1")
        with mock.patch.object(users, "parse", side_effect=AssertionError):
            self.refuses(b"alice", b"2")

    def test_unreadable_file(self) -> None:
        """Without the file nobody can say who is right: "later", one line in the log, and it heals by itself."""
        os.rename(self.path, self.path + ".away")
        self.refuses(b"alice", b"secret", Busy)
        self.refuses(b"alice", b"secret", Busy)
        self.assertEqual(len(self.warnings()), 1)
        os.rename(self.path + ".away", self.path)
        self.accepts(b"alice", b"secret")

    def test_bad_lines_are_told_once(self) -> None:
        """A plain password in the file lets nobody in, is logged once, and is not in the log."""
        with open(self.path, "ab") as file:
            file.write(b"bob:hunter2\n")
        self.refuses(b"bob", b"hunter2")
        self.refuses(b"bob", b"hunter2")
        self.accepts(b"alice", b"secret")
        (event,) = self.warnings()
        self.assertIn("line 2", event["problems"])
        self.assertNotIn("hunter2", repr(event))

    def test_close(self) -> None:
        """Closing stops the threads once; whoever waits or comes later is told "later"."""
        self.pool.held = True
        answer = self.ask(b"alice", b"secret")
        (at_shutdown,) = self.reactor.triggers
        self.checker.close()
        at_shutdown()
        self.assertEqual(self.pool.state, "stopped")
        self.failureResultOf(answer, Busy)
        self.refuses(b"alice", b"secret", Busy)

    def test_close_unused(self) -> None:
        """A checker that never checked has no threads to stop."""
        self.checker.close()
        self.assertEqual(self.pool.state, "new")

    def test_bug_in_a_hash(self) -> None:
        """Our own trouble is "later" for the client and a traceback for us."""
        with mock.patch.object(passwords, "verify", side_effect=MemoryError):
            self.refuses(b"alice", b"secret", Busy)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)


class RealThreadTests(TestCase):
    async def test_in_a_thread(self) -> None:
        """With a real pool, hashing happens in another thread."""
        path = self.mktemp()
        users.set_hash(path, "alice", ALICE)
        checker = PasswordFile(path, reactor=reactor)
        self.addCleanup(checker.close)
        seen = []

        def verify(stored, password) -> bool:
            seen.append(threading.current_thread())
            return True

        self.patch(passwords, "verify", verify)
        self.assertEqual(await checker.requestAvatarId(UsernamePassword(b"alice", b"x")), b"alice")
        self.assertIsNot(seen[0], threading.main_thread())


class Fixed:
    def __init__(self, answer, interfaces=(IUsernamePassword,)) -> None:
        self.answer = answer
        self.credentialInterfaces = interfaces

    def requestAvatarId(self, credentials):
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)


class AnyOfTests(SynchronousTestCase):
    def ask(self, *answers):
        return CheckerChain([Fixed(answer) for answer in answers]).requestAvatarId(
            UsernamePassword(b"a", b"b")
        )

    def test_first_that_accepts(self) -> None:
        """The first checker that accepts decides."""
        self.assertEqual(
            self.successResultOf(self.ask(UnauthorizedLogin(), Busy(), b"x", b"y")), b"x"
        )

    def test_none(self) -> None:
        """If all refuse, so does it; if one cannot say, neither can it."""
        self.failureResultOf(self.ask(UnauthorizedLogin(), UnauthorizedLogin()), UnauthorizedLogin)
        self.failureResultOf(self.ask(UnauthorizedLogin(), Busy(), UnauthorizedLogin()), Busy)

    def test_interfaces(self) -> None:
        """It checks what any of them checks, and asks only those that can."""
        both = CheckerChain([Fixed(b"anonymous", (IAnonymous,)), Fixed(b"named")])
        verifyObject(ICredentialsChecker, both)
        self.assertEqual(len(both.credentialInterfaces), 2)
        self.assertEqual(
            self.successResultOf(both.requestAvatarId(UsernamePassword(b"a", b"b"))), b"named"
        )
