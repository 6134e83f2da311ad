"""What workers answer about nodes and users who move becomes one answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.control.request_lines import ControlError, Request
from imapshield.front import front_parts
from imapshield.front.map_file import MapFile
from imapshield.workers.merged_nodes import WATCH_SECONDS, MergedNodes, merged
from tests.workers.cluster import ClusterTestCase


class _Ready:
    """A worker that serves clients."""

    is_ready, link = True, "a link"


class _Supervisor:
    """Answers for its workers."""

    def __init__(self, answers: list[Any], errors: list[ControlError]) -> None:
        self.workers = [_Ready() for _ in [*answers, *errors]]
        self._answers = iter([*answers, *errors])

    def ask(self, *_: object) -> Deferred[Any]:
        answer = next(self._answers)
        return succeed(answer) if isinstance(answer, dict) else fail(answer or TimeoutError())


def ask(answers: list[Any], *errors: ControlError) -> Deferred[Any]:
    """Return the answer of several workers."""
    supervisor: Any = _Supervisor(answers, list(errors))
    return Deferred.fromCoroutine(
        MergedNodes(supervisor, Clock()).ask(Request("hold", {"user": "alice"}))
    )


class MergedNodesTests(SynchronousTestCase):
    def test_counts_are_added(self) -> None:
        """Counts are added, and a hold was extended only if it was in all workers; a time is that of each."""
        rows = [{"node": "mail1", "users": 2}]
        answers = [
            {"user": "alice", "seconds": 10, "ended": 1, "extended": True, "rows": rows},
            {"user": "alice", "seconds": 10, "ended": 2, "extended": False, "rows": rows},
        ]
        self.assertEqual(
            merged(answers),
            {
                "user": "alice",
                "seconds": 10,
                "ended": 3,
                "extended": False,
                "rows": [{"node": "mail1", "users": 4}],
            },
        )
        self.assertEqual(self.successResultOf(ask(answers)), merged(answers))

    def test_problem_of_one_worker(self) -> None:
        """What one worker cannot read is a problem of all."""
        rows = [{"user_map": "file:x", "problem": problem} for problem in ("", "gone", "")]
        self.assertEqual(merged(rows), {"user_map": "file:x", "problem": "gone"})

    def test_rows_of_one_node(self) -> None:
        """Rows are merged by the name of the node, though a worker may have others, or in another order."""
        one = [{"node": "mail1", "users": 1}, {"node": "mail2", "users": 2}]
        two = [{"node": "mail2", "users": 3}]
        rows = [{"node": "mail1", "users": 1}, {"node": "mail2", "users": 5}]
        self.assertEqual(merged([one, two]), rows)

    def test_maximum_of_connections(self) -> None:
        """Each worker says the maximum of the whole server, so it is not added."""
        row = {"node": "mail1", "connections": 1, "max_connections": 7}
        self.assertEqual(merged([[row], [row]]), [{**row, "connections": 2}])

    def test_node_that_does_not_answer_all_workers(self) -> None:
        """A node answers a check if it answers all workers."""
        rows = [[{"node": "mail1", "answers": answers}] for answers in (True, False)]
        self.assertEqual(merged(rows), [{"node": "mail1", "answers": False}])

    def test_worker_that_does_not_answer(self) -> None:
        """An answer that one worker does not give is none: it may still have sessions of the user."""
        for result in (ask([{"ended": 1}, None]), ask([]), ask([{"a": 1}], ControlError("full"))):
            self.failureResultOf(result, ControlError)


class NewWorkerTests(ClusterTestCase):
    """A server with two nodes."""

    def where_mail_is(self) -> tuple[str, ...]:
        nodes = self.map = self.mktemp()
        self.write("alice mail1\nbob mail2\n")
        backends = "--backend", "mail1=tcp:127.0.0.1:1", "--backend", "mail2=tcp:127.0.0.1:2"
        return *backends, "--user-map", f"file:{nodes}"

    def write(self, text: str) -> None:
        """Write the map."""
        with open(self.map, "w", encoding="utf-8") as file:
            file.write(text)

    def reload_in_place(self, settings: Any) -> None:
        """Reload, without threads."""
        self.patch(front_parts, "deferToThread", maybeDeferred)
        self.patch(MapFile, "reread", lambda _: succeed([]))  # it was read a moment ago
        for parts in (self.parts, *(self.worker(number).parts for number in (1, 2))):
            parts.control_process.reloader._run_in_thread = maybeDeferred
        self.load = lambda: settings
        self.ask("reload")

    def nodes(self, number: int) -> Any:
        front = self.worker(number).parts.front
        assert front is not None
        return front.nodes

    def held(self, user: str = "alice") -> list[bool]:
        return [self.nodes(number).holds.is_held(user) for number in (1, 2)]

    def test_holds_and_drains(self) -> None:
        """A worker that replaces another one holds users, for as long as the others, and drains nodes, until the end."""
        self.ask("hold", user="alice", seconds=20)
        self.ask("drain", node="mail2")
        self.pump(10)
        self.kill(2)
        self.pump(0.1)
        self.assertEqual(self.held(), [True, True])
        self.assertTrue(self.nodes(2).by_name["mail2"].is_draining)
        self.pump(10.2)
        self.assertEqual(self.held(), [False, False])
        self.ask("undrain", node="mail2")
        self.kill(1)
        self.pump(1)
        self.assertFalse(self.nodes(1).by_name["mail2"].is_draining)

    def test_last_user_of_a_removed_node(self) -> None:
        """The log says once that the last user of a removed node has left, when no worker has one."""
        settings = self.parts.control_process.reloader.settings
        backends = [self.nodes(number).by_name["mail1"] for number in (1, 2)]
        for number in (1, 2):
            backends[number - 1].connections = 1
            self.nodes(number)._is_running = True
        self.write("alice mail2\nbob mail2\n")
        self.reload_in_place(replace(settings, backend=settings.backend[1:]))

        def leave(number: int) -> None:
            backends[number].connections += 1
            for _ in range(2):
                backends[number]._lost()
            self.pump(2 * WATCH_SECONDS)

        for number, left in ((0, 0), (1, 1)):
            lines = self.lines(lambda number=number: leave(number))
            self.assertEqual(len([line for line in lines if "has left" in line]), left, lines)
        self.assertFalse(self.parts.operator.nodes._watch.running)

    def test_worker_that_reloads_late(self) -> None:
        """The users of a removed node are watched until the last worker has reloaded, and its users have left."""
        operator = self.parts.operator.nodes
        row: dict[str, Any] = {"node": "mail1", "address": "mail1=a", "connections": 1}
        answers = iter([{"state": "up"}, {"state": "removed"}, {"state": "removed"}])

        async def ask(_: object) -> list[Any]:
            found = next(answers, None)
            return [] if found is None else [{**row, **found}]

        self.patch(operator, "ask", ask)
        operator.watch_removed(["mail2=b"])
        lines = self.lines(lambda: self.pump(10))
        self.assertEqual(sum("the last user has left" in line for line in lines), 1, lines)
        self.assertFalse(operator._watch.running)

    def test_removed_node_without_users(self) -> None:
        """Of a node that nobody uses, the last user does not leave."""
        operator = self.parts.operator.nodes
        rows = [{"node": "mail1", "address": "mail1=a", "connections": 0, "state": "up"}]

        async def ask(_: object) -> list[Any]:
            return [rows.pop()] if rows else []

        self.patch(operator, "ask", ask)
        operator.watch_removed(["mail2=b"])
        lines = self.lines(lambda: self.pump(10))
        self.assertFalse([line for line in lines if "has left" in line])

    def test_reload(self) -> None:
        """A node that a reload adds is one of all workers, and of those that start later."""
        settings = self.parts.control_process.reloader.settings
        backends = (*settings.backend, "mail3=tcp:127.0.0.1:3")
        self.reload_in_place(replace(settings, backend=backends))
        self.kill(2)
        self.pump(0.1)
        for number in (1, 2):
            self.assertEqual([*self.nodes(number).by_name], ["mail1", "mail2", "mail3"])

    def test_drained_node_that_is_removed(self) -> None:
        """If it is added again later, it has logins in all workers, also in those that start after that."""
        settings = self.parts.control_process.reloader.settings
        self.ask("drain", node="mail2")
        self.write("alice mail1\n")
        self.reload_in_place(replace(settings, backend=settings.backend[:1]))
        self.reload_in_place(settings)
        self.kill(2)
        self.pump(0.1)
        drained = [self.nodes(number).by_name["mail2"].is_draining for number in (1, 2)]
        self.assertEqual(drained, [False, False])

    def test_release(self) -> None:
        """A user who was released is not held by a new worker, and a drain of no node is none."""

        async def refresh(_: str) -> None:
            pass  # the file is read in a thread

        for number in (1, 2):
            self.patch(self.nodes(number).source, "refresh", refresh)
        self.ask("hold", user="Alice", seconds=20)
        self.ask("release", user="alice")
        with self.assertRaises(ControlError):
            self.ask_in_vain("drain", node="mail7")
        self.kill(1)
        self.pump(0.1)
        self.assertEqual(self.held(), [False, False])

    def test_user_map_that_is_wrong(self) -> None:
        """A worker that starts while the file is wrong refuses all logins, and does not die; the others go on."""
        self.write("alice mail1\nbob mail2\ncarol\n")
        self.ask("hold", user="alice", seconds=20)
        self.kill(2)
        self.pump(0.1)
        self.assertEqual(len(self.supervisor.running), 2)
        answers = [self.nodes(number).known("alice") for number in (1, 2)]
        self.assertEqual([bool(answer.problem) for answer in answers], [False, True])
        self.assertIn("line 3", self.ask("user-map")["problem"])
        for number, node in ((1, "mail1"), (2, None)):
            hold = self.worker(number).parts.operator.handlers["hold"]
            held = Deferred.fromCoroutine(hold(Request("hold", {"user": "alice", "seconds": 20})))
            self.assertEqual(self.successResultOf(held)["node"], node)

    def test_worker_that_starts(self) -> None:
        """A hold waits for a worker that has not begun to serve."""
        self.kill(2)
        self.reactor.advance(0)
        self.assertEqual(len(self.supervisor.running), 1)
        self.assertEqual(self.ask("hold", user="alice", seconds=20)["user"], "alice")
        self.assertEqual(self.held(), [True, True])

    def ask_in_vain(self, command: str, **arguments: Any) -> None:
        answer = Deferred.fromCoroutine(
            self.parts.operator.handlers[command](Request(command, arguments))
        )
        self.pump()
        raise self.failureResultOf(answer).value
