"""The quota of an account: how many bytes and messages it has, and how many it may have."""

from __future__ import annotations

from imapshield.errors import QuotaExceeded
from imapshield.mailbox.values import Quota
from imapshield.maildir.index import Index


class AccountQuota:
    """Compares the size of an account with its limits.

    Args:
        index: the account's index, whose triggers count messages and the bytes of their files.
        limits: the maximum of bytes and of messages; None is no limit.
    """

    def __init__(self, index: Index, limits: tuple[int | None, int | None]) -> None:
        self._index = index
        self._limits = limits

    def usage(self) -> Quota:
        """Return usage and limits, as the index has them."""
        octets, messages = self._index.db.execute("SELECT octets, messages FROM account").fetchone()
        return Quota(octets, messages, *self._limits)

    def check(self, messages: int, octets: int) -> None:
        """Check that there is room for more messages and bytes.

        A delivery agent does not check the quota, so the account may be over it already. Then only changes that do not
        make it larger are allowed.

        Raises:
            QuotaExceeded: the account would be over its quota.
        """
        if self._limits == (None, None):
            return
        usage = self.usage()
        for added, used, limit in (
            (octets, usage.octets, usage.max_octets),
            (messages, usage.messages, usage.max_messages),
        ):
            if added > 0 and limit is not None and used + added > limit:
                raise QuotaExceeded
