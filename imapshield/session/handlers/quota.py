"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208): one root, "", for all mailboxes of an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import CommandRefused
from imapshield.mailbox.account_api import IQuota
from imapshield.wire import encode
from imapshield.wire.commands.quota import GetQuota, GetQuotaRoot, SetQuota
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session

ROOT = b""
ALIAS = b"User quota"
"""What Dovecot calls it: the tests of Perl's Mail::IMAPClient ask for no other."""


async def getquota(session: Session, command: GetQuota) -> Tagged:
    """GETQUOTA."""
    if command.root not in (ROOT, ALIAS):
        raise CommandRefused(b"NONEXISTENT", "There is no such quota root")
    await _tell(session, command.root)
    return ok("That is the quota")


async def getquotaroot(session: Session, command: GetQuotaRoot) -> Tagged:
    """GETQUOTAROOT; the mailbox need not exist (section 4.1.2)."""
    session.io.write(encode.quotaroot(command.mailbox, [ROOT], utf8=session.utf8))
    await _tell(session, ROOT)
    return ok("That is the quota")


async def setquota(_session: Session, _: SetQuota) -> Tagged:
    """SETQUOTA, which is for operators."""
    raise CommandRefused(b"NOPERM", "Quotas are not set by users")


async def _tell(session: Session, root: bytes) -> None:
    used = await IQuota(session.account).quota()
    resources = []
    if used.max_octets is not None:  # told in units of 1024 octets (section 5.1)
        resources.append((b"STORAGE", -(-used.octets // 1024), -(-used.max_octets // 1024)))
    if used.max_messages is not None:
        resources.append((b"MESSAGE", used.messages, used.max_messages))
    session.io.write(encode.quota(root, resources))
