from unittest import mock

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from imapshield.cred.realm import MaildirRealm, MailRoot
from imapshield.cred.users import BadUserName
from imapshield.mailbox.account_api import IAccount
from tests.cred.fakes import Pool, Reactor


class MailRootTests(SynchronousTestCase):
    def test_folder(self) -> None:
        """A plain folder holds one Maildir for each user."""
        root = MailRoot("/srv/mail/")
        self.assertEqual((root.place("alice"), root.base), ("/srv/mail/alice", "/srv/mail"))
        self.assertEqual(root.place("{domain}@%h"), "/srv/mail/{domain}@%h")

    def test_pattern(self) -> None:
        """User, local part and domain may stand anywhere in it."""
        root = MailRoot("/srv/{domain}/{local}/Maildir")
        self.assertEqual(root.place("a@b@example.org"), "/srv/example.org/a@b/Maildir")
        self.assertEqual(root.base, "/srv")
        self.assertEqual(MailRoot("/home/{user}/Maildir").place("x@y"), "/home/x@y/Maildir")
        self.assertEqual(MailRoot("/home/m-{local}").base, "/home")
        self.assertEqual(MailRoot("/home/{local}").place("alice"), "/home/alice")

    def test_one_folder_for_many(self) -> None:
        """A pattern that would show users each other's mail is refused."""
        self.assertRaises(ValueError, MailRoot, "/srv/{domain}")

    def test_parts_cannot_escape(self) -> None:
        """Each part that becomes a folder is as harmless as a whole name."""
        root = MailRoot("/srv/{domain}/{local}")
        for user in ("a@..", "a@.", "..@b", ".@b", "@b", "a@", "alice", ".x@b"):
            with self.subTest(user=user), self.assertRaises(BadUserName):
                root.place(user)


class RealmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor, self.pool = Reactor(), Pool()
        self.opened = []
        self.realm = MaildirRealm(
            "/srv/mail", reactor=self.reactor, pool=self.pool, idle=2, open_store=self.open_store
        )

    def open_store(self, root):
        store = mock.Mock()
        store.mailboxes.return_value = []
        self.opened.append((root, store))
        return store

    def login(self, user):
        return self.realm.requestAvatar(user, None, IAccount)

    def use(self, account) -> None:
        self.successResultOf(Deferred.fromCoroutine(account.mailboxes()))

    def test_avatar(self) -> None:
        """A user gets an account whose store is opened only when it is used, at the user's place."""
        verifyObject(IRealm, self.realm)
        interface, account, logout = self.login(b"alice")
        self.assertIs(interface, IAccount)
        verifyObject(IAccount, account)
        self.assertEqual((account.user, self.opened), ("alice", []))
        self.use(account)
        self.assertEqual(self.opened[0][0], "/srv/mail/alice")
        logout()

    def test_other_interfaces(self) -> None:
        """Who asks for something else hears so."""
        self.assertRaises(NotImplementedError, self.realm.requestAvatar, b"alice", None, IRealm)

    def test_shared(self) -> None:
        """All sessions of a user have one account, also after all have left for a while; others have another."""
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
        """A logout said twice does not count another session out."""
        first, second = self.login(b"alice"), self.login(b"alice")
        first[2]()
        first[2]()
        self.assertEqual(second[1].sessions, 1)

    def test_idle_accounts_are_few(self) -> None:
        """Of the accounts without sessions the oldest are closed; those with sessions never are."""
        busy = self.login(b"busy")
        self.use(busy[1])
        for name in (b"a", b"b", b"a", b"c", b"d"):
            _, account, logout = self.login(name)
            self.use(account)
            logout()
        closed = [root for root, store in self.opened if store.close.called]
        self.assertEqual(closed, ["/srv/mail/a", "/srv/mail/b"])
        self.assertIs(self.login(b"busy")[1], busy[1])

    def test_bad_names(self) -> None:
        """A name that could leave the root is refused like a wrong password, and the log says why."""
        logged = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        for name in (b"..", b"a/../../etc", b"", b"a\0", b"\xff", ()):
            self.assertRaises(UnauthorizedLogin, self.login, name)
        self.assertEqual(len([e for e in logged if "reason" in e]), 6)
        self.assertEqual(self.pool.state, "new")

    def test_close(self) -> None:
        """Closing closes every store, used or idle, and then stops the threads."""
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

    def test_close_survives_a_broken_store(self) -> None:
        """One store that cannot be closed does not keep the others open, nor the process alive."""
        for name in (b"alice", b"bob"):
            self.use(self.login(name)[1])
        self.opened[0][1].close.side_effect = OSError
        self.successResultOf(Deferred.fromCoroutine(self.realm.close()))
        self.assertTrue(self.opened[1][1].close.called)
        self.assertEqual(self.pool.state, "stopped")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_nobody_closes(self) -> None:
        """When the reactor ends and nobody closed the realm, its threads end all the same."""
        self.login(b"alice")
        (trigger,) = self.reactor.triggers
        trigger()
        self.assertEqual(self.pool.state, "stopped")
