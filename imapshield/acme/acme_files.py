"""`AcmeFiles`: the directory with the account key and the certificate of one authority, and what it has issued.

Rules
-----
* Only the user of the server can enter the directory, and read the files.
* A file is replaced in one step, with its content on the disk before: after a power failure it is the old or the new
  one. The certificate and its key are one file, so they always fit.
* Another authority has another directory: after a trial with a test authority, nothing of it is used.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from imapshield.acme.acme_names import server_folder
from imapshield.config import ConfigError
from imapshield.replace_file import replace_file


class AcmeError(Exception):
    """A certificate was not issued. The text is one line: what has happened, and what to do."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What an authority has issued.

    Attributes:
        pem: the private key, the certificate and its chain.
        terms: where the terms of service are; "" if there are none.
    """

    pem: bytes
    terms: str


@dataclass(frozen=True, slots=True)
class AcmeFiles:
    """The files for one authority.

    Args:
        folder: the directory of ``--acme-state``.
        server: the URL of the authority.
    """

    folder: str
    server: str

    @property
    def directory(self) -> str:
        """The directory of the authority."""
        return os.path.join(self.folder, server_folder(self.server))

    @property
    def certificate(self) -> str:
        """The path of the file with the private key, the certificate and its chain."""
        return os.path.join(self.directory, "certificate.pem")

    @property
    def account_key(self) -> str:
        """The path of the private key of the account."""
        return os.path.join(self.directory, "account.pem")

    def prepare(self) -> None:
        """Create the directories, and close them to others.

        Raises:
            ConfigError: the process cannot write there, or others may.
        """
        try:
            for path in (self.folder, self.directory):
                os.makedirs(path, mode=0o700, exist_ok=True)
                status = os.stat(path)
                if status.st_uid != os.geteuid():
                    raise ConfigError(
                        f"--acme: {path} belongs to another user; change its owner to the user of the server, or"
                        " name another directory with --acme-state"
                    )
                if stat.S_IMODE(status.st_mode) & 0o077:
                    os.chmod(path, 0o700)
            if not os.access(self.directory, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(0, "cannot be written", self.directory)
        except OSError as error:
            raise ConfigError(
                f"--acme: {error.filename}: {error.strerror}; name a directory of the user of the server with"
                " --acme-state"
            ) from None

    def unwritable(self) -> str | None:
        """Return the directory in which `prepare` cannot create or write; None if it can."""
        existing = self.directory
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        can_write = os.access(existing, os.W_OK | os.X_OK, effective_ids=True)
        return None if can_write else existing

    def key(self, make: Callable[[], bytes]) -> bytes:
        """Return the private key of the account as PEM. The first time, it is what `make` returns."""
        with suppress(FileNotFoundError), open(self.account_key, "rb") as file:
            return file.read()
        replace_file(self.account_key, pem := make())
        return pem

    def save(self, pem: bytes) -> None:
        """Replace the certificate."""
        replace_file(self.certificate, pem)


def default_folder(state_directory: str, first_run_folder: str) -> str:
    """Return the directory without ``--acme-state``: in systemd's ``$STATE_DIRECTORY``, otherwise beside the mail."""
    return os.path.join(state_directory.partition(":")[0] or first_run_folder, "acme")
