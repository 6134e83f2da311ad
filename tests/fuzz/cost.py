"""Searches for the input that costs most: the bytecodes that imapshield executes for each octet.

``python -m tests.fuzz.cost stranger --seconds 60`` begins with the corpus, changes inputs at random, and keeps those
that cost most for each octet. Bytecodes are counted instead of seconds, so a result is the same on every machine.
`test_cost` keeps the worst inputs, with a bound for each.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from imapshield.mailbox.message_items import MessageItems
from imapshield.testing import Server
from imapshield.wire.commands.fetch import Attribute, BodySection, Preview, Section
from imapshield.wire.commands.search import EnvelopeKey, TextKey
from tests.fuzz.targets import corpus

MIN_SIZE, MAX_SIZE = 200, 1500
"""Octets of an input in the search: in a shorter one, what every connection or message costs outweighs the rest."""


def bytecodes(function: Callable[[], object]) -> int:
    """Return how many bytecodes `function` executes, with all that it calls."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def stranger(data: bytes) -> int:
    """Return what a client costs that sends `data` without a login."""
    client = Server().connect()
    return bytecodes(lambda: client.send(data))


def user(data: bytes) -> int:
    """Return what a client costs that sends `data` after its login, with a message selected."""
    client = Server().login()
    client.append()
    client(b"s SELECT INBOX")
    return bytecodes(lambda: client.send(data))


def message(data: bytes) -> int:
    """Return what a message costs of which a client asks everything that a mail client shows."""

    def ask() -> None:
        items = MessageItems(data)
        for name in (b"BODYSTRUCTURE", b"ENVELOPE"):
            items.value(Attribute(name))
        items.value(Preview())
        items.value(BodySection(Section((1,))))
        items.matches(TextKey("x", headers=True))
        items.matches(EnvelopeKey(b"FROM", "x"))

    return bytecodes(ask)


COSTS: dict[str, tuple[Callable[[bytes], int], str]] = {
    "stranger": (stranger, "framing"),
    "user": (user, "grammar"),
    "message": (message, "mime"),
}
"""For each kind of cost its function, and the corpus that the search begins with."""


def changed(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Return a random change of `data`, of a size between the limits."""
    begin, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    block = data[begin:end]
    match draw.randrange(5):
        case 0:  # repeat a block as often as possible
            times = max(1, (MAX_SIZE - len(data)) // max(1, len(block)))
            data = data[:begin] + block * draw.choice((2, 3, times)) + data[end:]
        case 1:
            data = data[:begin] + data[end:]
        case 2:
            data = (
                data[:begin]
                + bytes([draw.choice(b'\r\n ()"{}=?*%,;:<>@/\\-_a1\0\xff')])
                + data[begin:]
            )
        case 3:
            other = draw.choice(others)
            cut = draw.randrange(len(other) + 1)
            data = data[:begin] + other[cut : cut + draw.choice((4, 16, 64))] + data[begin:]
        case 4:
            place = draw.randrange(len(data) + 1)
            data = data[:place] + block + data[place:]
    if len(data) < MIN_SIZE:
        data *= MIN_SIZE // max(1, len(data)) + 1
    return data[:MAX_SIZE]


def search(
    cost: Callable[[bytes], int], seeds: Iterable[bytes], seconds: float, seed: int
) -> list[tuple[float, bytes]]:
    """Return the inputs that cost most for each octet, the worst first."""
    draw = random.Random(seed)
    seeds = [data for data in seeds if data]
    pool = [(0.0, (data * (MIN_SIZE // len(data) + 1))[:MAX_SIZE]) for data in seeds]
    pool = sorted(((cost(data) / len(data), data) for _, data in pool), reverse=True)[:40]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _, data = pool[min(int(draw.expovariate(0.15)), len(pool) - 1)]
        candidate = changed(data, seeds, draw)
        rate = cost(candidate) / len(candidate)
        if rate > pool[-1][0] and all(candidate != known for _, known in pool):
            pool = sorted([*pool, (rate, candidate)], reverse=True)[:40]
    return pool


def main() -> None:
    """Search, and print the worst inputs."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.cost", description="Search for costly input.")
    parser.add_argument("kind", choices=COSTS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cost, target = COSTS[options.kind]
    inputs = [path.read_bytes() for path in sorted(corpus(target).iterdir())]
    for rate, data in search(cost, inputs, options.seconds, options.seed)[:5]:
        print(f"{rate:.0f} bytecodes per octet, {len(data)} octets: {data!r}\n")


if __name__ == "__main__":
    main()
