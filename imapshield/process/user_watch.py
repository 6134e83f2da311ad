"""`UserWatch`: notices changed password files, and ends the connections of users who can no longer log in."""

from collections.abc import Callable, Sequence, Set
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from imapshield.cred.checkers import PasswordFile
from imapshield.cred.master_users import master_checkers
from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.guard.verdicts import LimitReached

LOOK_SECONDS = 2.0
"""Seconds between two looks at the files. Each costs one `stat`, in a thread, because the disk may be slow."""

USER_REMOVED = "user_removed"
"""The limit of a connection that ends because its user was removed or disabled."""


class UserWatch:
    """Looks after the password files of one server.

    Args:
        factory: has the connections.
        checkers: the checkers, whose list may change.
        reactor: the reactor.
    """

    def __init__(
        self,
        factory: ShieldedIMAP4Factory,
        checkers: Sequence[Any],
        reactor: Any,
    ) -> None:
        self._factory, self._checkers = factory, checkers
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin to look."""
        self._loop.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_at_files())

    async def _look_at_files(self) -> None:
        for checker in self._files():
            checker.on_gone = self._gone
            await checker.refresh()
        for checker in master_checkers(self._factory.portal):
            checker.on_gone = self._masters_gone
            await checker.refresh()

    def _files(self) -> list[PasswordFile]:
        return [checker for checker in self._checkers if isinstance(checker, PasswordFile)]

    def _gone(self, users: Set[str]) -> None:
        """End the connections of users who were removed from a file, unless another file has them."""
        gone = {user for user in users if not any(each.can_log_in(user) for each in self._files())}
        self._end(lambda reporter: reporter.user in gone)

    def _masters_gone(self, masters: Set[str]) -> None:
        self._end(lambda reporter: reporter.master in masters)

    def _end(self, is_gone: Callable[[EventReporter], bool]) -> None:
        for server in [*self._factory.connections]:
            if is_gone(server.reporter):
                server.evict(LimitReached(USER_REMOVED, 0, 0))
