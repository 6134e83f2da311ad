"""Two servers share one guard through a real Redis, which is killed, stopped, full, and empty after a restart."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.control.client import ask as ask_server
from imapshield.control.request_lines import Request
from imapshield.shared.rate_script import SCRIPT
from system_tests.certificate import write_certificate
from system_tests.server import TIMEOUT, Server, free_port, wait_until
from system_tests.server_case import FAULTS, PASSWORD, close_quietly, find_program

IMAPSHIELD = os.path.join(os.path.dirname(sys.executable), "imapshield")


BANNED = "127.0.7.1"


class Redis:
    """A Redis server on 127.0.0.1."""

    def __init__(self, folder: str, port: int, *options: str) -> None:
        program = find_program("redis-server", "redis-server")
        command = [program, "--bind", "127.0.0.1", "--save", "", "--dir", folder, *options]
        if "--tls-port" not in options:
            command += ["--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)


class GuardRedisCase(SynchronousTestCase):
    redis_options: Sequence[str] = ()
    with_workers: Sequence[str] = ()
    limits = ("max_connections_per_user=3", "max_failed_pairs=4", "connections_per_minute=60")

    def setUp(self) -> None:
        self.base = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.secret = os.path.join(self.base, "secret")
        with open(self.secret, "w", encoding="utf-8") as file:
            file.write("0123456789abcdef0123456789abcdef")
        self.redis_port = free_port()
        self.start_redis()
        self.servers = [self.start(name) for name in ("one", "two")]
        self.wait_shared()

    def start_redis(self) -> None:
        self.redis = Redis(self.base, self.redis_port, *self.redis_options)
        self.addCleanup(self.redis.end)

    def url(self) -> list[str]:
        return [f"redis://127.0.0.1:{self.redis_port}"]

    def start(self, name: str) -> Server:
        os.mkdir(f"{self.base}/{name}")
        server = Server(
            *("--mail-root", f"{self.base}/{name}", "--auth", f"memory:alice:{PASSWORD}"),
            *("--control", f"{self.base}/{name}.control", "--trust", "none"),
            *("--guard-secret", self.secret, "--guard-redis", *self.url()),
            *(part for limit in self.limits for part in ("--limit", limit)),
            *(("--workers", "2") if name in self.with_workers else ()),
        )
        self.addCleanup(self.stop, server)
        server.wait_ready()
        return server

    def stop(self, server: Server) -> None:
        if server.process.poll() is None:
            output = server.stop()
            for text in FAULTS:
                self.assertNotIn(text, output)

    def ask(self, name: str, *command: str) -> Any:
        control = ("--json", "--control", f"{self.base}/{name}.control")
        done = subprocess.run([IMAPSHIELD, *command, *control], capture_output=True, check=False)
        return json.loads(done.stdout or b"null")

    def status(self, name: str) -> Any:
        return self.ask(name, "status")["guard_redis"]

    def wait_shared(self) -> None:
        wait_until(lambda: all(self.status(n)["others"] for n in ("one", "two")))

    def client(self, server: Server) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=TIMEOUT)
        self.addCleanup(close_quietly, client)
        return client

    def can_login(self, server: Server) -> bool:
        """Return whether alice can have one more connection, and close it."""
        client = self.client(server)
        try:
            client.login("alice", PASSWORD)
        except imaplib.IMAP4.error as error:
            self.assertIn("[LIMIT]", str(error))
            return False
        finally:
            close_quietly(client)
        return True


class SharingTests(GuardRedisCase):
    """Both servers have two workers."""

    with_workers = ("one", "two")

    def serves(self, server: Server, host: str) -> bool:
        """Return whether one of some connections from an address is served, by whichever worker."""
        for _ in range(6):
            with contextlib.suppress(OSError), socket.socket() as client:
                client.settimeout(TIMEOUT)
                client.bind((host, 0))
                client.connect(("127.0.0.1", server.port))
                if client.recv(100):
                    return True
        return False

    def replace_worker(self, name: str) -> None:
        """Kill a worker, and wait until another one is in its place."""
        before = self.ask(name, "status")["workers"][0]["pid"]
        os.kill(before, signal.SIGKILL)

        def is_replaced() -> bool:
            row = self.ask(name, "status")["workers"][0]
            return bool(row["serves"]) and row["pid"] != before

        wait_until(is_replaced)

    def test_what_is_shared(self) -> None:
        """Connections of a user, bans and their ends, failed logins, talkers and rates are those of all workers of both
        servers, also of a worker that replaces one that was killed.
        """
        one, two = self.servers
        held = [self.client(one) for _ in range(3)]
        for client in held:
            client.login("alice", PASSWORD)
        wait_until(lambda: not self.can_login(two))
        path = f"{self.base}/two.control"
        wait_until(lambda: ask_server(path, Request("talkers", {}))["tables"]["user"])
        close_quietly(held[0])
        wait_until(lambda: self.can_login(two))

        self.ask("one", "ban", "192.0.2.9")
        self.ask("one", "ban", "--force", BANNED)
        wait_until(lambda: "192.0.2.9" in str(self.ask("two", "bans")))
        wait_until(lambda: BANNED in str(self.ask("two", "bans")))
        self.assertFalse(self.serves(two, BANNED))
        self.replace_worker("two")
        for _ in range(3):
            self.assertFalse(self.serves(two, BANNED))
        control = f"{self.base}/two.control"
        subprocess.run([IMAPSHIELD, "unban", "192.0.2.9", "--control", control], check=True)
        wait_until(lambda: "192.0.2.9" not in str(self.ask("one", "bans")))

        names = subprocess.run(
            ["redis-cli", "-p", str(self.redis_port), "keys", "*"], capture_output=True, check=True
        ).stdout
        self.assertNotIn(b"alice", names)
        self.assertNotIn(b"127.0.0.1", names)
        for key in names.split():
            left = subprocess.run(
                ["redis-cli", "-p", str(self.redis_port), "pttl", key],
                capture_output=True,
                check=True,
            ).stdout
            self.assertNotEqual(left.strip(), b"-1", key)

        # Two wrong passwords at each server ban this address at both. alice is known here; mallory is nobody.
        for number, server in enumerate((one, two, one, two)):
            client = self.client(server)
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                client.login("mallory", f"guess {number}")
            close_quietly(client)
        for name in ("one", "two"):
            wait_until(lambda: "127.0.0.1" in str(self.ask(name, "bans")))  # noqa: B023


class RateScriptTests(SynchronousTestCase):
    """What the script for rates does in a real Redis."""

    def setUp(self) -> None:
        base = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        self.port = free_port()
        self.addCleanup(Redis(base, self.port).end)
        wait_until(lambda: self.redis("ping") == "PONG")

    def redis(self, *command: str) -> str:
        arguments = ["redis-cli", "-p", str(self.port), *command]
        return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout.strip()

    def take(self, amount: float) -> float:
        """Take from a rate of one in 10 seconds, and 20 at once; return what all have taken."""
        return float(self.redis("eval", SCRIPT, "1", "key", str(amount), "10", "20"))

    def test_many_at_once(self) -> None:
        """What many servers take at the same moment is added up, and expires when it is used up."""
        command = ["redis-cli", "-p", str(self.port), "eval", SCRIPT, "1", "key", "1", "10", "20"]
        for each in [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(9)]:
            each.wait(TIMEOUT)
        self.assertTrue(8 < self.take(1) <= 10)
        self.assertTrue(1 <= int(self.redis("pttl", "key")) <= 100_000)
        self.assertEqual(self.take(1000), 2 * 20)
        self.assertEqual(self.take(-1000), 0)
        self.assertEqual(self.redis("exists", "key"), "0")

    def test_clock_that_is_set(self) -> None:
        """After the clock was set back an hour, what was taken stays; forward, it is used up."""
        now = time.time()
        for written, taken in ((now + 3600, 4), (now - 20, 2), (now - 3600, 1)):
            self.redis("set", "key", f"{written:.6f} 30")
            self.assertTrue(taken - 1 < self.take(1) <= taken)
        self.redis("set", "key", "nonsense")
        self.assertEqual(self.take(1), 1)


class FailureTests(GuardRedisCase):
    """One of the servers has workers."""

    with_workers = ("two",)

    def served(self) -> None:
        """Each server serves a client at once, whatever Redis does."""
        for server in self.servers:
            client = self.client(server)
            client.login("alice", PASSWORD)
            client.select()
            client.logout()

    def test_killed_stopped_and_empty(self) -> None:
        """While Redis is dead or stopped, each server decides alone; what happened is told when it is back, empty."""
        self.redis.end()
        wait_until(lambda: self.status("one")["problem"] and self.status("two")["problem"])
        self.served()
        self.ask("one", "ban", "192.0.2.1")
        self.assertNotIn("192.0.2.1", str(self.ask("two", "bans")))
        self.start_redis()
        wait_until(lambda: "192.0.2.1" in str(self.ask("two", "bans")))
        self.wait_shared()

        self.redis.process.send_signal(signal.SIGSTOP)
        self.ask("two", "ban", "192.0.2.2")
        self.served()
        wait_until(lambda: "no reply" in self.status("one")["problem"])
        self.served()
        self.redis.process.send_signal(signal.SIGCONT)
        wait_until(lambda: "192.0.2.2" in str(self.ask("one", "bans")))
        self.assertIn("192.0.2.1", str(self.ask("one", "bans")))


class FullTests(GuardRedisCase):
    redis_options = ("--maxmemory", "1", "--maxmemory-policy", "noeviction")

    def test_without_memory(self) -> None:
        """A Redis without memory still shares bans; rates are counted alone, as one line of the log says."""
        one = self.servers[0]
        self.client(one)
        one.wait_for_output("rates are counted by each server alone")
        self.ask("one", "ban", "192.0.2.3")
        wait_until(lambda: "192.0.2.3" in str(self.ask("two", "bans")))


class TLSTests(GuardRedisCase):
    """Redis with TLS and a password, which is in a file."""

    def start_redis(self) -> None:
        certificate = write_certificate(self.base)
        with open(f"{self.base}/password", "w", encoding="utf-8") as file:
            file.write("hunter2\n")
        tls = [
            *("--tls-cert-file", certificate, "--tls-key-file", certificate),
            *("--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"),
        ]
        tls += ["--tls-port", str(self.redis_port), "--port", "0", "--requirepass", "hunter2"]
        self.redis = Redis(self.base, self.redis_port, *tls)
        self.addCleanup(self.redis.end)

    def url(self) -> list[str]:
        url = f"rediss://localhost:{self.redis_port}?ca={self.base}/certificate.pem"
        return [url, "--guard-redis-password", f"{self.base}/password"]

    def test_tls_and_password(self) -> None:
        """The servers find each other; an authority that has not signed the certificate is refused."""
        self.assertTrue(self.status("one")["connected"])
        os.mkdir(f"{self.base}/other")
        other = Server(
            *("--mail-root", f"{self.base}/other", "--auth", f"memory:alice:{PASSWORD}"),
            *("--guard-secret", self.secret),
            *("--guard-redis", f"rediss://localhost:{self.redis_port}", *self.url()[1:]),
        )
        self.addCleanup(self.stop, other)
        line = other.wait_for_output("this server decides alone until it is back")
        self.assertIn("certificate verify failed", line)
        self.assertNotIn("hunter2", line)
