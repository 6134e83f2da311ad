"""The rows of ``--scale``: the same work in a mailbox of 100 and of 100,000 messages.

The cost of a message must not rise with the size of its mailbox. So the goal of the large mailbox is the server's own
cost in INBOX. In the small one the cost of a command counts for more than that of its messages: it has no goal.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import mail
from benchmarks.bench import Bench, Stopwatch, check_count
from benchmarks.client import Client
from benchmarks.report import NO_GOAL, Goal
from benchmarks.rows import Round, measure

SIZES = (100, 100_000)
_ROUNDS = 3


def _commands(size: int) -> None:
    """Add the rows for a mailbox of `size` messages."""
    folder = mail.scaled_folder(size)

    def row(name: str, *, rounds: int = 1, warm: bool = False) -> Callable[[Round], Round]:
        return measure(
            f"{name}, {size:,} messages",
            "message",
            goal=Goal(steady=name) if size > 100 else NO_GOAL,
            warm=warm,
            scaled=size,
            rounds=rounds,
            seldom=True,
        )

    @row("first SELECT")
    def _first_select(bench: Bench, stopwatch: Stopwatch) -> float:
        with bench.session(None) as client:
            with stopwatch:
                found = client.select(folder)
            check_count("messages in the folder", found, size)
            bench.wait_idle()  # not in the next rows
        return found

    def command(name: str, text: str, wanted: bytes = b"") -> None:
        @row(name, rounds=_ROUNDS, warm=True)
        def _command(bench: Bench, stopwatch: Stopwatch) -> float:
            with bench.session(folder) as client, stopwatch:
                response = client.command(text)
                expected = size if wanted else _unseen(client, folder)
            count = len(response.fetched(wanted) if wanted else response.searched())
            check_count("responses", count, expected)
            return size

    command("FETCH FLAGS", "FETCH 1:* (FLAGS)", b"FLAGS (")
    command("FETCH ENVELOPE", "FETCH 1:* (ENVELOPE)", b"ENVELOPE (")
    command("SEARCH UNSEEN", "SEARCH UNSEEN")

    @row("STORE flags of all")
    def _store(bench: Bench, stopwatch: Stopwatch) -> float:
        with bench.session(folder) as client:
            client.command(r"STORE 1:* -FLAGS.SILENT (\Flagged)")
            with stopwatch:
                responses = [client.command(rf"STORE 1:* {sign}FLAGS (\Flagged)") for sign in "+-"]
            for response in responses:
                check_count("responses", len(response.fetched(b"FLAGS (")), size)
        return 2 * size


def _unseen(client: Client, folder: str) -> int:
    (line, *_) = client.command(f"STATUS {folder} (UNSEEN)").untagged[0]
    return int(line.partition(b"UNSEEN ")[2].partition(b")")[0])


for _size in SIZES:
    _commands(_size)
