"""Put the same mail into two servers, ask both the same, and account for every difference.

    python -m benchmarks.beside --mail FOLDER

FOLDER is a Maildir, or holds files of messages and mboxes, at any depth. What differs is named by a
rule of `benchmarks.rules` with the sentence that decides, or printed as unexplained: exit status 1.
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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from benchmarks import peers
from benchmarks.client import Answer, Client, Wrong
from benchmarks.imap_bench import progress
from benchmarks.questions import (
    COMPOSED,
    FIELDS,
    KEYWORD,
    LEAF,
    NOWHERE,
    PARTIALS,
    SORTS,
    WHOLE,
    binary_items,
    part_items,
    part_paths,
    searches,
)
from benchmarks.rules import RULES, Difference, Rule
from benchmarks.values import FetchResult, Value, fetched, sorted_numbers, threads

FIRST_DATE = 999_993_600  # midnight: days must begin where they do
SECONDS_BETWEEN = 4_320
FLAGS = ("S", "", "RS", "FS", "DS", "FRS", "ST")
CHUNK = 200

_refused = re.compile(rb"\d+ (?!OK )([A-Z]+(?: \[[A-Z-]+)?)").match
_number = re.compile(rb"\d+")


def read(folder: Path) -> Iterator[tuple[str, bytes]]:
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
        for key in box.keys():  # noqa: SIM118 - iterating a mailbox parses its messages
            yield f"{path.name}:{key}", box.get_bytes(key)


def store(mails: Iterable[bytes], maildir: Path) -> None:
    """Write a Maildir in which the servers number the messages as they come here."""
    for part in ("tmp", "new", "cur"):
        (maildir / part).mkdir(parents=True)
    for index, data in enumerate(mails):
        when = FIRST_DATE + index * SECONDS_BETWEEN
        file = maildir / "cur" / f"{when}.M{index:06}.beside:2,{FLAGS[index % len(FLAGS)]}"
        file.write_bytes(data)
        os.utime(file, (when, when))


class Side:
    """One of the two servers, connected to again whenever it hangs up."""

    def __init__(self, peer: peers.Peer) -> None:
        self.peer = peer
        self._client: Client | None = None

    def ask(self, *pieces: bytes) -> Answer:
        """Ask for anything; that it hung up is an answer too."""
        if self._client is None:
            self._client = Client(self.peer.host, self.peer.port, timeout=120)
            self._client.login(self.peer.user, self.peer.password)
            self._client.command("EXAMINE INBOX")
        try:
            return self._client.ask(*pieces)
        except (Wrong, OSError):
            self.close()
            return Answer([], b"0 HANGUP")

    def close(self) -> None:
        """Hang up; the next question connects again."""
        if self._client is not None:
            self._client.close()
            self._client = None


def refusal(answer: Answer) -> str:
    """Tell how a command was refused, its response code included; empty if it was not."""
    match = _refused(answer.tagged)
    return match[1].decode() if match else ""


class Beside:
    """Two servers over the same mail, and what was found: answers agree, differ by rules, or more."""

    def __init__(
        self, theirs: Side, ours: Side, mails: Sequence[bytes], rules: Sequence[Rule]
    ) -> None:
        self.theirs, self.ours, self.mails, self.rules = theirs, ours, mails, rules
        self.agreed: Counter[str] = Counter()
        self.explained: Counter[str] = Counter()
        self.by_rule: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.unexplained: list[Difference] = []
        self._pool = ThreadPoolExecutor(1)

    def ask(self, *pieces: bytes) -> tuple[Answer, Answer]:
        """Ask both at once."""
        theirs = self._pool.submit(self.theirs.ask, *pieces)
        ours = self.ours.ask(*pieces)
        return theirs.result(), ours

    def difference(
        self, what: str, asked: str, number: int, theirs: object, ours: object
    ) -> Difference:
        """Make a difference in what was answered of a message, or of all with `number` 0."""
        mail = self.mails[number - 1] if number else b""
        return Difference(what, asked, number, mail, theirs, ours)

    def rule(self, one: Difference) -> Rule | None:
        """Find the first rule that explains a difference."""
        return next((rule for rule in self.rules if rule.explains(one)), None)

    def account(self, what: str, differences: Iterable[Difference]) -> None:
        """Take one answer into the account."""
        found = [(one, self.rule(one)) for one in differences]
        self.by_rule.update(rule.name for _, rule in found if rule)
        unexplained = [one for one, rule in found if not rule]
        self.unexplained += unexplained
        self.failed[what] += bool(unexplained)
        self.explained[what] += bool(found) and not unexplained
        self.agreed[what] += not found

    def fetch(
        self, what: str, numbers: range, items: Sequence[str]
    ) -> list[dict[int, FetchResult]]:
        """FETCH `items` of some messages; returns what the two answered, theirs first."""
        span = f"{numbers[0]}:{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
        asked = f"FETCH {span} ({' '.join(items)})"
        answers = self.ask(asked.encode())
        both = [fetched(answer) for answer in answers]
        no = [refusal(answer) for answer in answers]
        for number in numbers:
            theirs, ours = (one.get(number, {}) for one in both)
            # Servers tell FLAGS and UID unasked too.
            names = sorted(n for n in theirs | ours if n in items or n not in ("FLAGS", "UID"))
            names = names or [""]
            for name in names:
                one = theirs.get(name, no[0] or "absent")
                other = ours.get(name, no[1] or "absent")
                kind = what or name
                differ = one != other or type(one) is not type(other)
                self.account(
                    kind, [self.difference(kind, name or asked, number, one, other)] * differ
                )
        return both

    def messages(self) -> None:
        """Compare all there is to FETCH."""
        total = len(self.mails)
        structures: dict[int, list[Value]] = {}
        for start in range(1, total + 1, CHUNK):
            numbers = range(start, min(start + CHUNK, total + 1))
            both = self.fetch("", numbers, WHOLE)
            for number in numbers:
                structures[number] = [side[number].get("BODYSTRUCTURE") for side in both]
            for item in FIELDS:
                self.fetch("HEADER.FIELDS", numbers, [item])
            for item in PARTIALS:
                self.fetch("partials", numbers, [item])
        for number, structure in structures.items():
            one = range(number, number + 1)
            for path, kind in part_paths(*structure).items():
                if path:
                    self.fetch(kind if kind == NOWHERE else "sections", one, part_items(path))
                what = {LEAF: "BINARY", COMPOSED: "BINARY, composed"}.get(kind, kind)
                told: FetchResult = {}
                for item in binary_items(path):
                    told |= self.fetch(what, one, [item])[1].get(number, {})
                content, size = told.get(f"BINARY[{path}]"), told.get(f"BINARY.SIZE[{path}]")
                if isinstance(content, bytes) and size != len(content):
                    self.account(
                        what, [self.difference(what, "BINARY.SIZE", number, len(content), size)]
                    )

    def search(self, what: str, *pieces: bytes) -> None:
        """Compare one SEARCH."""
        asked = b'"'.join(pieces).decode("utf-8", "backslashreplace") + '"' * (len(pieces) > 1)
        both = self.ask(*pieces)
        no = [refusal(answer) for answer in both]
        if no[0] or no[1]:
            differences = [self.difference(what, asked, 0, *no)] * (no[0] != no[1])
        elif b"RETURN" in pieces[0]:
            lines = [
                [re.sub(rb' ?\(TAG "\d+"\)', b"", line) for (line, *_) in a.untagged] for a in both
            ]
            differences = [self.difference(what, asked, 0, *lines)] * (lines[0] != lines[1])
        else:
            theirs, ours = (set(answer.searched()) for answer in both)
            differences = [
                self.difference(what, asked, number, number in theirs, number in ours)
                for number in sorted(theirs ^ ours)
            ]
        self.account(what, differences)

    def odd(self, what: str) -> dict[int, Rule]:
        """Find the messages of which a rule says that they are sorted or threaded differently."""
        numbers = range(1, len(self.mails) + 1)
        rules = ((n, self.rule(self.difference(what, what, n, None, None))) for n in numbers)
        return {number: rule for number, rule in rules if rule}

    def sort(self, keys: str) -> None:
        """Compare one SORT: those that no rule names must be in the same order."""
        what = f"SORT {keys}"
        asked = f"SORT ({keys}) UTF-8 ALL"
        orders = [sorted_numbers(answer) for answer in self.ask(asked.encode())]
        differences: list[Difference] = []
        if orders[0] != orders[1] or len(orders[0]) != len(self.mails):
            odd = self.odd(what)
            rest = [[number for number in order if number not in odd] for order in orders]
            places = [self._places(order, odd) for order in orders]
            differences = [
                self.difference(what, asked, number, None, None)
                for number in odd
                if places[0].get(number) != places[1].get(number)
            ]
            if rest[0] != rest[1] or not rest[0]:
                pairs = enumerate(zip(*rest, strict=False))
                at = next((i for i, (theirs, ours) in pairs if theirs != ours), 1) - 1
                near = [order[at : at + 6] for order in rest]
                differences.append(self.difference(what, asked, 0, *near))
        self.account(what, differences)

    @staticmethod
    def _places(order: Sequence[int], odd: dict[int, Rule]) -> dict[int, int]:
        """After how many of the others each odd message stands."""
        places, others = {}, 0
        for number in order:
            if number in odd:
                places[number] = others
            else:
                others += 1
        return places

    def thread(self, algorithm: str) -> None:
        """Compare one THREAD; if anything differs, then again without what a rule names."""
        what = f"THREAD {algorithm}"
        apart = self._apart(f"{what} UTF-8 ALL")
        differences: list[Difference] = []
        if apart:
            odd = self.odd(what)
            asked = f"{what} UTF-8 " + ",".join(
                str(number) for number in range(1, len(self.mails) + 1) if number not in odd
            )
            moved = {int(n) for one in apart for n in _number.findall(b" ".join(one))}
            differences = [
                self.difference(what, asked, number, None, None) for number in moved & odd.keys()
            ]
            if still := self._apart(asked):
                differences.append(self.difference(what, asked, 0, *still))
        self.account(what, differences)

    def _apart(self, command: str) -> list[list[bytes]]:
        """Ask for threads; of each server those that the other has not, or all in another order."""
        both = [threads(answer) for answer in self.ask(command.encode())]
        if both[0] == both[1] != []:
            return []
        theirs, ours = ([*one] for one in both)
        apart = [
            [one for one in theirs if one not in ours],
            [one for one in ours if one not in theirs],
        ]
        return apart if apart[0] or apart[1] else both

    def everything(self, words: int) -> None:
        """Ask all questions, with `words` of the mails to search for."""
        with progress("FETCH"):
            self.messages()
        with progress("SORT and THREAD"):
            for keys in SORTS:
                self.sort(keys)
            for algorithm in ("ORDEREDSUBJECT", "REFERENCES"):
                self.thread(algorithm)
        with progress("SEARCH"):
            for what, pieces in searches(self.mails, words):
                self.search(what, *pieces)

    def table(self) -> str:
        """Write what was compared, and the rules that came up."""
        lines = [f"{'what':<32}{'answers':>9}{'agree':>9}{'by a rule':>11}{'unexplained':>13}"]
        for kind in self.agreed:
            agreed, ruled, failed = self.agreed[kind], self.explained[kind], self.failed[kind]
            total = agreed + ruled + failed
            lines.append(f"{kind:<32}{total:>9}{agreed:>9}{ruled:>11}{failed:>13}")
        lines += ["", f"{'differences':>11}  rule"]
        for rule in self.rules:
            if count := self.by_rule[rule.name]:
                lines.append(f"{count:>11}  {rule.name}: {rule.decides}")
        return "\n".join(lines)


def shown(one: Difference, names: Sequence[str]) -> str:
    """Write a difference in full; of long strings what is around the place where they part."""
    theirs, ours = one.theirs, one.ours
    if isinstance(theirs, bytes) and isinstance(ours, bytes):
        pairs = enumerate(zip(theirs, ours, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(theirs), len(ours)))
        around = slice(max(0, at - 40), at + 160)
        theirs, ours = theirs[around], ours[around]
    name = names[one.number - 1] if one.number else "-"
    return f"{one.what} {one.asked}\n  message {one.number}, {name}\n  theirs {theirs!r}\n  ours   {ours!r}"


def compare(
    named: Sequence[tuple[str, bytes]],
    words: int,
    server: str = "dovecot",
    rules: Sequence[Rule] = RULES,
) -> tuple[Beside, list[str]]:
    """Serve the mail by both and compare; out come the account and what is unexplained, in words."""
    names, mails = zip(*named, strict=True)
    root = Path(tempfile.mkdtemp(prefix="imap-beside-"))
    root.chmod(0o755)
    try:
        with ExitStack() as stack:
            # Dovecot tells INTERNALDATE in the server's zone.
            stack.enter_context(patch.dict(os.environ, TZ="UTC"))
            sides: list[Side] = []
            for name in (server, "imapshield"):
                store(mails, root / name / peers.USER)
                peers.own(root / name)
                side = Side(stack.enter_context(peers.start(name, root / name)))
                stack.callback(side.close)
                sides.append(side)
            beside = Beside(sides[0], sides[1], mails, rules)
            for side in sides:
                with Client(side.peer.host, side.peer.port) as client:
                    client.login(side.peer.user, side.peer.password)
                    client.select()
                    marked = ",".join(map(str, range(1, len(mails) + 1, 7)))
                    client.command(f"STORE {marked} +FLAGS.SILENT ({KEYWORD})")
            beside.everything(words)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return beside, [shown(one, names) for one in beside.unexplained]


def main() -> int:
    """Compare; 1 if anything is unexplained."""
    parser = argparse.ArgumentParser(prog="beside", description="Compare two servers' answers.")
    parser.add_argument("--mail", type=Path, required=True, help="a Maildir, or files and mboxes")
    parser.add_argument("--server", default="dovecot", choices=peers.NAMES, help="the other one")
    parser.add_argument("--words", type=int, default=500, help="how many words to search for")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a TERM ends the servers too
    named = list(read(options.mail))
    if not named:
        parser.error(f"no messages in {options.mail}")
    beside, unexplained = compare(named, options.words, options.server)
    print(beside.table())
    for text in unexplained:
        print(f"\nunexplained: {text}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as complaint:  # a server that does not start, in its own words
        sys.exit(str(complaint))
