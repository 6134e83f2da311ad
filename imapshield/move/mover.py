"""`Mover`: the steps of a move, in their order, and what is done after each interruption.

===========  =================  ===================  ====================================================
journal      source             target               after an interruption
===========  =================  ===================  ====================================================
copying      open, or closed    nothing, or a part   the source is opened again, the user is released, and
             for some seconds   of the copy          the move begins again; what is copied stays copied
giving up    closed or given    the whole copy       as the index on the source says: as above, or as
             up                                      below
given up     given up           the whole copy       the target accepts it
accepted     given up           has the account      the map is changed
switched     given up           has the account      the old copy is put away, and late mail is collected
===========  =================  ===================  ====================================================

So one of the two nodes has the whole account at any time, and never both. While the source is closed and the move has
ended, it opens again by itself, after `CLOSED_SECONDS`.
"""

import math
import time
from collections.abc import Callable
from typing import Protocol

from imapshield.move.agent import Agent
from imapshield.move.journal import (
    ABORTED,
    ACCEPTED,
    COPYING,
    DONE,
    GIVEN_UP,
    GIVING_UP,
    SWITCHED,
    Entry,
    Journal,
)
from imapshield.move.places import MoveError, TooSlow

CLOSED_SECONDS = 60.0
"""Seconds for which the account is closed on the source, unless it is given up: longer than any pause."""

HOLD_MARGIN = 10.0
"""Seconds by which the shields hold a user for longer than the pause may be. A killed move releases nobody."""

COPIES = 5
"""How often all is copied before the pause, so that the last copy is short."""

SHORT_COPY = 0.4
"""A copy that takes less than this part of the pause, with a look at all files on both nodes, is short: the last one
takes as long."""

GIVE_UP_PART = 0.7
"""In this part of the pause, the account must be given up. The rest is for what follows, or to undo the pause."""

ATTEMPTS = 3
"""How often the pause is tried, when a command of the user has taken too long, or mail was changed meanwhile."""

_ELSEWHERE = ("other", "absent", "moved")
"""States of a source that has not the account for this move."""

APART_SECONDS = 10.0
"""Seconds in which the user works before the pause is tried again, and twice that before the third time: clients log in
again and do what has waited, so that no command waits for two pauses."""


class Copying(Protocol):
    """As `copying.Copier`."""

    def copy(
        self, source: str, target: str, *, is_last: bool, seconds: float | None = None
    ) -> None:
        """Make a directory the same as another."""

    def act_as(self, uid: int, gid: int) -> None:
        """Copy with the rights of the owner of the mail, if that is possible."""

    def copy_files(self, source: str, paths: list[str], target: str) -> None:
        """Copy some files."""


class Holding(Protocol):
    """As `user_switch.Shields`."""

    def hold(self, seconds: float) -> None:
        """Let logins wait, and end the connections."""

    def release(self, node: str = "") -> None:
        """Let logins go on; `MoveError` if they would not go to the node."""


