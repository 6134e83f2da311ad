"""A user name may be written in another case or without its domain, and never leads to two different users."""

from typing import Any
from unittest import mock

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import CheckerUnavailable, PasswordFile
from imapshield.cred.sasl import IScramProof, Scram, ScramChecker
from imapshield.cred.user_names import EXACT, UserNames
from imapshield.cred.users import BadUserName
from imapshield.testing import Server
from tests.cred.fakes import FakePool, FakeReactor

FOLDED = UserNames()
IN_DOMAIN = UserNames(default_domain="example.org")


class UserNamesTests(SynchronousTestCase):
    def test_the_exact_name_comes_first(self) -> None:
        """The candidates are the exact name, the name in lower case, and both with the domain, without repetitions."""
        for names, given, expected in (
            (EXACT, "Alice", ["Alice"]),
            (FOLDED, "Alice", ["Alice", "alice"]),
            (FOLDED, "alice", ["alice"]),
            (FOLDED, "Alice@Example.ORG", ["Alice@Example.ORG", "alice@example.org"]),
            (FOLDED, "JÖRG", ["JÖRG", "jörg"]),
            (IN_DOMAIN, "Al", ["Al", "al", "Al@example.org", "al@example.org"]),
            (IN_DOMAIN, "al@other", ["al@other"]),
            (IN_DOMAIN, "", [""]),
            (UserNames(False, "example.org"), "Al", ["Al", "Al@example.org"]),
        ):
            found = [each.decode() for each in names.candidates(given.encode())]
            self.assertEqual(found, expected)

    def test_a_name_that_is_no_text_is_itself(self) -> None:
        """A name that is not UTF-8 has no other form."""
        self.assertEqual(IN_DOMAIN.candidates(b"A\xff"), (b"A\xff",))

    def test_a_domain_that_no_name_can_have_is_refused(self) -> None:
        """A domain must be able to be a part of a user name."""
        for domain in ("a/b", "a@b", ".a", "a\n"):
            self.assertRaises(BadUserName, UserNames, True, domain)


class ChainCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = FakePool()
        self.reactor = FakeReactor()

    def file(self, **hashes: str) -> PasswordFile:
        path = self.mktemp()
        open(path, "wb").close()
        for user, stored in hashes.items():
            users.set_hash(path, user.replace("_at_", "@"), stored)
        return PasswordFile(path, reactor=self.reactor, pool=self.pool, reading_pool=FakePool())

    def login(self, chain: CheckerChain, user: str, password: bytes) -> Deferred[Any]:
        return chain.requestAvatarId(UsernamePassword(user.encode(), password))

    def accepts(self, chain: CheckerChain, user: str, password: bytes, expected: str) -> None:
        result = self.successResultOf(self.login(chain, user, password))
        self.assertEqual(result.decode(), expected)

    def refuses(self, chain: CheckerChain, user: str, password: bytes) -> None:
        self.failureResultOf(self.login(chain, user, password), UnauthorizedLogin)


class Recorder(InMemoryUsernamePasswordDatabaseDontUse):
    """A checker that does not say which users it has, and notes which ones were asked for."""

    def __init__(self, **users: bytes) -> None:
        super().__init__(**users)
        self.asked: list[str] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials.username.decode())
        return super().requestAvatarId(credentials)


