"""The subcommands of ``imapshield`` that work on Maildirs: ``export-uids`` and ``check-mail``.

As root they act as the owner of each Maildir, so that no file gets another owner and no symbolic link leads them to
files that the owner cannot read. An index outside the Maildir is read with the rights of its own owner.
"""

import argparse
import encodings.ascii  # noqa: F401  Python may be where only root can read: load all modules before.
import errno
import glob
import os
import re
import shlex
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

from imapshield.errors import StoreBusy, StoreError
from imapshield.live_server import warn_if_served
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.export_uids import ExportedMailbox, export
from imapshield.maildir.index_check import accept_moved, check_index, indexed_names
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.maildir.mail_check import Finding, check_maildir, shown
from imapshield.maildir.other_servers import COURIER, DOVECOT
from imapshield.maildir.paths import DIRECTORY_NAMES
from imapshield.maildir.recovery import open_account

PROGRESS_SECONDS = 2.0
"""A line of progress is printed after each such time, so that a short run prints none."""

MAX_PASSES = 10
"""How often ``check-mail --repair`` inspects a Maildir, so that an owner who goes on damaging files ends, too."""

_MISSING = (FileNotFoundError, NotADirectoryError)
_ADVICE = {
    errno.EACCES: "run this command as its owner or as root",
    errno.EPERM: "run this command as its owner or as root",
    errno.ENOENT: "give an existing file or directory",
    errno.ENOTDIR: "give a directory",
    errno.EROFS: "mount its file system so that it can be written",
    errno.ENOSPC: "free space on its file system",
    errno.EDQUOT: "free space, or raise the quota of its owner",
}
_FORMATS = {"dovecot": DOVECOT, "courier": COURIER}
_FIELD = re.compile(r"\{(user|local|domain)\}")


class MailCommandError(Exception):
    """The command cannot be run. The text says why, and what to do. Its exit status is 2."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands to those of the console script."""
    text = "write UIDs, keywords and subscriptions for another IMAP server; stop imapshield first"
    command = commands.add_parser("export-uids", help=text, description=text)
    command.add_argument("--to", required=True, choices=sorted(_FORMATS), help="the other server")
    command.add_argument("maildir", metavar="MAILDIR", help="the Maildir of one user")
    _add_index_options(command, "DIR", "the directory of the user's index, if --index-root is used")
    command.set_defaults(run=partial(_run, _export))
    text = "look for damage in Maildirs; exit status: 0 none, 1 some, 2 if that is not possible"
    command = commands.add_parser("check-mail", help=text, description=text)
    command.add_argument(
        "where", metavar="DIR_OR_PATTERN", help="a Maildir, or the value of --mail-root"
    )
    index = "the value of --index-root; for one Maildir, the directory of the user's index"
    _add_index_options(command, "DIR_OR_PATTERN", index)
    repair = "repair what can be repaired without a loss; no message is deleted"
    command.add_argument("--repair", action="store_true", help=repair)
    moved = "the mail was moved or copied here and its original is not used again: keep all UIDs"
    command.add_argument("--moved", action="store_true", help=moved)
    command.set_defaults(run=partial(_run, _check))


