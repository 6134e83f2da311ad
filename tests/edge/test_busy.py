"""The time for which the server computes for commands is counted, for each connection and for each user."""

import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.session_io import SessionIO
from imapshield.events import CommandFailed, ConnectionClosed, LimitTriggered, UserBusy
from imapshield.mailbox.request import current_request
from imapshield.testing.in_process import Client, MemoryRealm, Server, SlowWorker
from imapshield.wire.framing import RawCommand


class SlowSession:
    """Each command computes for a second, waits for the test, and computes for two seconds; BAD then fails.

    Args:
        server: the server whose clock shows the time.
        io: the connection.
    """

    def __init__(self, server: Server, io: SessionIO) -> None:
        self.clock, self.io = server.clock, io
        self.waiting: Deferred[None] = Deferred()
        self.is_closed = False

    def greeting(self) -> bytes:
        return b"* OK hello\r\n"

    def capabilities(self) -> list[bytes]:
        return []

    def disconnected(self) -> None:
        pass

    async def run(self, command: RawCommand) -> None:
        compute(self.clock, 1)
        if command.name == b"NOOP":
            return
        try:
            await self.waiting
        except KeyError:
            compute(self.clock, 4)
        except GeneratorExit:
            self.is_closed = True
            raise
        compute(self.clock, 2)
        if command.name == b"BAD":
            raise ValueError


class NoSuchThing(Exception):
    """An exception to which there are weak references."""


def compute(clock: Clock, seconds: float) -> None:
    """Let time pass in which no delayed call runs, because the reactor's thread is busy."""
    clock.rightNow += seconds


class ThreadWorker(SlowWorker):
    """A worker whose calls compute for 20 seconds in another thread."""

    def run(self, function: Callable[..., Any], *args: object) -> Deferred[Any]:
        request = current_request.get()
        done = super().run(function, *args)

        def ended(result: Any) -> Any:
            if request is not None:
                request.count_seconds(20)
            return result

        return done.addBoth(ended)


class ThreadTests(SynchronousTestCase):
    def test_time_of_threads_is_counted(self) -> None:
        """What threads compute for a command counts for its connection and its user, also if the client has left."""
        worker = ThreadWorker()
        server = Server(realm=MemoryRealm(worker))
        clients = [server.login() for _ in range(2)]
        for client in clients:
            client(b"a STATUS INBOX (MESSAGES)")
        worker.step()
        for client in clients:
            client.lose_connection()
        worker.step()
        self.assertEqual([event.busy for event in server.events_of(ConnectionClosed)], [20, 0])
        (busy,) = server.factory.shared.busy_users.end_window(60)
        self.assertEqual((busy.user, busy.share), ("alice", 40 / 60))


class BusyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.sessions: list[SlowSession] = []
        make: Any = self.server.factory
        make.make_session = self.make_session
        self.client = Client(self.server, "192.0.2.7")
        self.runner = self.client.protocol._runner

    def make_session(self, io: SessionIO) -> SlowSession:
        self.sessions.append(SlowSession(self.server, io))
        return self.sessions[-1]

    def test_time_of_waiting_is_not_counted(self) -> None:
        """A command is charged for the steps in which it computes, and not for the time between them."""
        self.client(b"a NOOP")
        self.client(b"b WAIT")
        self.assertEqual(self.runner.busy_seconds, 2)
        self.server.clock.advance(30)
        self.sessions[0].waiting.callback(None)
        self.assertEqual(self.runner.busy_seconds, 4)
        self.client.lose_connection()
        (closed,) = self.server.events_of(ConnectionClosed)
        self.assertEqual((closed.commands, closed.executed, closed.busy), (2, 2, 4))

    def test_failures_reach_the_command(self) -> None:
        """An exception of what a command awaits is raised in the command, and what the command raises is reported."""
        self.client(b"a BAD")
        self.sessions[0].waiting.errback(KeyError())
        self.assertEqual(self.runner.busy_seconds, 7)
        (failed,) = self.server.events_of(CommandFailed)
        self.assertEqual(failed.command, "BAD")
        self.assertIn("raise ValueError", failed.traceback)
        self.assertTrue(self.client.transport.aborted)

    def test_command_that_nothing_waits_for_is_closed(self) -> None:
        """A command that awaits a Deferred which nobody keeps is closed without an error."""
        self.client(b"a WAIT")
        session = self.sessions[0]
        session.waiting = Deferred()
        gc.collect()
        self.assertTrue(session.is_closed)
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_failed_command_leaves_no_garbage(self) -> None:
        """The exception of what a command awaits is freed at once, with all that its frames refer to."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        error = NoSuchThing()
        freed = ref(error)
        self.client(b"a WAIT")
        self.sessions[0].waiting.errback(error)
        del error
        self.assertIsNone(freed())

    def test_limit_says_how_busy_the_client_was(self) -> None:
        """The event of a limit has the time of the commands before it."""
        self.client(b"a NOOP")
        self.client.send(b"a NOOP\r\n" * 101)
        (event,) = self.server.events_of(LimitTriggered)
        self.assertEqual((event.commands, event.executed, event.busy), (101, 1, 1))

    def test_busy_user(self) -> None:
        """The time and the commands of a user are added up over all connections; strangers are no users."""
        busy_users = self.server.factory.shared.busy_users
        self.client(b"a NOOP")
        self.assertEqual(busy_users._users, {})
        for number in range(2):
            client = Client(self.server, f"192.0.2.{number}")
            client.protocol.guard.login()
            client.protocol.reporter.user = "alice"
            for _ in range(20):
                client(b"a NOOP")
                self.server.clock.advance(0.1)  # work that took long rests
        (busy,) = busy_users.end_window(self.server.clock.seconds() + 60)
        self.assertEqual((busy.user, busy.commands, busy.peer), ("alice", 40, "192.0.2.1"))
        self.assertGreater(busy.share, 0.25)

    def test_busy_user_is_reported_without_another_caller(self) -> None:
        """A factory reports a busy user itself when somebody is active after the window."""
        self.client.protocol.guard.login()
        for user in ("alice", "bob"):
            self.client.protocol.reporter.user = user
            for _ in range(40):
                self.client(b"a NOOP")
                self.server.clock.advance(0.1)  # work that took long rests
            self.server.clock.advance(60)
        (event,) = self.server.events_of(UserBusy)
        self.assertEqual((event.user, event.commands, event.peer), ("alice", 40, "192.0.2.7"))
        self.assertEqual(list(self.server.factory.shared.busy_users._users), ["bob"])
