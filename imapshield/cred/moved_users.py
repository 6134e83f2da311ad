"""Refuses the login of a user whose mail was moved to another node, before the client sends its first command.

`imapshield move` leaves the file `MOVED_FILE` in the Maildir while the account is closed, and in what takes its place.
So a login looks for one name: in the reactor's thread if that was short the last time (`maildir.in_place_rules`),
otherwise in a thread. Only if the file is there is the store asked, which says whether the account can be used, and
logs why not.

The look is a part of the login, so it must not make anybody wait for the disk: after `LOOK_SECONDS` the user is logged
in, and the next command is refused. If another command of the user runs, the account is in use, and nothing waits for
the end of that.
"""

import os
from typing import Any

from twisted.internet.defer import Deferred, succeed

from imapshield.cred.unavailable import CheckerUnavailable
from imapshield.errors import AccountMoved, StoreError
from imapshield.mailbox.in_place import is_in_place
from imapshield.mailbox.store_account import StoreAccount
from imapshield.maildir import local_disk
from imapshield.maildir.account_state import MOVED_FILE
from imapshield.maildir.worker import SerialWorker

LOOK_SECONDS = 1.0
"""Seconds for which a login waits to learn whether the mail was moved. It takes less than a millisecond, and some more
if the disk is busy."""


class UserMoved(CheckerUnavailable):
    """The mail of the user was moved to another node, or is being moved. The password was correct."""

    text = AccountMoved.text


class MovedCheck:
    """Looks whether the mail of one user was moved.

    Args:
        worker: runs the calls of the account.
        maildir: the path of the Maildir.
        reactor: an `IReactorTime`.
    """

    def __init__(self, worker: SerialWorker, maildir: str, reactor: Any) -> None:
        self._worker, self._maildir, self._reactor = worker, maildir, reactor
        self._path = os.path.join(maildir, os.fsdecode(MOVED_FILE))
        self._volumes: frozenset[int] = frozenset()  # none until a look, or of a remote Maildir
        self._has_looked = False
        self._looks = 0

    def require_here(self, account: StoreAccount) -> Deferred[None]:
        """Return a Deferred that fails with `UserMoved` if the mail of the account is elsewhere."""
        check = Deferred.fromCoroutine(self._require_here(account))
        if not check.called:
            check.addTimeout(LOOK_SECONDS, self._reactor, lambda _result, _seconds: None)
        return check

    async def _require_here(self, account: StoreAccount) -> None:
        self._looks += 1
        try:
            if not await self._look():
                return
            await account.run(lambda store: store.mailbox_key("INBOX"))
        except AccountMoved:
            raise UserMoved from None
        except StoreError:
            pass  # the next command reports it
        finally:
            self._looks -= 1

    def _look(self) -> Deferred[bool]:
        """Return whether the file is there."""
        # Another look is waited for: clients open several connections at once.
        if self._has_looked and self._worker.is_busy and self._looks == 1:
            return succeed(False)
        return self._worker.run_short(self._is_there, ("moved", ""), self._volumes)

    def _is_there(self) -> bool:
        """Look for the file; in a thread the first time, and then perhaps in place."""
        if not is_in_place():
            self._volumes, self._has_looked = self._local_volumes(), True
        return os.path.lexists(self._path)

    def _local_volumes(self) -> frozenset[int]:
        try:
            fd = os.open(self._maildir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # there is no Maildir yet
            return frozenset()
        try:
            return local_disk.volumes((fd,))
        finally:
            os.close(fd)
