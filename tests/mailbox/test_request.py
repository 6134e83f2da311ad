"""Requests: which calls of a store stop when a client leaves, and that no session takes over the request of another."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import RequestAbandoned
from imapshield.mailbox.request import Request, check_wanted, current_request, run_for
from imapshield.testing.in_process import MemoryRealm, Server, SlowWorker


class RequestTests(SynchronousTestCase):
    def test_abandoned_request(self) -> None:
        """`check_wanted` raises once the client has left, and never if nobody can leave."""
        request = Request()
        check_wanted()

        async def work() -> None:
            check_wanted()
            request.is_abandoned = True
            check_wanted()

        self.failureResultOf(Deferred.fromCoroutine(run_for(request, work())), RequestAbandoned)
        check_wanted()

    def test_work_that_another_session_causes(self) -> None:
        """Work that begins during the command of another session has its own request, then and after it has waited."""
        mine, other = Request(), Request()
        event: Deferred[None] = Deferred()
        seen: list[Request | None] = []

        async def background() -> None:
            seen.append(current_request.get())
            await event
            seen.append(current_request.get())

        async def command() -> None:
            Deferred.fromCoroutine(run_for(mine, background()))
            seen.append(current_request.get())
            event.callback(None)
            seen.append(current_request.get())

        self.successResultOf(Deferred.fromCoroutine(run_for(other, command())))
        self.assertEqual(seen, [mine, other, mine, other])
        self.assertIsNone(current_request.get())

    def test_request_of_a_command_ends_with_it(self) -> None:
        """Neither a command that ends at once nor one that waits leaves its request to what runs after it."""
        client = Server(realm=MemoryRealm(SlowWorker())).login()
        client(b"a NOOP")
        client(b"b SELECT INBOX")
        self.assertIsNone(current_request.get())
