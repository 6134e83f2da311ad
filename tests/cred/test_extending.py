"""The three ways to extend imapshield, each the whole of what one has to write; docs/extending.rst shows them."""

import io
from typing import Never

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from imapshield.edge.spool import SpooledFile
from imapshield.errors import NotAllowed
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import MailboxInfo, NewMessage
from imapshield.testing.in_process import MAIL, InlineWorker, Server
from imapshield.testing.memory_store import MemoryStore


@implementer(ICredentialsChecker)
class OneTimePasswords:
    """A checker of one's own: each password is good once."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, passwords) -> None:
        self.passwords = passwords

    def requestAvatarId(self, credentials):
        mine = self.passwords.get(credentials.username, [])
        if credentials.password in mine:
            mine.remove(credentials.password)
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


@implementer(IRealm)
class ArchiveRealm:
    """A realm of one's own: every user sees one archive, and the same one."""

    def __init__(self, store) -> None:
        self.account = StoreAccount("archive", lambda: store, InlineWorker())

    def requestAvatar(self, avatarId, mind, *interfaces):
        account = self.account.acquire()
        return IAccount, account, account.close


class ReadOnlyStore(MemoryStore):
    """A store of one's own: what it is asked to change it refuses, with a text that the client is shown."""

    def append(self, name, messages) -> Never:
        raise NotAllowed("Nothing is added to the archive")

    def create(self, name, special_use) -> Never:
        raise NotAllowed("The archive has the folders that it has")


@implementer(IAccount)
class NoticeAccount:
    """An account of one's own, without a store: one mailbox, which cannot be opened."""

    def __init__(self, user) -> None:
        self.user = user
        self.sessions = 1

    async def mailboxes(self):
        return [MailboxInfo("INBOX"), MailboxInfo("Moved to another server", selectable=False)]

    async def subscriptions(self):
        return {"INBOX"}

    async def open(self, name, claim_recent) -> Never:
        raise NotAllowed("Your mail has moved; ask the help desk")

    async def _refuse(self, *arguments) -> Never:
        raise NotAllowed("Your mail has moved; ask the help desk")

    set_subscribed = create = delete = rename = status = append = _refuse

    def close(self) -> None:
        self.sessions -= 1


@implementer(IRealm)
class NoticeRealm:
    def __init__(self) -> None:
        self.accounts = []

    def requestAvatar(self, avatarId, mind, *interfaces):
        account = NoticeAccount(avatarId.decode())
        self.accounts.append(account)
        return IAccount, account, account.close


class ExtendingTests(SynchronousTestCase):
    def test_a_checker_of_ones_own(self) -> None:
        """A checker decides who may log in."""
        checker = OneTimePasswords({b"alice": [b"one", b"two"]})
        verifyObject(ICredentialsChecker, checker)
        server = Server(checker=checker)
        for password, answer in ((b"one", b"OK"), (b"one", b"NO"), (b"two", b"OK")):
            self.assertIn(b"a " + answer, server.connect()(b"a LOGIN alice " + password))

    def test_a_realm_and_a_store_of_ones_own(self) -> None:
        """A realm decides what is whose, and a store what can be done with it."""
        store = ReadOnlyStore(lambda: 1_700_000_000.0)
        content = SpooledFile(io.BytesIO(MAIL), len(MAIL))
        MemoryStore.append(store, "INBOX", [NewMessage((), None, content)])
        server = Server(realm=ArchiveRealm(store))
        verifyObject(IRealm, server.realm)
        alice, bob = server.login(b"alice", b"secret"), server.login(b"bob", b"word")
        for client in (alice, bob):
            self.assertIn(b"* 1 EXISTS", client(b"a SELECT INBOX"))
            self.assertIn(b"Subject: Lunch", client(b"b FETCH 1 BODY.PEEK[HEADER]"))
        self.assertIn(b"app NO [CANNOT] Nothing is added to the archive", alice.append())
        self.assertIn(b"c NO [CANNOT]", bob(b"c CREATE mine"))
        self.assertEqual(server.realm.account.sessions, 2)
        alice(b"z LOGOUT")
        alice.lose_connection()
        self.assertEqual(server.realm.account.sessions, 1)

    def test_an_account_of_ones_own(self) -> None:
        """An account needs no store at all; what it refuses is told to the client in its words."""
        verifyObject(IAccount, NoticeAccount("alice"))
        server = Server(realm=NoticeRealm())
        client = server.login()
        self.assertIn(b"Moved to another server", client(b'a LIST "" *'))
        for command in (b"SELECT INBOX", b"CREATE x", b"STATUS INBOX (MESSAGES)"):
            self.assertIn(b"b NO [CANNOT] Your mail has moved", client(b"b " + command))
        client.lose_connection()
        self.assertEqual([account.sessions for account in server.realm.accounts], [0])
