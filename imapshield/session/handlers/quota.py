"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208). All mailboxes of an account have one quota root, with the name ""."""

from imapshield.errors import CommandRefused
from imapshield.mailbox.account_api import IQuota
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.mailboxes import GetQuota, GetQuotaRoot, SetQuota
from imapshield.wire.responses import Tagged, ok

ROOT = b""
ALIAS = b"User quota"
"""The name that Dovecot uses for its quota root. The tests of Perl's Mail::IMAPClient work only with this name."""


async def getquota(session: Session, command: GetQuota) -> Tagged:
    """Handle GETQUOTA."""
    if command.root not in (ROOT, ALIAS):
        raise CommandRefused(b"NONEXISTENT", "Quota root does not exist")
    await _send_quota(session, command.root)
    return ok("GETQUOTA completed")


async def getquotaroot(session: Session, command: GetQuotaRoot) -> Tagged:
    """Handle GETQUOTAROOT; the mailbox need not exist (section 4.1.2)."""
    session.io.write(encode.quotaroot(command.mailbox, [ROOT], names=session.names))
    await _send_quota(session, ROOT)
    return ok("GETQUOTAROOT completed")


async def setquota(_session: Session, _: SetQuota) -> Tagged:
    """Refuse SETQUOTA, because only the operator sets quotas."""
    raise CommandRefused(b"NOPERM", "Quota can only be set by the operator")


async def _send_quota(session: Session, root: bytes) -> None:
    used = await IQuota(session.account).quota()
    resources = []
    if used.max_octets is not None:
        sizes = encode.kibibytes(used.octets), encode.kibibytes(used.max_octets)
        resources.append((b"STORAGE", *sizes))
    if used.max_messages is not None:
        resources.append((b"MESSAGE", used.messages, used.max_messages))
    session.io.write(encode.quota(root, resources))
