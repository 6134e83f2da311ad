"""What a reload changes in a running server: limits, networks, checkers, certificates."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from OpenSSL import SSL
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.auth_option import make_checker
from imapshield.certificates import Certificates, CertificateSource, PairFiles
from imapshield.config import Settings
from imapshield.cred import checker_threads, passwords, users
from imapshield.edge.ban_command import BanCommand
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.proxy import Proxies
from imapshield.guard.networks import NetworkSet
from imapshield.limits import Limits
from imapshield.observe.log_observer import LogObserver
from imapshield.process import reloadable
from imapshield.process.reload import Reloaded
from imapshield.process.reloadable import ReloadableServer
from tests.certificates import self_signed
from tests.cred.fakes import FakePool, FakeReactor
from tests.handshakes import handshake, sent_certificates


class Realm:
    """Stands for a `MaildirRealm`."""

    quota: tuple[int | None, int | None] = (None, None)


class ReloadableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.users = self.path("users")
        users.set_hash(self.users, "alice", passwords.hash_scram(b"secret", iterations=4096))
        self.patch(reloadable, "reopen_all", list)
        self.patch(checker_threads, "_DaemonPool", lambda *_: FakePool())
        self.reactor = FakeReactor()
        self.settings = Settings(auth=(f"file:{self.users}",))
        checkers = [make_checker(self.reactor, text) for text in self.settings.auth]
        self.realm = Realm()
        self.factory = ShieldedIMAP4Factory(
            Portal(cast("Any", self.realm), checkers), reactor=cast("Any", self.reactor)
        )
        networks = NetworkSet.parse(["127.0.0.0/8"])
        proxies = Proxies(NetworkSet(), Limits(), cast("Any", self.reactor), [])
        self.proxies = (proxies, proxies.everyone())
        self.ban_command = BanCommand(["/x"], networks, reactor=self.reactor, now=lambda: 0.0)
        self.certificates = Certificates(self.reactor, maybeDeferred)
        self.decoys: list[Sequence[Any]] = []
        self.more_problems: list[str] = []
        self.log = LogObserver()
        self.server = ReloadableServer(
            self.factory,
            cast("Any", self.realm),
            self.certificates,
            checkers,
            self.log,
            self.proxies,
            self.ban_command,
            self.reactor,
            lambda: self.decoys.append([*checkers]),
            [self.retry],
        )
        self.reloader = self.server.reloader(self.settings, lambda: self.settings, maybeDeferred)

    async def retry(self) -> list[str]:
        """Stand for what else a reload renews."""
        return self.more_problems

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def write(self, name: str, *pems: bytes) -> str:
        with open(self.path(name), "wb") as file:
            file.write(b"".join(pems))
        return self.path(name)

    def reload(self, **changes: Any) -> Reloaded:
        self.settings = replace(self.settings, **changes)
        return self.successResultOf(self.reloader.reload())

    def connect(self) -> Any:
        return self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1))

    def test_limits_of_a_connection_are_those_of_its_beginning(self) -> None:
        """New connections have the new limits, and those that exist keep theirs."""
        before = self.connect()
        limits = Limits(backlog=7, max_connections=40, turn_seconds=0.5, quota_bytes=1000)
        self.reload(limits=limits)
        after = self.connect()
        self.assertEqual((before.limits.backlog, after.limits.backlog), (100, 7))

    def test_limits_of_all_connections_apply_at_once(self) -> None:
        """What limits all connections together applies at once."""
        limits = Limits(
            max_connections=40,
            turn_seconds=0.5,
            quota_bytes=1000,
            max_login_checks=1,
            max_memory_bytes=5,
            proxy_header_seconds=9,
        )
        self.reload(limits=limits)
        shared = self.factory.shared
        self.assertEqual(shared.admission.guard.shares.max_connections, 40)
        self.assertEqual(shared.admission.guard.limits, limits)
        self.assertEqual(shared.fair_queue.max_seconds, 0.5)
        self.assertEqual(shared.memory_budget.limits, limits)
        self.assertEqual([each.limits for each in self.proxies], [limits, limits])
        self.assertEqual(self.realm.quota, (1000, None))
        self.reload(limits=Limits())
        self.assertEqual(self.realm.quota, (None, None))

    def test_open_files_bound_the_connections(self) -> None:
        """If the open files are too few for the new limit, the log says so."""
        self.factory.shared.admission.guard.shares.set_open_files(500)
        with capturedLogs() as logged:
            self.reload(limits=Limits(max_connections=100))
            self.reload(limits=Limits(max_connections=5000))
        (line,) = [text for text in map(formatEvent, logged) if "open files" in text]
        self.assertIn("for max_connections=5000 raise `ulimit -n`", line)

    def test_networks(self) -> None:
        """The networks of ``--trust`` and ``--proxy`` are replaced, for bans and for all ports."""
        self.reload(trust=("192.0.2.0/24",), proxy=("198.51.100.1",))
        self.assertIn("192.0.2.7", self.factory.shared.admission.guard.trusted)
        self.assertNotIn("127.0.0.1", self.factory.shared.admission.guard.trusted)
        self.assertIn("192.0.2.7", self.ban_command.trusted)
        client, proxy = (IPv4Address("TCP", host, 1) for host in ("192.0.2.7", "198.51.100.1"))
        included = [[each.include(peer) for peer in (client, proxy)] for each in self.proxies]
        self.assertEqual(included, [[False, True], [True, True]])

    def test_verbose(self) -> None:
        """``--verbose`` can be switched on and off."""
        self.reload(verbose=True)
        self.assertTrue(self.log.verbose)
        self.reload(verbose=False)
        self.assertFalse(self.log.verbose)

    def accepts(self, user: bytes, password: bytes) -> bool:
        checker = self.factory.portal.checkers[IUsernamePassword]
        result: list[object] = []
        maybeDeferred(checker.requestAvatarId, UsernamePassword(user, password)).addBoth(
            result.append
        )
        return result == [user.lower()]

    def test_checkers(self) -> None:
        """Another ``--auth`` is used at the next login. One that stays is kept, and one that is gone is closed."""
        (kept,) = self.server.checkers
        self.reload(auth=(f"file:{self.users}", "memory:bob:secret"))
        self.assertIs(self.server.checkers[0], kept)
        self.assertTrue(self.accepts(b"bob", b"secret"))
        self.assertEqual(self.factory.challengers, {})  # SCRAM needs one checker for all users
        self.assertEqual(self.decoys, [self.server.checkers])
        self.reload(auth=("memory:carol:secret",))
        self.assertTrue(kept._threads.closed)
        self.assertFalse(self.accepts(b"bob", b"secret"))
        self.assertTrue(self.accepts(b"carol", b"secret"))
        self.reload(auth=(f"file:{self.users}",))
        self.assertIn(b"SCRAM-SHA-256", self.factory.challengers or {})

    def test_master_users(self) -> None:
        """Another file of master users is used at the next login, and each reload reports what is wrong with it."""
        path = self.path("masters")
        users.set_hash(path, "admin", passwords.hash_scrypt(b"master", ln=2))
        chain: Any = self.factory.portal.checkers
        self.reload(master_users=path)
        (first,) = chain[IUsernamePassword].masters
        self.reload(master_users=path, exact_user_names=True)
        self.assertEqual(chain[IUsernamePassword].masters, (first,))
        self.write("masters", b"admin:plain\n")
        self.assertIn(f"{path}: no users", self.reload(master_users=path).problems[0])
        self.reload(master_users=None)
        self.assertEqual(getattr(chain[IUsernamePassword], "masters", ()), ())
        self.assertTrue(first._threads.closed)

    def test_user_names(self) -> None:
        """How user names may be written changes at the next login, and a wrong domain changes nothing."""
        self.assertTrue(self.reload(exact_user_names=True).changed)
        self.assertFalse(self.accepts(b"Alice", b"secret"))
        self.reload(exact_user_names=False, default_domain="example.org")
        self.assertTrue(self.accepts(b"Alice", b"secret"))
        done = self.reload(default_domain="a@b")
        self.assertIn("--default-domain a@b: the domain contains @; use", done.problems[0])

    def test_wrong_checker_changes_nothing(self) -> None:
        """A checker that cannot be made leaves the present ones."""
        done = self.reload(auth=("memory:bob:secret", f"file:{self.path('none')}"))
        self.assertIn("No such file", done.problems[0])
        self.assertEqual(len(self.server.checkers), 1)

    def test_no_checker_needs_a_restart(self) -> None:
        """From and to the users of the first start, a restart is needed."""
        self.assertEqual(self.reload(auth=()).needs_restart, ["auth"])

    def test_problems_of_the_users_file(self) -> None:
        """The file of users is read at each reload, and its problems are in the answer."""
        self.assertEqual(self.reload().problems, [])
        self.write("users", b"alice\n")
        (problem,) = self.reload().problems
        self.assertIn(f"{self.users}: no users; nobody can log in", problem)

    def sends(self, certificate: bytes) -> bool:
        source = self.connect().ctx
        peer: SSL.Connection = source.serverConnectionForTLS(None)
        return sent_certificates(handshake(peer)) == [certificate]

    def test_certificate(self) -> None:
        """A certificate can be added and replaced; connections that exist keep what they had. None needs a restart."""
        first, second = self_signed(), self_signed()
        self.assertIsNone(self.connect().ctx)
        self.reload(certificate=self.write("1.pem", *first))
        self.assertTrue(self.sends(first[0]))
        old = self.connect()
        certificate, key = (self.write(f"2{i}.pem", pem) for i, pem in enumerate(second))
        self.reload(certificate=certificate, key=key)
        self.assertTrue(self.sends(second[0]))
        done = self.reload(certificate=None, key=None)
        self.assertEqual((done.needs_restart, done.problems), (["certificate", "key"], []))
        self.assertTrue(self.sends(second[0]))
        self.assertIsNotNone(old.ctx)

    def test_endpoints_have_the_new_certificate(self) -> None:
        """An endpoint ``imaps:`` that listens already has the new certificate, too."""
        first, second = self_signed(), self_signed()
        files = PairFiles(self.write("1.pem", *first))
        source = self.certificates.main = self.certificates.add(files)
        self.reload(certificate=self.write("2.pem", *second))
        peer = source.serverConnectionForTLS(None)
        self.assertEqual(sent_certificates(handshake(peer)), [second[0]])

    def test_from_and_to_acme(self) -> None:
        """Between ``--acme`` and ``--certificate``, a restart is needed. Until then, STARTTLS and the renewal stay."""
        manual, other = self_signed(), self_signed()
        path = self.write("1.pem", *manual)
        restart = ["acme", "certificate"]
        self.reload(certificate=path)
        done = self.reload(certificate=None, acme=("mail.example.org",))
        self.assertEqual((done.needs_restart, done.problems), (restart, []))
        self.assertTrue(self.sends(manual[0]))
        self.assertEqual(self.reload(certificate=path, acme=()).needs_restart, [])

        pair = PairFiles(self.write("acme.pem", *other), option="--acme x", is_automatic=True)
        source = self.certificates.main = self.factory.context_factory = self.certificates.add(pair)
        self.settings = replace(self.settings, acme=("mail.example.org",), certificate=None)
        self.reloader = self.server.reloader(self.settings, lambda: self.settings, maybeDeferred)
        done = self.reload(certificate=path, acme=())
        self.assertEqual(done.needs_restart, restart)
        self.assertTrue(self.sends(other[0]))
        self.assertIs(source.files, pair)
        self.assertRaises(AssertionError, self.certificates.set_main, CertificateSource(pair))

    def test_reload_does_not_wait_for_checks(self) -> None:
        """A checker that is gone may have a check that takes long: the reload does not wait for it."""
        pool: Any = self.server.checkers[0]._threads._pool
        pool.paused = True
        checker = self.factory.portal.checkers[IUsernamePassword]
        login = checker.requestAvatarId(UsernamePassword(b"alice", b"secret"))
        self.reload(auth=("memory:carol:secret",))
        self.assertTrue(self.accepts(b"carol", b"secret"))
        self.assertNoResult(login)

    def test_wrong_certificate_changes_nothing(self) -> None:
        """A certificate that cannot be used leaves the present one."""
        first = self_signed()
        path = self.write("1.pem", *first)
        self.reload(certificate=path)
        self.assertEqual(len(self.reload(certificate=self.path("none")).problems), 1)
        self.assertEqual(self.reload(certificate=path).problems, [])
        self.write("1.pem", first[0])
        (problem,) = self.reload().problems
        self.assertIn("contains no PEM private key", problem)
        self.assertTrue(self.sends(first[0]))
