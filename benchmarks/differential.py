"""Compares the responses of two servers to the same requests about the same mail.

    python -m benchmarks.differential --mail FOLDER

FOLDER is a Maildir, or contains files of messages and mboxes, at any depth. A difference is explained by a
rule of `benchmarks.known_differences`, or printed as unexplained; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import mailbox
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from benchmarks import peers
from benchmarks.client import Client, Response, ServerError
from benchmarks.difference_tally import DifferenceTally
from benchmarks.differences import Difference, Rule
from benchmarks.imap_bench import progress
from benchmarks.known_differences import RULES
from benchmarks.questions import (
    ABSENT,
    COMPOSED,
    FIELD_ITEMS,
    KEYWORD,
    LEAF,
    MESSAGE_ITEMS,
    PARTIAL_ITEMS,
    SORT_KEYS,
    binary_items,
    part_items,
    part_paths,
    searches,
)
from benchmarks.values import FetchResult, Value, fetched, sorted_numbers, threads

FIRST_DATE = 999_993_600  # midnight, so that days begin at the same message in every run
SECONDS_BETWEEN = 4_320
FLAGS = ("S", "", "RS", "FS", "DS", "FRS", "ST")
CHUNK = 200

_refusal = re.compile(rb"\d+ (?!OK )([A-Z]+(?: \[[A-Z-]+)?)").match
_number = re.compile(rb"\d+")


def read_messages(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every message in a folder with a name for it."""
    parts = [part for part in (folder / "cur", folder / "new") if part.is_dir()]
    for path in sorted(path for part in parts or [folder] for path in part.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if parts or not data.startswith(b"From "):
            yield path.name, data
            continue
        box = mailbox.mbox(path, create=False)
        for key in box.keys():  # noqa: SIM118 - iterating over a mailbox parses its messages
            yield f"{path.name}:{key}", box.get_bytes(key)


def write_maildir(messages: Iterable[bytes], maildir: Path) -> None:
    """Write a Maildir in which the servers number the messages in their order here."""
    for part in ("tmp", "new", "cur"):
        (maildir / part).mkdir(parents=True)
    for index, data in enumerate(messages):
        date = FIRST_DATE + index * SECONDS_BETWEEN
        file = maildir / "cur" / f"{date}.M{index:06}.example:2,{FLAGS[index % len(FLAGS)]}"
        file.write_bytes(data)
        os.utime(file, (date, date))


class Connection:
    """A connection to one of the two servers, which is opened again after the server has closed it."""

    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self._client: Client | None = None

    def request(self, *parts: bytes) -> Response:
        """Send a command, in which every second part is a literal.

        If the server closes the connection, the tagged response is "0 HANGUP".
        """
        if self._client is None:
            self._client = Client(self.peer.host, self.peer.port, timeout=120)
            self._client.login(self.peer.user, self.peer.password)
            self._client.command("EXAMINE INBOX")
        try:
            return self._client.command_parts(*parts)
        except (ServerError, OSError):
            self.close()
            return Response([], b"0 HANGUP")

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None


def refusal(response: Response) -> str:
    """Return the status of a command that was refused, with its response code; "" if it was not refused."""
    match = _refusal(response.tagged)
    return match[1].decode() if match else ""


class Comparison:
    """Sends requests to two servers over the same mail, and counts in `tally` how their responses differ."""

    def __init__(
        self,
        theirs: Connection,
        ours: Connection,
        messages: Sequence[bytes],
        rules: Sequence[Rule],
    ) -> None:
        self.theirs, self.ours, self.messages = theirs, ours, messages
        self.tally = DifferenceTally(rules)
        self._pool = ThreadPoolExecutor(1)

    def request(self, *parts: bytes) -> tuple[Response, Response]:
        """Send a command to both servers at once."""
        theirs = self._pool.submit(self.theirs.request, *parts)
        ours = self.ours.request(*parts)
        return theirs.result(), ours

    def difference(
        self, category: str, request: str, number: int, theirs: object, ours: object
    ) -> Difference:
        """Return a difference about message `number`, or about all messages if it is 0."""
        message = self.messages[number - 1] if number else b""
        return Difference(category, request, number, message, theirs, ours)

    def compare_items(
        self, category: str, numbers: range, items: Sequence[str]
    ) -> list[dict[int, FetchResult]]:
        """Compare a FETCH of data items.

        Args:
            category: the category of the differences; "" for one category for each item.
            numbers: the sequence numbers.
            items: the data items.

        Returns:
            The results of both servers, theirs first, by sequence number.
        """
        span = f"{numbers[0]}:{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
        command = f"FETCH {span} ({' '.join(items)})"
        responses = self.request(command.encode())
        results = [fetched(response) for response in responses]
        refusals = [refusal(response) or "absent" for response in responses]
        for number in numbers:
            theirs, ours = (result.get(number, {}) for result in results)
            # FLAGS and UID may also come from an unsolicited response.
            names = sorted(n for n in theirs | ours if n in items or n not in ("FLAGS", "UID"))
            for name in names or [""]:
                pair = theirs.get(name, refusals[0]), ours.get(name, refusals[1])
                differs = pair[0] != pair[1] or type(pair[0]) is not type(pair[1])
                found = self.difference(category or name, name or command, number, *pair)
                self.tally.add(category or name, [found] * differs)
        return results

    def compare_messages(self) -> None:
        """Compare all data items of all messages."""
        total = len(self.messages)
        structures: dict[int, list[Value]] = {}
        for start in range(1, total + 1, CHUNK):
            numbers = range(start, min(start + CHUNK, total + 1))
            results = self.compare_items("", numbers, MESSAGE_ITEMS)
            for number in numbers:
                structures[number] = [result[number].get("BODYSTRUCTURE") for result in results]
            for item in FIELD_ITEMS:
                self.compare_items("HEADER.FIELDS", numbers, [item])
            for item in PARTIAL_ITEMS:
                self.compare_items("partials", numbers, [item])
        for number, pair in structures.items():
            for path, kind in part_paths(*pair).items():
                self._compare_part(number, path, kind)

    def _compare_part(self, number: int, path: str, kind: str) -> None:
        numbers = range(number, number + 1)
        if path:
            category = kind if kind == ABSENT else "sections"
            self.compare_items(category, numbers, part_items(path))
        category = {LEAF: "BINARY", COMPOSED: "BINARY, composed"}.get(kind, kind)
        ours: FetchResult = {}
        for item in binary_items(path):
            ours |= self.compare_items(category, numbers, [item])[1].get(number, {})
        content, size = ours.get(f"BINARY[{path}]"), ours.get(f"BINARY.SIZE[{path}]")
        if isinstance(content, bytes) and size != len(content):
            found = self.difference(category, "BINARY.SIZE", number, len(content), size)
            self.tally.add(category, [found])

    def compare_search(self, category: str, *parts: bytes) -> None:
        """Compare one SEARCH command, in which every second part is a literal."""
        request = b'"'.join(parts).decode("utf-8", "backslashreplace") + '"' * (len(parts) > 1)
        responses = self.request(*parts)
        refusals = [refusal(response) for response in responses]
        if refusals[0] or refusals[1]:
            differs = refusals[0] != refusals[1]
            differences = [self.difference(category, request, 0, *refusals)] * differs
        elif b"RETURN" in parts[0]:
            lines = [
                [re.sub(rb' ?\(TAG "\d+"\)', b"", line) for (line, *_) in response.untagged]
                for response in responses
            ]
            differs = lines[0] != lines[1]
            differences = [self.difference(category, request, 0, *lines)] * differs
        else:
            theirs, ours = (set(response.searched()) for response in responses)
            differences = [
                self.difference(category, request, number, number in theirs, number in ours)
                for number in sorted(theirs ^ ours)
            ]
        self.tally.add(category, differences)

    def _messages_with_rules(self, category: str) -> set[int]:
        """Return the numbers of the messages that a rule allows to be sorted or threaded differently."""
        return {
            number
            for number in range(1, len(self.messages) + 1)
            if self.tally.rule_for(self.difference(category, category, number, None, None))
        }

    def compare_sort(self, keys: str) -> None:
        """Compare one SORT: the messages to which no rule applies must be in the same order."""
        category = f"SORT {keys}"
        request = f"SORT ({keys}) UTF-8 ALL"
        orders = [sorted_numbers(response) for response in self.request(request.encode())]
        differences: list[Difference] = []
        if orders[0] != orders[1] or len(orders[0]) != len(self.messages):
            exempt = self._messages_with_rules(category)
            theirs, ours = (_positions(order, exempt) for order in orders)
            differences = [
                self.difference(category, request, number, None, None)
                for number in sorted(exempt)
                if theirs.get(number) != ours.get(number)
            ]
            remaining = [[n for n in order if n not in exempt] for order in orders]
            if remaining[0] != remaining[1] or not remaining[0]:
                pairs = enumerate(zip(*remaining, strict=False))
                start = next((i for i, (a, b) in pairs if a != b), 1) - 1
                excerpts = [order[start : start + 6] for order in remaining]
                differences.append(self.difference(category, request, 0, *excerpts))
        self.tally.add(category, differences)

    def compare_threads(self, algorithm: str) -> None:
        """Compare one THREAD; if it differs, compare again without the messages to which a rule applies."""
        category = f"THREAD {algorithm}"
        different = self._different_threads(f"{category} UTF-8 ALL")
        differences: list[Difference] = []
        if different:
            exempt = self._messages_with_rules(category)
            request = f"{category} UTF-8 " + ",".join(
                str(n) for n in range(1, len(self.messages) + 1) if n not in exempt
            )
            moved = {int(n) for side in different for n in _number.findall(b" ".join(side))}
            differences = [
                self.difference(category, request, number, None, None) for number in moved & exempt
            ]
            if remaining := self._different_threads(request):
                differences.append(self.difference(category, request, 0, *remaining))
        self.tally.add(category, differences)

    def _different_threads(self, command: str) -> list[list[bytes]]:
        """Return the threads of each server that the other does not have; all if only the order differs."""
        theirs, ours = (threads(response) for response in self.request(command.encode()))
        if theirs == ours != []:
            return []
        different = [
            [thread for thread in theirs if thread not in ours],
            [thread for thread in ours if thread not in theirs],
        ]
        return different if different[0] or different[1] else [theirs, ours]

    def compare_everything(self, words: int) -> None:
        """Compare all requests, with SEARCHes for `words` words of the messages."""
        with progress("FETCH"):
            self.compare_messages()
        with progress("SORT and THREAD"):
            for keys in SORT_KEYS:
                self.compare_sort(keys)
            for algorithm in ("ORDEREDSUBJECT", "REFERENCES"):
                self.compare_threads(algorithm)
        with progress("SEARCH"):
            for category, parts in searches(self.messages, words):
                self.compare_search(category, *parts)


def _positions(order: Sequence[int], exempt: set[int]) -> dict[int, int]:
    """Return for each exempt message how many of the others precede it."""
    positions, others = {}, 0
    for number in order:
        if number in exempt:
            positions[number] = others
        else:
            others += 1
    return positions


def compare(
    named_messages: Sequence[tuple[str, bytes]],
    words: int,
    server: str = "dovecot",
    rules: Sequence[Rule] = RULES,
) -> tuple[DifferenceTally, list[str]]:
    """Serve messages by a server and by imapshield, and compare all responses.

    Args:
        named_messages: names, which are used in descriptions, and messages.
        words: how many words of the messages are searched for.
        server: the other server, one of `peers.NAMES`.
        rules: the rules that explain differences.

    Returns:
        The tally, and a description of each unexplained difference.
    """
    names, messages = zip(*named_messages, strict=True)
    root = Path(tempfile.mkdtemp(prefix="imap-differential-"))
    root.chmod(0o755)
    try:
        with ExitStack() as stack:
            # Dovecot writes INTERNALDATE in the server's time zone.
            stack.enter_context(patch.dict(os.environ, TZ="UTC"))
            connections: list[Connection] = []
            for name in (server, "imapshield"):
                write_maildir(messages, root / name / peers.USER)
                peers.change_owner(root / name)
                connection = Connection(stack.enter_context(peers.start(name, root / name)))
                stack.callback(connection.close)
                connections.append(connection)
                _set_keywords(connection.peer, len(messages))
            theirs, ours = connections
            comparison = Comparison(theirs, ours, messages, rules)
            comparison.compare_everything(words)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    tally = comparison.tally
    return tally, [difference.describe(names) for difference in tally.unexplained]


def _set_keywords(peer: peers.Peer, count: int) -> None:
    """Set a keyword on every seventh message."""
    with Client(peer.host, peer.port) as client:
        client.login(peer.user, peer.password)
        client.select()
        numbers = ",".join(map(str, range(1, count + 1, 7)))
        client.command(f"STORE {numbers} +FLAGS.SILENT ({KEYWORD})")


def main() -> int:
    """Compare two servers; return 1 if a difference is unexplained."""
    parser = argparse.ArgumentParser(
        prog="differential", description="Compare the responses of two servers."
    )
    parser.add_argument("--mail", type=Path, required=True, help="a Maildir, or files and mboxes")
    parser.add_argument(
        "--server", default="dovecot", choices=peers.NAMES, help="the server to compare with"
    )
    parser.add_argument("--words", type=int, default=500, help="how many words to search for")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped too
    named_messages = list(read_messages(options.mail))
    if not named_messages:
        parser.error(f"no messages in {options.mail}")
    tally, unexplained = compare(named_messages, options.words, options.server)
    print(tally.table())
    for description in unexplained:
        print(f"\nunexplained: {description}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:  # a server did not start; the text is its output
        sys.exit(str(error))
