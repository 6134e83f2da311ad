"""A server with two workers: one account over both, a worker that is killed, and one server for the operator."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import re
import signal
import socket
import sys
import threading
import urllib.request
from typing import Any

from system_tests.server import TIMEOUT, free_port, wait_until
from system_tests.server_case import FAULTS, PASSWORD, ServerCase

IMAPSHIELD = os.path.join(os.path.dirname(sys.executable), "imapshield")
FLOODER = "127.0.7.1"


class WorkersTests(ServerCase):
    forbidden_log_texts = FAULTS

    def prepare(self) -> None:
        self.control, self.metrics = os.path.join(self.base, "control"), free_port()
        self.config, index = (
            os.path.join(self.base, "shield.toml"),
            os.path.join(self.base, "index"),
        )
        os.mkdir(index)
        self.configure(1800)
        self.options = (
            *("--workers", "2", "--control", self.control, "--config", self.config),
            *("--trust", "none", "--index-root", index),
            *("--metrics", f"tcp:{self.metrics}:interface=127.0.0.1"),
        )

    def configure(self, seconds: int) -> None:
        with open(self.config, "w") as file:
            file.write(f"[limit]\nidle_seconds = {seconds}\n")

    def ask(self, *arguments: str) -> Any:
        """Return the answer to a command of the operator."""
        command = IMAPSHIELD, *arguments, "--control", self.control, "--json"
        return json.loads(self.run_client(*command))

    def wait_for_workers(self, *not_pids: int) -> list[dict[str, Any]]:
        """Wait until both workers serve clients, with other processes than `not_pids`; return their rows."""
        rows: list[dict[str, Any]] = []

        def ready() -> bool:
            rows[:] = self.ask("status")["workers"]
            return all(row["serves"] and row["pid"] not in not_pids for row in rows)

        wait_until(ready)
        return rows

    def client(self) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.port, TIMEOUT)
        client.login("alice", PASSWORD)
        client.select()
        return client

    def test_one_account_and_a_worker_that_is_killed(self) -> None:
        """Clients of both workers change one mailbox. One worker is killed: nothing acknowledged is lost, no UID is
        used twice, and the clients of the other worker notice nothing.
        """
        rows = self.wait_for_workers()
        uids: list[int] = []
        ended: list[threading.Thread] = []
        is_over, lock = threading.Event(), threading.Lock()
        idler = self.client()

        def append() -> None:
            client, highest = self.client(), 0
            try:
                while not is_over.is_set():
                    _, data = client.append("INBOX", "", "", b"Subject: x\r\n\r\nx\r\n")
                    match = re.search(rb"APPENDUID \d+ (\d+)", data[0])
                    assert match is not None, data
                    with lock:
                        uids.append(int(match[1]))
                    client.uid("STORE", match[1].decode(), "+FLAGS", r"(\Flagged)")
                    _, status = client.status("INBOX", "(HIGHESTMODSEQ)")
                    modseq = int(status[0].split()[-1].rstrip(b")"))
                    assert modseq >= highest, (modseq, highest)
                    highest = modseq
            except (OSError, imaplib.IMAP4.abort):
                ended.append(threading.current_thread())

        threads = [threading.Thread(target=append) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(uids) > 40)
        spread = [row["connections"] for row in self.ask("status")["workers"]]
        self.assertTrue(all(spread), spread)
        os.kill(rows[0]["pid"], signal.SIGKILL)
        again = self.wait_for_workers(rows[0]["pid"])
        self.assertEqual(again[1]["pid"], rows[1]["pid"])
        count = len(uids)
        wait_until(lambda: len(uids) > count + 20)
        is_over.set()
        for thread in threads:
            thread.join(TIMEOUT)
        lost = spread[0]
        self.assertLessEqual(len(ended), lost)
        self.assertLess(len(ended), len(threads))
        self.assertEqual(len(uids), len({*uids}))
        with self.client() as client:
            _, data = client.uid("SEARCH", "ALL")
            self.assertLessEqual({*uids}, {int(uid) for uid in data[0].split()})
        with contextlib.suppress(
            imaplib.IMAP4.abort
        ):  # it may have been with the worker that was killed
            idler.noop()
            changes = int(idler.response("EXISTS")[1][-1] or 0)
            self.assertGreaterEqual(changes, len(uids))
            idler.shutdown()

    def flood(self) -> bool:
        """Send more commands than may be pending; return whether the address is banned."""
        with contextlib.suppress(OSError), socket.socket() as client:
            client.settimeout(TIMEOUT)
            client.bind((FLOODER, 0))
            client.connect(("127.0.0.1", self.port))
            if not client.recv(1000):
                return True
            client.sendall(b"x NOOP\r\n" * 200)
            while client.recv(65536):
                pass
        return False

    def test_one_server_for_the_operator(self) -> None:
        """Violations in both workers ban an address in both; status, why and metrics are of one server. A reload
        reaches it, and SIGTERM says BYE to the clients of both, and leaves no process.
        """
        rows = self.wait_for_workers()
        clients = [self.client() for _ in range(8)]
        wait_until(self.flood)
        for _ in range(8):
            self.assertTrue(self.flood())
        (ban,) = self.ask("bans")
        self.assertEqual(ban["network"], f"{FLOODER}/32")
        status = self.ask("status")
        self.assertEqual((status["connections"], status["bans"]), (len(clients), 1))
        self.assertTrue(all(row["connections"] for row in status["workers"]))
        self.assertEqual(len(self.ask("who", "alice")), len(clients))
        causes = {end["cause"]: end["count"] for end in self.ask("why", FLOODER)["ends"]}
        self.assertGreaterEqual(causes["backlog"], 5)
        url = f"http://127.0.0.1:{self.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            figures = answer.read().decode()
        self.assertIn("imapshield_bans 1.0", figures)
        self.assertIn(f'imapshield_connections{{login="yes"}} {len(clients)}.0', figures)
        self.configure(1900)
        self.server.process.send_signal(signal.SIGHUP)
        self.server.wait_for_output("idle_seconds: 1800 -> 1900")
        self.server.wait_for_output("reloaded: changes=1 problems=0")
        self.server.process.send_signal(signal.SIGTERM)
        for client in clients:
            self.assertIn(b"* BYE", client.readline())
            client.shutdown()
        self.server.process.wait(TIMEOUT)
        for row in rows:
            self.assertFalse(os.path.exists(f"/proc/{row['pid']}"))
