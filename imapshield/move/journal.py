"""The journal of a move: what was decided last, on stable storage before anything that follows from it is done."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote, unquote

from imapshield.move.places import MOVE_LETTERS, MoveError
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

ABORTED = "aborted"
"""The move has ended, and the mail is where it was."""

PHASES = (COPYING, GIVING_UP, GIVEN_UP, ACCEPTED, SWITCHED, DONE)

MAX_EARLIER = 10
"""Earlier moves of a user that the file of the user has, for ``--status``."""

KEPT_SECONDS = 7 * 86400.0
"""How long they are kept, and shown."""


class Entry(NamedTuple):
    """The state of one move.

    Attributes:
        user: the user.
        source: the node that had the mail.
        target: the node that gets it.
        move: identifies the move; letters and digits.
        phase: one of `PHASES`, or `ABORTED`.
        seconds: when the phase began, in seconds since the epoch.
    """

    user: str
    source: str
    target: str
    move: str
    phase: str = COPYING
    seconds: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether the move can only go on."""
        return PHASES.index(self.phase) >= PHASES.index(GIVEN_UP)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase in (DONE, ABORTED)


def new_entry(user: str, source: str, target: str) -> Entry:
    """Return the first entry of a new move."""
    return Entry(user, source, target, secrets.token_hex(MOVE_LETTERS // 2))


class Journal:
    """The moves of one machine: a file for each user.

    Args:
        directory: the directory of the files.
        now: returns seconds since the epoch.
    """

    def __init__(self, directory: str, now: Callable[[], float] = time.time) -> None:
        self._directory, self._now = directory, now

    def _path(self, user: str) -> str:
        return os.path.join(self._directory, quote(user, safe="@") + ".json")

    def moves(self, user: str) -> list[Entry]:
        """Return the move of a user, and earlier ones, the last one first.

        Raises:
            MoveError: the file is damaged.
        """
        path = self._path(user)
        try:
            with open(path, encoding="utf-8") as file:
                entries = [Entry(**each) for each in json.load(file)]
            is_damaged = not all(
                each.move.isalnum() and each.phase in (*PHASES, ABORTED) for each in entries
            )
        except FileNotFoundError:
            return []
        except (AttributeError, ValueError, TypeError):
            is_damaged = True
        if is_damaged or not entries:
            text = "is damaged; rename it, and run the command again, which asks the nodes"
            raise MoveError(f"{path} {text}")
        return entries

    def read(self, user: str) -> Entry | None:
        """Return the last move of a user; None if there is none, or if it was aborted.

        Raises:
            MoveError: the file is damaged.
        """
        last = next(iter(self.moves(user)), None)
        return None if last is None or last.phase == ABORTED else last

    def write(self, entry: Entry) -> Entry:
        """Put an entry on stable storage, with some earlier moves of the user, and return it."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        entry = entry._replace(seconds=self._now())
        earlier = [
            each
            for each in self.moves(entry.user)
            if each.move != entry.move and each.seconds > entry.seconds - KEPT_SECONDS
        ]
        content = [each._asdict() for each in (entry, *earlier[:MAX_EARLIER])]
        replace_file(self._path(entry.user), json.dumps(content).encode())
        return entry

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

    def is_locked(self, user: str) -> bool:
        """Whether a process on this machine moves the user now."""
        try:
            fd = os.open(self._path(user) + ".lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def recent(self) -> list[Entry]:
        """Return the moves of the last days, the last one at the end, and then those that have not ended.

        Raises:
            MoveError: a file is damaged.
        """
        since = self._now() - KEPT_SECONDS
        all_moves = [entry for user in self._users() for entry in self.moves(user)]
        found = [e for e in all_moves if not e.has_ended or e.seconds > since]
        return sorted(found, key=lambda e: (not e.has_ended, e.seconds, e.user))

    def _users(self) -> list[str]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return [unquote(name.removesuffix(".json")) for name in names if name.endswith(".json")]
