"""Measures what a piece of a large message costs, next to another server.

A client downloads a large attachment in pieces, with a command for each: JavaMail in 16 KiB, Thunderbird in 64 KiB and
more. The servers take turns, piece by piece, with the same mail. The figures are times of round trips at the client.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import peers
from benchmarks.client import Client

MB = 1 << 20
COPIES = 3
"""Messages of each kind whose first piece is measured, before and after BODYSTRUCTURE."""
PIECE = 16 << 10


def message(size: int, seed: int) -> bytes:
    """Return a message with an attachment of `size` encoded bytes. Its lines end with LF."""
    attachment = base64.encodebytes(random.Random(seed).randbytes(size * 3 // 4))
    return (
        b"From: a@example.org\nSubject: big\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
        b"Content-Type: text/plain\n\nhi\n--b\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n"
        + attachment
        + b"--b--\n"
    )


def with_crlf(size: int, seed: int) -> bytes:
    """Return the same message with lines that end with CRLF."""
    return message(size, seed).replace(b"\n", b"\r\n")


def compressed(size: int, seed: int) -> bytes:
    """Return the same message as Dovecot's zlib plugin stores it."""
    return gzip.compress(message(size, seed), 6)


KINDS: dict[str, tuple[int, Callable[[int, int], bytes], str]] = {
    "1 MB": (MB, message, "BODY.PEEK[2]"),
    "24 MB": (24 * MB, message, "BODY.PEEK[2]"),
    "64 MB": (64 * MB, message, "BODY.PEEK[2]"),
    "24 MB CRLF": (24 * MB, with_crlf, "BODY.PEEK[2]"),
    "24 MB gzip": (24 * MB, compressed, "BODY.PEEK[2]"),
    "24 MB whole": (24 * MB, message, "BODY.PEEK[]"),
    "24 MB BINARY": (24 * MB, message, "BINARY.PEEK[2]"),
}


def deliver(root: Path, kind: str) -> None:
    """Make a Maildir with messages of one kind in `root`."""
    size, make, _ = KINDS[kind]
    inbox = root / peers.USER
    for name in ("cur", "new", "tmp"):
        (inbox / name).mkdir(parents=True)
    for number in range(2 * COPIES):
        content = make(size, number)
        stored = len(message(size, number)) if make is compressed else len(content)
        (inbox / "cur" / f"{1_700_000_000 + number}.x,S={stored}:2,S").write_bytes(content)
    peers.change_owner(root)


def timed(client: Client, number: int, item: str, offset: int, size: int = PIECE) -> float:
    """Return the milliseconds until one piece has arrived."""
    start = time.perf_counter()
    response = client.command(f"FETCH {number} ({item}<{offset}.{size}>)")
    elapsed = time.perf_counter() - start
    (parts,) = response.fetched(item.replace(".PEEK", "").encode()).values()
    assert len(parts[1]) == size, (item, offset, len(parts[1]))
    return elapsed * 1000


def round_trips(clients: Sequence[Client], count: int) -> list[list[float]]:
    """Return the milliseconds of each NOOP, by client."""
    times: list[list[float]] = [[] for _ in clients]
    for _ in range(count):
        for row, client in zip(times, clients, strict=True):
            start = time.perf_counter()
            client.command("NOOP")
            row.append((time.perf_counter() - start) * 1000)
    return times


def measure(clients: Sequence[Client], kind: str, pieces: int) -> dict[str, list[float]]:
    """Return the medians in milliseconds for each server, by name of the row."""
    size, _, item = KINDS[kind]
    last = (size * 3 // 4 if item.startswith("BINARY") else size) - 2 * PIECE
    rows: dict[str, list[list[float]]] = {}

    def add(name: str, number: int, offset: int) -> None:
        times = rows.setdefault(name, [[] for _ in clients])
        for row, client in zip(times, clients, strict=True):
            row.append(timed(client, number, item, offset))

    for client in clients:
        client.command("FETCH 1:* (RFC822.SIZE)")
    time.sleep(0.1)
    for number in range(1, COPIES + 1):
        add("first piece", number, 0)
    # Most clients ask for the structure before they download a part.
    for client in clients:
        client.command(f"FETCH {COPIES + 1}:* (RFC822.SIZE BODYSTRUCTURE)")
    for number in range(COPIES + 1, 2 * COPIES + 1):
        add("first after BODYSTRUCTURE", number, 0)
    rows["NOOP"] = round_trips(clients, pieces)
    for name, start in (("start", 0), ("middle", last // 2), ("end", last)):
        for index in range(pieces):
            add(name, 1, start + index % 7)
    return {name: [statistics.median(row) for row in times] for name, times in rows.items()}


def download(clients: Sequence[Client], kind: str, size: int) -> list[float]:
    """Return the milliseconds of each server to send an attachment of one kind in pieces of `size` bytes."""
    octets, _, item = KINDS[kind]
    totals = []
    for client in clients:
        start = time.perf_counter()
        for offset in range(0, octets - size, size):
            timed(client, 1, item, offset, size)
        totals.append((time.perf_counter() - start) * 1000)
    return totals


def main() -> None:
    """Measure, and print one line for each row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", default="dovecot,imapshield", help="separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--pieces", type=int, default=51, help="pieces at each place")
    options = parser.parse_args()
    servers = options.servers.split(",")
    print(f"{'milliseconds':32}" + "".join(f"{name:>14}" for name in servers) + f"{'ratio':>8}")
    for kind in options.kinds.split(","):
        with ExitStack() as stack:
            clients = []
            for server in servers:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-mail-"))
                Path(folder).chmod(0o755)
                deliver(Path(folder), kind)
                plugin = "protocol imap {\n mail_plugins = zlib\n}\n" if "gzip" in kind else ""
                peer = stack.enter_context(peers.start(server, Path(folder), (), plugin))
                client = stack.enter_context(Client(peer.host, peer.port))
                client.login(peer.user, peer.password)
                client.select()
                clients.append(client)
            rows = measure(clients, kind, options.pieces)
            if kind in ("24 MB", "24 MB gzip"):
                for size in (PIECE, 4 * PIECE):
                    rows[f"all, in {size >> 10} KiB"] = download(clients, kind, size)
        for name, times in rows.items():
            values = "".join(f"{value:14.2f}" for value in times)
            print(f"{kind + ': ' + name:32}{values}{times[-1] / times[0]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
