"""The attackers of a flood: a process with all their connections.

It ends by itself at a time that is fixed before it starts, whatever happens to the process that has started it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from benchmarks.client import ServerError
from benchmarks.flood_attacks import ATTACKS
from benchmarks.flood_swarm import Plan, Swarm, Tally

NICENESS = 5
"""The victims share the attackers' processor, and must not wait for them."""
PREPARE_SECONDS = 15


class Attackers:
    """The process of the attackers; spawned and not forked, so that the caller may have threads and a reactor."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._seconds = plan.seconds
        self._process = context.Process(target=_run, args=(child_pipe, plan), daemon=True)
        self._process.start()
        child_pipe.close()
        self._receive(30)

    def prepare(self) -> None:
        """Connect and log in, until all are ready or `PREPARE_SECONDS` have passed."""
        self._pipe.send("prepare")
        self._receive(PREPARE_SECONDS + 15)

    def start(self) -> None:
        """Begin the attack."""
        self._pipe.send("start")

    def end(self) -> None:
        """Ask for an early end of the attack."""
        with suppress(BrokenPipeError):
            self._pipe.send("end")

    def result(self) -> Tally:
        """Wait until the attack has ended, and return what happened."""
        tally = self._receive(self._seconds + 30)
        assert isinstance(tally, Tally)
        return tally

    def _receive(self, seconds: float) -> object:
        if not self._pipe.poll(seconds):
            raise ServerError("the attackers do not respond")
        return self._pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run(pipe: Connection, plan: Plan) -> None:
    """Run in the attackers' process; messages: ready, prepare, prepared, start, and the tally."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which closes the pipe
    os.nice(NICENESS)
    if plan.processor is not None:
        os.sched_setaffinity(0, {plan.processor})
    with suppress(EOFError, BrokenPipeError):
        pipe.send("ready")
        pipe.recv()
        swarm = Swarm(plan)
        if ATTACKS[plan.attack].logs_in:
            swarm.prepare(PREPARE_SECONDS)
        pipe.send("prepared")
        pipe.recv()
        cpu = time.process_time()
        if ATTACKS[plan.attack].behave is None:
            _keep_busy(plan.seconds)
        else:
            swarm.attack(plan.seconds, pipe)
        swarm.tally.cpu = time.process_time() - cpu
        swarm.close()
        pipe.send(swarm.tally)


def _keep_busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
