"""Two workers and their supervising process answer as one server."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.python.failure import Failure

from imapshield import events
from imapshield.config import load_settings
from imapshield.control.request_lines import ControlError, Request
from imapshield.cred.checkers import PasswordFile
from imapshield.edge.event_reporter import publish
from imapshield.guard.verdicts import LimitReached
from imapshield.workers.link_messages import Logged, MessageBuffer, Reload
from imapshield.workers.worker_log import WorkerLog
from tests.workers.cluster import ClusterTestCase


class AsOneTests(ClusterTestCase):
    def test_status_adds_up(self) -> None:
        """The status has the connections and limits of all workers."""
        self.connect(1)
        self.connect(1)
        self.connect(2)
        status = self.ask("status")
        self.assertEqual((status["connections"], status["without_login"]), (3, 3))
        self.assertEqual((status["max_connections"], status["max_memory"]), (10_000, 256 << 20))
        self.assertEqual([row["connections"] for row in status["workers"]], [2, 1])
        self.assertEqual(status["login_problems"], [])

    def test_status_without_a_worker(self) -> None:
        """While workers start, the status has the limits that are configured, and what the others do."""
        self.connect(2)
        for worker, connections in zip(self.supervisor.workers, (1, 0), strict=True):
            worker.is_ready = False
            status = self.ask("status")
            found = status["connections"], status["max_connections"], status["max_memory"]
            self.assertEqual(found, (connections, 10_000, 256 << 20))

    def test_who_lists_all(self) -> None:
        """`who` lists the connections of all workers, at most as many as asked for."""
        for number in (1, 2):
            self.connect(number, f"192.0.2.{number}")
        self.assertEqual(sorted(row["peer"] for row in self.ask("who")), ["192.0.2.1", "192.0.2.2"])
        self.assertEqual(len(self.ask("who", number=1)), 1)

    def test_kick(self) -> None:
        """`kick` resets connections wherever they are."""
        for number in (1, 2):
            self.connect(number, "192.0.2.7")
        self.assertEqual(self.ask("kick", who="192.0.2.7"), 2)
        self.assertEqual(self.ask("who"), [])
        answer = Deferred.fromCoroutine(
            self.parts.operator.handlers["kick"](Request("kick", {"who": "bob"}))
        )
        self.pump()
        self.failureResultOf(answer, ControlError)

    def test_ban_by_operator(self) -> None:
        """A ban by an operator resets the connections of both workers, and both refuse further ones."""
        self.connect(1, "192.0.2.7")
        self.connect(2, "192.0.2.7")
        self.assertEqual(self.ask("ban", network="192.0.2.7")["reset"], 2)
        for number in (1, 2):
            self.assertFalse(hasattr(self.connect(number, "192.0.2.7"), "reporter"))
        self.assertEqual([ban["network"] for ban in self.ask("bans")], ["192.0.2.7/32"])
        self.assertEqual(self.ask("unban", network="192.0.2.7"), ["192.0.2.7/32"])
        self.pump()
        for number in (1, 2):
            self.assertTrue(hasattr(self.connect(number, "192.0.2.7"), "reporter"))

    def test_ban_in_one_worker(self) -> None:
        """A ban that a worker makes applies in the other one at once, and is one ban in all answers."""
        stays, goes = self.connect(2, "192.0.2.8"), self.connect(2, "192.0.2.7")
        admission = self.worker(1).parts.factory.shared.admission
        ban = admission.guard.bans.ban("192.0.2.7", "backlog", 0.0, seconds=60.0)
        reached = LimitReached("max_limit_violations", 10, 10)
        admission._banned(ban, "192.0.2.7", reached)
        self.pump(0.1)
        self.assertEqual((goes.closed, stays.closed), (True, False))
        self.assertFalse(hasattr(self.connect(2, "192.0.2.7"), "reporter"))
        (shown,) = self.ask("bans")
        self.assertEqual((shown["network"], shown["number"]), ("192.0.2.7/32", 1))
        self.assertAlmostEqual(shown["remaining"], 59.9, delta=0.2)
        self.assertEqual(self.parts.operator._counters.bans, {"max_limit_violations": 1})

    def test_bans_of_a_new_worker(self) -> None:
        """A worker that replaces another one knows the bans and the users of before."""
        self.worker(1).parts.guard.failures.succeeded("192.0.2.9", b"alice", 0)
        self.pump(0.1)
        self.ask("ban", network="192.0.2.7")
        self.kill(2)
        self.pump(0.1)
        self.assertFalse(hasattr(self.connect(2, "192.0.2.7"), "reporter"))
        self.assertTrue(self.worker(2).parts.guard.failures.is_known("192.0.2.9", b"alice"))

    def test_slip_of_the_operator(self) -> None:
        """The refusal of a wide ban counts the connections of all workers."""
        self.connect(1, "10.1.2.3")
        self.connect(2, "10.1.2.4")
        handler = self.parts.operator.handlers["ban"]
        answer = Deferred.fromCoroutine(handler(Request("ban", {"network": "0.0.0.0/1"})))
        self.pump()
        failure = self.failureResultOf(answer, ControlError)
        self.assertIn("2 connections of 0 users are from there", failure.getErrorMessage())

    def test_why(self) -> None:
        """`why` knows the ends of the connections of all workers."""
        for number in (1, 2):
            server = self.connect(number, "192.0.2.7")
            server.reporter.cause = "backlog"
            server.connectionLost(Failure(ConnectionDone()))
        self.pump(0.1)
        (end,) = self.ask("why", who="192.0.2.7")["ends"]
        self.assertEqual((end["cause"], end["count"]), ("backlog", 2))

    def test_talkers_and_counters(self) -> None:
        """Talkers and counters are of all workers, and stay when one of them dies."""
        for number, host in ((1, "192.0.2.1"), (2, "192.0.2.2")):
            parts = self.worker(number).parts
            closed = events.ConnectionClosed(number, host, "logged out", commands=6, octets_in=10)
            for event in (
                events.ConnectionOpened(number, host),
                events.LoggedIn(number, host, "alice", "PLAIN", True),
                closed,
            ):
                publish(event, parts.factory.observers)
        self.pump(2.1)
        self.kill(1)
        report = self.ask("talkers")
        self.assertEqual(report["totals"]["commands"], 12)
        rows = {row["key"]: row["commands"] for row in report["tables"]["address"]}
        self.assertEqual(rows, {"192.0.2.1": 0.5, "192.0.2.2": 0.5})
        counters = self.parts.operator._counters
        self.assertEqual((counters.opened, counters.logins["accepted"]), (2, 2))
        self.assertEqual(self.parts.operator.meter.total.commands, 12)

    def test_numbers_of_connections(self) -> None:
        """A new worker does not use numbers again that the dead one may have used."""
        publish(events.ConnectionOpened(101, ""), self.worker(1).parts.factory.observers)
        self.pump(0.1)
        self.kill(1)
        self.pump(0.1)
        start = self.life._first_message(self.supervisor.workers[0])
        self.assertGreater(start.first_connection, 101 + 1000)
        self.assertEqual(start.first_connection % 2, 1)
        self.assertEqual(self.life._first_message(self.supervisor.workers[1]).first_connection, 2)

    def test_beats(self) -> None:
        """The delays of the reactors of all workers are those of the server."""
        delay = self.worker(1).parts.operator._delay
        delay.add([0] * 13 + [1], 20.0, 20.0)
        self.pump(1.1)
        self.assertEqual(self.parts.operator.delay.counts[-1], 1)
        self.assertGreaterEqual(self.parts.operator.delay.take_highest(), 20.0)

    def test_advice(self) -> None:
        """`advise` sees the memory of all workers together."""
        self.pump(1.1)
        self.assertEqual(self.parts.operator.advisor.memory(), (0, "", 0))
        for number, held in ((1, 5), (2, 7)):
            last = self.supervisor.workers[number - 1]
            last.last = last.last.__class__(0, held, (f"user{number}", held), [], 0.0, 0.0)
        self.assertEqual(self.parts.operator.advisor.memory(), (12, "user2", 7))

    def test_reload(self) -> None:
        """A reload changes the limits of all workers; each has its part of those that are divided."""
        self.load = lambda: load_settings(
            {
                "mail-root": self.mail,
                "auth": [f"file:{self.users}"],
                "workers": "2",
                "state": "none",
                "control": "none",
                "trust": "none",
                "limit": ["idle_seconds=77", "max_memory_bytes=10M"],
            }
        )
        reloader = self.parts.control_process.reloader
        for each in (reloader, *(self.worker(n).parts.control_process.reloader for n in (1, 2))):
            each._run_in_thread = _at_once
        self.patch(PasswordFile, "refresh", _refreshed)
        answer = self.ask("reload")
        self.assertEqual(answer["problems"], [])
        self.assertEqual(len(answer["changed"]), 2)
        for number in (1, 2):
            limits = self.worker(number).parts.factory.limits
            self.assertEqual((limits.idle_seconds, limits.max_memory_bytes), (77, 5 << 20))

    def test_reload_of_a_worker_that_starts_or_hangs(self) -> None:
        """A worker that starts or hangs delays a reload by eight seconds, is told as a problem, and reloads later."""
        reloader = self.parts.control_process.reloader
        reloader._run_in_thread = self.worker(2).parts.control_process.reloader._run_in_thread = (
            _at_once
        )
        self.patch(PasswordFile, "refresh", _refreshed)
        self.kill(1)
        self.reactor.advance(0)  # the next process starts, and has read nothing yet
        self.processes[0].hangs = True
        settings = self.load()
        for seconds in (77, 78):
            changed = replace(settings, limits=replace(settings.limits, idle_seconds=seconds))
            self.patch(self, "load", lambda changed=changed: changed)
            answer = reloader.reload()
            self.pump(7.9)
            self.assertNoResult(answer)
            self.pump(0.2)
            (problem,) = self.successResultOf(answer).problems
            self.assertEqual(problem, "worker 1: no answer yet; it reloads when it can")
        sent = MessageBuffer().add(b"".join(self.processes[0].ours.written))
        told = [each for each in sent if isinstance(each, Reload)]
        self.assertEqual([each.settings.limits.idle_seconds for each in told], [77, 78])

    def test_reload_while_workers_end(self) -> None:
        """A worker that ends during a reload is no problem: the next one reads the new settings."""
        reloader = self.parts.control_process.reloader
        reloader._run_in_thread = _at_once
        self.patch(PasswordFile, "refresh", _refreshed)
        for process in self.processes:
            process.hangs = True
        answer = reloader.reload()
        self.pump(1)
        self.assertNoResult(answer)
        for process in self.processes:
            process.signalProcess(9)
        self.assertEqual(self.successResultOf(answer).problems, [])

    def test_keys_reach_a_worker_that_starts(self) -> None:
        """The keys of a state file that is loaded late reach workers that start, even if no other serves."""
        for process in self.processes:
            process.signalProcess(9)
        self.reactor.advance(0)
        self.parts.state.failures_key = b"another key"
        self.parts.state.on_load()
        self.pump(1)
        for number in (1, 2):
            self.assertEqual(self.worker(number).parts.guard.failures._key, b"another key")

    def test_reload_with_an_error(self) -> None:
        """A wrong configuration changes nothing in any worker."""
        self.load = lambda: load_settings({"limit": ["idle_seconds=0"]})
        self.parts.control_process.reloader._run_in_thread = _at_once
        answer = self.ask("reload")
        self.assertIn("nothing is changed", answer["problems"][0])
        self.assertEqual(self.worker(1).parts.factory.limits.idle_seconds, 1800)

    def test_trace(self) -> None:
        """A trace shows the connections of all workers, and ends in all of them when its operator leaves."""
        one, two = self.connect(1), self.connect(2)
        stream = self.parts.operator.streams["trace"](Request("trace", {"who": "192.0.2.1"}))
        lines = [self._next(stream) for _ in range(3)]
        self.assertEqual(lines[0], "-- 192.0.2.1: 2 connections now, and those to come, for 600 s")
        self.assertTrue(all("traced from here" in line for line in lines[1:]))
        one.dataReceived(b"a NOOP\r\n")
        self.assertIn("NOOP", self._next(stream))
        two.dataReceived(b"b NOOP\r\n")
        self.assertTrue(self._next(stream))
        closing = Deferred.fromCoroutine(stream.aclose())
        self.pump()
        self.successResultOf(closing)
        self.assertEqual((one.reporter.tap, two.reporter.tap), (None, None))

    def test_trace_of_nobody(self) -> None:
        """A trace of a number that no connection has is an error."""
        stream = self.parts.operator.streams["trace"](Request("trace", {"who": "12345"}))
        first = Deferred.fromCoroutine(stream.__anext__())
        self.pump()
        self.assertIn("no connection", self.failureResultOf(first, ControlError).getErrorMessage())

    def test_trace_ends(self) -> None:
        """A trace ends after its time."""
        stream = self.parts.operator.streams["trace"](
            Request("trace", {"who": "alice", "seconds": 5})
        )
        self._next(stream)
        last = Deferred.fromCoroutine(stream.__anext__())
        self.pump(6)
        self.failureResultOf(last, StopAsyncIteration)

    def _next(self, stream: Any) -> str:
        item = Deferred.fromCoroutine(stream.__anext__())
        for _ in range(5):
            self.pump(0.01)
        result: str = self.successResultOf(item)
        return result

    def test_memory(self) -> None:
        """The memory is that of all processes; a process that has ended has none."""
        self.assertGreater(self.parts.operator.memory(), 1 << 20)

    def test_command_line_shows_workers(self) -> None:
        """`imapshield status` has a line for each worker."""
        from imapshield.operator_commands import _show_status

        self.kill(1)
        lines = [*_show_status(self.ask("status"))]
        self.assertIn("does not serve clients yet", lines[-2])
        self.assertRegex(lines[-1], r"worker 2 +pid 1001, up for .*, 0 connections, memory ")


class LogTests(ClusterTestCase):
    def test_lines_tell_the_worker(self) -> None:
        """Lines of a worker are in the log of the server, at their level, and end with the worker."""
        worker = self.processes[1]
        observer = WorkerLog(worker.link)
        log = Logger(namespace="imapshield.edge", observer=observer)
        log.warn("limit {limit} hit", limit="backlog", other=object())
        log.debug("not in the log")
        Logger(namespace="log_legacy", observer=observer).info("IMAP4Factory starting on 143")
        try:
            raise ValueError("a bug")
        except ValueError:
            log.failure("error in a command")
        with capturedLogs() as logged:
            self.pump()
        first, second = logged
        self.assertEqual(formatEvent(first), "limit backlog hit worker=2")
        self.assertEqual((first["log_namespace"], first["limit"]), ("imapshield.edge", "backlog"))
        self.assertEqual((first["log_level"].name, first["worker"]), ("warn", 2))
        text = formatEvent(second)
        self.assertTrue(text.startswith("error in a command worker=2\nTraceback"), text)

    def test_events(self) -> None:
        """The line of an event is written once, by the supervising process, and tells the worker."""
        failed = events.CommandFailed(3, "192.0.2.1", "0abc", "FETCH", "Traceback\n  in {braces}")
        logged_in = events.LoggedIn(3, "192.0.2.1", "alice", "PLAIN", True)
        busy = events.UserBusy(3, "192.0.2.1", "alice", 0.5, 60.0, 9)
        with capturedLogs() as logged:
            for event in (logged_in, busy, failed):
                publish(event, self.worker(2).parts.factory.observers)
            self.pump(0.1)
        login, busy_line, error = logged
        self.assertEqual(
            formatEvent(login),
            'login peer=192.0.2.1 connection=3 mechanism=PLAIN tls=True user="alice" worker=2',
        )
        fields = login["event"], login["user"], login["worker"], login["log_namespace"]
        self.assertEqual(fields, ("LoggedIn", "alice", 2, "imapshield"))
        self.assertTrue(formatEvent(busy_line).startswith("busy peer="))
        first, *rest = formatEvent(error).split("\n")
        self.assertTrue(first.endswith('command="FETCH" worker=2'), first)
        self.assertEqual(rest, ["Traceback", "  in {braces}"])
        self.assertEqual(error["log_level"].name, "error")

    def test_budget_of_all_workers(self) -> None:
        """A client cannot have more lines by means of several workers."""
        bad = events.BadCommandReceived(3, "192.0.2.1", "x", "Unknown command")
        with capturedLogs() as logged:
            for number in (1, 2) * 4:
                publish(bad, self.worker(number).parts.factory.observers)
            self.pump(0.1)
        self.assertEqual(len(logged), 5)

    def test_braces(self) -> None:
        """Braces in a line are no fields."""
        link = self.processes[0].link
        link.send(Logged("info", "imapshield", "a {line} of a user", {}))
        with capturedLogs() as logged:
            self.pump()
        self.assertEqual(formatEvent(logged[0]), "a {line} of a user worker=1")


async def _refreshed(_: PasswordFile) -> None:
    pass


def _at_once(function: Any) -> Deferred[Any]:
    from twisted.internet.defer import maybeDeferred

    return maybeDeferred(function)
