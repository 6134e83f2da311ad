"""A reload changes the nodes and the map for the logins to come, and no session notices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, Settings, load_settings
from imapshield.front import front_parts
from imapshield.front.backend import Backend, ClientAddress
from imapshield.front.backend_address import parse_nodes
from imapshield.front.front_parts import Front
from imapshield.front.map_file import MapFile
from imapshield.front.nodes import _free_name
from imapshield.front.user_map import Answer, Query, UserMap
from imapshield.limits import Limits
from imapshield.testing.in_process import Server
from tests.front.node_case import FakeService, NodeCase
from tests.front.test_nodes import MAINTENANCE


class ReplacedNodesTests(NodeCase):
    def setUp(self) -> None:
        super().setUp()
        self.nodes.start()

    def tearDown(self) -> None:
        self.nodes.stop()

    def replace(self, *names: str) -> list[str]:
        """Keep some nodes; return the lines of the log."""
        with capturedLogs() as logged:
            self.nodes.replace([self.nodes.by_name[name] for name in names], self.map)
        return [formatEvent(event) for event in logged]

    def test_removed_node(self) -> None:
        """Its sessions go on, it gets no login, and it is listed until the last user has left, which the log says."""
        client = self.log_in("alice", "mail1")
        link, number = self.links["mail1"][-1], len(self.links["mail1"])
        (line,) = self.replace("mail2", "mail3")
        self.assertIn("mail1=tcp:127.0.0.1:1: removed; ", line)
        self.clock.advance(30)
        self.assertEqual(len(self.links["mail1"]), number)
        other = self.server.connect()
        self.assertEqual(other(b"a LOGIN alice secret"), b"a " + MAINTENANCE)
        row = self.ask("nodes")[2]
        self.assertEqual((row["node"], row["state"], row["sessions"]), ("mail1", "removed", 1))
        client(b"n NOOP")
        link.send(b"n OK done\r\n")
        self.assertEqual(client.read(), b"n OK done\r\n")
        with capturedLogs() as logged:
            client.lose_connection()
        self.assertIn("the last user has left", [formatEvent(event) for event in logged][-1])
        self.assertEqual([row["node"] for row in self.ask("nodes")], ["mail2", "mail3"])

    def test_login_during_the_reload(self) -> None:
        """A login that waits at a node that is removed is refused for now."""
        backend = self.nodes.by_name["mail1"]
        self.replace("mail2")
        opening: Any = backend.open(ClientAddress(), None)  # type: ignore[arg-type]
        failed: Deferred[Any] = Deferred.fromCoroutine(opening)
        self.assertIn("removed by a reload", str(self.failureResultOf(failed).value))

    def test_other_address(self) -> None:
        """A node with another address is another one, and stays drained. Sessions at the old one have their own row."""
        self.log_in("alice", "mail1")
        self.ask("drain", node="mail1")
        (address,) = parse_nodes(["mail1=tcp:127.0.0.1:9"])
        other = Backend(address, None, self.clock, self.get_limits, connect=self._connect("mail2"))
        self.nodes.replace([other], self.map)
        row, old = [row for row in self.ask("nodes") if row["node"].startswith("mail1")]
        self.assertEqual(
            (row["address"], row["state"], row["sessions"]), (address.text, "draining", 0)
        )
        self.assertEqual(
            (old["node"], old["state"], old["sessions"]), ("mail1=tcp:127.0.0.1:1", "removed", 1)
        )
        self.assertEqual(_free_name(address, ["mail1", address.text]), f"{address.text} (2)")

    def test_other_source(self) -> None:
        """The source of before ends when it has answered all; at the end of the server, at once."""
        backends = [*self.nodes.by_name.values()]
        for seconds in (self.get_limits().map_lookup_seconds, 0):
            service, old = FakeService(), self.service
            self.service = service
            self.nodes.replace(backends, UserMap(service, self.clock, self.get_limits))
            self.assertFalse(old.stopped)
            self.clock.advance(seconds)
            if not seconds:
                self.nodes.stop()
            self.assertTrue(old.stopped)
        self.clock.advance(100)

    def test_release_during_the_reload(self) -> None:
        """A user who is released while the map is replaced is looked up again in the new one."""
        waiting: Deferred[None] = Deferred()
        self.patch(self.map, "refresh", lambda _: waiting)
        released = Deferred.fromCoroutine(self.nodes.release("alice"))
        source = UserMap(FakeService(), self.clock, self.get_limits)
        source._remember("alice", Answer("mail1"))
        self.nodes.replace([*self.nodes.by_name.values()], source)
        self.assertNoResult(released)
        waiting.callback(None)
        self.assertFalse(self.successResultOf(released))
        self.assertIsNone(source.known("alice"))

    def test_removed_nodes_are_forgotten(self) -> None:
        """Removed nodes without sessions take no memory, also if nobody lists the nodes."""
        self.replace("mail1")
        for backend in self.nodes._removed:
            backend.connections = 0
        self.replace("mail1")
        self.assertEqual(self.nodes._removed, [])


class FrontReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(front_parts, "deferToThread", maybeDeferred)
        self.map = self.mktemp()
        self.write("alice mail1\n")
        self.front = Front(self.settings("mail1", "mail2"), Server().clock, Limits)

    def write(self, text: str) -> None:
        """Write the map."""
        with open(self.map, "w", encoding="utf-8") as file:
            file.write(text)

    def settings(self, *nodes: str, **more: Any) -> Settings:
        """Return the settings with some nodes."""
        backends = [f"{node}=tcp:127.0.0.1:1" for node in nodes]
        return load_settings({"backend": backends, "user-map": f"file:{self.map}", **more})

    def prepare(self, new: Settings) -> Any:
        """Return what applies new settings."""
        return Deferred.fromCoroutine(self.front.prepare(new))

    def test_nodes_that_stay(self) -> None:
        """A node that is as before is the same one, with its connections; the others are new."""
        before = self.front.nodes.by_name
        self.successResultOf(self.prepare(self.settings("mail3", "mail1")))()
        after = self.front.nodes.by_name
        self.assertEqual([*after], ["mail3", "mail1"])
        self.assertIs(after["mail1"], before["mail1"])
        self.assertEqual(self.front.nodes.known("alice"), Answer("mail1"))
        source: Any = self.front.nodes.source
        assert isinstance(source, MapFile)
        source._run_in_thread = maybeDeferred
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.front.reload())), [])

    def test_user_who_is_released_during_the_reload(self) -> None:
        """A map that was read before the move of a user is read again before anybody has an answer."""
        apply = self.successResultOf(self.prepare(self.settings("mail1", "mail2")))
        self.write("alice  mail2\n")
        source: Any = self.front.nodes.source
        source._run_in_thread = maybeDeferred
        self.successResultOf(Deferred.fromCoroutine(self.front.nodes.release("alice")))
        apply()
        new: Any = self.front.nodes.source
        self.assertIsNot(new, source)
        new._run_in_thread = maybeDeferred
        found = Deferred.fromCoroutine(self.front.nodes.look_up(Query("alice")))
        self.assertEqual(self.successResultOf(found), Answer("mail2"))

    def test_hosts_that_change_their_names(self) -> None:
        """What a service has said by a host is not remembered if another node has that host now."""

        def nodes(**ports: int) -> Any:
            return parse_nodes([f"{name}=tcp:127.0.0.1:{port}" for name, port in ports.items()])

        before = nodes(swapped=1, other=2, stays=3, gone=4, moved=5)
        after = nodes(swapped=2, other=1, stays=3, new=4, moved=6)
        self.assertEqual(front_parts._still_named(before, after), ["stays", "moved"])

    def test_map_without_the_node(self) -> None:
        """If the map names a node that is gone, nothing changes."""
        failed = self.failureResultOf(self.prepare(self.settings("mail2", "mail3")), ConfigError)
        self.assertIn("no --backend has the name mail1", str(failed.value))
        self.assertEqual([*self.front.nodes.by_name], ["mail1", "mail2"])

    def test_map_that_is_wrong(self) -> None:
        """A reload reads the file of the map, and says if it is wrong or missing; the table stays."""
        source: Any = self.front.nodes.source
        source._run_in_thread = maybeDeferred
        self.write("alice mail1\nbob\n")
        (line,) = self.successResultOf(Deferred.fromCoroutine(self.front.reload()))
        self.assertRegex(line, "^--user-map file:.*: line 2: .*; the table stays as it was$")
        self.assertEqual(self.front.nodes.known("alice"), Answer("mail1"))
        source._table = None
        (line,) = self.successResultOf(Deferred.fromCoroutine(self.front.reload()))
        self.assertTrue(line.endswith("; nobody can log in"), line)
        self.write("alice mail2\n")
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.front.reload())), [])
        self.assertEqual(self.front.nodes.known("alice"), Answer("mail2"))

    def test_connections_of_workers(self) -> None:
        """Each worker has its share of the connections, and the row of a node the maximum of all of them."""
        backends = ["mail1=tcp:127.0.0.1:1:connections=7", "mail2=tcp:127.0.0.1:2"]
        settings = replace(self.settings("mail1", "mail2", backend=backends), workers=2)
        nodes = Front(settings, Server().clock, Limits).nodes
        most = Limits().max_backend_connections
        shares = [each.max_connections for each in nodes.by_name.values()]
        self.assertEqual(shares, [4, most])
        rows = nodes.described()
        self.assertEqual([row["max_connections"] for row in rows], [7, 2 * most])

    def test_no_backend(self) -> None:
        """A server that is to have the mail itself needs a restart."""
        self.assertIsNone(self.successResultOf(self.prepare(Settings())))

    def test_service_is_remembered(self) -> None:
        """What a service has said counts further, except for nodes that are gone; of another service, nothing does."""
        text = "http://127.0.0.1:1/x"
        for new, known in ((text, Answer("mail1")), ("http://127.0.0.1:1/y", None)):
            options = {"user-map": text}
            self.front = Front(self.settings("mail1", "mail2", **options), Server().clock, Limits)
            source = self.front.nodes.source
            assert isinstance(source, UserMap)
            source._remember("alice", Answer("mail1"))
            source._remember("bob", Answer("mail2"))
            settings = self.settings("mail1", "mail3", **{"user-map": new})
            self.successResultOf(self.prepare(settings))()
            self.assertIsNot(self.front.nodes.source, source)
            self.assertEqual(self.front.nodes.known("alice"), known)
            self.assertIsNone(self.front.nodes.known("bob"))
