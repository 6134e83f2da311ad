"""Opens the log file of twistd (``--logfile``) again after a program such as logrotate has renamed it."""

import gc
import os
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any

from twisted.logger import Logger, globalLogPublisher
from twisted.python.logfile import BaseLogFile

_DEPTH = 8
"""References from the publisher of log events to the file: an observer, its wrapper, their bound methods."""

_log = Logger(namespace="imapshield")


def log_files(publisher: object = globalLogPublisher) -> list[BaseLogFile]:
    """Return the log files to which a publisher of log events writes.

    twistd keeps its file to itself, and its observers differ with its version and with ``--logger``. So this follows
    the references of the publisher.
    """
    found: dict[int, BaseLogFile] = {}
    seen, level = {id(publisher)}, [publisher]
    for _ in range(_DEPTH):
        level = [each for one in level for each in _references(one) if id(each) not in seen]
        seen.update(map(id, level))
        found |= {id(each): each for each in level if isinstance(each, BaseLogFile)}
    return list(found.values())


def _references(one: object) -> list[object]:
    if isinstance(one, BaseLogFile):
        return []
    if isinstance(one, FunctionType):  # not the globals of its module, which lead everywhere
        return [cell.cell_contents for cell in one.__closure__ or () if _is_set(cell)]
    return [each for each in gc.get_referents(one) if not isinstance(each, (type, ModuleType))]


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def reopen(file: BaseLogFile) -> str:
    """Open a log file again if its path no longer leads to it. Returns a problem, or "".

    A file that cannot be opened leaves the earlier one in use.
    """
    with suppress(OSError):
        if os.path.samestat(os.stat(file.path), os.fstat(file._file.fileno())):
            return ""
    try:
        os.close(os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _mode(file)))
        file.reopen()
    except OSError as error:
        return (
            f"--logfile {file.path}: {error.strerror}; the earlier file stays in use;"
            " make the file and its directory writable for the user of the server"
        )
    return ""


def reopen_all() -> list[str]:
    """Open all log files again that were renamed, and log the problems, which are returned."""
    problems = [problem for file in log_files() if (problem := reopen(file))]
    for problem in problems:
        _log.warn("reload: {problem}", problem=problem)
    return problems


def _mode(file: BaseLogFile) -> int:
    return 0o666 if file.defaultMode is None else file.defaultMode
