"""``--acme`` with Pebble, the test authority of Let's Encrypt: the first certificate, the renewal, and failures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import urllib.request

from cryptography import x509

from system_tests.certificate import write_certificate
from system_tests.server import TIMEOUT, free_port, wait_until
from system_tests.server_case import FAULTS, ServerCase, find_program

NAME = "mail.example.org"
SECONDS = 24
"""The lifetime of a certificate. It is renewed after 16 seconds."""


class Authority:
    """Pebble, with a name server that has this machine for each name.

    Args:
        folder: where its files are.
        http_port: where it asks, instead of port 80.
    """

    def __init__(self, folder: str, http_port: int) -> None:
        self.port, self._management, dns = free_port(), free_port(), free_port()
        self.pem = write_certificate(folder)
        self.context = ssl.create_default_context(cafile=self.pem)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._config = f"{folder}/pebble.json"
        with open(self._config, "w", encoding="utf-8") as file:
            options = {
                "listenAddress": f"127.0.0.1:{self.port}",
                "managementListenAddress": f"127.0.0.1:{self._management}",
                "certificate": self.pem, "privateKey": self.pem, "httpPort": http_port,
                "tlsPort": free_port(), "certificateValidityPeriod": SECONDS,
            }  # fmt: skip
            json.dump({"pebble": options}, file)
        self._dns = f"127.0.0.1:{dns}"
        self._dns_management = f"127.0.0.1:{free_port()}"

    @property
    def url(self) -> str:
        """The value of ``--acme-server``."""
        return f"https://localhost:{self.port}/dir"

    def start(self) -> None:
        """Start, and wait until it answers."""
        names = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-dns01", self._dns]
        names += ["-management", self._dns_management, "-defaultIPv6", ""]
        pebble = ["-config", self._config, "-dnsserver", self._dns, "-strict"]
        for program, arguments in (("pebble-challtestsrv", names), ("pebble", pebble)):
            self._processes.append(
                subprocess.Popen(
                    [find_program(program, "pebble"), *arguments],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Pebble refuses one of twenty requests on purpose. A client that is refused twice tries again in
                    # five minutes.
                    env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
                )
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self._get(self.port, "/dir"):
            return True
        return False

    def _get(self, port: int, path: str) -> contextlib.AbstractContextManager[bytes]:
        url = f"https://localhost:{port}{path}"
        with urllib.request.urlopen(url, timeout=TIMEOUT, context=self.context) as reply:
            return contextlib.nullcontext(reply.read())

    def clients(self) -> ssl.SSLContext:
        """Return what a client needs that trusts this authority."""
        with self._get(self._management, "/roots/0") as root:
            return ssl.create_default_context(cadata=root.decode())

    def stop(self) -> None:
        """End it."""
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.wait()


class AcmeTests(ServerCase):
    forbidden_log_texts = FAULTS
    wrong_port = False

    def prepare(self) -> None:
        self.tls_port, http_port = free_port(), free_port()
        self.state = f"{self.base}/acme"
        self.authority = Authority(self.home, free_port() if self.wrong_port else http_port)
        self.addCleanup(self.authority.stop)
        self.patch(os, "environ", {**os.environ, "REQUESTS_CA_BUNDLE": self.authority.pem})
        self.options = (
            *("--listen", f"imaps:{self.tls_port}:interface=127.0.0.1"),
            *("--acme", NAME, "--acme", "imap.example.org", "--acme-email", "postmaster@example.org"),
            *("--acme-http", f"tcp:{http_port}:interface=127.0.0.1"),
            *("--acme-server", self.authority.url, "--acme-state", self.state),
        )  # fmt: skip

    def serial(self, context: ssl.SSLContext, name: str = NAME) -> int:
        """Return the serial number of the certificate that a client gets, which must be valid for `name`."""
        with (
            socket.create_connection(("127.0.0.1", self.tls_port), TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=name) as encrypted,
        ):
            self.assertTrue(encrypted.recv(100).startswith(b"* OK"))
            der = encrypted.getpeercert(binary_form=True)
            assert der is not None
            return x509.load_der_x509_certificate(der).serial_number

    def test_first_certificate_and_renewal(self) -> None:
        """Without an authority TLS fails, and the log says why; later the certificate comes, and is renewed."""
        line = self.server.wait_for_output("acme: no certificate for mail.example.org,imap")
        self.assertIn(f"cannot reach localhost:{self.authority.port}; check the network", line)
        self.assertIn("TLS fails for all clients; next attempt in ", line)
        self.assertRaises(ssl.SSLError, self.serial, ssl.create_default_context())
        self.authority.start()
        self.server.process.send_signal(signal.SIGHUP)
        self.server.wait_for_output("has issued a certificate for mail.example.org")
        context = self.authority.clients()
        first = self.serial(context)
        self.assertEqual(self.serial(context, "imap.example.org"), first)
        for path, folders, files in os.walk(self.state):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700)
            for name in files:
                self.assertEqual(stat.S_IMODE(os.stat(f"{path}/{name}").st_mode), 0o600, folders)
        client = self.login()
        self.server.wait_for_output("has issued a certificate for mail.example.org")
        second = self.serial(context)
        self.assertNotEqual(second, first)
        client.noop()
        self.authority.stop()
        self.stop()
        self.start()
        context.check_hostname, context.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # the machine may be slow
        self.assertEqual(self.serial(context), second)


class WrongPortTests(AcmeTests):
    wrong_port = True

    def prepare(self) -> None:
        super().prepare()
        self.authority.start()

    def test_first_certificate_and_renewal(self) -> None:
        """An authority that cannot reach the port is one line, which says what to do."""
        line = self.server.wait_for_output("acme: no certificate for ")
        self.assertIn("; port 80 of the name must reach this server", line)
        self.login().noop()
