"""The subcommands of ``imapshield`` that work on Maildirs: ``export-uids`` and ``check-mail``.

As root they act as the owner of each Maildir, so that no file gets another owner and no symbolic link leads them to
files that the owner cannot read.
"""

import argparse
import encodings.ascii  # noqa: F401  Python may be where only root can read: load all modules before.
import glob
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imapshield.errors import StoreBusy, StoreError
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.export_uids import ExportedMailbox, export
from imapshield.maildir.index_check import accept_moved, check_index, indexed_names
from imapshield.maildir.mail_check import Finding, check_maildir
from imapshield.maildir.other_servers import COURIER, DOVECOT
from imapshield.maildir.recovery import open_account

PROGRESS_SECONDS = 2.0
"""A line of progress is printed after each such time, so that a short run prints none."""

_FORMATS = {"dovecot": DOVECOT, "courier": COURIER}
_FIELD = re.compile(r"\{(?:user|local|domain)\}")
_PARTS = ("cur", "new", "tmp")


class MailCommandError(Exception):
    """The command cannot be run. The text says why, and what to do. Its exit status is 2."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands to those of the console script."""
    text = "write UIDs, keywords and subscriptions for another IMAP server; stop imapshield first"
    command = commands.add_parser("export-uids", help=text, description=text)
    command.add_argument("--to", required=True, choices=sorted(_FORMATS), help="the other server")
    command.add_argument("maildir", metavar="MAILDIR", help="the Maildir of one user")
    command.set_defaults(run=_export)
    text = "look for damage in Maildirs; exit status: 0 none, 1 some, 2 if that is not possible"
    command = commands.add_parser("check-mail", help=text, description=text)
    command.add_argument(
        "where", metavar="DIR_OR_PATTERN", help="a Maildir, or the value of --mail-root"
    )
    repair = "repair what can be repaired without a loss; no message is deleted"
    command.add_argument("--repair", action="store_true", help=repair)
    moved = "the mail was moved or copied here and its original is not used again: keep all UIDs"
    command.add_argument("--moved", action="store_true", help=moved)
    command.set_defaults(run=_check)


def _export(options: argparse.Namespace) -> int:
    root = os.path.abspath(options.maildir)
    if not _is_maildir(root):
        raise MailCommandError(
            f"{root} is not a Maildir; give the directory that has cur, new and tmp"
        )
    warnings: list[str] = []
    progress = Progress("mailboxes")
    try:
        with acting_as_owner(root):
            account = AccountState(root, time.time, warnings.append)
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
        raise MailCommandError(_advice(root, error, warnings)) from None
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
            "For clients that use CONDSTORE, run these commands with Dovecot, USER being the user:"
        )
        for mailbox in exported:
            modseq = f"--min-highest-modseq {mailbox.highestmodseq + 1}"
            print(f"  doveadm mailbox update -u USER {modseq} '{mailbox.name}'")


def _advice(root: str, error: Exception, warnings: list[str]) -> str:
    if isinstance(error, OSError):
        return f"{os.fsdecode(error.filename or root)}: {error.strerror}; run this command as the owner"
    if warnings:
        return warnings[-1]
    return f"the index of {root} cannot be used; run `imapshield check-mail {root}`"


def _check(options: argparse.Namespace) -> int:
    maildirs = find_maildirs(options.where)
    if not maildirs:
        raise MailCommandError(
            f"{options.where}: there is no Maildir; give a Maildir or the value of --mail-root"
        )
    progress = Progress("files")
    count = failed = 0
    for number, maildir in enumerate(maildirs):
        progress.show(number, len(maildirs), "Maildirs")
        try:
            with acting_as_owner(maildir):
                if options.moved:
                    accept_moved(os.fsencode(maildir))
                for finding in _findings(os.fsencode(maildir), progress.step):
                    count += 1
                    print(_describe(finding, options.repair))
        except OSError as error:
            failed += 1
            path = os.fsdecode(error.filename or maildir)
            advice = "run this command as its owner or as root"
            print(f"{path!r} cannot be read: {error.strerror}; {advice}")
    print(f"{count} findings in {len(maildirs) - failed} Maildirs")
    if failed == len(maildirs):
        raise MailCommandError(f"{options.where}: nothing could be checked")
    return 1 if count or failed else 0


def _findings(root: bytes, on_file: Callable[[], None]) -> list[Finding]:
    """Return all findings of a Maildir, before any is repaired."""
    now = time.time()
    found = list(check_index(root, now))
    return found + list(check_maildir(root, now, indexed_names(root), on_file))


def _describe(finding: Finding, repair: bool) -> str:
    """Repair a finding, if that is asked for and possible, and return its line."""
    text = f"{os.fsdecode(finding.path)!r} {finding.problem}; "
    if finding.repair is None:
        return text + f"not repairable here: {finding.action}"
    if not repair:
        return text + f"--repair would {finding.action}"
    try:
        finding.repair()
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "the index cannot be written"
        return text + f"not repaired: {reason}"
    return text + f"repaired: {finding.action}"


def find_maildirs(where: str) -> list[str]:
    """Return the Maildirs of a mail root, a pattern, or the one Maildir that `where` is."""
    if _FIELD.search(where):
        pattern = "*".join(map(glob.escape, _FIELD.split(where)))
        return [path for path in sorted(glob.glob(pattern)) if _is_maildir(path)]
    if _is_maildir(where):
        return [where]
    if not os.path.isdir(where):
        return []
    paths = [os.path.join(where, name) for name in sorted(os.listdir(where))]
    return [path for path in paths if _is_maildir(path)]


def _is_maildir(path: str) -> bool:
    return any(os.path.isdir(os.path.join(path, part)) for part in _PARTS)


@contextmanager
def acting_as_owner(maildir: str) -> Iterator[None]:
    """Run a block with the rights of the owner of a Maildir, if this process is root's."""
    status = os.stat(maildir)
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
