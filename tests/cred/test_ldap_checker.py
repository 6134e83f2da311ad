"""An LDAP directory decides by bind, and only its own answers are refusals. (`system_tests.test_ldap` has a real one.)"""

import os
from types import SimpleNamespace
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from imapshield.auth_option import check_auth_file, make_checker
from imapshield.config import ConfigError
from imapshield.cred import ldap_checker
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.ldap_checker import TIMEOUT_SECONDS, LdapChecker
from imapshield.cred.master_users import can_find_users
from imapshield.cred.unavailable import MAX_REASONS, CheckerUnavailable
from imapshield.cred.user_names import UserNames
from tests.cred.fakes import FakePool, FakeReactor

BIND = ['uri = "ldaps://a"', 'bind-as = "uid={user},dc=x"']
SEARCH = ['uri = "ldap://a"', 'base = "dc=x"', 'filter = "(|(uid={user})(mail={user}))"']
SEARCHER = [*SEARCH, 'search-dn = "cn=s"', 'search-password = "s3"']
NAMES = ("LDAPError", "SERVER_DOWN", "TIMEOUT", "SIZELIMIT_EXCEEDED", *ldap_checker._REFUSALS)


class FakeLdap:
    """Plays both the module ldap and the directory.

    Attributes:
        passwords: DN → password.
        entries: what a search finds.
        errors: method → what it raises.
        calls: what was asked.
    """

    def __init__(self) -> None:
        error: Any = type("LDAPError", (Exception,), {})
        self.module = SimpleNamespace(initialize=self.initialize, SCOPE_BASE=0, SCOPE_SUBTREE=2)
        for name in NAMES:
            setattr(self.module, name, error if name == "LDAPError" else type(name, (error,), {}))
        for name in ("REFERRALS", "NETWORK_TIMEOUT", "TIMEOUT"):
            setattr(self.module, f"OPT_{name}", name)
        for name in ("REQUIRE_CERT", "DEMAND", "PROTOCOL_MIN", "CACERTFILE", "NEWCTX"):
            setattr(self.module, f"OPT_X_TLS_{name}", name)
        self.passwords = {"uid=Alice,dc=x": b"secret", "uid=alice,dc=x": b"secret", "cn=s": b"s3"}
        self.entries: list[Any] = [("uid=alice,dc=x", {"UID": [b"alice"]})]
        self.errors: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.options: dict[Any, Any] = {}

    def initialize(self, uri: str) -> Any:
        self.calls.append(("connect", uri))
        return self

    def set_option(self, option: str, value: object) -> None:
        self.options[option] = value

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] in self.errors:
            raise self.errors[call[0]]

    def start_tls_s(self) -> None:
        self._called("tls")

    def simple_bind_s(self, dn: str, password: bytes) -> None:
        self._called("bind", dn)
        if self.passwords.get(dn) != password:
            raise self.module.INVALID_CREDENTIALS

    def search_ext_s(
        self,
        base: str,
        scope: int,
        text: str,
        names: list[str],
        *,
        timeout: float,
        sizelimit: int,
    ) -> Any:
        assert timeout > 0.0
        self._called("search", base, text)
        if len(self.entries) > sizelimit:
            raise self.module.SIZELIMIT_EXCEEDED
        return self.entries

    def unbind_s(self) -> None:
        self._called("unbind")


class LdapCheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakeLdap()
        self.patch(ldap_checker, "_ldap", self.fake.module)
        self.reactor, self.pool, self.path = FakeReactor(), FakePool(), self.mktemp()
        self.write(BIND)
        self.checker = LdapChecker(self.path, reactor=self.reactor, pool=self.pool)
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def write(self, lines: list[str]) -> None:
        with open(self.path, "w", encoding="ascii") as file:
            file.write("\n".join(lines))
        os.chmod(self.path, 0o600)

    def check(self, user: bytes = b"Alice", password: bytes = b"secret") -> Deferred[bytes]:
        return self.checker.requestAvatarId(UsernamePassword(user, password))

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.logged if "reason" in event]

    def test_user_binds_and_the_directory_names_the_user(self) -> None:
        """The user is the one that the entry names, whatever the client wrote, and the connection ends."""
        verifyObject(ICredentialsChecker, self.checker)
        self.assertEqual(self.successResultOf(self.check()), b"alice")
        dn = "uid=Alice,dc=x"
        expected = [("connect", "ldaps://a"), ("bind", dn), ("search", dn, "(objectClass=*)"), ("unbind",)]  # fmt: skip
        self.assertEqual(self.fake.calls, expected)
        self.assertEqual(self.fake.options["REQUIRE_CERT"], "DEMAND")
        self.failureResultOf(self.check(b"a,b"), UnauthorizedLogin)
        self.assertIn(("bind", r"uid=a\2cb,dc=x"), self.fake.calls)

    def test_search_comes_first_if_it_is_configured(self) -> None:
        """TLS begins, the searching user logs in, the entry is searched, and its DN and the password decide."""
        for lines, binds in ((SEARCHER, ["cn=s"]), (SEARCH, [])):
            self.fake.calls.clear()
            self.write(lines)
            self.assertEqual(self.successResultOf(self.check(b"a*b")), b"alice")
            asked = [call[1] for call in self.fake.calls if call[0] == "bind"]
            self.assertEqual(asked, [*binds, "uid=alice,dc=x"])
            self.assertIn(("search", "dc=x", r"(|(uid=a\2ab)(mail=a\2ab))"), self.fake.calls)
            self.assertEqual(self.fake.calls[1], ("tls",))

    def test_unknown_name_takes_the_same_requests(self) -> None:
        """A name without an entry is refused after a bind, as a wrong password is; references are no entries."""
        self.write(SEARCH)
        self.fake.entries = [(None, ["ldap://b"])]
        self.failureResultOf(self.check(), UnauthorizedLogin)
        self.assertIn(("bind", "cn=none,dc=x"), self.fake.calls)

    def test_refusals(self) -> None:
        """What a directory says of one user is a refusal, and never a log line."""
        for name in ldap_checker._REFUSALS:
            self.fake.errors["bind"] = getattr(self.fake.module, name)
            self.failureResultOf(self.check(), UnauthorizedLogin)
        self.assertEqual(self.reasons(), [])

    def test_nothing_is_asked_without_a_password(self) -> None:
        """An empty name or password, one with NUL, and a name that is not UTF-8 never reach the directory."""
        for user, password in ((b"", b"x"), (b"a", b""), (b"a\0", b"x"), (b"a", b"x\0"), (b"\xff", b"x")):  # fmt: skip
            self.failureResultOf(self.check(user, password), UnauthorizedLogin)
        self.assertEqual(self.fake.calls, [])

    def test_outages(self) -> None:
        """Everything else is unavailable, with one log line for each reason until a login is decided."""
        down = self.fake.module.SERVER_DOWN(
            {"desc": "Can't contact LDAP server", "info": "refused"}
        )
        for method, error in (("bind", down), ("bind", down), ("search", ValueError("odd")), ("unbind", down)):  # fmt: skip
            self.fake.errors = {method: error}
            result = self.check()
            if method == "unbind":
                self.assertEqual(self.successResultOf(result), b"alice")
            else:
                self.failureResultOf(result, CheckerUnavailable)
        self.fake.errors = {"bind": self.fake.module.TIMEOUT()}
        self.failureResultOf(self.check(), CheckerUnavailable)
        expected = ["Can't contact LDAP server: refused", "odd", "TIMEOUT"]
        self.assertEqual(self.reasons(), expected)

    def test_entries_that_name_nobody(self) -> None:
        """Two entries, no value and two values are the operator's problem, and so is a wrong search-password."""
        missing = self.fake.module.NO_SUCH_OBJECT({"desc": "No such object"})
        alice = self.fake.entries[0]
        for lines, entries, error, reason in (
            (SEARCH, [alice, alice], None, "2 entries have the same name"),
            (SEARCH, [], missing, "No such object"),
            (BIND, [], missing, "0 readable values of uid"),
            (BIND, [(alice[0], {"cn": [b"x"]})], None, "0 readable values of uid"),
            (BIND, [(alice[0], {"uid": [b"a", b"b"]})], None, "2 readable values of uid"),
            ([line.replace("s3", "s4") for line in SEARCHER], [], None, "the password of cn=s"),
            (["uri = 1"], [], None, "uri must be"),
        ):
            self.write(lines)
            self.fake.entries, self.fake.errors = entries, {"search": error} if error else {}
            self.failureResultOf(self.check(), CheckerUnavailable)
            self.assertIn(reason, " ".join(self.reasons()))
        os.unlink(self.path)
        self.failureResultOf(self.check(), CheckerUnavailable)
        self.assertEqual(self.reasons()[-1], "No such file or directory")

    def test_entry_of_one_user_is_no_outage(self) -> None:
        """What is wrong with one entry is logged once, whoever else logs in, and nothing says that nobody can log in."""
        good: list[Any] = self.fake.entries
        bad: list[Any] = [("uid=alice,dc=x", {})]
        for entries in (bad, good, bad, good, bad):
            self.fake.entries = entries
            result = self.check()
            if entries is bad:
                self.failureResultOf(result, CheckerUnavailable)
            else:
                self.assertEqual(self.successResultOf(result), b"alice")
        lines = [formatEvent(event) for event in self.logged if "reason" in event]
        self.assertEqual(len(lines), 1)
        self.assertIn("some users cannot log in with it: an entry has 0 readable values", lines[0])

    def test_unusable_entries_are_logged_a_few_times(self) -> None:
        """The texts depend on what a directory sends, so only some different ones are logged."""
        self.write(SEARCH)
        for number in range(2, 2 * MAX_REASONS):
            self.fake.entries = [("uid=alice,dc=x", {})] * number
            self.failureResultOf(self.check(), CheckerUnavailable)
        self.assertEqual(len(self.reasons()), MAX_REASONS)

    def test_slow_directory(self) -> None:
        """A login has a result in time; its call counts until its thread is free, and asks nothing any more."""
        self.patch(ldap_checker, "MAX_PENDING", 1)
        self.checker = LdapChecker(self.path, reactor=self.reactor, pool=self.pool)
        self.pool.paused = True
        slow = self.check()
        self.failureResultOf(self.check(), CheckerUnavailable)
        self.reactor.advance(TIMEOUT_SECONDS)
        self.failureResultOf(slow, CheckerUnavailable)
        self.failureResultOf(self.check(), CheckerUnavailable)
        self.pool.run_pending()
        self.assertNotIn("bind", [call[0] for call in self.fake.calls])
        self.pool.paused = False
        self.assertEqual(self.successResultOf(self.check()), b"alice")
        self.assertEqual(self.reasons(), ["no answer"])
        self.checker.close()
        self.failureResultOf(self.check(), CheckerUnavailable)

    def test_one_wrong_password_is_one_bind(self) -> None:
        """Other letter cases of a name are not tried: a directory may lock the account after a few wrong passwords."""
        chain = CheckerChain([self.checker], UserNames(default_domain="example.org"))
        self.failureResultOf(chain.requestAvatarId(UsernamePassword(b"Bob", b"x")), UnauthorizedLogin)  # fmt: skip
        binds = [call[1] for call in self.fake.calls if call[0] == "bind"]
        self.assertEqual(binds, ["uid=Bob,dc=x", "uid=Bob@example.org,dc=x"])

    def test_users_are_found_for_a_master_user(self) -> None:
        """A user is found without a password if the entry is searched; with bind-as that is unavailable."""
        self.write(SEARCHER)
        self.assertEqual(self.successResultOf(self.checker.find_user(b"Alice")), b"alice")
        self.assertEqual([call[1] for call in self.fake.calls if call[0] == "bind"], ["cn=s"])
        for self.fake.entries, name in (([], b"Bob"), ([], b"\xff"), ([], b"")):
            self.assertIsNone(self.successResultOf(self.checker.find_user(name)))
        self.assertTrue(can_find_users(self.checker))
        self.write(BIND)
        self.failureResultOf(self.checker.find_user(b"Alice"), CheckerUnavailable)
        self.assertFalse(can_find_users(self.checker))
        os.unlink(self.path)
        self.assertTrue(can_find_users(self.checker))
        self.assertIn("a master user needs base and filter", self.reasons()[0])

    def test_authorities(self) -> None:
        """The certificates of the file are trusted, or those of the system, or what ldap.conf says."""
        self.addCleanup(ldap_checker._system_authorities.cache_clear)
        for lines, found, expected in (
            ([*BIND, f'ca-file = "{self.path}"'], "", self.path),
            (BIND, "/etc/ssl/ca-bundle.pem", "/etc/ssl/ca-bundle.pem"),
            (BIND, "", None),
        ):
            ldap_checker._system_authorities.cache_clear()
            self.patch(ldap_checker, "exists", found.__eq__)
            self.write(lines)
            self.fake.options.clear()
            self.successResultOf(self.check())
            self.assertEqual(self.fake.options.get("CACERTFILE"), expected)

    def test_option(self) -> None:
        """``--auth ldap:FILE`` needs a valid file and python-ldap; a URL is answered with where to write it."""
        self.assertIsInstance(make_checker(self.reactor, f"ldap:{self.path}"), LdapChecker)
        waiting = make_checker(self.reactor, "ldap:/does/not/exist", waits_for_files=True)
        self.assertIsInstance(waiting, LdapChecker)
        check_auth_file(f"ldap:{self.path}")
        for text, error in (
            ("ldap", "needs a file, as in"),
            ("ldap:ldaps://a", 'write uri = "ldaps://a" in it'),
            ("ldap:/nosuch", "/nosuch: No such file or directory; name a TOML file"),
        ):
            with self.assertRaisesRegex(ConfigError, error):
                make_checker(self.reactor, text)
        self.patch(ldap_checker, "_ldap", None)
        with self.assertRaisesRegex(
            ConfigError, r"python-ldap is not installed: .*imapshield\[ldap"
        ):
            make_checker(self.reactor, f"ldap:{self.path}")
        self.write([])
        with self.assertRaisesRegex(ConfigError, "ldap:.*: write uri"):
            check_auth_file(f"ldap:{self.path}")
