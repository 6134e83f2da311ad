"""What is behind the shield is stopped and killed under load: nothing acknowledged is lost, and nobody hangs."""

from __future__ import annotations

import contextlib
import imaplib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import Settings
from benchmarks.processes import process_tree
from system_tests.front_case import FrontCase
from system_tests.maildirs import small_message
from system_tests.server import free_port, wait_until
from system_tests.server_case import FAULTS, PASSWORD, USER, close_quietly, literals
from system_tests.test_guard_redis import Redis

CLIENTS = 6
PATIENCE = 20.0
"""Seconds after which a client has waited for too long: all limits of the shield here are a fraction."""
ENDS = ("UNAVAILABLE", "EOF", "reset", "Broken pipe")
"""How a session may end: with an answer, or between two commands, or while the client sends."""


class FrontLossTests(FrontCase):
    forbidden_log_texts = FAULTS
    backend = "tcp:127.0.0.1:{proxy_port}"
    front_options: tuple[str, ...] = (
        *("--backend-proxy", "--limit", "backend_silent_seconds=2"),
        *("--limit", "backend_login_seconds=2", "--limit", "backend_connect_seconds=2"),
        *("--limit", "backend_check_seconds=0.5"),
    )

    def setUp(self) -> None:
        self.acknowledged: list[str] = []
        self.ends: Counter[str] = Counter()
        self.done = threading.Event()
        super().setUp()

    def append_for_ever(self, number: int) -> None:
        """Append messages, and connect again after each failure; note what is acknowledged, and why a session ends."""
        serial = 0
        while not self.done.is_set():
            with contextlib.ExitStack() as stack:
                try:
                    client = imaplib.IMAP4("127.0.0.1", self.port, timeout=PATIENCE)
                    stack.callback(close_quietly, client)
                    client.login(USER, PASSWORD)
                    while not self.done.is_set():
                        serial += 1
                        subject = f"m{number}-{serial}"
                        self.ok(
                            client.append("INBOX", "", "", small_message(subject) + b"x" * 20_000)
                        )
                        self.acknowledged.append(subject)
                except TimeoutError:
                    self.ends["hangs"] += 1
                except (imaplib.IMAP4.error, OSError) as error:
                    text = str(error)
                    self.ends[next((name for name in ENDS if name in text), text)] += 1
                    time.sleep(0.05)

    def signal_peer(self, signum: int) -> None:
        """Send a signal to all processes of the server behind the shield."""
        assert self.dovecot is not None
        for pid in process_tree(self.dovecot.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def progress(self) -> None:
        """Wait until more appends are acknowledged."""
        count = len(self.acknowledged) + 2 * CLIENTS
        wait_until(lambda: len(self.acknowledged) >= count)

    def test_nothing_acknowledged_is_lost(self) -> None:
        """The peer hangs for seconds, goes on, and is killed under load; all of it ends with a clear answer."""
        threads = [threading.Thread(target=self.append_for_ever, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            self.progress()
            self.signal_peer(signal.SIGSTOP)
            wait_until(lambda: self.ends["UNAVAILABLE"] > 2 * CLIENTS)
            self.signal_peer(signal.SIGCONT)
            self.progress()
            self.signal_peer(signal.SIGKILL)
            self.server.wait_for_output("logins are refused until it answers a check")
            self.stack.close()
            self.start_peer()
            self.progress()
        finally:
            self.signal_peer(signal.SIGCONT)
            self.done.set()
            for thread in threads:
                thread.join(PATIENCE + 10)
        self.assertEqual(self.ends["hangs"], 0)
        self.assertEqual(set(self.ends) - {*ENDS, "hangs"}, set())
        client = self.login()
        self.ok(client.select(readonly=True))
        data = self.ok(client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        stored = {line.split()[1].decode() for line in literals(data)}
        self.assertEqual(set(self.acknowledged) - stored, set())


class NodeLossTests(FrontLossTests):
    """The peer is a mail node with imapshield. The Redis of the shield hangs, goes on and is killed with it."""

    peer = "imapshield"

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        secret = Path(folder, "secret")
        secret.write_text("0123456789abcdef0123456789abcdef")
        secret.chmod(0o600)
        port = free_port()
        self.redis = Redis(folder, port)
        self.addCleanup(self.redis.end)
        self.front_options = (
            *(option for option in super().front_options if option != "--backend-proxy"),
            *("--guard-redis", f"redis://127.0.0.1:{port}", "--guard-secret", str(secret)),
        )
        super().setUp()

    def _settings(self) -> Settings:
        # A node that is killed and starts again has the same port.
        listen = ("--listen", f"tcp:{self.proxy_port}:interface=127.0.0.1")
        return replace(super()._settings(), options=listen)

    def signal_peer(self, signum: int) -> None:
        self.redis.process.send_signal(signum)
        super().signal_peer(signum)
