"""`AcmeFiles`: the directory with the account key and the certificate of one authority, and what it has issued.

Rules
-----
* Only the user of the server can enter the directory, and read the files. It is below that of ``--acme-state``, which
  may be one that others read, such as a home directory, but in which no others may write.
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
from imapshield.unwritable import unwritable


def one_line(text: str) -> str:
    """Return what an authority has sent as one line, without characters that change a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


class AcmeError(Exception):
    """A certificate was not issued. The text is made one line: what has happened, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


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

    def problem(self) -> str | None:
        """Return why `prepare` cannot create or use the directory, and what to do; None if it can."""
        advice = "name another directory with --acme-state"
        problem = unwritable(self.directory)
        if problem is not None:
            return f"--acme: {problem}; {advice}"
        own = os.geteuid()
        for path, owners in ((self.folder, (own, 0)), (self.directory, (own,))):
            with suppress(FileNotFoundError):
                status = os.stat(path)
                if status.st_uid not in owners:
                    return (
                        f"--acme: {path} belongs to another user; change its owner to the user of the server,"
                        f" or {advice}"
                    )
                if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
                    return f"--acme: other users can write in {path}; type chmod go-w {path}, or {advice}"
        return None

    def prepare(self) -> None:
        """Create the directories, and close that of the authority to others. ``--acme-state`` keeps its mode.

        Raises:
            ConfigError: the process cannot write there, or others may.
        """
        try:
            problem = self.problem()
            if problem is not None:
                raise ConfigError(problem)
            for path in (self.folder, self.directory):
                os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
        except OSError as error:
            raise ConfigError(
                f"--acme: {error.filename}: {error.strerror}; name a directory of the user of the server with"
                " --acme-state"
            ) from None

    def key(self, make: Callable[[], bytes]) -> bytes:
        """Return the private key of the account as PEM. The first time, it is what `make` returns."""
        with suppress(FileNotFoundError), open(self.account_key, "rb") as file:
            return file.read()
        replace_file(self.account_key, pem := make())
        return pem

    def save(self, pem: bytes) -> None:
        """Replace the certificate."""
        replace_file(self.certificate, pem)
