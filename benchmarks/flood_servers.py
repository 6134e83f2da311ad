"""The servers of a flood: as an administrator would set them up, with hashed passwords, TLS and default limits.

Each server has a copy of the mail of its own for the whole run, and a new process for each attack.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.flood_mail import ATTACKERS, USERS, VICTIMS, link_mail, write_mail
from benchmarks.flood_measure import Target
from benchmarks.front_peer import BEHIND

# What Debian's configuration has; `peers` raises these limits for the other benchmarks.
_DOVECOT = """\
default_process_limit = 100
default_client_limit = 1000
mail_max_userip_connections = 10
service imap {
  process_limit = 1024
}
"""

NAMES = {
    "dovecot": ("dovecot", ()),
    BEHIND: (BEHIND, ()),
    f"{BEHIND}-no-trust": (BEHIND, ("--trust", "none")),
    "imapshield": ("imapshield", ()),
    "imapshield-no-trust": ("imapshield", ("--trust", "none")),
    "pymap": ("pymap", ()),
    "twisted": ("twisted", ()),
}
"""The servers, and their options. imapshield exempts this machine from rates and bans; ``--trust none`` does not."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of all servers: the mail of each, the hash of the password of all, a certificate."""

    root: Path
    hashed: str
    certificate: Path

    def mail_of(self, server: str) -> Path:
        """Return the mail root of a server."""
        return self.root / server


def hash_password() -> str:
    """Return the argon2id hash of the password of all accounts.

    Raises:
        RuntimeError: argon2-cffi is not installed.
    """
    try:
        from argon2 import PasswordHasher
    except ImportError:
        raise RuntimeError("argon2-cffi not found: pip install 'imapshield[argon2]'") from None
    hasher = PasswordHasher(time_cost=3, memory_cost=64 << 10, parallelism=1)
    return hasher.hash(peers.PASSWORD)


def write_certificate(folder: Path) -> Path:
    """Write a self-signed certificate and its key into one file, with the command `openssl`."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with certificate.open("ab") as file:
        file.write(key.read_bytes())
    return certificate


@contextmanager
def prepared(servers: Sequence[str]) -> Iterator[Files]:
    """Write the mail and the other files, and remove them at the end of the `with` statement."""
    root = Path(tempfile.mkdtemp(prefix="flood-"))
    root.chmod(0o755)
    try:
        files = Files(root, hash_password(), write_certificate(root))
        first, *others = servers
        write_mail(files.mail_of(first))
        for server in others:
            link_mail(files.mail_of(first), files.mail_of(server))
        peers.change_owner(root)
        yield files
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def serve(
    server: str, files: Files, *, hashes: bool = False, options: Sequence[str] = ()
) -> Iterator[Target]:
    """Run a server during the `with` statement.

    Args:
        server: a key of `NAMES`.
        files: its files.
        hashes: whether it stores passwords as hashes.
        options: more options for imapshield.
    """
    program, own_options = NAMES[server]
    settings = peers.Settings(
        options=(*own_options, *options),
        configuration=_DOVECOT,
        users=USERS,
        stored=files.hashed if hashes else "",
        certificate=files.certificate,
    )
    with peers.start_with(program, files.mail_of(server), settings) as peer:
        yield Target(
            name=server,
            version=peer.version,
            host=peer.host,
            port=peer.port,
            pid=peer.pid,
            victims=VICTIMS,
            attackers=ATTACKERS,
            password=peer.password,
        )
