"""TODO."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MailboxFilter:
    """Which mailboxes a NOTIFY or an ESEARCH means: `kind` in upper case, and `names` where it takes some."""

    kind: bytes
    names: frozenset[str] = frozenset()
