"""The row of imaptest's random load (https://github.com/dovecot/imaptest), if that program is on PATH.

Its clients log in, do random commands in a mailbox of their own user, check every answer, and log out. A session is
completed when its LOGOUT is answered.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from benchmarks import corpus
from benchmarks.bench import Bench, Stopwatch
from benchmarks.client import ServerError
from benchmarks.report import Goal
from benchmarks.rows import measure

PROGRAM = "imaptest"
CLIENTS = 20
BOX = "imaptest"
_MAIL = 500
"""Messages to choose from for APPEND."""
_MAX_SIZE = 64 << 10
_WRONG = re.compile(r"^(?:Fatal|Panic|Error): (?!.* failed: \S+ NO ).*", re.MULTILINE)
"""What imaptest prints about a wrong answer. A NO is none: another client of the user may have expunged a message."""


@measure(
    f"imaptest's random load, clients: {CLIENTS}",
    "session",
    goal=Goal(rate=0.9),
    users=CLIENTS + 1,  # it counts users from 1
    rounds=1,
    program=PROGRAM,
)
def _random_load(bench: Bench, stopwatch: Stopwatch) -> float:
    target = bench.target
    with tempfile.TemporaryDirectory(prefix="imaptest-") as folder:
        root = Path(folder)
        write_mbox(root / "mbox")
        command = [PROGRAM, *load_command(target.host, target.port, target.password, CLIENTS)]
        command += [f"mbox={root}/mbox", f"box={BOX}"]
        command.append(f"secs={bench.scale.imaptest_seconds:.0f}")
        _each_user(bench, f"CREATE {BOX}")
        with stopwatch:
            ended = subprocess.run(
                command, capture_output=True, text=True, cwd=root, check=False, timeout=300
            )
        _each_user(bench, f"DELETE {BOX}")
    return sessions_of(ended.stdout, ended.stderr)


def load_command(host: str, port: int, password: str, clients: int) -> list[str]:
    """Return the arguments of the random load: one client for each of the users user0001, user0002 and so on."""
    address = [f"host={host}", f"port={port}", "user=user%04d", f"pass={password}"]
    return [*address, f"users=1-{clients}", f"clients={clients}", "seed=1"]


def _each_user(bench: Bench, command: str) -> None:
    for user in bench.users[1 : CLIENTS + 1]:
        with bench.connect() as client, suppress(ServerError):  # an interrupted run has left it
            client.login(user, bench.target.password)
            client.command(command)


def sessions_of(output: str, errors: str = "") -> int:
    """Return the sessions that imaptest has completed.

    Args:
        output: its standard output, which ends with a table of totals.
        errors: its standard error.

    Raises:
        ServerError: an answer of the server was wrong, or there is no table of totals.
    """
    found = _WRONG.search(errors + output)
    if found is not None:
        raise ServerError(found[0])
    return session_count(output)


def session_count(output: str) -> int:
    """Return the number of answered LOGOUTs in the table of totals.

    Raises:
        ServerError: there is no table.
    """
    titles, *lines = output.partition("\nTotals:\n")[2].split("\n")
    # Percentages are between the titles and the counts.
    counts = next((line.split() for line in lines if re.fullmatch(r"[ \d]+", line)), [])
    for title, count in zip(titles.split(), counts, strict=False):
        if title == "Logo":
            return int(count)
    raise ServerError(f"no totals: {output[-300:]}")


def write_mbox(path: Path) -> None:
    """Write the messages for APPEND with CRLF, each after a line that begins with From."""
    with path.open("wb") as file:
        for data in corpus.messages(_MAIL, corpus.SEED + 2):
            # A larger one would make the figures depend on which messages the clients happen to choose.
            if len(data) > _MAX_SIZE:
                continue
            body = re.sub(rb"^From ", b">From ", data, flags=re.MULTILINE)
            file.write(b"From alice@shield.example Wed Jan  1 12:00:00 2020\r\n" + body + b"\r\n")
