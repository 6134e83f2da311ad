"""The base class of tests with Dovecot behind the shield."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from benchmarks.peers import Peer, Settings, change_owner, free_port, start_with
from system_tests.certificate import write_certificate
from system_tests.server import Server
from system_tests.server_case import PASSWORD, USERS, ServerCase

_CONFIGURATION = """\
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {passwords}
}}
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
auth_verbose = yes
namespace inbox {{
  inbox = yes
  separator = /
}}
haproxy_trusted_networks = 127.0.0.1
service imap-login {{
  inet_listener front {{
    address = 127.0.0.1
    port = {port}
    haproxy = yes
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""


class FrontCase(ServerCase):
    """Each test has a Dovecot with the users, and the shield in front of it.

    Attributes:
        backend: the value of ``--backend``; {port} is Dovecot's port without and {tls_port} with TLS, {proxy_port} that
            for connections with a PROXY header, and {pem} its certificate.
        dovecot: the running Dovecot.
    """

    backend = "starttls:localhost:{port}:ca={pem}"
    dovecot: Peer

    def prepare(self) -> None:
        """Start Dovecot."""
        Path(self.base).chmod(0o755)
        for user in USERS:
            for part in ("cur", "new", "tmp"):
                os.makedirs(f"{self.root}/{user}/{part}")
        change_owner(Path(self.root))
        passwords = f"{self.base}/passwords"
        with open(passwords, "w", encoding="ascii") as file:
            file.writelines(f"{user}:{PASSWORD}\n" for user in USERS)
        Path(passwords).chmod(0o644)
        self.pem = write_certificate(self.base)
        self.proxy_port, self.tls_port = free_port(), free_port()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.start_dovecot()

    def start_dovecot(self) -> None:
        """Start Dovecot on free ports, except those of its TLS and PROXY listeners."""
        configuration = _CONFIGURATION.format(
            passwords=f"{self.base}/passwords", port=self.proxy_port, tls_port=self.tls_port
        )
        settings = Settings(configuration=configuration, certificate=Path(self.pem))
        self.dovecot = self.stack.enter_context(start_with("dovecot", Path(self.root), settings))

    def start(self) -> None:
        """Start the shield, with a certificate of its own."""
        backend = self.backend.format(
            port=self.dovecot.port, tls_port=self.tls_port, proxy_port=self.proxy_port, pem=self.pem
        )
        self.server = Server(
            "--backend", backend, "--certificate", self.pem, *self.options, port=self.port
        )
        self.port = self.server.port
        self.addCleanup(self._stop_if_running)
        self.server.wait_ready()
        checked = "the first check has succeeded"
        if not any(checked in line for line in self.server.output):
            self.server.wait_for_output(checked)
