"""The layouts of docs/planning.rst: HAProxy accepts their configurations, and small versions of them work."""

from __future__ import annotations

import contextlib
import functools
import imaplib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from system_tests.certificate import write_certificate
from system_tests.server import TIMEOUT, Server, free_port, wait_until
from system_tests.server_case import PASSWORD, USERS, close_quietly, find_program
from tests.documented_commands import literal_blocks, pages

HAPROXY = ("global", "listen imap")
"""How configurations of HAProxy begin."""


def configurations(page: str) -> list[str]:
    """Return the configurations of HAProxy on a page."""
    return [block.text for block in literal_blocks(page) if block.text.startswith(HAPROXY)]


class HaproxyCase(SynchronousTestCase):
    """Each test has a directory with a certificate, and a path to HAProxy."""

    def setUp(self) -> None:
        self.haproxy = find_program("haproxy", "haproxy")
        self.base = tempfile.mkdtemp(prefix="planning-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.pem = write_certificate(self.base)

    def write(self, text: str) -> str:
        """Write a configuration with the certificate of the test, and return its path."""
        path = os.path.join(self.base, "haproxy.cfg")
        with open(path, "w", encoding="ascii") as file:
            file.write(text.replace("/etc/haproxy/mail.pem", self.pem) + "\n")
        return path


class ConfigurationTests(HaproxyCase):
    def test_haproxy_accepts_all_configurations(self) -> None:
        """``haproxy -c`` finds nothing wrong with any configuration in the documentation."""
        found = [(page, text) for page in pages() for text in configurations(page)]
        self.assertIn("docs/planning.rst", [page for page, _ in found])
        for page, text in found:
            timeout = "" if "timeout connect" in text else "    timeout connect 2s\n"
            command = [self.haproxy, "-c", "-f", self.write(f"{text}\n{timeout}")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, f"{page}: {done.stdout}{done.stderr}")
            self.assertNotIn("[WARNING]", done.stdout + done.stderr, page)


class TenNodeTests(HaproxyCase):
    """HAProxy with two shield nodes and two mail nodes, each with the options of the page."""

    def setUp(self) -> None:
        super().setUp()
        users = ":".join(f"{user}:{PASSWORD}" for user in USERS)
        self.mail = []
        for n in range(2):
            os.mkdir(f"{self.base}/mail{n}")
            root = ("--mail-root", f"{self.base}/mail{n}/{{user}}", "--auth", f"memory:{users}")
            self.mail.append(self.start(*root))
        backends = (
            f"mail{n}=starttls:localhost:{node.port}:ca={self.pem}"
            for n, node in enumerate(self.mail)
        )
        named = [word for backend in backends for word in ("--backend", backend)]
        with open(f"{self.base}/nodes", "w", encoding="ascii") as file:
            file.writelines(f"{user} mail{n}\n" for n, user in enumerate(USERS[:2]))
        options = ("--backend-proxy", "--user-map", f"file:{self.base}/nodes")
        self.shields = [self.start(*named, *options) for _ in range(2)]
        self.port = free_port()
        self.start_haproxy()

    def start(self, *options: str) -> Server:
        """Start a server, which ends with the test."""
        common = ("--proxy", "127.0.0.1", "--trust", "none", "--certificate", self.pem)
        server = Server(*options, *common, "--control", "none")
        self.addCleanup(lambda: server.process.poll() is None and server.stop())
        return server.wait_ready()

    def start_haproxy(self) -> None:
        """Start HAProxy with the configuration of the page, for the shield nodes of this machine."""
        text = configurations("docs/planning.rst")[0]
        text = text[: text.index("listen imaps")].replace("maxconn 100000", "maxconn 1000")
        text = re.sub(r" *server shield3 .*\n", "", text)
        text = text.replace("bind :143", f"bind 127.0.0.1:{self.port}")
        for number, shield in enumerate(self.shields, 1):
            text = text.replace(f"192.0.2.2{number}:143", f"127.0.0.1:{shield.port}")
        process = subprocess.Popen(
            [self.haproxy, "-db", "-f", self.write(text)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(process.wait, TIMEOUT)
        self.addCleanup(process.terminate)
        wait_until(self.answers)

    def answers(self) -> bool:
        """Return whether HAProxy passes connections to a shield node."""
        with contextlib.suppress(OSError), self.connected("127.0.0.1") as client:
            return client.recv(100).startswith(b"* OK")
        return False

    def connected(self, address: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT, (address, 0))

    def login(self, user: str, address: str) -> imaplib.IMAP4:
        """Log in from an address of this machine."""

        class Client(imaplib.IMAP4):
            def _create_socket(self, timeout: float | None) -> socket.socket:
                return socket.create_connection((self.host, self.port), timeout, (address, 0))

        client = Client("127.0.0.1", self.port, timeout=TIMEOUT)
        self.addCleanup(close_quietly, client)
        context = ssl.create_default_context(cafile=self.pem)
        context.check_hostname = False
        client.starttls(context)
        client.login(user, PASSWORD)
        return client

    def can_log_in(self, user: str, address: str) -> bool:
        """Return whether a login succeeds. Until HAProxy has noticed the end of a node, it does not."""
        with contextlib.suppress(OSError, imaplib.IMAP4.error):
            return self.login(user, address).noop()[0] == "OK"
        return False

    def test_ten_nodes(self) -> None:
        """Users reach their mail nodes, which see their addresses, and still do when a shield node is killed."""
        addresses = [f"127.0.0.{n}" for n in range(10, 16)]
        clients = [self.login(USERS[n % 2], address) for n, address in enumerate(addresses)]
        for client in clients:
            self.assertEqual(client.select()[0], "OK")
        self.shields.pop(0).stop(signal.SIGKILL)
        for n, address in enumerate(addresses):
            wait_until(functools.partial(self.can_log_in, USERS[n % 2], address))
        for n, node in enumerate(self.mail):
            output = node.stop()
            for address, user in zip(addresses, USERS[:2] * 3, strict=True):
                found = re.search(rf'login peer={re.escape(address)} .*user="{user}"', output)
                self.assertEqual(found is not None, USERS[n] == user, output)
