"""A user whose mail was moved to another node is refused at the login, which costs the logins of others nothing."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.moved_users import LOOK_SECONDS, UserMoved
from imapshield.cred.realm import MaildirRealm
from imapshield.mailbox.account_api import IAccount
from imapshield.maildir import index_handover, local_disk
from imapshield.maildir.index_handover import Mark
from imapshield.maildir.store import MaildirStore
from tests.cred.fakes import FakePool, FakeReactor


class MovedUserTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = self.mktemp()
        self.maildir = os.path.abspath(f"{self.base}/alice")
        os.mkdir(self.base)
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.realm = MaildirRealm(self.base, reactor=self.reactor, pool=self.pool)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.realm.close()))
        self.logged: list[str] = []

        observer: Any = lambda event: self.logged.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def login(self) -> Deferred[Any]:
        return maybeDeferred(self.realm.requestAvatar, b"alice", None, IAccount)

    def use(self) -> Any:
        """Log in, use the mail, and return the avatar."""
        avatar = self.successResultOf(self.login())
        self.successResultOf(Deferred.fromCoroutine(avatar[1].mailboxes()))
        return avatar

    def leave_mark(self, text: str) -> None:
        os.makedirs(self.maildir, exist_ok=True)
        with open(f"{self.maildir}/imapshield.moved", "w") as file:
            file.write(text)

    def close_index(self, *, is_given_up: bool) -> None:
        MaildirStore(self.maildir, now=time.time, log_warning=self.fail).mailboxes()
        path = os.fsencode(self.maildir)
        index_handover.close(path, Mark("m1", "two", time.time() + 60, is_given_up=False))
        if is_given_up:
            self.assertTrue(index_handover.give_up(path, "m1", time.time))
        self.leave_mark("")

    def test_moved_user_is_refused(self) -> None:
        """Each login is refused, no session remains, and the log has the node."""
        self.leave_mark('{"moved to": "two"}')
        for _ in range(2):
            error = self.failureResultOf(self.login(), UserMoved).value
            self.assertIn("being moved to another server", error.text)
            self.assertFalse(error.may_be_wrong)
        self.assertEqual(self.realm._accounts["alice"].sessions, 0)
        self.assertIn("two", "\n".join(self.logged))

    def test_user_who_moves_now_is_refused(self) -> None:
        """The index is closed, for some time or for good, and the Maildir is still in its place."""
        for is_given_up in (False, True):
            with self.subTest(is_given_up=is_given_up):
                self.setUp()
                self.close_index(is_given_up=is_given_up)
                self.failureResultOf(self.login(), UserMoved)

    def test_mark_of_a_move_that_was_undone(self) -> None:
        """If the index can be used, the user is logged in, although the file is still there."""
        self.leave_mark("")
        self.use()

    def test_login_makes_no_maildir(self) -> None:
        self.successResultOf(self.login())
        self.assertEqual(os.listdir(self.base), [])

    def test_later_logins_need_no_thread(self) -> None:
        """A user whose account is open costs no thread; a move that ends meanwhile is noticed all the same."""
        self.use()
        self.successResultOf(self.login())
        before = self.pool.jobs_run
        self.successResultOf(self.login())
        self.assertEqual(self.pool.jobs_run, before)
        os.rename(self.maildir, f"{self.base}/old")
        self.leave_mark('{"moved to": "two"}')
        self.failureResultOf(self.login(), UserMoved)

    def test_nobody_waits_for_a_disk_that_hangs(self) -> None:
        self.realm._start()
        self.pool.paused = True
        login = self.login()
        self.reactor.advance(LOOK_SECONDS - 0.1)
        self.assertNoResult(login)
        self.reactor.advance(0.1)
        self.successResultOf(login)
        self.pool.run_pending()

    def test_login_does_not_wait_for_another_command_of_the_user(self) -> None:
        """Also if the Maildir is on another host, so that each login looks for the file in a thread."""
        for is_remote in (False, True):
            with self.subTest(is_remote=is_remote):
                self.setUp()
                if is_remote:
                    self.patch(local_disk, "volumes", lambda _: frozenset())
                account = self.use()[1]  # which makes the Maildir
                self.successResultOf(self.login())
                self.pool.paused = True
                running = Deferred.fromCoroutine(account.mailboxes())
                self.successResultOf(self.login())
                self.pool.run_pending()
                self.successResultOf(running)

    def test_several_logins_at_once_are_refused(self) -> None:
        """A client opens several connections: none is logged in because the look of another one runs."""
        self.use()
        os.rename(self.maildir, f"{self.base}/old")
        self.leave_mark('{"moved to": "two"}')
        self.reactor.advance(3600)  # nothing runs in place any more
        self.pool.paused = True
        logins = [self.login() for _ in range(3)]
        self.pool.paused = False
        self.pool.run_pending()
        for login in logins:
            self.failureResultOf(login, UserMoved)

    def test_store_that_cannot_say_it(self) -> None:
        """An error that the next command reports does not prevent the login."""
        self.leave_mark("")
        with open(f"{self.maildir}/cur", "w"):
            pass
        self.successResultOf(self.login())
