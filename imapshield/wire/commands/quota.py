"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208)."""

from __future__ import annotations

from dataclasses import dataclass

from imapshield.wire.commands.base import Command


@dataclass(frozen=True, slots=True)
class GetQuota(Command):
    """GETQUOTA of a quota root."""

    root: bytes


@dataclass(frozen=True, slots=True)
class GetQuotaRoot(Command):
    """GETQUOTAROOT of a mailbox."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class SetQuota(Command):
    """SETQUOTA: pairs of resource name (in upper case) and limit, in the unit of that resource."""

    root: bytes
    limits: tuple[tuple[bytes, int], ...]
