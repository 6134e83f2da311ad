r"""Special uses (RFC 6154) that mailboxes have because of their names, such as ``\Sent`` for "Sent Messages".

Clients and other servers have made such mailboxes without saying what they are for. Nothing is stored: the attributes
follow the names, so that they are right after another program renames a folder, and end with ``--no-special-folders``.

Rules
-----
* A special use that was set by CREATE counts. No other mailbox has it then, and that mailbox gets no other one.
* Of several mailboxes for one use, one has it: in the order of `USES`, a name in exactly this case first.
* Case does not matter. A mailbox below another one has none: its name may be about anything.
"""

from collections.abc import Mapping

USES: Mapping[bytes, tuple[str, ...]] = {
    b"\\Drafts": ("Drafts", "Draft"),
    b"\\Sent": ("Sent", "Sent Messages", "Sent Items", "Sent Mail"),
    b"\\Junk": ("Junk", "Spam", "Junk E-mail", "Junk Email", "Bulk Mail"),
    b"\\Trash": ("Trash", "Deleted Items", "Deleted Messages"),
    b"\\Archive": ("Archive", "Archives"),
}
"""The names of mailboxes for each use, the most common first. The first one is that of new accounts."""

_RANKS = {
    name.casefold(): (use, rank, name)
    for use, names in USES.items()
    for rank, name in enumerate(names)
}


class SpecialNames:
    """The mailboxes of one account whose names are those of a special use, kept until the names change."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._candidates: list[tuple[bytes, str]] = []

    def add_uses(
        self, names: list[str], stored: Mapping[str, tuple[bytes, ...]]
    ) -> dict[str, tuple[bytes, ...]]:
        """Return the special uses by mailbox: those of the index, and those that names add.

        Args:
            names: all mailboxes that have a folder, sorted.
            stored: the special uses in the index, which may have mailboxes that no longer have a folder.
        """
        if names != self._names:
            self._names, self._candidates = names, _candidates(names)
        uses = dict(stored)
        if not self._candidates:
            return uses
        existing = set(names) if stored else ()
        taken = {use for name, own in stored.items() if name in existing for use in own}
        for use, name in self._candidates:
            if use not in taken and name not in stored:
                taken.add(use)
                uses[name] = (use,)
        return uses


def _candidates(names: list[str]) -> list[tuple[bytes, str]]:
    """Return (use, mailbox), the preferred mailbox of each use first."""
    found = []
    for name in names:
        if (key := name.casefold()) in _RANKS:
            use, rank, common = _RANKS[key]
            found.append((rank, name != common, name, use))
    return [(use, name) for _, _, name, use in sorted(found)]
