"""`UidCollection`: a growing set of UIDs that takes four bytes for each, or none for those of shared arrays."""

from array import array
from collections.abc import Sequence

MAX_PARTS = 16
"""Sequences that are kept before they are merged."""


class UidCollection:
    """UIDs that are pending for something. Adding the array of a change of the mailbox does not copy it."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[Sequence[int]] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, uids: Sequence[int]) -> None:
        """Add `uids`, which nobody may change later."""
        if uids:
            self._parts.append(uids)
        if len(self._parts) > MAX_PARTS:
            self._parts = [self.sorted()]

    def sorted(self) -> Sequence[int]:
        """Return the UIDs in ascending order."""
        if len(self._parts) != 1 or not isinstance(self._parts[0], array):
            self._parts = [array("I", sorted(set().union(*self._parts)))] if self._parts else []
        return self._parts[0] if self._parts else ()

    def clear(self) -> None:
        """Remove all UIDs."""
        self._parts = []
