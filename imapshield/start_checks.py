"""Checks at the start that the server can read its users and write mail, with the rights of the user it will have."""

import os
import sys
from contextlib import suppress
from glob import iglob
from itertools import chain

from twisted.logger import Logger

from imapshield.auth_option import check_auth_file
from imapshield.certificates import Certificates
from imapshield.config import ConfigError, Settings
from imapshield.cred.realm import MailRoot
from imapshield.first_run import FirstRunFolder
from imapshield.process.process_control import Process
from imapshield.unwritable import unwritable

_log = Logger(namespace="imapshield")


def check_as_user(settings: Settings, process: Process, certificates: Certificates) -> None:
    """Check what the user of the server may do, if root starts the server for another user.

    No module is imported with the rights of that user, who may not be able to read the one or other.

    Raises:
        ConfigError: the user of the server cannot read a password file or write mail.
    """
    if not process.user.is_other:
        return
    with process.user.acting():
        for text in settings.auth:
            check_auth_file(text)
        if settings.mail_root is None and not settings.backend:
            problem = unwritable(FirstRunFolder.from_environ(os.environ).folder)
            if problem is not None:
                raise ConfigError(f"{problem}; name the mail with --mail-root")
        check_mail_directories(settings, settings.mail_root)
        _warn_of_reload(process, certificates)


def _warn_of_reload(process: Process, certificates: Certificates) -> None:
    """Log what a reload will not be able to read."""
    for path in certificates.unreadable():
        _log.warn(
            "{path}: the user of the server cannot read it, so a renewed certificate needs a restart;"
            " make it readable for that user",
            path=path,
        )
    try:
        if process.load is not None:
            process.load()
    except ConfigError as error:
        _log.warn(
            "the user of the server cannot reload the configuration: {error}", error=str(error)
        )


def check_mail_directories(settings: Settings, mail_root: str | None) -> None:
    """Check that the process can write in the directories of mail and indexes.

    Raises:
        ConfigError: it cannot.
    """
    for option, pattern in (("mail-root", mail_root), ("index-root", settings.index_root)):
        if pattern is not None:
            try:
                base = MailRoot(pattern).base
            except ValueError as error:
                raise ConfigError(f"--{option} {pattern}: {error}") from None
            _check_writable(f"--{option} {pattern}", base)


def check_worker_program(settings: Settings) -> None:
    """Check that the user of the server can start workers, who begin without the rights of root.

    Raises:
        ConfigError: the user cannot read the program.
    """
    for path, mode in ((sys.executable, os.X_OK), (__file__, os.R_OK)):
        if settings.workers > 1 and not os.access(path, mode, effective_ids=True):
            raise ConfigError(
                f"--workers {settings.workers}: the user of the server cannot read {path}, and workers begin without"
                " the rights of root; install imapshield where all users can read it"
            )


def check_shared_indexes(settings: Settings) -> None:
    """Check that several workers can use the index of each Maildir, with the rights of the server's user.

    In a directory of another user, who is not root, SQLite locks an index for one process. What is no Maildir does not
    matter. A Maildir that root creates gets the owner of the directory above it.

    Raises:
        ConfigError: they cannot.
    """
    if settings.workers == 1 or settings.mail_root is None or settings.index_root is not None:
        return
    own = {0, os.geteuid()}
    pattern = MailRoot(settings.mail_root).glob
    maildirs = (each for each in iglob(pattern) if os.path.isdir(os.path.join(each, "cur")))
    above = iglob(os.path.dirname(pattern)) if os.geteuid() == 0 else ()
    for path in chain(above, maildirs):
        with suppress(FileNotFoundError):  # it is being deleted
            if os.stat(path).st_uid not in own:
                raise ConfigError(
                    f"--workers {settings.workers}: {path} belongs to another user, so its index can be open in one"
                    " process only; add --index-root DIR, with a directory of the server's user"
                )


def _check_writable(option: str, directory: str) -> None:
    if not os.path.isdir(directory):
        raise ConfigError(
            f"{option}: {directory} is not a directory; create it, or name another one"
        )
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(
            f"{option}: the server cannot read and write {directory};"
            " chown it, or run the server as its owner with twistd --uid"
        )
