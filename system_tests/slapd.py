"""Runs Debian's slapd as a child process, with its own directory, on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

from system_tests.certificate import write_certificate
from system_tests.server import free_port, wait_until

BASE = "dc=example,dc=org"
SEARCH_DN, SEARCH_PASSWORD = f"cn=imapshield,{BASE}", "search secret"

_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {certificate}
security simple_bind=128
database mdb
maxsize 10485760
suffix "{base}"
directory {folder}/data
access to attrs=userPassword by anonymous auth by * none
access to * by self read by dn.exact="{search_dn}" read by * none
"""


class Slapd:
    """A running slapd, which accepts passwords over TLS only; `stop` ends it.

    Args:
        folder: where its files are.
        ldif: its entries below `BASE`.

    Attributes:
        certificate: its certificate, which is its own authority.
        port: for ldap, with StartTLS.
        tls_port: for ldaps.
        process: the process.
    """

    def __init__(self, folder: str, ldif: str) -> None:
        path = os.environ["PATH"] + ":/usr/sbin"
        program = shutil.which("slapd", path=path)
        if program is None:
            raise AssertionError("slapd not found: run system_tests/install")
        self.certificate = write_certificate(folder)
        self.port, self.tls_port = free_port(), free_port()
        self._program, self._configuration = program, os.path.join(folder, "slapd.conf")
        os.mkdir(os.path.join(folder, "data"))
        with open(self._configuration, "w", encoding="ascii") as file:
            file.write(
                _CONFIGURATION.format(
                    folder=folder, certificate=self.certificate, base=BASE, search_dn=SEARCH_DN
                )
            )
        head = f"dn: {BASE}\nobjectClass: domain\ndc: example\n\n"
        adding = ["-T", "add", "-f", self._configuration]
        subprocess.run([program, *adding], input=head + ldif, text=True, check=True, timeout=60)
        self.start()

    def start(self) -> None:
        """Start it, with the directory as it is."""
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        self.process = subprocess.Popen(
            [self._program, "-f", self._configuration, "-h", urls, "-d", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._accepts)

    def _accepts(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"slapd ended with status {self.process.returncode}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.tls_port)) == 0

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(60)