class PasswordFileNameTests(ChainCase):
    def test_another_case_reaches_the_user(self) -> None:
        """A name in another case reaches the user of that name in lower case, whose own name is the avatar id."""
        chain = CheckerChain([self.file(alice_at_example=hashed(b"secret"))], FOLDED)
        for name in ("alice@example", "Alice@example", "alice@EXAMPLE", "ALICE@EXAMPLE"):
            self.accepts(chain, name, b"secret", "alice@example")
            self.refuses(chain, name, b"wrong")

    def test_the_domain_is_added(self) -> None:
        """A name without a domain is a user of the default domain, unless the name itself is a user."""
        checker = self.file(alice=hashed(b"one"), bob_at_example=hashed(b"two"))
        chain = CheckerChain([checker], UserNames(default_domain="example"))
        self.accepts(chain, "alice", b"one", "alice")
        self.accepts(chain, "Bob", b"two", "bob@example")

    def test_a_user_with_the_exact_name_hides_others(self) -> None:
        """If two names differ in case only, each leads to its own user, whichever password is given."""
        for checkers in (
            [self.file(alice=hashed(b"lower"), Alice=hashed(b"upper"))],
            [self.file(alice=hashed(b"lower")), self.file(Alice=hashed(b"upper"))],
        ):
            chain = CheckerChain(checkers, FOLDED)
            self.accepts(chain, "alice", b"lower", "alice")
            self.accepts(chain, "ALICE", b"lower", "alice")
            self.accepts(chain, "Alice", b"upper", "Alice")
            self.refuses(chain, "Alice", b"lower")
            self.refuses(chain, "ALICE", b"upper")

    def test_a_new_user_with_the_exact_name_is_noticed(self) -> None:
        """A user that was added a moment ago has the name, also if a password for the other one is cached."""
        first, second = self.file(alice=hashed(b"lower")), self.file()
        chain = CheckerChain([first, second], FOLDED)
        self.accepts(chain, "Alice", b"lower", "alice")
        users.set_hash(second.path, "Alice", hashed(b"upper"))
        self.refuses(chain, "Alice", b"lower")
        self.assertFalse(chain.is_cached(UsernamePassword(b"Alice", b"lower")))
        self.accepts(chain, "Alice", b"upper", "Alice")

    def test_one_hash_whatever_the_name(self) -> None:
        """A login costs one hash, for each way to write the name of a user and for a user who does not exist."""
        verify = mock.Mock(wraps=passwords.verify)
        self.patch(passwords, "verify", verify)
        chain = CheckerChain([self.file(alice=hashed(b"secret"))], IN_DOMAIN)
        for name in ("alice", "ALICE", "Nobody", "nobody@example.org"):
            verify.reset_mock()
            self.refuses(chain, name, b"wrong")
            self.assertEqual(verify.call_count, 1, name)

    def test_a_correct_password_is_cached_for_all_ways_to_write_the_name(self) -> None:
        """Another way to write the name uses the cached password of the user."""
        chain = CheckerChain([self.file(alice=hashed(b"secret"))], FOLDED)
        self.accepts(chain, "ALICE", b"secret", "alice")
        self.assertTrue(chain.is_cached(UsernamePassword(b"Alice", b"secret")))
        self.assertFalse(chain.is_cached(UsernamePassword(b"Alice", b"wrong")))

    def test_unreadable_file_is_no_wrong_password(self) -> None:
        """If the file is missing, the checker cannot decide, whatever the name."""
        checker = PasswordFile(
            self.mktemp(), reactor=self.reactor, pool=self.pool, reading_pool=FakePool()
        )
        result = self.login(CheckerChain([checker], FOLDED), "Alice", b"secret")
        self.failureResultOf(result, CheckerUnavailable)


class OtherCheckerNameTests(ChainCase):
    def test_the_lower_case_name_is_tried_if_the_exact_one_is_refused(self) -> None:
        """A checker that does not say which users it has is asked for the exact name, and then for the other."""
        checker = Recorder(alice=b"secret", Bob=b"word")
        chain = CheckerChain([checker], FOLDED)
        self.accepts(chain, "Alice", b"secret", "alice")
        self.accepts(chain, "Bob", b"word", "Bob")
        self.refuses(chain, "bob", b"word")
        self.assertEqual(checker.asked, ["Alice", "alice", "Bob", "bob"])

    def test_a_name_of_the_password_file_is_final(self) -> None:
        """If a password file has a candidate, later candidates are not tried with other checkers."""
        other = Recorder(alice=b"other")
        chain = CheckerChain([other, self.file(Alice=hashed(b"upper"))], FOLDED)
        self.refuses(chain, "Alice", b"other")
        self.accepts(chain, "Alice", b"upper", "Alice")
        self.assertEqual(other.asked, ["Alice", "Alice"])

    def test_other_names_are_not_tried_while_a_checker_cannot_decide(self) -> None:
        """If a checker cannot decide about the exact name, the login waits: the other name may be another user."""
        other = Recorder(alice=b"secret")
        broken = Recorder()
        self.patch(broken, "requestAvatarId", lambda _: fail(CheckerUnavailable()))
        result = self.login(CheckerChain([broken, other], FOLDED), "Alice", b"secret")
        self.failureResultOf(result, CheckerUnavailable)
        self.assertEqual(other.asked, ["Alice"])


