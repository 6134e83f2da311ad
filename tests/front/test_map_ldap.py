"""A directory names the node of a user."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import ldap_checker
from imapshield.front.backend_address import parse_nodes
from imapshield.front.map_ldap import MapLdap
from imapshield.front.user_map import Answer, EntryWrong, LookUpFailed, Query
from tests.cred.fakes import FakePool, FakeReactor
from tests.cred.test_ldap_checker import BIND, SEARCHER, FakeLdap

NODES = parse_nodes(["mail1=tls:mail1.example:993", "mail2=tls:mail2.example:993"])


class MapLdapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakeLdap()
        self.patch(ldap_checker, "_ldap", self.fake.module)
        self.path = self.mktemp()
        self.pool, self.reactor = FakePool(), FakeReactor()

    def make(self, *lines: str) -> MapLdap:
        """Return the map of a file with these lines."""
        with open(self.path, "w", encoding="ascii") as file:
            file.write("\n".join(lines))
        os.chmod(self.path, 0o600)
        pool: Any = self.pool
        return MapLdap(self.path, NODES, self.reactor, pool)

    def ask(self, user: str = "alice", nodes: tuple[bytes, ...] = (b"mail2",)) -> Deferred[Answer]:
        """Return the answer about a user whose entry names these nodes."""
        self.fake.entries = [("uid=alice,dc=x", {"mailHost": [*nodes]})]
        found = self.make(*SEARCHER, 'node-attribute = "mailHost"')
        return Deferred.fromCoroutine(found.ask(Query(user)))

    def test_attribute_names_a_node(self) -> None:
        """The entry of the user names the node or its host; the name is escaped."""
        for value, node in ((b"mail2", "mail2"), (b"mail1.example", "mail1")):
            self.assertEqual(self.successResultOf(self.ask(nodes=(value,))).node, node)
        self.ask("a*b")
        self.assertIn(("search", "dc=x", r"(|(uid=a\2ab)(mail=a\2ab))"), self.fake.calls)
        self.assertEqual(self.fake.calls[-1], ("unbind",))

    def test_unknown_user(self) -> None:
        """A user without an entry is unknown."""
        found = self.make(*SEARCHER, 'node-attribute = "mailHost"')
        self.fake.entries = []
        answer = self.successResultOf(Deferred.fromCoroutine(found.ask(Query("bob"))))
        self.assertEqual(answer, Answer(""))
        self.assertEqual(self.successResultOf(self.ask("a\0b")), Answer(""))
        stopped: Any = found.stop()
        self.successResultOf(stopped)

    def test_entries_that_are_wrong(self) -> None:
        """An entry without a node, with two, or with one that does not exist, is wrong."""
        for values in ((), (b"mail1", b"mail2"), (b"mail9",)):
            self.failureResultOf(self.ask(nodes=values), EntryWrong)

    def test_filter_that_finds_everybody(self) -> None:
        """The directory sends a few entries at most, and the service works for others."""
        found = self.make(*SEARCHER, 'node-attribute = "mailHost"')
        self.fake.entries = [(f"uid=u{n},dc=x", {"mailHost": [b"mail1"]}) for n in range(1000)]
        asked = Deferred.fromCoroutine(found.ask(Query("alice")))
        self.assertIn("several entries", str(self.failureResultOf(asked, EntryWrong).value))

    def test_directory_that_fails(self) -> None:
        """The reason is for the log."""
        self.fake.errors = {"search": self.fake.module.SERVER_DOWN({"desc": "down"})}
        self.assertEqual(str(self.failureResultOf(self.ask(), LookUpFailed).value), "down")
        self.fake.passwords.clear()
        self.failureResultOf(self.ask(), LookUpFailed)

    def test_file(self) -> None:
        """A file that cannot be used is an error that says what to write."""
        for lines, said in (
            (BIND, "needs base and filter"),
            (SEARCHER, "write node-attribute"),
            ([*SEARCHER, 'node-attribute = "a b"'], "write node-attribute"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                self.make(*lines)
        with self.assertRaisesRegex(ValueError, "name a readable file"):
            MapLdap("/does/not/exist", NODES, self.reactor)
        waiting = MapLdap("/does/not/exist", NODES, self.reactor, FakePool(), waits_for_file=True)
        answer = Deferred.fromCoroutine(waiting.ask(Query("alice")))
        self.assertIn("No such file", str(self.failureResultOf(answer, LookUpFailed).value))
