"""The supervising process: workers that die or hang are replaced, and all of them stop together."""

import signal
import socket
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred

from imapshield.workers.inherited_ports import environment
from imapshield.workers.link_messages import Ready, encode
from tests.workers.cluster import ClusterTestCase


class SupervisorTests(ClusterTestCase):
    def test_workers_serve(self) -> None:
        """Each worker says when it serves, and status has a row for it."""
        status = self.ask("status")
        rows = [(row["worker"], row["pid"], row["serves"]) for row in status["workers"]]
        self.assertEqual(rows, [(1, 1000, True), (2, 1001, True)])

    def test_dead_worker_is_replaced(self) -> None:
        """A worker that dies is replaced at once, with a line in the log; the other one stays."""
        other = self.worker(2)
        (line,) = self.lines(lambda: self.kill(1))
        self.assertIn("worker 1 has ended after 0 s", line)
        self.assertIn("pid=1000 signal 9", line)
        self.pump(0.1)
        status = self.ask("status")
        self.assertEqual([row["starts"] for row in status["workers"]], [2, 1])
        self.assertEqual([row["serves"] for row in status["workers"]], [True, True])
        self.assertIs(self.worker(2), other)

    def test_repeated_deaths(self) -> None:
        """A worker that dies again and again is started after longer and longer pauses, of half a minute at most."""
        pauses = []
        for _ in range(9):
            before = self.reactor.seconds()
            self.kill(1)
            while len(self.processes) < 2:
                self.reactor.advance(0.5)
            pauses.append(self.reactor.seconds() - before)
        self.assertEqual(pauses[1:], [1, 2, 4, 8, 16, 30, 30, 30])
        self.assertLessEqual(pauses[0], 0.5)

    def test_stable_worker_begins_again(self) -> None:
        """A worker that has lived for a minute is replaced at once, whatever has happened before."""
        for _ in range(3):
            self.kill(1)
            self.pump(4)
        self.pump(61)
        self.kill(1)
        self.pump(0.1)
        self.assertEqual(len(self.processes), 2)

    def test_silent_worker_is_killed(self) -> None:
        """A worker that says nothing for worker_silent_seconds is killed; the log names the limit."""
        self.processes[0].hangs = True
        self.pump(29)
        self.assertEqual([each.pid for each in self.processes], [1000, 1001])
        lines = self.lines(lambda: self.pump(3))
        self.assertIn("limit worker_silent_seconds=30 hit: worker 1", lines[0])
        self.assertIn("is killed: pid=1000", lines[0])
        self.assertEqual([each.pid for each in self.processes], [1002, 1001])

    def test_stopped_supervisor_kills_nobody(self) -> None:
        """Time in which the supervising process did not run, such as SIGSTOP, is no silence of the workers."""
        self.processes[1].hangs = True
        self.reactor.advance(100)
        self.pump(28)
        self.assertEqual([each.pid for each in self.processes], [1000, 1001])
        self.pump(4)
        self.assertEqual([each.pid for each in self.processes], [1000, 1002])

    def test_output_is_logged(self) -> None:
        """What a worker prints is in the log, line by line."""
        protocol = self.processes[0].protocol
        lines = self.lines(lambda: protocol.errReceived(b"one\ntwo"))
        self.assertEqual(lines, ["the process of worker 1 prints: one"])
        lines = self.lines(lambda: self.kill(1))
        self.assertEqual(lines[0], "the process of worker 1 prints: two")

    def test_stop(self) -> None:
        """At the stop all workers stop, none is replaced, and the stop waits for their ends."""
        stopping: Deferred[None] = self.supervisor.stop()
        self.assertNoResult(stopping)
        self.pump()
        self.successResultOf(stopping)
        self.pump(100)
        self.assertEqual((self.processes, len(self.reactor.processes)), ([], 2))

    def test_stop_kills_those_that_hang(self) -> None:
        """A worker that does not end in time is killed."""
        self.processes[0].hangs = True
        stopping = self.supervisor.stop()
        lines = self.lines(lambda: self.pump(16))
        self.successResultOf(stopping)
        self.assertIn("worker 1 does not end, and is killed", lines)

    def test_stop_between_two_processes(self) -> None:
        """A worker that waits for its next process does not delay the stop."""
        self.kill(1)
        self.pump(0.1)
        self.kill(1)
        stopping = self.supervisor.stop()
        self.pump()
        self.successResultOf(stopping)

    def test_stop_while_a_process_starts(self) -> None:
        """A worker that does not serve clients yet does not delay the stop either, however long it needs to start."""
        self.kill(1)
        self.reactor.advance(0)
        self.processes[0].hangs = True
        stopping = self.supervisor.stop()
        self.pump()
        self.successResultOf(stopping)

    def test_ready_after_all(self) -> None:
        """The server is ready when all workers are."""
        called = []
        self.kill(1)
        self.supervisor.when_ready(lambda: called.append(True))
        self.assertEqual(called, [])
        self.pump(0.1)
        self.assertEqual(called, [True])

    def test_requests_of_a_dead_worker(self) -> None:
        """A request to a worker that dies ends, and the answer has what the other one says."""
        self.processes[0].hangs = True
        handler = self.parts.operator.handlers["who"]
        from imapshield.control.request_lines import Request

        answer = Deferred.fromCoroutine(handler(Request("who")))
        self.pump()
        self.assertNoResult(answer)
        self.kill(1)
        self.assertEqual(self.successResultOf(answer), [])

    def test_request_to_a_worker_that_hangs(self) -> None:
        """A worker that does not answer delays an answer by five seconds."""
        self.connect(2)
        self.processes[0].hangs = True
        from imapshield.control.request_lines import Request

        answer = Deferred.fromCoroutine(self.parts.operator.handlers["who"](Request("who")))
        self.pump(4.9)
        self.assertNoResult(answer)
        self.pump(0.2)
        self.assertEqual(len(self.successResultOf(answer)), 1)

    def test_environment(self) -> None:
        """A worker finds the same modules, and does not talk to systemd."""
        given = {"HOME": "/", "NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1"}
        self.assertEqual(environment(given, ["", "/a", "/b"]), {"HOME": "/", "PYTHONPATH": "/a:/b"})

    def test_signal_numbers(self) -> None:
        """A worker that ended by itself has a status in the log, not a signal."""
        from twisted.internet.error import ProcessTerminated

        (line,) = self.lines(lambda: self.processes[0].end(ProcessTerminated(3)))
        self.assertIn("status 3", line)
        self.assertNotIn(f"signal {signal.SIGKILL}", line)

    def test_program_that_cannot_be_started(self) -> None:
        """If a process cannot be started, because the program is being replaced, it is tried again."""
        spawn = self.reactor.spawnProcess

        def fails(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", "python3")

        self.patch(self.reactor, "spawnProcess", fails)
        self.kill(1)
        lines = self.lines(lambda: self.pump(0.1))
        self.assertIn("Permission denied: 'python3'", lines[-1])
        self.patch(self.reactor, "spawnProcess", spawn)
        self.pump(5)
        self.assertEqual([row["serves"] for row in self.ask("status")["workers"]], [True, True])

    def test_start_that_fails_anywhere(self) -> None:
        """Whatever fails when a process is started, it is tried again later and later, and the stop ends."""

        def fails(*_: object, **__: object) -> None:
            raise ValueError("no luck")

        places: list[tuple[Any, str]] = [
            *((socket, "socketpair"), (self.reactor, "spawnProcess")),
            *((self.reactor, "adoptStreamConnection"), (self.supervisor, "first_message")),
        ]
        for place, name in places:
            self.pump(61)
            self.kill(1)
            with mock.patch.object(place, name, fails):
                self.pump(2)
            self.assertFalse(self.supervisor.workers[0].is_ready, name)
            self.flushLoggedErrors(ValueError)
            self.pump(10)
            self.assertEqual([row["serves"] for row in self.ask("status")["workers"]], [True] * 2)
        self.pump(61)
        self.kill(1)
        with mock.patch.object(socket, "socketpair", fails):
            self.reactor.advance(0)
            self.assertFalse(self.supervisor.workers[0].is_running)
            stopping = self.supervisor.stop()
        self.pump(1)
        self.successResultOf(stopping)

    def test_late_messages_of_a_dead_worker(self) -> None:
        """What a worker has sent and the supervising process reads after its end is not for the next one."""
        link = self.processes[0].supervisor_link
        self.kill(1)
        link.dataReceived(encode(Ready()))
        self.assertFalse(self.supervisor.workers[0].is_ready)

    def test_start_may_take_longer(self) -> None:
        """A process that has not begun to serve has a minute, whatever worker_silent_seconds is."""
        self.kill(1)
        self.reactor.advance(0)
        self.processes[0].hangs = True
        self.pump(58)
        self.assertEqual(self.processes[0].pid, 1002)
        self.pump(4)
        self.assertNotIn(1002, [each.pid for each in self.processes])
