"""A shield in front of three mail nodes in processes of their own: clients see one server, and one node may die."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from system_tests.maildirs import small_message
from system_tests.server import TIMEOUT, Server, wait_until
from system_tests.server_case import FAULTS, PASSWORD, close_quietly

USERS = ("alice", "bob", "carol")
NODES = ("mail1", "mail2", "mail3")


class NodesCase(SynchronousTestCase):
    """Each test has three nodes, on which all users may log in, so that only the map decides who has which."""

    def setUp(self) -> None:
        self.base = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        auth = "memory:" + ":".join(f"{user}:{PASSWORD}" for user in USERS)
        self.nodes = {}
        for name in NODES:
            root = f"{self.base}/{name}"
            os.mkdir(root)
            self.nodes[name] = self.start("--mail-root", root, "--auth", auth, "--control", "none")

    def start(self, *options: str) -> Server:
        """Start a server, whose log may show no fault when the test ends."""
        server = Server(*options, XDG_DATA_HOME=self.base)

        def stop() -> None:
            output = server.stop() if server.process.poll() is None else "".join(server.output)
            for text in FAULTS:
                self.assertNotIn(text, output)

        self.addCleanup(stop)
        return server

    def start_shield(self, *options: str) -> None:
        """Start the shield, and wait until it has checked all nodes."""
        backends = [
            f"--backend={name}=tcp:127.0.0.1:{node.port}" for name, node in self.nodes.items()
        ]
        self.control = f"{self.base}/control"
        for node in self.nodes.values():
            node.wait_ready()
        self.shield = self.start(
            *backends, "--control", self.control, "--limit", "backend_check_seconds=0.3", *options
        )
        self.shield.wait_ready()
        wait_until(lambda: all(row["state"] == "up" for row in self.ask("nodes")))

    def ask(self, *arguments: str) -> Any:
        """Return the answer to a command of the operator."""
        command = [sys.executable, "-m", "imapshield", *arguments, "--json"]
        done = subprocess.run(
            [*command, "--control", self.control],
            capture_output=True, text=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    def connect(self) -> imaplib.IMAP4:
        """Return a connection to the shield."""
        client = imaplib.IMAP4("127.0.0.1", self.shield.port, timeout=TIMEOUT)
        self.addCleanup(close_quietly, client)
        return client

    def log_in(self, user: str) -> imaplib.IMAP4:
        """Return a client that has logged in."""
        client = self.connect()
        client.login(user, PASSWORD)
        return client

    def refusal(self, user: str, password: str = PASSWORD) -> str:
        """Return the answer to a login that fails."""
        with self.assertRaises(imaplib.IMAP4.error) as caught:
            self.connect().login(user, password)
        return str(caught.exception)

    def node_of(self, user: str) -> str:
        """Return on which node a message arrives that a user appends."""
        client = self.log_in(user)
        self.assertEqual(client.append("INBOX", "", "", small_message(user))[0], "OK")
        client.logout()
        found = [name for name in NODES if self.messages(name, user)]
        (name,) = found
        shutil.rmtree(f"{self.base}/{name}/{user}")
        return name

    def messages(self, node: str, user: str) -> list[str]:
        """Return the files of the messages of a user on a node."""
        folders = [f"{self.base}/{node}/{user}/{part}" for part in ("new", "cur")]
        return [name for each in folders if os.path.isdir(each) for name in os.listdir(each)]


class MapFileTests(NodesCase):
    def setUp(self) -> None:
        super().setUp()
        self.map = f"{self.base}/nodes"
        self.write_map("alice mail1\nbob mail2\ncarol mail3\n")
        self.start_shield("--user-map", f"file:{self.map}")

    def write_map(self, text: str) -> None:
        """Replace the map."""
        with open(f"{self.map}.new", "w", encoding="ascii") as file:
            file.write(text)
        os.replace(f"{self.map}.new", self.map)

    def test_one_server(self) -> None:
        """Users find their mail on their nodes; one node dies, one is drained, and the map changes meanwhile."""
        self.assertEqual([self.node_of(user) for user in USERS], [*NODES])
        alice = self.log_in("alice")
        # Nobody finds out who exists.
        wrong = self.refusal("alice", "wrong")
        self.assertIn("AUTHENTICATIONFAILED", wrong)
        self.assertEqual(self.refusal("nobody"), wrong)
        # A node dies: its users get an answer at once, and nobody else notices.
        bob = self.log_in("bob")
        self.nodes["mail2"].process.send_signal(signal.SIGKILL)
        with self.assertRaises(imaplib.IMAP4.abort):
            bob.noop()
        self.assertIn("UNAVAILABLE", self.refusal("bob"))
        self.assertEqual(alice.noop()[0], "OK")
        self.log_in("carol").logout()
        wait_until(lambda: self.ask("nodes")[1]["state"] == "down")
        # The map changes at run time, and a wrong one changes nothing.
        self.write_map("alice mail1\nbob mail9\n")
        self.shield.wait_for_output("line 2: no --backend has the name mail9")
        self.write_map("alice mail1\nbob mail1\ncarol mail3\n")
        self.shield.wait_for_output("was read again")
        self.assertEqual(self.node_of("bob"), "mail1")
        # A drained node has no further logins, and its sessions go on.
        row = self.ask("drain", "mail1")
        self.assertEqual((row["state"], row["users"]), ("draining", 1))
        self.assertIn("UNAVAILABLE", self.refusal("alice"))
        self.assertEqual(alice.noop()[0], "OK")
        self.ask("undrain", "mail1")
        states = [row["state"] for row in self.ask("status")["nodes"]]
        self.assertEqual(states, ["up", "down", "up"])
        # A user moves: the session ends, and the next login waits and finds the new node.
        self.assertEqual(self.ask("hold", "alice")["ended"], 1)
        with self.assertRaises(imaplib.IMAP4.abort) as ended:
            alice.noop()
            alice.noop()
        self.assertIn("connect again", f"{ended.exception}{alice.untagged_responses}")
        self.write_map("alice mail3\n")
        waiting = threading.Timer(0.3, self.ask, ("release", "alice"))
        waiting.start()
        self.assertEqual(self.node_of("alice"), "mail3")
        waiting.join()


class _Service(BaseHTTPRequestHandler):
    """Says that a user is on the node of a table."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append({name.lower(): value for name, value in self.headers.items()})
        name, port = server.table.get(self.headers["Auth-User"], ("", ""))
        self.send_response(200)
        self.send_header("Auth-Status", "OK" if name else "Invalid login or password")
        if name:
            self.send_header("Auth-Server", name)
        if port:
            self.send_header("Auth-Port", port)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def running_service(table: dict[str, tuple[str, str]]) -> Iterator[Any]:
    """Yield a running service."""
    service: Any = HTTPServer(("127.0.0.1", 0), _Service)
    service.table, service.asked = table, []
    thread = threading.Thread(target=service.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


class HttpServiceTests(NodesCase):
    def test_service(self) -> None:
        """A service names nodes, and cannot name other servers; its answers are used again while it is down."""
        port = str(self.nodes["mail2"].port)
        table = {"alice": ("mail1", ""), "bob": ("127.0.0.1", port), "carol": ("127.0.0.1", "25")}
        with running_service(table) as service:
            url = f"http://127.0.0.1:{service.server_port}/map"
            self.start_shield("--user-map", url, "--limit", "map_cache_seconds=0.01")
            self.assertEqual(self.node_of("alice"), "mail1")
            self.assertEqual(self.node_of("bob"), "mail2")
            self.assertIn("UNAVAILABLE", self.refusal("carol"))
            self.shield.wait_for_output("names a node that no --backend has")
            self.assertIn("AUTHENTICATIONFAILED", self.refusal("nobody"))
            headers = service.asked[0]
            self.assertEqual((headers["auth-user"], headers["auth-method"]), ("alice", "plain"))
            self.assertEqual((headers["auth-protocol"], headers["client-ip"]), ("imap", "127.0.0.1"))  # fmt: skip
            self.assertNotIn(PASSWORD, str(service.asked))
        self.assertEqual(self.node_of("alice"), "mail1")
        self.assertIn("UNAVAILABLE", self.refusal("dave"))
