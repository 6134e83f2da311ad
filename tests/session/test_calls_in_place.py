"""However many short calls of the store a command makes, other clients are served between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any, cast

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from imapshield.edge.write_buffer import WORK_PER_TURN
from imapshield.mailbox import request
from imapshield.mailbox.request import CALL_WORK
from imapshield.mailbox.storage import IInPlaceStore
from imapshield.mailbox.store_account import StoreAccount
from imapshield.testing import MemoryStore, Server
from imapshield.testing.in_process import NOW, MemoryRealm

CALLS_PER_TURN = WORK_PER_TURN // CALL_WORK


@implementer(IInPlaceStore)
class ShortStore(MemoryStore):
    volumes = (1,)


class CountingWorker:
    """A worker that runs short calls at once, and the others in a later turn.

    Attributes:
        most: the most short calls that have run in one turn.
        threads: how many other calls have run.
    """

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self.count = self.most = self.threads = 0

    def run(self, function: Callable[..., Any], *args: object) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def run() -> None:
            self.threads += 1
            execute(function, *args).chainDeferred(done)

        self._call_later(0, run)
        return done

    def run_short(
        self, function: Callable[[], Any], kind: Hashable, volumes: Collection[int], **_: object
    ) -> Deferred[Any]:
        if not self.count:
            self._call_later(0, self._end_turn)
        self.count += 1
        self.most = max(self.most, self.count)
        return execute(function)

    def _end_turn(self) -> None:
        self.count = 0


class CallsInPlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(request, "monotonic", lambda: 0.0)  # each call counts as a short one
        realm = MemoryRealm(
            cast("Any", self), lambda: ShortStore(lambda: NOW), optional_interfaces=()
        )
        self.server = Server(realm=realm, commands_per_turn=1)
        realm.worker = self.worker = CountingWorker(self.server.clock.callLater)
        self.client = self.server.login()
        self.client.append()
        self.client(b"s SELECT INBOX")

    def assert_served(self, command: bytes) -> None:
        """Check that a command with several hundred calls succeeds, and runs few of them in each turn."""
        self.worker.most = 0
        self.client.protocol.dataReceived(command + b"\r\n")
        response = b""
        for _ in range(500):
            response += self.client.read()
        self.assertIn(b"a OK", response[-100:])
        self.assertLessEqual(self.worker.most, CALLS_PER_TURN)
        self.assertGreater(self.worker.most, 0)

    def test_search_with_many_keys(self) -> None:
        """Each key of a SEARCH calls the store."""
        self.assert_served(b"a SEARCH" + b" NOT FROM zz" * 300)

    def test_status_of_many_mailboxes(self) -> None:
        """NOTIFY and LIST send the STATUS of each mailbox."""
        for number in range(3 * CALLS_PER_TURN):
            self.client(b"c CREATE m%d" % number)
        for command in (
            b'a LIST "" * RETURN (STATUS (MESSAGES))',
            b"a NOTIFY SET STATUS (personal (MessageNew MessageExpunge))",
        ):
            self.assert_served(command)

    def test_calls_that_take_long(self) -> None:
        """After a call that has taken the time of a turn, the next one runs in a thread."""
        seconds = iter(range(1000))
        self.patch(request, "monotonic", lambda: next(seconds))
        self.worker.most = 0
        threads = self.worker.threads
        self.client(b"a SEARCH" + b" NOT FROM zz" * 5)
        self.assertEqual((self.worker.most, self.worker.threads - threads), (1, 4))

    def test_call_for_no_connection(self) -> None:
        """A call that no command makes, and whose work nothing counts, runs in a thread."""
        account = cast("StoreAccount", self.server.realm.account())
        running = Deferred.fromCoroutine(account.status("INBOX"))
        self.assertNoResult(running)
        self.server.clock.advance(0)
        self.successResultOf(running)

    def test_turn_begins_anew(self) -> None:
        """A command of few calls runs them in place, however many calls ran before."""
        self.assert_served(b"a SEARCH" + b" NOT FROM zz" * 300)
        threads = self.worker.threads
        for _ in range(5):
            self.client(b"a SEARCH" + b" NOT FROM zz" * 10)
        self.assertEqual(self.worker.threads, threads)
