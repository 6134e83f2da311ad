"""The base class of tests with another server, behind the shield or alone."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from benchmarks.peers import Peer, Settings, change_owner, free_port, start_with
from system_tests.certificate import write_certificate
from system_tests.courier_server import courier_server
from system_tests.server import Server
from system_tests.server_case import PASSWORD, SPECIAL_FOLDERS, USERS, ServerCase
from tests.documented_commands import literal_blocks

_CONFIGURATION = """\
auth_mechanisms = plain login scram-sha-256
auth_verbose = yes
log_path = {log}
namespace inbox {{
  inbox = yes
  separator = /
  {folders}
}}
service imap-login {{
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""


def documented_configuration(port: int) -> str:
    """Return what docs/front.rst gives Dovecot, for a listener in addition to its first one."""
    blocks = [block.text for block in literal_blocks("docs/front.rst")]
    text = next(text for text in blocks if text.startswith("# /etc/dovecot/local.conf"))
    return (
        text.replace("inet_listener imap {", "inet_listener front {").replace("10143", str(port))
        + "\n"
    )


class FrontCase(ServerCase):
    """Each test has another server with the users, and the shield in front of it.

    Any tests of a client can be tests of this: ``class FrontCurlTests(CurlTests, FrontCase)``.

    Attributes:
        peer: the other server: dovecot, courier or pymap; or imapshield, which is then a mail node.
        shielded: whether clients connect to the shield. Otherwise they connect to the other server.
        backend: the value of ``--backend``; {port} is the peer's port and {pem} its certificate. Of Dovecot only,
            {tls_port} is its port with TLS, and {proxy_port} that for connections with a PROXY header.
        front_options: options of the shield, in addition to `options`.
        dovecot: the running peer.
        dovecot_log_path: the log of Dovecot.
    """

    peer = "dovecot"
    shielded = True
    backend = "starttls:localhost:{port}:ca={pem}"
    front_options: tuple[str, ...] = ()
    dovecot: Peer | None = None

    def setUp(self) -> None:
        # The peer serves the mail as another user than root. It must be able to change what the test creates.
        self.addCleanup(os.umask, os.umask(0))
        super().setUp()

    def start(self) -> None:
        """Start the peer unless it runs, and the shield if there is one."""
        if self.dovecot is None:
            self.start_peer()
        assert self.dovecot is not None
        # The scripts leave out what only imapshield has. Node trusts no certificate that is its own authority.
        self.client_environment = {"OTHER_SERVER": self.peer, "NODE_EXTRA_CA_CERTS": self.pem}
        if self.shielded:
            self._start_shield(self.dovecot)
        else:
            self.port = self.dovecot.port

    def start_peer(self) -> None:
        """Start the peer on a free port. Its port with TLS and the one for PROXY headers remain the same."""
        if self.dovecot is None:
            self._prepare_peer()
        root, settings = Path(self.root), self._settings()
        if self.peer == "courier":
            started = courier_server(root, USERS, PASSWORD, Path(self.pem))
        else:
            started = start_with(self.peer, root, settings)
        self.dovecot = self.stack.enter_context(started)

    def stop(self, signum: int = signal.SIGTERM) -> str:
        """Stop the shield. A peer without a shield keeps running: its restart is not under test."""
        return super().stop(signum) if self.shielded else ""

    def _prepare_peer(self) -> None:
        Path(self.base).chmod(0o755)
        self.dovecot_log_path = f"{self.base}/dovecot.log"
        # As without a peer, accounts without mail have the special folders.
        names = () if os.listdir(self.root) else sorted(SPECIAL_FOLDERS)
        self.folders = "".join(
            f"mailbox {name} {{\n auto = subscribe\n special_use = \\{name}\n }}\n"
            for name in names
        )
        for user in USERS:
            for part in ("cur", "new", "tmp"):
                os.makedirs(f"{self.root}/{user}/{part}", exist_ok=True)
        change_owner(Path(self.root))
        given = "--certificate" in self.options
        self.pem = getattr(self, "pem", "") if given else write_certificate(self.base)
        self.proxy_port, self.backend_tls_port = free_port(), free_port()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def _settings(self) -> Settings:
        configuration = documented_configuration(self.proxy_port) + _CONFIGURATION.format(
            folders=self.folders,
            log=self.dovecot_log_path,
            tls_port=self.backend_tls_port,
        )
        return Settings(
            configuration=configuration,
            users=USERS,
            password=PASSWORD,
            certificate=Path(self.pem),
        )

    def _start_shield(self, peer: Peer) -> None:
        backend = "tcp:127.0.0.1:{port}" if self.peer == "courier" else self.backend
        address = backend.format(
            port=peer.port,
            tls_port=self.backend_tls_port,
            proxy_port=self.proxy_port,
            pem=self.pem,
        )
        options = [*self.options, *self.front_options]
        if "--certificate" not in options:
            options += ["--certificate", self.pem]
        self.server = Server("--backend", address, *options, port=self.port, wrapper=self.wrapper)
        self.port = self.server.port
        self.addCleanup(self._stop_if_running)
        self.server.wait_ready()
        checked = "the first check has succeeded"
        if not any(checked in line for line in self.server.output):
            self.server.wait_for_output(checked)
