"""Copies of the mail of a user that moves leave beside the Maildir on a node, and which of them can be deleted."""

import os
import time
from typing import Any

from imapshield.maildir import files, index_handover
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.move.copy_lock import hold_copy
from imapshield.move.manifest import MANIFEST, Manifest, delivered_mail
from imapshield.move.places import Acting, MoveError, Places, as_this_user

KINDS = {
    "moved": "old copy",
    "incoming": "unfinished copy",
    "late": "unfinished copy of late mail",
}
"""What operators read of each kind. A copy is unfinished if the journal of its move is lost."""


class OldCopies:
    """The copies of one user's mail on one node.

    Args:
        places: the directories of the user.
        acting: returns a context with the rights of the owner of a directory.
    """

    def __init__(self, places: Places, acting: Acting = as_this_user) -> None:
        self._places, self._acting = places, acting

    def listed(self) -> list[dict[str, Any]]:
        """Return the kind, the path, the move and the age in seconds of each copy."""
        found = []
        for kind in KINDS:
            for move in self._places.moves(kind):
                path = self._places.beside(f"{kind}-{move}").maildir
                age = time.time() - os.stat(path).st_ctime
                found.append({"kind": kind, "path": os.fsdecode(path), "move": move, "age": age})
        return found

    def delete(self, kind: str, move: str) -> None:
        """Remove the copy of a move.

        Args:
            kind: one of `KINDS`.
            move: the move.

        Raises:
            MoveError: this may be the only good copy, or a command uses it.
        """
        copy = self._places.beside(f"{kind}-{move}")
        if not os.path.isdir(copy.maildir):
            return
        if kind == "moved":
            self._check_moved(copy, move)
        elif kind == "incoming":
            self._check_incoming(copy, move)
        # These go last, so that a second attempt still knows what this is.
        paths = [path for path in dict.fromkeys(copy) if os.path.isdir(path)]
        for path in paths:
            for name in os.listdir(path):
                if name not in (INDEX_FILE, MANIFEST):
                    with files.at(os.path.join(path, name)) as entry:
                        files.remove_tree(entry)
        for path in paths:
            with files.at(path) as entry:
                files.remove_tree(entry)

    def _check_moved(self, copy: Places, move: str) -> None:
        """Check that the index is given up, and that the new node has all mail."""
        mark = self._mark(copy)
        if mark is None or not mark.is_given_up or mark.move != move:
            text = f"{os.fsdecode(copy.maildir)} is not a copy that was given up"
            raise MoveError(f"{text}; nothing is deleted")
        if late := _late_mail_of(copy):
            text = f"has {len(late)} messages that came after the move; bring them to the new node with --collect"
            raise MoveError(f"{os.fsdecode(copy.maildir)} {text}; nothing is deleted")

    def _check_incoming(self, copy: Places, move: str) -> None:
        """Check that no node has given the account up for this copy."""
        hold_copy(copy.maildir)
        mark = self._mark(copy)
        if mark is None and copy.has_own_index:  # which is put in place before the mail
            placed = self._mark(self._places)
            mark = placed if placed is not None and placed.move == move else None
        if mark is not None:
            text = f"may be complete, and the only copy: look with `imapshield move USER {mark.node}` how it goes on"
            raise MoveError(f"{os.fsdecode(copy.maildir)} {text}; nothing is deleted")

    def _mark(self, copy: Places) -> index_handover.Mark | None:
        if not os.path.isdir(copy.index_directory):
            return None
        with self._acting(copy.index_directory):
            return index_handover.mark_of(copy.index_directory)


def _late_mail_of(old: Places) -> list[bytes]:
    try:
        return Manifest.read(old).late_mail(old.maildir)
    except FileNotFoundError:  # an attempt to delete it has come so far
        return sorted(delivered_mail(old.maildir))
