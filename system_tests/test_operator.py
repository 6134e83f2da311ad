"""An operator ends a flood from three hosts, one of them logged in, with four commands of docs/operating.rst."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time

from system_tests.server import TIMEOUT, wait_until
from system_tests.server_case import FAULTS, PASSWORD, ServerCase

IMAPSHIELD = os.path.join(os.path.dirname(sys.executable), "imapshield")
HOSTS = ("127.0.7.1", "127.0.7.2", "127.0.7.3")
BATCH = 80
"""Commands of a connection without a login: no limit fires, so the server bans nobody by itself."""
PAUSE = 0.25
"""Seconds between two batches of a host: fewer connections per minute than the server permits."""


class OperatorTests(ServerCase):
    forbidden_log_texts = FAULTS

    def prepare(self) -> None:
        self.control = os.path.join(self.base, "control")
        self.options = ("--control", self.control, "--trust", "none")
        self.is_over = threading.Event()

    def imapshield(self, *arguments: str) -> str:
        """Return what a command of the operator prints."""
        return self.run_client(IMAPSHIELD, *arguments, "--control", self.control).decode()

    def flood(self, host: str, *, logs_in: bool) -> None:
        """Send batches of commands from a host until it is banned."""
        batch = b"x NOOP\r\n" * BATCH
        while not self.is_over.wait(PAUSE):
            with contextlib.suppress(OSError), socket.socket() as client:
                client.settimeout(TIMEOUT)
                client.bind((host, 0))
                client.connect(("127.0.0.1", self.port))
                if logs_in:
                    client.sendall(f'x LOGIN bob "{PASSWORD}"\r\n'.encode())
                while not self.is_over.is_set():
                    client.sendall(batch)
                    answers = 0
                    while answers < BATCH and (data := client.recv(65536)):
                        answers += data.count(b"OK NOOP")
                    if answers < BATCH or not logs_in:
                        break
                    time.sleep(PAUSE)

    def test_flood_is_found_and_banned(self) -> None:
        """`top` names three hosts, `who` and `why` say who they are, and `ban` ends their connections only."""
        alice = self.login()
        threads = [
            threading.Thread(target=self.flood, args=(host,), kwargs={"logs_in": not number})
            for number, host in enumerate(HOSTS)
        ]
        for thread in threads:
            thread.start()
            self.addCleanup(thread.join)
        self.addCleanup(self.is_over.set)
        wait_until(lambda: "network" in self.imapshield("why"))
        begun = time.monotonic()
        wait_until(lambda: re.search(r"^3 hosts, \d+ % of commands$", self.top(), re.MULTILINE))
        table = self.top().partition("\naddress ")[2]
        addresses = re.findall(r"^\d\S+", table, re.MULTILINE)[: len(HOSTS)]
        self.assertEqual(sorted(addresses), [*HOSTS])
        self.assertRegex(self.imapshield("who"), r"bob +127\.0\.7\.1 ")
        self.assertIn("last commands NOOP NOOP NOOP", self.imapshield("why", HOSTS[1]))
        for address in addresses:
            # The hosts of a test are addresses of this machine, which nobody should ban by mistake.
            self.assertIn(address, self.imapshield("ban", address, "--force"))
        print(f"found and banned after {time.monotonic() - begun:.1f} s")  # noqa: T201
        who, bans = self.imapshield("who"), self.imapshield("bans")
        for host in HOSTS:
            self.assertNotIn(host, who)
            self.assertIn(host, bans)
        self.assertIn("alice", who)
        self.ok(alice.noop())

    def top(self) -> str:
        """Return what `imapshield top` shows first."""
        return self.imapshield("top", "--once")
