"""Dovecot behind the shield, and clients with addresses of their own: PROXY headers and bans."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from system_tests.front_case import FrontCase
from system_tests.network_hosts import PORT, Host, hosts
from system_tests.server import TIMEOUT, wait_until
from system_tests.server_case import FAULTS, PASSWORD


class FrontNetworkTests(FrontCase):
    backend = "tcp:127.0.0.1:{proxy_port}"
    forbidden_log_texts = FAULTS

    def setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.hosts = stack.enter_context(hosts(3))
        self.front_options = ("--backend-proxy", "--limit", "max_login_delay_seconds=0.1")
        for host in self.hosts:
            self.front_options += ("--listen", f"imaps:{PORT}:interface={host.gateway}")
        super().setUp()

    def connect(self, host: Host) -> socket.socket:
        """Return a connection from a host, with TLS; at the end of the test it is closed."""
        client = host.connect()
        self.addCleanup(client.close)
        client.settimeout(TIMEOUT)
        context = ssl.create_default_context(cafile=self.pem)
        encrypted = context.wrap_socket(client, server_hostname="localhost")
        self.addCleanup(encrypted.close)
        return encrypted

    def talk(self, host: Host, data: bytes) -> bytes:
        """Send `data` after the greeting; return all that the shield sends until it ends the connection."""
        answer = b""
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            client = self.connect(host)
            answer = client.recv(4096)
            client.sendall(data)
            while received := client.recv(65536):
                answer += received
        return answer

    def dovecot_log(self) -> str:
        return Path(self.dovecot_log_path).read_text(encoding="utf-8")

    def log_in(self, host: Host, user: str = "alice", password: str = PASSWORD) -> bytes:
        return self.talk(
            host, b'a LOGIN %b "%b"\r\nb LOGOUT\r\n' % (user.encode(), password.encode())
        )

    def test_dovecot_sees_the_addresses_of_clients(self) -> None:
        """Dovecot logs the address of each client, for right and wrong passwords."""
        first, second, _ = self.hosts
        self.assertIn(b"a OK", self.log_in(first))
        self.assertIn(b"a OK", self.log_in(second, "bob"))
        self.assertIn(b"a NO [AUTHENTICATIONFAILED]", self.log_in(second, "alice", "wrong"))
        expected = (
            f"user=<alice>, method=PLAIN, rip={first.address}",
            f"user=<bob>, method=PLAIN, rip={second.address}",
            f"alice,{second.address}",
        )
        wait_until(lambda: all(text in self.dovecot_log() for text in expected), 10)

    def test_only_the_attacking_host_is_banned(self) -> None:
        """A guesser and a flooder are banned by their addresses, which Dovecot does not see again; others log in."""
        guesser, flooder, honest = self.hosts
        for number in range(12):
            self.log_in(guesser, "alice", f"wrong{number}")
        for _ in range(12):
            self.talk(flooder, b"a NOOP\r\n" * 1000)
        before = self.dovecot_log().count(guesser.address)
        for host in (guesser, flooder):
            self.assertEqual(self.log_in(host, "bob"), b"")
        self.assertEqual(self.dovecot_log().count(guesser.address), before)
        self.assertNotIn(flooder.address, self.dovecot_log())
        self.assertIn(b"a OK", self.log_in(honest))
        log = self.stop()
        for host in (guesser, flooder):
            self.assertIn(f"banned peer={host.address} ", log)
        self.assertNotIn(f"banned peer={honest.address}", log)
