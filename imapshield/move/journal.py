"""The journal of a move: what was decided last, on stable storage before anything that follows from it is done."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote, unquote

from imapshield.move.places import MoveError
from imapshield.replace_file import replace_file

COPYING = "copying"
"""The source has the account. It may be closed for some seconds."""

GIVING_UP = "giving up"
"""The copy is complete. The index on the source says whether it is given up."""

GIVEN_UP = "given up"
"""The source has given the account up for good: the move can only go on."""

ACCEPTED = "accepted"
"""The target has the account."""

SWITCHED = "switched"
"""The map says so."""

DONE = "done"
"""Mail that came to the source meanwhile has been collected."""

PHASES = (COPYING, GIVING_UP, GIVEN_UP, ACCEPTED, SWITCHED, DONE)


class Entry(NamedTuple):
    """The state of one move.

    Attributes:
        user: the user.
        source: the node that had the mail.
        target: the node that gets it.
        move: identifies the move; letters and digits.
        phase: one of `PHASES`.
    """

    user: str
    source: str
    target: str
    move: str
    phase: str = COPYING

    @property
    def is_final(self) -> bool:
        """Whether the move can only go on."""
        return PHASES.index(self.phase) >= PHASES.index(GIVEN_UP)


def new_entry(user: str, source: str, target: str) -> Entry:
    """Return the first entry of a new move."""
    return Entry(user, source, target, secrets.token_hex(8))


class Journal:
    """The moves of one machine: a file for each user.

    Args:
        directory: the directory of the files.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def _path(self, user: str) -> str:
        return os.path.join(self._directory, quote(user, safe="@") + ".json")

    def read(self, user: str) -> Entry | None:
        """Return the entry of a user; None if there is none.

        Raises:
            MoveError: the file is damaged.
        """
        path = self._path(user)
        try:
            with open(path, encoding="utf-8") as file:
                entry = Entry(**json.load(file))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            entry = None
        if entry is None or entry.phase not in PHASES or not entry.move.isalnum():
            text = "is damaged; rename it, and run the command again, which asks the nodes"
            raise MoveError(f"{path} {text}")
        return entry

    def write(self, entry: Entry) -> Entry:
        """Put an entry on stable storage, and return it."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        replace_file(self._path(entry.user), json.dumps(entry._asdict()).encode())
        return entry

    def remove(self, user: str) -> None:
        """Forget the move of a user."""
        os.unlink(self._path(user))

    @contextmanager
    def locked(self, user: str) -> Iterator[None]:
        """Run a block while no other process on this machine moves the user.

        Raises:
            MoveError: one does.
        """
        os.makedirs(self._directory, 0o700, exist_ok=True)
        fd = os.open(self._path(user) + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MoveError(f"another command is moving {user}; wait for its end") from None
            yield
        finally:
            os.close(fd)

    def entries(self) -> list[Entry]:
        """Return the entries of all users, sorted."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        users = sorted(unquote(name[:-5]) for name in names if name.endswith(".json"))
        return [entry for user in users if (entry := self.read(user))]
