"""The commands of the control socket about nodes and users who move, for all workers together."""

from typing import Any

from imapshield.control.request_lines import ControlError, Request
from imapshield.workers.supervisor import Supervisor


class MergedNodes:
    """Commands about nodes. Each worker has sessions of its own, and must hold a user.

    Args:
        supervisor: has the workers.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def ask(self, request: Request) -> Any:
        """Return the answers of all workers as one.

        Raises:
            ControlError: a worker cannot do it, or does not answer. The others may have done it.
        """
        asked = len(self._supervisor.running)
        answers, errors = await self._supervisor.ask_all(request.command, request.arguments)
        if errors:
            raise errors[0]
        if len(answers) < asked or not answers:
            raise ControlError("not all workers answer; look at the log, and repeat the command")
        return merged([answer for _, answer in answers])


def merged(answers: list[Any]) -> Any:
    """Return several answers as one: numbers are added, and what must be true of all is true of all."""
    first = answers[0]
    if isinstance(first, dict):
        return {
            name: value if name in _SAME else merged([each[name] for each in answers])
            for name, value in first.items()
        }
    if isinstance(first, list):
        return _merged_rows(answers)
    if isinstance(first, bool):
        return all(answers)
    return sum(answers) if isinstance(first, int | float) else first


def _merged_rows(answers: list[list[Any]]) -> list[Any]:
    """Return the rows of several lists; those of one node are one row. A list may miss some, after a reload."""
    rows: dict[str, list[Any]] = {}
    for row in (row for answer in answers for row in answer):
        rows.setdefault(row["node"], []).append(row)
    return [merged(each) for each in rows.values()]


_SAME = frozenset({"seconds", "checked", "latency"})
"""Numbers that are not added: the first worker stands for all."""
