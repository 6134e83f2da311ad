"""Server CPU for each login and each connection, with and without ``--guard-redis``, in turns.

    python -m benchmarks.guard_redis_cost            # half a minute; needs redis-server

Two servers share a Redis, and a third one shares nothing. The clients are at the first one, so the others show what it
costs to be told. CPU time is that of the processes, from /proc, and nearly the same on a busy machine.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peers import HOST, free_port, wait_for_greeting

ROUNDS = 5
NUMBER = 150
"""Connections of a round."""

IDLE_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")
TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def connect(port: int, *, login: bool) -> None:
    """Make `NUMBER` connections, one after another, with or without a login."""
    for _ in range(NUMBER):
        with socket.create_connection((HOST, port)) as client:
            client.recv(1000)
            if login:
                client.sendall(b'a LOGIN alice "correct horse"\r\n')
                client.recv(1000)


def start(folder: str, name: str, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server, and return its process and port."""
    os.mkdir(f"{folder}/{name}")
    port = free_port()
    command = [TWISTD, "-n", "--pidfile=", "imapshield", "--listen", f"tcp:{port}:interface={HOST}"]
    command += ["--mail-root", f"{folder}/{name}", "--auth", "memory:alice:correct horse"]
    command += ["--state", "none", "--control", "none", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for_greeting(process, port)
    return process, port


def measure(folder: str) -> None:
    """Measure, and print the table."""
    redis_port, secret = free_port(), Path(folder, "secret")
    secret.write_text("0123456789abcdef")
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--bind", HOST, "--save", ""],  # noqa: S607
        stdout=subprocess.DEVNULL,
    )
    shared = ("--guard-redis", f"redis://{HOST}:{redis_port}", "--guard-secret", str(secret))
    servers = {"alone": start(folder, "alone"), "shared": start(folder, "shared", *shared)}
    listener, _ = start(folder, "told", *shared)
    time.sleep(3)
    try:
        print(f"CPU in ms, median of {ROUNDS} rounds of {NUMBER} connections")
        for what, login in (("connection", False), ("login", True)):
            found: dict[str, list[float]] = {"alone": [], "shared": [], "told": [], "redis": []}
            for _ in range(ROUNDS):
                for name, (process, port) in servers.items():
                    watched = {name: process}
                    if name == "shared":
                        watched |= {"told": listener, "redis": redis}
                    before = {key: cpu(each) for key, each in watched.items()}
                    connect(port, login=login)
                    for key, each in watched.items():
                        found[key].append((cpu(each) - before[key]) / NUMBER * 1000)
            texts = [f"{key} {statistics.median(values):.2f}" for key, values in found.items()]
            print(f"each {what:<11}", ", ".join(texts))
        before_idle = {name: cpu(process) for name, (process, _) in servers.items()}
        time.sleep(IDLE_SECONDS)
        idle = {
            name: (cpu(p) - before_idle[name]) / IDLE_SECONDS * 1000
            for name, (p, _) in servers.items()
        }
        print("idle, ms a second:", ", ".join(f"{name} {each:.1f}" for name, each in idle.items()))
    finally:
        for process in (*[p for p, _ in servers.values()], listener, redis):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as base:
        measure(base)
