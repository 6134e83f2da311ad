"""Measures the text index (`imapshield.maildir.text_index`), and compares its answers with a search of all messages.

    python -m benchmarks.text_search --messages 10000
    python -m benchmarks.text_search --messages 1000 --queries 100000 --seed 1

The mail is that of `benchmarks.corpus`, or the Maildir of ``--maildir``, which gets an index. The figures are those of
the store in one thread: the server adds about half a millisecond for each of its calls.

With ``--queries``, random texts of 1 to 40 characters from the messages, some of them changed, are searched. A
candidate that is missing is a difference, and exit status 1. Every twentieth text is searched completely.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median

from benchmarks import corpus
from imapshield.mailbox.message_items import MessageItems
from imapshield.maildir import text_search
from imapshield.maildir.message_file import to_wire
from imapshield.maildir.store import MaildirStore
from imapshield.maildir.text_index_file import TEXT_INDEX_FILE
from imapshield.message import text
from imapshield.wire.commands.search import TextKey

MESSAGES_PER_CALL = 10_000  # as `mailbox.query`
ROUNDS = 5
WORDS = (
    corpus.PLANTED_BODY[0],
    corpus.PLANTED_SUBJECT[0],
    corpus.PLANTED_FROM[0],
    "no such text",
    "the",
)


class Mailbox:
    """INBOX of a Maildir, used through its store."""

    def __init__(self, root: str, *, has_text_index: bool = True) -> None:
        self.store = MaildirStore(
            root, now=time.time, log_warning=print, has_text_index=has_text_index
        )
        opened = self.store.open("INBOX", False)
        self.key = opened.key
        self.uids = [row.uid for row in opened.delta.rows]

    def index(self) -> tuple[float, float]:
        """Index all messages; return how long that took, and how long the longest call took."""
        calls = []
        more = True
        while more:
            started_at = time.perf_counter()
            more = bool(self.store.index_text(self.key))
            calls.append(time.perf_counter() - started_at)
        return sum(calls), max(calls)

    def search(self, search_key: TextKey) -> tuple[list[int], float]:
        """Return the UIDs that match, and how long the longest call took."""
        rest: Sequence[int] = self.uids
        found: list[int] = []
        longest = 0.0
        while rest:
            part = rest[:MESSAGES_PER_CALL]
            started_at = time.perf_counter()
            result = self.store.search(self.key, part, search_key)
            longest = max(longest, time.perf_counter() - started_at)
            found += result.matching
            rest = rest[len(part) if result.examined is None else result.examined :]
        return found, longest

    def candidates(self, search_key: TextKey) -> set[int]:
        """Return the UIDs of all messages that may match."""
        account = self.store._account
        found: set[int] = set()
        rest: Sequence[int] = self.uids
        while rest:
            chosen, following = text_search.candidates(
                account, self.key, rest, search_key, len(rest)
            )
            found.update(chosen)
            rest = () if following is None else rest[rest.index(following) :]
        return found


def normalized_texts(content: bytes, headers: bool) -> list[str]:
    """Return the texts of a message that SEARCH compares, normalized."""
    part = MessageItems(content).part
    found = text.searchable_texts(part, content, headers)
    return [text.normalize("".join(pieces)) for pieces in found]


def random_needle(choose: random.Random, known: Sequence[Sequence[str]]) -> str:
    """Return one to 40 characters: mostly a piece of one of the messages, with another case or one wrong character."""
    searched = choose.choice(choose.choice(known) or [""])
    length = choose.randint(1, 40)
    start = choose.randrange(len(searched) + 1)
    piece = searched[start : start + length] or choose.choice(("xyz", "ß", "\0\0\0", "日本"))
    if choose.random() < 0.8:
        piece = max(piece.split("\n"), key=len) or "xyz"
    change = choose.random()
    if change < 0.3:
        piece = piece.upper()
    elif change < 0.4:
        at = choose.randrange(len(piece))
        piece = piece[:at] + choose.choice("aé0 -\n") + piece[at + 1 :]
    return piece


def matching(uids: Sequence[int], known: Sequence[Sequence[str]], wanted: str) -> list[int]:
    """Return the UIDs of the messages that have a text, of all `uids`, which have the normalized texts `known`."""
    needle = text.normalize(wanted)
    return [
        uid
        for uid, texts in zip(uids, known, strict=True)
        if any(needle in searched for searched in texts)
    ]


def count_differences(mailbox: Mailbox, contents: Sequence[bytes], queries: int, seed: int) -> int:
    """Search random texts; return how often the answer was not that of a search of all messages."""
    known = {headers: [normalized_texts(c, headers) for c in contents] for headers in (True, False)}
    choose = random.Random(f"needles {seed}")
    differences = chosen = true = 0
    for number in range(queries):
        headers = choose.random() < 0.7
        wanted = random_needle(choose, known[headers])
        expected = matching(mailbox.uids, known[headers], wanted)
        search_key = TextKey(wanted, headers)
        found = mailbox.candidates(search_key)
        is_wrong = not found.issuperset(expected)
        if number % 20 == 0:
            is_wrong = is_wrong or mailbox.search(search_key)[0] != expected
        if is_wrong:
            differences += 1
            print(f"difference: {wanted!r} headers={headers}")
        chosen += len(found)
        true += len(expected)
    print(
        f"{queries} queries, {differences} differences; {chosen} candidates, {true} of them match"
    )
    return differences


def read_contents(mailbox: Mailbox) -> list[bytes]:
    """Return all messages as they are sent."""
    account = mailbox.store._account
    rows = account.index.message_rows("uid, name, place", mailbox.key, mailbox.uids)
    folder = os.fsdecode(account.folders.root)
    contents = []
    for _, name, place in rows:
        with open(os.path.join(folder, ("cur", "new")[place], os.fsdecode(name)), "rb") as file:
            contents.append(to_wire(file.read()))
    return contents


def measure(mailbox: Mailbox, root: str, *, again: bool) -> None:
    """Print how long it takes to build the index and to search."""
    path = os.path.join(root, os.fsdecode(TEXT_INDEX_FILE))
    for suffix in ("", "-wal", "-shm"):
        if again and os.path.exists(path + suffix):
            os.unlink(path + suffix)
    seconds, longest = mailbox.index()
    count = len(mailbox.uids)
    if again:
        print(
            f"indexed {count} messages: {count / seconds:.0f} per second, longest call {longest * 1e3:.0f} ms"
        )
    size = sum(os.path.getsize(path + s) for s in ("", "-wal") if os.path.exists(path + s))
    mail = sum(
        entry.stat().st_size for d in ("cur", "new") for entry in os.scandir(os.path.join(root, d))
    )
    print(f"size: {size / 1e6:.1f} MB, {100 * size / mail:.1f} % of {mail / 1e6:.0f} MB of mail")
    for word in WORDS:
        times, calls = [], []
        found: list[int] = []
        for _ in range(ROUNDS if word != "the" else 1):
            started_at = time.perf_counter()
            found, longest = mailbox.search(TextKey(word, True))
            times.append(time.perf_counter() - started_at)
            calls.append(longest)
        first, rest = times[0] * 1e3, median(times) * 1e3
        print(
            f"TEXT {word!r}: {len(found)} found, {rest:.1f} ms (first time {first:.1f} ms), "
            f"longest call {max(calls) * 1e3:.1f} ms"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--maildir", help="an existing Maildir; its text index is built again")
    parser.add_argument("--keep-index", action="store_true", help="use the index of --maildir")
    parser.add_argument("--queries", type=int, default=0, help="random texts to compare")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = options.maildir or os.path.join(folder, "mail")
        if options.maildir is None:
            corpus.write_maildir(root, options.messages)
        mailbox = Mailbox(root)
        measure(mailbox, root, again=not options.keep_index)
        differences = 0
        if options.queries:
            contents = read_contents(mailbox)
            differences = count_differences(mailbox, contents, options.queries, options.seed)
        mailbox.store.close()
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
