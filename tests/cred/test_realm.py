"""The realm gives each user an account on a Maildir below the mail root, and closes accounts that are not used."""

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.logger import Logger, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from imapshield.cred.realm import MaildirRealm, MailRoot
from imapshield.cred.users import BadUserName
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.store_account import StoreAccount
from tests.cred.fakes import FakePool, FakeReactor


class MailRootTests(SynchronousTestCase):
    def test_plain_directory_has_one_maildir_per_user(self) -> None:
        """A plain directory contains one Maildir for each user."""
        root = MailRoot("/srv/mail/")
        self.assertEqual((root.maildir("alice"), root.base), ("/srv/mail/alice", "/srv/mail"))
        self.assertEqual(root.maildir("{domain}@%h"), "/srv/mail/{domain}@%h")

    def test_pattern_may_contain_user_local_part_and_domain(self) -> None:
        """A pattern may contain user, local part and domain anywhere."""
        root = MailRoot("/srv/{domain}/{local}/Maildir")
        self.assertEqual(root.maildir("a@b@example.org"), "/srv/example.org/a@b/Maildir")
        self.assertEqual(root.base, "/srv")
        self.assertEqual(MailRoot("/home/{user}/Maildir").maildir("x@y"), "/home/x@y/Maildir")
        self.assertEqual(MailRoot("/home/m-{local}").base, "/home")
        self.assertEqual(MailRoot("/home/{local}").maildir("alice"), "/home/alice")

    def test_pattern_that_shares_mail_is_refused(self) -> None:
        """A pattern that would give several users the same mail is refused."""
        self.assertRaises(ValueError, MailRoot, "/srv/{domain}")

    def test_unknown_field(self) -> None:
        """A pattern with an unknown field is refused, because a misspelt field would give all users the same mail."""
        for pattern in ("/srv/{usr}", "/srv/{user}/{}"):
            self.assertRaises(ValueError, MailRoot, pattern)

    def test_every_directory_part_of_a_name_must_be_safe(self) -> None:
        """Each part of a name that becomes a directory must be as safe as a whole name."""
        root = MailRoot("/srv/{domain}/{local}")
        for user in ("a@..", "a@.", "..@b", ".@b", "@b", "a@", "alice", ".x@b"):
            with self.subTest(user=user), self.assertRaises(BadUserName):
                root.maildir(user)


class RealmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.pool = FakeReactor(), FakePool()
        self.opened: list[tuple[str, mock.Mock]] = []
        self.realm = MaildirRealm(
            "/srv/mail",
            reactor=self.reactor,
            pool=self.pool,
            max_idle_accounts=2,
            open_store=self.open_store,
        )

    def open_store(self, path: str) -> Any:
        store = mock.Mock()
        store.mailboxes.return_value = []
        self.opened.append((path, store))
        return store

    def login(self, user: Any) -> tuple[Any, StoreAccount, Callable[[], None]]:
        interface, account, logout = self.realm.requestAvatar(user, None, IAccount)
        return interface, account, logout

    def use(self, account: StoreAccount) -> None:
        self.successResultOf(Deferred.fromCoroutine(account.mailboxes()))

    def test_store_is_opened_at_first_use(self) -> None:
        """A user gets an account; the store of the user's Maildir is opened at its first use."""
        verifyObject(IRealm, self.realm)
        interface, account, logout = self.login(b"alice")
        self.assertIs(interface, IAccount)
        verifyObject(IAccount, account)
        self.assertEqual((account.user, self.opened), ("alice", []))
        self.use(account)
        self.assertEqual(self.opened[0][0], "/srv/mail/alice")
        logout()

    def test_avatar_for_another_interface_is_refused(self) -> None:
        """An avatar for another interface is refused."""
        self.assertRaises(NotImplementedError, self.realm.requestAvatar, b"alice", None, IRealm)

    def test_sessions_of_a_user_share_one_account(self) -> None:
        """All sessions of a user share one account, even after an interval without sessions; other users do not."""
        first, second = self.login(b"alice"), self.login(b"alice")
        self.assertIs(first[1], second[1])
        self.assertIsNot(first[1], self.login(b"Alice")[1])
        self.use(first[1])
        first[2]()
        second[2]()
        third = self.login(b"alice")
        self.assertIs(third[1], first[1])
        self.use(third[1])
        self.assertEqual(len(self.opened), 1)

    def test_logout_counts_once(self) -> None:
        """A second call of one logout function does not end another session."""
        first, second = self.login(b"alice"), self.login(b"alice")
        first[2]()
        first[2]()
        self.assertEqual(second[1].sessions, 1)

    def test_longest_idle_account_is_closed(self) -> None:
        """Of the accounts without sessions, those that are idle longest are closed; accounts in use never are."""
        busy = self.login(b"busy")
        self.use(busy[1])
        for name in (b"a", b"b", b"a", b"c", b"d"):
            _, account, logout = self.login(name)
            self.use(account)
            logout()
        closed = [path for path, store in self.opened if store.close.called]
        self.assertEqual(closed, ["/srv/mail/a", "/srv/mail/b"])
        self.assertIs(self.login(b"busy")[1], busy[1])

    def test_creation_of_a_maildir_is_logged(self) -> None:
        """A Maildir that is created is in the log: the user, the path, and the option to check."""
        logged: list[dict[str, Any]] = []
        observer: Any = logged.append
        root = os.path.abspath(self.mktemp())
        os.mkdir(root)
        realm = MaildirRealm(f"{root}/{{user}}", reactor=self.reactor, pool=self.pool)
        self.patch(realm, "_log", Logger(observer=observer))
        store: Any = realm._open_account("alice", f"{root}/alice", None)
        self.addCleanup(store.close)
        store.mailboxes()
        (line,) = map(formatEvent, logged)
        self.assertTrue(line.startswith(f'created {root}/alice, a new, empty Maildir for "alice"'))
        self.assertIn(f"correct --mail-root {root}/{{user}}", line)

    def test_slow_disk_is_logged(self) -> None:
        """A file system on which calls had to wait is in the log, with its number and what to do."""
        logged: list[dict[str, Any]] = []
        observer: Any = logged.append
        self.patch(self.realm, "_log", Logger(observer=observer))
        self.realm._threads._on_slow_volumes([os.makedev(8, 1)], 0.1234)
        (line,) = map(formatEvent, logged)
        self.assertTrue(
            line.startswith("slow disk: the file system 8:1 made a short call wait 0.123 s")
        )
        self.assertIn("check its load and health", line)

    def test_unsafe_user_name_is_refused(self) -> None:
        """A name that could lead outside the mail root is refused like a wrong password, and the log says why."""
        logged: list[dict[str, Any]] = []
        observer: Any = logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for name in (b"..", b"a/../../etc", b"", b"a\0", b"\xff", ()):
            self.assertRaises(UnauthorizedLogin, self.login, name)
        lines = [formatEvent(event) for event in logged if "reason" in event]
        self.assertEqual(len(lines), 6)
        self.assertEqual(
            lines[0],
            'login of ".." refused after a correct password: the user name begins with a dot;'
            " rename the user or change --mail-root",
        )
        self.assertEqual(self.pool.state, "new")

    def test_close_closes_every_store_and_stops_the_threads(self) -> None:
        """Closing the realm closes every store, in use or idle, and then stops the threads."""
        for name in (b"alice", b"bob"):
            _, account, logout = self.login(name)
            self.use(account)
        logout()
        self.assertEqual(self.pool.state, "started")
        self.successResultOf(Deferred.fromCoroutine(self.realm.close()))
        self.assertEqual([store.close.call_count for _, store in self.opened], [1, 1])
        self.assertEqual(self.pool.state, "stopped")
        for trigger in self.reactor.triggers:
            trigger()

    def test_store_that_cannot_be_closed_keeps_no_other_open(self) -> None:
        """If one store cannot be closed, the other stores are closed and the threads stop."""
        for name in (b"alice", b"bob"):
            self.use(self.login(name)[1])
        self.opened[0][1].close.side_effect = OSError
        self.successResultOf(Deferred.fromCoroutine(self.realm.close()))
        self.assertTrue(self.opened[1][1].close.called)
        self.assertEqual(self.pool.state, "stopped")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_threads_stop_without_close_of_the_realm(self) -> None:
        """If the reactor stops and the realm was not closed, its threads stop too."""
        self.login(b"alice")
        (trigger,) = self.reactor.triggers
        trigger()
        self.assertEqual(self.pool.state, "stopped")