class ScramNameTests(ChainCase):
    def test_scram_uses_the_secret_and_the_name_of_the_user(self) -> None:
        """A SCRAM exchange with a name in another case has the secret of the user, and logs that user in."""
        stored = passwords.hash_scram(b"secret", iterations=4096)
        scram = passwords.parse_scram(stored)
        assert scram is not None
        checker = self.file(alice=stored)
        checker.load()
        self.assertTrue(checker.ready)
        for source in (checker, ScramChecker({b"alice": scram}.get)):
            exchange = Scram(source, names=FOLDED)
            exchange.setResponse(b"n,a=ALICE,n=ALICE,r=nonce")
            self.assertEqual(exchange.username, b"alice")
            self.assertIs(exchange._secret, source.secret(b"alice"))
        exchange = Scram(checker)
        exchange.setResponse(b"n,,n=ALICE,r=nonce")
        self.assertEqual(exchange.username, b"ALICE")

    def test_an_exact_name_that_appears_during_the_exchange_gets_no_other_mail(self) -> None:
        """The exchange stays with the user whose secret it began with."""
        checker = self.file(alice=passwords.hash_scram(b"secret", iterations=4096))
        checker.load()
        exchange = Scram(checker, names=FOLDED)
        exchange.setResponse(b"n,,n=Alice,r=nonce")
        users.set_hash(checker.path, "Alice", passwords.hash_scram(b"other", iterations=4096))
        checker.load()
        exchange.proved = True
        chain = CheckerChain([checker], FOLDED)
        self.assertTrue(IScramProof.providedBy(exchange))
        self.assertEqual(self.successResultOf(chain.requestAvatarId(exchange)), b"alice")


class CountedNameTests(ChainCase):
    def test_all_ways_to_write_a_name_are_one_user_for_the_limits(self) -> None:
        """The same wrong password with a name in two cases counts for one user, whether the user exists or not."""
        checker = self.file(alice=hashed(b"secret"))
        checker.load()
        chain = CheckerChain([checker], IN_DOMAIN)
        server = Server(checker=chain, clock=self.reactor)
        admission = server.factory.shared.admission
        count = mock.Mock(wraps=admission.login_failed)
        self.patch(admission, "login_failed", count)
        client = server.connect()
        for name in (b"alice", b"Alice", b"Nobody"):
            client(b"a LOGIN %b wrong" % name)
        counted = [call.args[1] for call in count.call_args_list]
        self.assertEqual(counted, [b"alice", b"alice", b"nobody@example.org"])

    def test_a_login_in_another_case_opens_the_mail_of_the_user(self) -> None:
        """LOGIN and AUTHENTICATE in another case open the one account of the user."""
        chain = CheckerChain([self.file(alice=hashed(b"secret"))], FOLDED)
        server = Server(checker=chain, clock=self.reactor)
        server.login(b"alice").append()
        client = server.login(b"ALICE")
        self.assertIn(b"* 1 EXISTS", client(b"a SELECT INBOX"))
        self.assertEqual([*server.realm.accounts], [b"alice"])


def hashed(password: bytes) -> str:
    return passwords.hash_scrypt(password, ln=2)
