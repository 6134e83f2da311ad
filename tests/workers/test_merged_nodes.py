"""What workers answer about nodes and users who move becomes one answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.control.request_lines import ControlError, Request
from imapshield.workers.merged_nodes import MergedNodes, merged


class _Supervisor:
    """Answers for its workers."""

    def __init__(self, answers: list[Any], errors: list[ControlError]) -> None:
        self.running = [*answers, *errors]
        self._answers, self._errors = answers, errors

    async def ask_all(self, *_: object) -> Any:
        answers = [(number, each) for number, each in enumerate(self._answers) if each]
        return answers, self._errors


def ask(answers: list[Any], *errors: ControlError) -> Deferred[Any]:
    """Return the answer of several workers."""
    supervisor: Any = _Supervisor(answers, list(errors))
    return Deferred.fromCoroutine(MergedNodes(supervisor).ask(Request("hold", {"user": "alice"})))


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

    def test_rows_of_one_node(self) -> None:
        """Rows are merged by the name of the node, though a worker may have others, or in another order."""
        one = [{"node": "mail1", "users": 1}, {"node": "mail2", "users": 2}]
        two = [{"node": "mail2", "users": 3}]
        rows = [{"node": "mail1", "users": 1}, {"node": "mail2", "users": 5}]
        self.assertEqual(merged([one, two]), rows)

    def test_worker_that_does_not_answer(self) -> None:
        """An answer that one worker does not give is none: it may still have sessions of the user."""
        for result in (ask([{"ended": 1}, None]), ask([]), ask([1], ControlError("full"))):
            self.failureResultOf(result, ControlError)
