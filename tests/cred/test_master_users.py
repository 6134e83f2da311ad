"""A master user logs in as another user with the own password, and nobody else gains anything by such a name."""

import base64
from types import SimpleNamespace
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, succeed
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from imapshield.auth_option import make_chain
from imapshield.config import ConfigError, Settings
from imapshield.cred import passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.master_users import MasterUserChain
from imapshield.cred.user_names import UserNames
from imapshield.events import LoggedIn, LoginFailed, MasterLoggedIn
from imapshield.observe.log_observer import LogObserver
from imapshield.testing import Server
from tests.cred.fakes import FakePool, FakeReactor


class MasterUserTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.users = self.file(("alice", b"secret"), ("o*admin", b"star"))
        self.masters = self.file(("admin", b"master"))
        self.chain = MasterUserChain([self.users], self.masters, UserNames())
        self.server = Server(checker=self.chain, clock=self.reactor)

    def file(self, *known: tuple[str, bytes]) -> PasswordFile:
        path = self.mktemp()
        for user, password in known:
            users.set_hash(path, user, passwords.hash_scrypt(password, ln=2))
        return PasswordFile(path, reactor=self.reactor, pool=FakePool(), reading_pool=FakePool())

    def login(self, name: bytes, password: bytes) -> str:
        """Return the user of a login, or "" if it is refused."""
        client = self.server.connect()
        answer = client(b'a LOGIN "%b" "%b"' % (name, password))
        return self.server.events_of(LoggedIn)[-1].user if b"a OK" in answer else ""

    def test_master_password_opens_the_mail_of_the_user(self) -> None:
        """``alice*admin`` with the password of admin is alice, in any letter case, also if that password is cached."""
        for name in (b"alice*admin", b"ALICE*Admin", b"alice*admin"):
            self.assertEqual(self.login(name, b"master"), "alice")
        self.assertEqual(self.login(b"alice", b"secret"), "alice")

    def test_other_names_and_passwords_are_refused(self) -> None:
        """The password of the user, an unknown user, an unknown master and the master alone are refused."""
        for name, password in (
            (b"alice*admin", b"secret"), (b"nobody*admin", b"master"), (b"alice*alice", b"secret"),
            (b"alice*nobody", b"master"), (b"admin", b"master"), (b"*admin", b"master"), (b"alice*", b"secret"),
        ):  # fmt: skip
            self.assertEqual(self.login(name, password), "", name)
        self.assertEqual(len(self.server.events_of(LoginFailed)), 7)

    def test_a_user_whose_name_has_a_star_is_that_user(self) -> None:
        """A name that belongs to a user is never split, also if that user was added a moment ago."""
        self.assertEqual(self.login(b"o*admin", b"star"), "o*admin")
        self.assertEqual(self.login(b"o*admin", b"master"), "")
        users.set_hash(self.users.path, "alice*admin", passwords.hash_scrypt(b"own", ln=2))
        self.assertEqual(self.login(b"alice*admin", b"own"), "alice*admin")

    def plain(self, server: Server, *fields: bytes) -> bytes:
        """Return the answer to AUTHENTICATE PLAIN with these fields."""
        given = base64.b64encode(b"\0".join(fields))
        return server.connect()(b"a AUTHENTICATE PLAIN " + given)

    def test_authorization_identity_of_sasl(self) -> None:
        """AUTHENTICATE PLAIN with two identities opens the mail of the first with the password of the second."""
        self.assertIn(b"a OK", self.plain(self.server, b"Alice", b"admin", b"master"))
        self.assertEqual(self.server.events_of(LoggedIn)[-1].user, "alice")
        self.assertEqual(self.server.events_of(MasterLoggedIn)[-1].master, "admin")
        for fields in (
            (b"alice", b"admin", b"secret"), (b"nobody", b"admin", b"master"), (b"o*admin", b"alice", b"secret"),
        ):  # fmt: skip
            answer = self.plain(self.server, *fields)
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", answer, fields)

    def test_a_user_who_is_a_master_user_too_acts_for_itself(self) -> None:
        """Two identities that are one user in two forms are a login of that user, whether or not it is a master user."""
        names = UserNames(default_domain="ex.org")
        own = self.file(
            ("alice@ex.org", b"secret"), ("bob@ex.org", b"word"), ("Bob@ex.org", b"other")
        )
        masters = self.file(("alice", b"master"), ("bob@ex.org", b"master"))
        for chain in (MasterUserChain([own], masters, names), CheckerChain([own], names)):
            own.load()
            server = Server(checker=chain, clock=self.reactor)
            for user in (b"ALICE", b"alice@ex.org", b"Alice@EX.org"):
                self.assertIn(b"a OK", self.plain(server, user, b"alice", b"secret"), user)
                self.assertEqual(server.events_of(LoggedIn)[-1].user, "alice@ex.org")
                self.assertIn(b"a NO [AUTHENT", self.plain(server, user, b"alice", b"wrong"))
        self.assertNotIn(b"a OK", self.plain(server, b"Bob@ex.org", b"bob@ex.org", b"word"))
        server = Server(checker=MasterUserChain([own], masters, names), clock=self.reactor)
        self.assertIn(b"a OK", self.plain(server, b"Bob@ex.org", b"bob@ex.org", b"master"))
        self.assertEqual(server.events_of(LoggedIn)[-1].user, "Bob@ex.org")

    def test_authorization_identity_never_means_somebody_else(self) -> None:
        """Without master users, or if the two names together are a user, two identities are refused."""
        self.users.load()
        chain = CheckerChain([self.users], UserNames())
        for server, fields in (
            (Server(checker=chain, clock=self.reactor), (b"alice", b"admin", b"master")),
            (self.server, (b"o", b"admin", b"star")),
            (self.server, (b"x", b"o*admin", b"star")),
        ):
            answer = self.plain(server, *fields)
            self.assertIn(b"a NO [AUTHORIZATIONFAILED]", answer, fields)
        self.assertIn(b"a OK", self.plain(self.server, b"alice", b"alice", b"secret"))

    def test_a_new_master_user(self) -> None:
        """A master user who was added a moment ago logs in."""
        users.set_hash(self.masters.path, "new", passwords.hash_scrypt(b"fresh", ln=2))
        self.assertEqual(self.login(b"alice*new", b"fresh"), "alice")

    def test_a_checker_that_does_not_know_its_users_gets_names_with_a_star(self) -> None:
        """A name with a star that no master user ends is asked of all checkers, because one may have such a user."""
        other: Any = InMemoryUsernamePasswordDatabaseDontUse()
        other.users = {b"dave*x": b"own"}
        self.chain.checkers = (self.users, other)
        self.assertEqual(self.login(b"dave*x", b"own"), "dave*x")

    def test_a_directory_finds_the_user(self) -> None:
        """A user of a checker that only finds users is reached with the name that it returns, unless a file has the user."""
        asked: list[bytes] = []

        def find_user(name: bytes) -> Deferred[bytes | None]:
            asked.append(name)
            return succeed(b"Carol" if name == b"carol" else None)

        directory = SimpleNamespace(credentialInterfaces=(IUsernamePassword,), find_user=find_user)
        self.chain.checkers = (self.users, directory)
        self.assertEqual(self.login(b"CAROL*admin", b"master"), "Carol")
        self.assertEqual(self.login(b"alice*admin", b"master"), "alice")
        self.assertEqual(self.login(b"dave*admin", b"master"), "")
        self.assertEqual(self.login(b"carol*admin", b"wrong"), "")
        self.assertEqual(asked, [b"CAROL", b"carol", b"dave"])

    def test_a_disabled_user_can_be_migrated(self) -> None:
        """A master user reaches the mail of a disabled user, who cannot log in."""
        users.set_disabled(self.users.path, "alice", is_disabled=True)
        self.assertEqual(self.login(b"alice", b"secret"), "")
        self.assertEqual(self.login(b"alice*admin", b"master"), "alice")

    def test_the_log_has_both_names(self) -> None:
        """The log has a line with both names, and only for a master user."""
        log = LogObserver()
        lines: list[str] = []
        observer: Any = lambda event: lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.login(b"alice", b"secret")
        self.login(b"alice*admin", b"master")
        (event,) = self.server.events_of(MasterLoggedIn)
        log(event)
        text = f'connection={event.connection} master="admin" user="alice"'
        self.assertIn(f"master login peer=127.0.0.1 {text}", lines)
        self.login(b"nobody*admin", b"master")
        self.assertIn('master user "admin" is right, but there is no user "nobody"', lines)

    def test_wrong_passwords_count_for_the_master(self) -> None:
        """Guesses of a master's password count for the master, whichever user is named."""
        self.users.load()
        self.masters.load()
        for name in (b"alice*admin", b"bob*ADMIN"):
            self.assertEqual(self.chain.resolve(name), b"*admin")
        self.assertEqual(self.chain.resolve(b"ALICE"), b"alice")


class MasterOptionTests(SynchronousTestCase):
    def test_option_needs_a_file_of_users(self) -> None:
        """--master-users names a readable password file, and needs a checker that knows its users."""
        path = self.mktemp()
        users.set_hash(path, "admin", "x")
        settings = Settings(master_users=path)
        checker = PasswordFile(path, reactor=FakeReactor())
        chain = make_chain(FakeReactor(), [checker], settings)
        self.assertIsInstance(chain, MasterUserChain)
        only_binds = SimpleNamespace(find_user=None, finds_users=False)
        for other in (object(), only_binds):
            with self.assertRaisesRegex(ConfigError, "needs --auth file:PATH, or ldap:PATH with"):
                make_chain(FakeReactor(), [other], settings)
        with self.assertRaisesRegex(ConfigError, "^--master-users file:/nosuch: No such file"):
            make_chain(FakeReactor(), [checker], Settings(master_users="/nosuch"))
