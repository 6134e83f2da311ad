"""How the commands print durations, sizes, times, networks and tables, and say that they are busy."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

SLOW_SECONDS = 2.0
"""After this time a command says that it is not done yet."""


def age(seconds: float) -> str:
    """Return a duration for people, such as ``2m30s`` or ``3h5m``: two units, or one if the other is 0."""
    total = round(seconds)
    if total >= 3600:
        unit = 60 if total < 86400 else 3600
        total = round(total / unit) * unit
    if total >= 86400:
        days, hours = divmod(total // 3600, 24)
        amounts = ((days, "d"), (hours, "h"))
    elif total >= 3600:
        amounts = ((total // 3600, "h"), (total // 60 % 60, "m"))
    elif total >= 120:
        amounts = ((total // 60, "m"), (total % 60, "s"))
    else:
        return f"{total}s"
    return "".join(f"{amount}{unit}" for amount, unit in amounts if amount)


def size(octets: float) -> str:
    """Return a number of bytes for people, such as ``1.5M``."""
    for unit in ("", "k", "M", "G", "T"):
        if octets < 1000 or unit == "T":
            break
        octets /= 1000
    return f"{octets:.0f}" if not unit else f"{octets:.3g}{unit}"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return lines with aligned columns. A head that begins with ``>`` is of a column that ends at the right."""
    cells = [[head.lstrip(">") for head in heads], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    right = [head.startswith(">") for head in heads]
    return [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def moment(seconds: float) -> str:
    """Return a time in seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def counted(number: float, noun: str) -> str:
    """Return a number with a noun, such as ``1 login`` or ``2 logins``."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def plain(network: str) -> str:
    """Return a network as people write it: a single host without its prefix."""
    return network.removesuffix("/32") if ":" not in network else network.removesuffix("/128")


@contextmanager
def note_if_slow(text: str) -> Iterator[None]:
    """Run a block, and print a line to standard error when it has taken `SLOW_SECONDS`."""
    timer = threading.Timer(SLOW_SECONDS, print, [f"imapshield: {text}"], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
