"""An OpenSSH server on a loopback port, with a configuration and keys of its own, as if it were another machine."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

HOST = "two.example.org"
"""The name of the machine, for ``ssh``."""


class LoopbackSsh:
    """The server, and a command ``ssh`` that reaches it under the name `HOST`.

    Args:
        base: a directory for its files.
        port: the port of 127.0.0.1.

    Attributes:
        environment: variables in which ``ssh`` is that command.

    Raises:
        RuntimeError: there is no ``sshd``, or it does not start.
    """

    def __init__(self, base: Path, port: int) -> None:
        found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
        ssh, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
        if found is None or ssh is None or keygen is None:
            raise RuntimeError("ssh or sshd not found: apt-get install openssh-server")
        base.mkdir(mode=0o700)
        for name in ("host", "user"):
            command = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(base / name)]
            subprocess.run(command, check=True)
        public = (base / "host.pub").read_text()
        (base / "known_hosts").write_text(f"{HOST} {public}")
        (base / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {base}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {base}/user.pub\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        (base / "ssh_config").write_text(
            f"Host {HOST}\nHostName 127.0.0.1\nHostKeyAlias {HOST}\nPort {port}\nUser {getpass.getuser()}\n"
            f"IdentityFile {base}/user\nIdentitiesOnly yes\nUserKnownHostsFile {base}/known_hosts\n"
        )
        (base / "bin").mkdir()
        wrapper = base / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {ssh} -F {base}/ssh_config "$@"\n')
        wrapper.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{base}/bin:{os.environ.get('PATH', '')}"}
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # where a server of root's has no rights
        self._process = subprocess.Popen(
            [found, "-D", "-f", str(base / "sshd_config"), "-E", str(base / "log")]
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError((base / "log").read_text()) from error
                time.sleep(0.05)

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(30)