def _run(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; an OSError becomes a MailCommandError."""
    try:
        return command(options)
    except OSError as error:
        raise MailCommandError(_describe_error(error, "a file")) from None


def _describe_error(error: OSError, path: str, problem: str = "cannot be used") -> str:
    """Return what is wrong, and what to do; `path` is used if the error names no file."""
    path = shown(os.fsencode(error.filename or path))
    advice = _ADVICE.get(error.errno or 0, "check the disk")
    return f"'{path}' {problem}: {error.strerror}; {advice}"


def _add_index_options(command: argparse.ArgumentParser, metavar: str, text: str) -> None:
    command.add_argument("--index", metavar=metavar, help=text)
    follow = "folders may be symbolic links to directories, as with this option of imapshield"
    command.add_argument("--follow-symlinks", action="store_true", help=follow)


def _export(options: argparse.Namespace) -> int:
    root = os.path.abspath(options.maildir)
    if not _is_maildir(root):
        raise MailCommandError(
            f"{root} is not a Maildir; give the directory that has cur, new and tmp"
        )
    index = os.path.abspath(options.index or root)
    if not _has_index(index):
        raise MailCommandError(
            f"{index} has no {os.fsdecode(INDEX_FILE)}: if the user has never logged in to imapshield, there "
            "is nothing to export; if the server runs with --index-root, give the directory of the "
            "user's index with --index"
        )
    warn_if_served(root)
    warnings: list[str] = []
    progress = Progress("mailboxes")
    # An index outside the Maildir may belong to the server. Then this process acts as the server does.
    is_owners = os.stat(index).st_uid == os.stat(root).st_uid
    try:
        with acting_as_owner(root) if is_owners else nullcontext():
            account = AccountState(
                root,
                time.time,
                warnings.append,
                index_directory=index,
                follow_symlinks=options.follow_symlinks,
            )
            try:
                open_account(account)
                exported = export(account, _FORMATS[options.to], progress.show)
            finally:
                account.close()
    except StoreBusy:
        raise MailCommandError(
            f"another program is changing {root}; stop the other IMAP servers, and try again"
        ) from None
    except (StoreError, OSError, sqlite3.Error) as error:
        raise MailCommandError(_advice(index, error, warnings)) from None
    for warning in warnings:
        print(f"imapshield: {warning}", file=sys.stderr)
    _report_export(root, options.to, exported)
    return 0


def _report_export(root: str, server: str, exported: list[ExportedMailbox]) -> None:
    messages = sum(mailbox.messages for mailbox in exported)
    print(f"{root}: wrote {server}'s files for {messages} messages in {len(exported)} mailboxes")
    for mailbox in exported:
        if mailbox.lost_keywords:
            words = b" ".join(mailbox.lost_keywords).decode()
            print(f"{mailbox.name}: Dovecot has only 26 keywords a mailbox; it will lack {words}")
    if server == "dovecot":
        print(
            "For clients that use CONDSTORE, run these commands with Dovecot, USER being the user. The "
            "names are those of Dovecot's default settings: change them if its namespace has a prefix "
            "or another separator than the dot."
        )
        for mailbox in exported:
            modseq = f"--min-highest-modseq {mailbox.highestmodseq + 1}"
            name = shlex.quote(mailbox.dovecot_name)
            print(f"  doveadm mailbox update -u USER {modseq} {name}")


def _advice(index: str, error: Exception, warnings: list[str]) -> str:
    if isinstance(error, OSError):
        return _describe_error(error, index)
    if warnings:
        return warnings[-1]
    return f"the index in {index} cannot be used; run `imapshield check-mail`"


def _check(options: argparse.Namespace) -> int:
    maildirs = find_maildirs(options.where)
    if not maildirs:
        raise MailCommandError(
            f"{options.where}: there is no Maildir; give a Maildir or the value of --mail-root"
        )
    indexes = [index_directory(options.where, options.index, maildir) for maildir in maildirs]
    if options.index and not any(map(_has_index, indexes)):
        text = f"{options.index}: there is no index; give the value of --index-root"
        raise MailCommandError(text)
    progress = Progress("files")
    count = failed = 0
    for number, (maildir, index) in enumerate(zip(maildirs, indexes, strict=True)):
        progress.show(number, len(maildirs), "Maildirs")
        try:
            count += _check_one(maildir, index, options, progress.step)
        except OSError as error:
            failed += 1
            print(_describe_error(error, maildir, "cannot be read"))
    print(f"{count} findings in {len(maildirs) - failed} Maildirs")
    if failed == len(maildirs):
        raise MailCommandError(f"{options.where}: nothing could be checked")
    return 1 if count or failed else 0


def _check_one(
    maildir: str, index: str, options: argparse.Namespace, on_file: Callable[[], None]
) -> int:
    """Print, and repair if that is asked for, all findings of a Maildir; return their number.

    A repair may rename the file. If there are other findings about it, the Maildir is inspected again.
    """
    known: set[tuple[bytes, str]] = set()
    for _ in range(MAX_PASSES):
        is_complete = True
        repaired: set[bytes] = set()
        findings = _findings(maildir, index, options, on_file)
        if options.repair:  # what remains is then reported under the new name
            findings.sort(key=lambda pair: pair[1].repair is None)
        for owned, finding in findings:
            if finding.path in repaired:
                is_complete = False
            elif (finding.path, finding.problem) not in known:
                known.add((finding.path, finding.problem))
                with acting_as_owner(owned):
                    print(_describe(finding, options.repair))
                if options.repair and finding.repair:
                    repaired.add(finding.path)
        if is_complete:
            break
    return len(known)


def _findings(
    maildir: str, index: str, options: argparse.Namespace, on_file: Callable[[], None]
) -> list[tuple[str, Finding]]:
    """Return all findings of a Maildir, before any is repaired, and the directory whose owner may repair it."""
    root, directory, now = os.fsencode(maildir), os.fsencode(index), time.time()
    follow = options.follow_symlinks
    found: list[tuple[str, Finding]] = []
    indexed = None
    if _has_index(index):
        with acting_as_owner(index):
            if options.moved:
                accept_moved(directory)
            found += [(index, finding) for finding in check_index(root, now, directory, follow)]
            indexed = indexed_names(directory)
    with acting_as_owner(maildir):
        findings = check_maildir(root, now, indexed, on_file, follow)
        return found + [(maildir, finding) for finding in findings]


def _describe(finding: Finding, repair: bool) -> str:
    """Repair a finding, if that is asked for and possible, and return its line."""
    text = f"'{shown(finding.path)}' {finding.problem}; "
    if finding.repair is None:
        return text + f"not repairable here: {finding.action}"
    if not repair:
        return text + f"--repair would {finding.action}"
    try:
        finding.repair()
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "the index cannot be written"
        return text + f"not repaired: {reason}"
    return text + f"repaired: {finding.done}"


def find_maildirs(where: str) -> list[str]:
    """Return the Maildirs of a mail root, a pattern, or the one Maildir that `where` is.

    Directories that this process may not look into are taken for Maildirs.

    Raises:
        OSError: the mail root cannot be read.
    """
    if _FIELD.search(where):
        pattern = "*".join(map(glob.escape, _FIELD.split(where)[::2]))
        found = sorted(glob.glob(pattern))
        if not found:  # glob() hides errors
            os.listdir(os.path.dirname(_FIELD.split(where)[0]) or ".")
        return [path for path in found if _is_maildir(path)]
    if _is_maildir(where):
        return [where]
    paths = [os.path.join(where, name) for name in sorted(os.listdir(where))]
    return [path for path in paths if _is_maildir(path)]


def index_directory(where: str, index: str | None, maildir: str) -> str:
    """Return the directory of the index of one of the Maildirs that `find_maildirs` found.

    Args:
        where: the Maildir, mail root or pattern.
        index: the value of ``--index``; None if the indexes are in the Maildirs.
        maildir: the Maildir.

    Raises:
        MailCommandError: `index` has a field whose value the path of the Maildir does not tell.
    """
    if index is None:
        return maildir
    if maildir == where:
        values: dict[str, str] = {}
    else:
        values = _field_values(_as_pattern(where), maildir)
        index = _as_pattern(index)
    try:
        return _FIELD.sub(lambda field: values[field[1]], index)
    except KeyError as error:
        raise MailCommandError(
            f"{maildir} does not tell which {{{error.args[0]}}} --index {index} means; give that "
            "Maildir and the directory of its index"
        ) from None


def _as_pattern(path: str) -> str:
    """Return a value of ``--mail-root`` or ``--index-root`` as an absolute pattern."""
    return os.path.abspath(path if _FIELD.search(path) else os.path.join(path, "{user}"))


def _field_values(pattern: str, path: str) -> dict[str, str]:
    """Return what the fields of a pattern stand for in a path, as far as the path tells."""
    expression = ""
    for number, part in enumerate(_FIELD.split(pattern)):
        if not number % 2:
            expression += re.escape(part)
        else:
            expression += f"(?P={part})" if f"(?P<{part}>" in expression else f"(?P<{part}>[^/]+)"
    found = re.fullmatch(expression, os.path.abspath(path), re.DOTALL)
    values = found.groupdict() if found else {}
    if "user" in values:
        local, at, domain = values["user"].rpartition("@")
        values |= {"local": local, "domain": domain} if at else {"local": values["user"]}
    elif "local" in values:
        values["user"] = "@".join(filter(None, (values["local"], values.get("domain"))))
    return values


def _has_index(directory: str) -> bool:
    with suppress(*_MISSING):
        status = os.stat(os.path.join(directory, os.fsdecode(INDEX_FILE)))
        return stat.S_ISREG(status.st_mode) and status.st_size > 0
    return False


def _is_maildir(path: str) -> bool:
    """Whether a directory has at least two of ``cur``, ``new`` and ``tmp``, or may have them."""
    found = 0
    for part in map(os.fsdecode, DIRECTORY_NAMES):
        with suppress(*_MISSING):
            try:
                found += stat.S_ISDIR(os.stat(os.path.join(path, part)).st_mode)
            except PermissionError:
                return True
    return found >= 2


@contextmanager
def acting_as_owner(directory: str) -> Iterator[None]:
    """Run a block with the rights of the owner of a Maildir or index, if this process is root's."""
    status = _least_trusted(directory)
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _least_trusted(path: str) -> os.stat_result:
    """Return the status of a path, or of the nearest directory above it whose owner is not root.

    The owner of a directory above can put another directory of root, or a link to one, in the place of a Maildir.
    """
    while (status := os.lstat(path)).st_uid == 0 and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return status


class Progress:
    """Prints a line of progress to standard error every `PROGRESS_SECONDS`.

    Args:
        unit: what `step` counts.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._steps = 0
        self._last = time.monotonic()

    def step(self) -> None:
        """Count one thing of the unit."""
        self._steps += 1
        self._print(f"{self._steps} {self._unit}")

    def show(self, number: int, total: int, unit: str = "") -> None:
        """Report that `number` of `total` are done."""
        self._print(f"{number} of {total} {unit or self._unit}")

    def _print(self, text: str) -> None:
        if time.monotonic() - self._last >= PROGRESS_SECONDS:
            self._last = time.monotonic()
            print(f"imapshield: {text} so far", file=sys.stderr)
