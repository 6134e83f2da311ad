"""Complete examples of a custom checker, realm, store and account, which docs/extending.rst shows."""

from collections.abc import Callable, Sequence
from typing import Any, Never

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from imapshield.errors import NotAllowed
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.store_account import StoreAccount
from imapshield.mailbox.values import MailboxInfo, NewMessage
from imapshield.testing.in_process import MAIL, InlineWorker, Server
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.commands.base import MemoryLiteral


@implementer(ICredentialsChecker)
class OneTimePasswords:
    """A checker with passwords that are valid once."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, passwords: dict[bytes, list[bytes]]) -> None:
        self.passwords = passwords

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        unused = self.passwords.get(credentials.username, [])
        if credentials.password in unused:
            unused.remove(credentials.password)
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


@implementer(IRealm)
class ArchiveRealm:
    """A realm in which all users share one archive."""

    def __init__(self, store: MemoryStore) -> None:
        self.account = StoreAccount("archive", lambda: store, InlineWorker())

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: object
    ) -> tuple[Any, StoreAccount, Callable[[], None]]:
        account = self.account.acquire()
        return IAccount, account, account.close


class ReadOnlyStore(MemoryStore):
    """A store that refuses changes, with texts that clients see."""

    def append(self, name: str, messages: object) -> Never:
        raise NotAllowed("Messages cannot be added to the archive")

    def create(self, name: str, special_use: object) -> Never:
        raise NotAllowed("Mailboxes cannot be created in the archive")


@implementer(IAccount)
class MovedAccount:
    """An account without a store: it lists two mailboxes, and refuses everything else with an explanation."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.sessions = 1

    async def mailboxes(self) -> Sequence[MailboxInfo]:
        return [MailboxInfo("INBOX"), MailboxInfo("Moved to another server", selectable=False)]

    async def subscriptions(self) -> set[str]:
        return {"INBOX"}

    async def open(self, name: str, claim_recent: bool) -> Never:
        raise NotAllowed("Your mail has moved; ask the help desk")

    async def _refuse(self, *arguments: object) -> Never:
        raise NotAllowed("Your mail has moved; ask the help desk")

    set_subscribed = create = delete = rename = status = append = _refuse

    def close(self) -> None:
        self.sessions -= 1


@implementer(IRealm)
class MovedRealm:
    """A realm that gives every user a `MovedAccount`."""

    def __init__(self) -> None:
        self.accounts: list[MovedAccount] = []

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: object
    ) -> tuple[Any, MovedAccount, Callable[[], None]]:
        account = MovedAccount(avatarId.decode())
        self.accounts.append(account)
        return IAccount, account, account.close


class ExtendingTests(SynchronousTestCase):
    def test_checker_decides_who_may_log_in(self) -> None:
        """A custom checker decides which users may log in."""
        checker = OneTimePasswords({b"alice": [b"one", b"two"]})
        verifyObject(ICredentialsChecker, checker)
        server = Server(checker=checker)
        for password, status in ((b"one", b"OK"), (b"one", b"NO"), (b"two", b"OK")):
            self.assertIn(b"a " + status, server.connect()(b"a LOGIN alice " + password))

    def test_realm_chooses_the_account_and_store_its_rules(self) -> None:
        """A custom realm chooses each user's account, and a custom store decides which commands succeed."""
        store = ReadOnlyStore(lambda: 1_700_000_000.0)
        MemoryStore.append(store, "INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        realm = ArchiveRealm(store)
        verifyObject(IRealm, realm)
        server = Server(realm=realm)
        alice, bob = server.login(b"alice", b"secret"), server.login(b"bob", b"word")
        for client in (alice, bob):
            self.assertIn(b"* 1 EXISTS", client(b"a SELECT INBOX"))
            self.assertIn(b"Subject: Lunch", client(b"b FETCH 1 BODY.PEEK[HEADER]"))
        self.assertIn(b"app NO [CANNOT] Messages cannot be added to the archive", alice.append())
        self.assertIn(b"c NO [CANNOT]", bob(b"c CREATE mine"))
        self.assertEqual(realm.account.sessions, 2)
        alice(b"z LOGOUT")
        alice.lose_connection()
        self.assertEqual(realm.account.sessions, 1)

    def test_account_needs_no_store(self) -> None:
        """A custom account needs no store, and clients see the texts of its errors."""
        verifyObject(IAccount, MovedAccount("alice"))
        realm = MovedRealm()
        client = Server(realm=realm).login()
        self.assertIn(b"Moved to another server", client(b'a LIST "" *'))
        for command in (b"SELECT INBOX", b"CREATE x", b"STATUS INBOX (MESSAGES)"):
            self.assertIn(b"b NO [CANNOT] Your mail has moved", client(b"b " + command))
        client.lose_connection()
        self.assertEqual([account.sessions for account in realm.accounts], [0])
