"""A user who is removed or disabled loses the connections within seconds."""

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.master_users import MasterUserChain
from imapshield.events import LimitTriggered
from imapshield.process.user_watch import LOOK_SECONDS, UserWatch
from imapshield.testing import Server
from tests.cred.fakes import FakePool, FakeReactor


class UserWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.path, self.other = self.mktemp(), self.mktemp()
        for user in ("alice", "bob"):
            users.set_hash(self.path, user, passwords.hash_scrypt(b"secret", ln=2))
        users.set_hash(self.other, "bob", passwords.hash_scrypt(b"secret", ln=2))
        files = [
            PasswordFile(path, reactor=self.reactor, pool=FakePool(), reading_pool=FakePool())
            for path in (self.path, self.other)
        ]
        self.server = Server(checker=CheckerChain([*files]), clock=self.reactor)
        self.watch = UserWatch(self.server.factory, [*files, object()], self.reactor)
        self.watch.start()
        self.addCleanup(self.watch.stop)
        self.reactor.advance(LOOK_SECONDS)
        self.alice = self.server.login(b"alice")
        self.bob = self.server.login(b"bob")

    def aborted(self) -> tuple[bool, bool]:
        self.reactor.advance(LOOK_SECONDS)
        return self.alice.transport.aborted, self.bob.transport.aborted

    def test_removed_and_disabled_users_lose_their_connections(self) -> None:
        """The connections of a user who is removed or disabled end. Those of others, and of a user of another file, do not."""
        self.assertEqual(self.aborted(), (False, False))
        users.set_disabled(self.path, "alice", is_disabled=True)
        users.remove(self.path, "bob")
        self.assertEqual(self.aborted(), (True, False))
        users.remove(self.other, "bob")
        self.assertEqual(self.aborted(), (True, True))
        (first, _) = self.server.events_of(LimitTriggered)
        self.assertEqual(
            (first.limit, first.user, first.action), ("user_removed", "alice", "reset")
        )

    def test_removed_master_users_lose_their_connections(self) -> None:
        """Connections end that a master user has opened who is removed, and no others of the same users."""
        path = self.mktemp()
        users.set_hash(path, "Admin", passwords.hash_scrypt(b"master", ln=2))
        users.set_hash(path, "bob", passwords.hash_scrypt(b"master", ln=2))
        masters = PasswordFile(path, reactor=self.reactor, pool=FakePool(), reading_pool=FakePool())
        portal: Any = self.server.factory.portal
        (files,) = {*portal.checkers.values()}
        portal.registerChecker(MasterUserChain(files.checkers, masters))
        migrated = self.server.login(b"alice*Admin", b"master")
        self.reactor.advance(LOOK_SECONDS)
        users.remove(path, "bob")
        users.set_disabled(path, "Admin", is_disabled=True)
        self.assertEqual(self.aborted(), (False, False))
        self.assertTrue(migrated.transport.aborted)

    def test_a_file_that_cannot_be_read_ends_nothing(self) -> None:
        """A missing file ends no connection, and neither does a changed password."""
        users.set_hash(self.path, "alice", passwords.hash_scrypt(b"other", ln=2))
        self.assertEqual(self.aborted(), (False, False))
        os.unlink(self.path)
        self.assertEqual(self.aborted(), (False, False))

    def test_after_the_end_nothing_is_read(self) -> None:
        """A watch that is stopped, even twice, reads no file."""
        self.watch.stop()
        self.watch.stop()
        users.remove(self.path, "alice")
        self.assertEqual(self.aborted(), (False, False))
