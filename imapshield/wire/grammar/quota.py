"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208)."""

from __future__ import annotations

from imapshield.wire.commands.quota import GetQuota, GetQuotaRoot, SetQuota
from imapshield.wire.cursor import Cursor


def getquota(cursor: Cursor) -> GetQuota:
    """``getquota = "GETQUOTA" SP quota-root-name``, an astring."""
    cursor.space("GETQUOTA")
    return GetQuota(cursor.astring("a quota root"))


def getquotaroot(cursor: Cursor) -> GetQuotaRoot:
    """``getquotaroot = "GETQUOTAROOT" SP mailbox``."""
    cursor.space("GETQUOTAROOT")
    return GetQuotaRoot(cursor.mailbox())


def setquota(cursor: Cursor) -> SetQuota:
    """``setquota = "SETQUOTA" SP quota-root-name SP setquota-list``."""
    cursor.space("SETQUOTA")
    root = cursor.astring("a quota root")
    cursor.space("the quota root")

    def limit() -> tuple[bytes, int]:
        name = cursor.atom("a resource name").upper()
        cursor.space("the resource name")
        return name, cursor.number64("a limit")

    return SetQuota(
        root, tuple(cursor.list_of(limit, "resource names and limits", allow_empty=True))
    )
