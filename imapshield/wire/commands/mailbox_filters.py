"""The set of mailboxes that a NOTIFY or an ESEARCH is about (RFC 5465 section 6, RFC 7377)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MailboxFilter:
    """One mailbox filter.

    Args:
        kind: SELECTED, SELECTED-DELAYED, INBOXES, PERSONAL, SUBSCRIBED, SUBTREE, SUBTREE-ONE or MAILBOXES.
        names: the mailboxes of the last three kinds; empty for the others.
    """

    kind: bytes
    names: frozenset[str] = frozenset()