class Mover:
    """Moves one user.

    Args:
        journal: the journal.
        entry: the move: a new one, or what the journal has.
        source: does the steps on the source.
        target: does the steps on the target.
        copier: copies.
        shields: hold and release the user.
        switch: changes the map: called with the user and the node.
        check: asks right before each pause whether the user could log in on the target; `MoveError` if not.
        max_pause: seconds for which the user may have to wait.
        report: called with a line for the operator.
        clock: returns seconds of a monotonic clock.
        sleep: waits for some seconds.

    Attributes:
        pause: the seconds of the last pause.
    """

    def __init__(
        self,
        journal: Journal,
        entry: Entry,
        source: Agent,
        target: Agent,
        copier: Copying,
        shields: Holding,
        switch: Callable[[str, str], object],
        *,
        check: Callable[[], object] = lambda: None,
        max_pause: float = 2.0,
        report: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._journal, self._entry = journal, entry
        self._source, self._target, self._copier = source, target, copier
        self._shields, self._switch, self._check = shields, switch, check
        self._max_pause, self._report = max_pause, report
        self._clock, self._sleep = clock, sleep
        self._paths: dict[str, str] = {}
        self._synced_at: list[float] = []
        self._began = self._step_began = 0.0
        self._steps: list[str] = []
        self.pause = 0.0

    @property
    def _move(self) -> str:
        return self._entry.move

    def _advance(self, phase: str) -> None:
        if phase == self._entry.phase:
            return  # a user may wait, and the disk may be busy
        self._entry = self._journal.write(self._entry._replace(phase=phase))

    def run(self) -> None:
        """Do all steps that are left.

        Raises:
            MoveError: the move cannot go on. The account is where the journal says.
        """
        if not self._entry.is_final:
            self._settle()
        if not self._entry.is_final:
            self._prepare()
            self._copy_until_short()
            self._pause()
        if self._entry.phase in (GIVEN_UP, ACCEPTED):
            self._finish_pause()
        if self._entry.phase == SWITCHED:
            self._source.call("source", "retire", self._move, self._entry.target)
            self.collect()
            self._advance(DONE)

    def _settle(self) -> None:
        """Find out where an interrupted move was, and open the account again if it was not given up."""
        state = self._source.call("source", "state", self._move)
        if state == "given up":
            self._advance(GIVEN_UP)
            return
        if state in _ELSEWHERE:
            user = self._entry.user
            text = f"is not there, or is part of another move; `imapshield move {user} --abort` forgets this one"
            raise MoveError(f"the mail of {user} on {self._entry.source} {text}")
        self._advance(COPYING)
        if state == "closed":
            self._reopen()

    def _reopen(self) -> None:
        if not self._source.call("source", "reopen", self._move):
            raise MoveError("the account is given up already; run the command again")
        self._release()

    def _release(self) -> None:
        """Release the user; a shield that does not answer does so by itself when the hold ends."""
        try:
            self._shields.release()
        except MoveError as error:
            self._report(f"{error}; the hold of the user ends by itself")

    def _prepare(self) -> None:
        found = self._source.call("source", "inspect")
        if not found["has_mail"]:
            text = f"{self._entry.source} has no mail of {self._entry.user}"
            raise MoveError(f"{text}; name the node that has it with --from")
        size = (found["bytes"], found["files"])
        owner = (found["uid"], found["gid"])
        self._copier.act_as(*owner)
        self._paths = self._target.call(
            "target", "prepare", self._move, *size, *owner, found["above"]
        )
        self._paths |= {f"old {name}": path for name, path in found["paths"].items()}
        self._report(f"{found['files']} files, {found['bytes'] / 1e6:.1f} MB")

    def _copy(self, *, is_last: bool, seconds: float | None = None) -> None:
        until = None if seconds is None else self._clock() + seconds
        for part in ("index", "maildir"):
            left = None if until is None else max(0.0, until - self._clock())
            source, target = self._paths[f"old {part}"], self._paths[part]
            if part == "maildir" or source != self._paths["old maildir"]:
                self._copier.copy(source, target, is_last=is_last, seconds=left)

    def _rehearse(self) -> float:
        """Copy what has changed, look at all files as the pause does, and return the seconds of both."""
        began = self._clock()
        self._copy(is_last=False)
        self._source.call("source", "inspect")
        self._target.call("target", "look", self._move)
        return self._clock() - began

    def _copy_until_short(self) -> None:
        """Copy while the user works, until a copy takes so little time that the user can wait for one.

        Raises:
            TooSlow: that is never so.
        """
        self._copy(is_last=False)
        for _ in range(COPIES):
            self._synced_at = self._target.call("target", "sync", self._move)
            # Right before the pause: a busy disk may need seconds for `sync`.
            seconds = self._rehearse()
            if seconds <= self._max_pause * SHORT_COPY:
                return
            self._report(f"copied in {seconds:.1f} s; copying what has changed meanwhile")
        text = f"a copy of what has changed takes {seconds:.1f} s, so the user would have to wait for longer than"
        longer = math.ceil(seconds / SHORT_COPY)
        raise TooSlow(
            f"{text} {self._max_pause:g} s; nothing has changed, try at another time, or --max-pause {longer}"
        )

    def _pause(self) -> None:
        """Hold the user, close the account, copy the rest, and give the account up."""
        for attempt in range(ATTEMPTS):
            self._check()  # the copy may have taken hours
            self._began = self._step_began = self._clock()
            self._steps = []
            try:
                self._shields.hold(self._max_pause + HOLD_MARGIN)
                self._end_step("hold")
                self._source.call("server", "")
                self._end_step("server")
                self._give_up()
            except TooSlow as error:
                self._undo_pause()
                if attempt == ATTEMPTS - 1:
                    raise
                seconds = APART_SECONDS * (attempt + 1)
                text = f"undone after {self._clock() - self._began:.2f} s"
                self._report(f"{error}; {text}, trying again in {seconds:g} s")
                self._sleep(seconds)
                self._copy_until_short()
                continue
            except BaseException:
                self._undo_pause()
                raise
            self._finish_pause()
            self.pause = self._clock() - self._began
            self._report(f"the pause: {', '.join(self._steps)}, of {self.pause:.2f} s")
            return

    def _end_step(self, name: str) -> float:
        """Note the time of a step of the pause, and return the seconds that are left to give the account up.

        Raises:
            TooSlow: there are none.
        """
        now = self._clock()
        self._steps.append(f"{name} {now - self._step_began:.2f} s")
        self._step_began = now
        left = self._began + self._max_pause * GIVE_UP_PART - now
        if left <= 0:
            text = f"the pause would take longer than {self._max_pause:g} s"
            raise TooSlow(f"{text} ({', '.join(self._steps)})")
        return left

    def _give_up(self) -> None:
        entry = self._entry
        digest = self._source.call("source", "close", entry.move, entry.target, CLOSED_SECONDS)
        self._copy(is_last=True, seconds=self._end_step("close"))
        left = self._end_step("copy")
        lacks = self._target.call("target", "verify", entry.move, digest, self._synced_at, left)
        if lacks:
            raise TooSlow(f"the copy was not complete: {lacks}")
        self._end_step("comparison")
        self._advance(GIVING_UP)
        if not self._source.call("source", "give_up", entry.move):
            raise TooSlow("the account was closed for too long")
        self._advance(GIVEN_UP)

    def _undo_pause(self) -> None:
        """Open the account on the source again, unless it is given up."""
        if self._entry.is_final:
            return
        if self._source.call("source", "state", self._move) == "given up":
            self._advance(GIVEN_UP)
            return
        self._advance(COPYING)
        self._reopen()

    def _finish_pause(self) -> None:
        entry = self._entry
        if entry.phase == GIVEN_UP:
            self._target.call("target", "accept", entry.move, entry.target)
            self._advance(ACCEPTED)
        if self._entry.phase == ACCEPTED:
            self._switch(entry.user, entry.target)
            self._shields.release(entry.target)
        self._advance(SWITCHED)

    def collect(self) -> int:
        """Bring mail to the target that was delivered to the source after the account was closed; return how much.

        Before it is put away on the source, the target has it, and recognizes it if it comes again.
        """
        count = 0
        self._target.call("target", "deliver_late", self._move)
        for found in self._source.call("source", "late_mail", self._move):
            directory, paths = found["directory"], found["paths"]
            uid, gid = found["uid"], found["gid"]
            self._copier.act_as(uid, gid)
            late = self._target.call("target", "late_directory", self._move, uid, gid)
            self._copier.copy_files(directory, paths, late)
            self._target.call("target", "deliver_late", self._move)
            self._source.call("source", "collected", self._move, directory, paths)
            count += len(paths)
        return count

    def abort(self) -> bool:
        """End a move that has not given the account up, and remove what was copied.

        Returns:
            Whether the source has the account. If it has not, the copy stays: it may be the only one.

        Raises:
            MoveError: it can only go on.
        """
        if not self._entry.is_final:
            if self._source.call("source", "state", self._move) in _ELSEWHERE:
                self._advance(ABORTED)
                return False
            self._settle()
        if self._entry.phase == DONE:
            text = f"the move of {self._entry.user} from {self._entry.source} to {self._entry.target} is done"
            again = f"imapshield move {self._entry.user} {self._entry.source}"
            raise MoveError(f"{text}; `{again}` moves the mail back")
        if self._entry.is_final:
            text = f"the mail of {self._entry.user} belongs to {self._entry.target} already"
            again = f"imapshield move {self._entry.user} {self._entry.target}"
            raise MoveError(f"{text}; `{again}` ends the move")
        self._target.call("target", "discard", self._move)
        self._release()
        self._advance(ABORTED)
        return True
