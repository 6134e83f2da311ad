"""Any sequence of commands, with power failures after and during them: nothing that clients were told is lost."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.store import MaildirStore
from imapshield.testing.store_contract import BUDGET, MAIL, WHOLE
from tests.maildir.power_failure import RecordedDisk, Step
from tests.maildir.test_sequences import Account, mailboxes, steps

seeds = st.integers(0, 2**16)
failures = st.tuples(st.just("power"), seeds)
failures_during = st.tuples(st.just("power during"), seeds, st.integers(0, 12), steps)
selections = st.tuples(st.just("select"), mailboxes)

State = dict[str, tuple[int, int, int, dict[int, bytes], dict[int, int]]]


class Machine:
    """A store on a disk whose power can fail."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.exits = ExitStack()
        self.counter = 0
        self.stores: list[MaildirStore] = []
        self.start(os.path.join(base, "mail"), None)

    def start(self, root: str, old: RecordedDisk | None) -> None:
        """Start a server."""
        self.root = root
        self.account = Account(MaildirStore(root, now=time.time, log_warning=self.warn))
        self.stores.append(self.account.store)
        self.exits.close()
        if old is not None:
            self.exits.enter_context(old.with_old_ctimes())
        if not os.path.exists(root):
            self.state()
        self.disk = RecordedDisk(root)
        self.exits.enter_context(self.disk.recording())

    def warn(self, text: str) -> None:
        raise AssertionError(text)

    def close(self) -> None:
        self.exits.close()
        for store in self.stores:
            store.close()

    def run(self, step: tuple[Any, ...]) -> None:
        match step:
            case "deliver", "INBOX":
                self.deliver()
            case ("restart",):
                self.account.store.close()
            case "select", name if name in self.state():
                self.account.store.open(name, True)
            case "select", _:
                pass
            case _:
                self.account.run(step)

    def deliver(self) -> None:
        """Deliver a message as a delivery agent does."""
        self.counter += 1
        name = f"{1_700_000_000 + self.counter}.x"
        with open(f"{self.root}/tmp/{name}", "wb") as file:
            file.write(MAIL)
        os.rename(f"{self.root}/tmp/{name}", f"{self.root}/new/{name}")
        fd = os.open(f"{self.root}/new", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def fail_after(self, seed: int) -> tuple[State, State]:
        """Let the power fail; return what clients had been told, and what they see after the failure."""
        target = self.copy(seed)
        expected = self.state()
        self.start(target, self.disk)
        return expected, self.state()

    def fail_during(
        self, seed: int, number: int, step: tuple[Any, ...]
    ) -> tuple[State, State, State]:
        """Let the power fail before a system call of a step; return the states before, after, and after the failure."""
        before, targets, calls = self.state(), [], 0

        def fail() -> None:
            nonlocal calls
            calls += 1
            if calls == number + 1:
                targets.append(self.copy(seed))

        self.disk.before_step = fail
        self.run(step)
        self.disk.before_step = lambda: None
        after = self.state()
        if not targets:
            targets.append(self.copy(seed))
        self.start(targets[0], self.disk)
        return before, after, self.state()

    def copy(self, seed: int) -> str:
        choice = random.Random(seed)
        is_lost: Callable[[Step], bool] = lambda _: choice.random() < 0.5  # noqa: E731
        self.counter += 1
        target = os.path.join(self.base, str(self.counter))
        self.disk.fail(target, is_lost, keep_index=choice.random() < 0.5)
        return target

    def state(self) -> State:
        """Return UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, and flags and MODSEQs by UID of each mailbox.

        Every message must be complete.
        """
        state: State = {}
        store = self.account.store
        for info in store.mailboxes():
            if info.selectable:
                opened = store.open(info.name, False)
                rows = opened.delta.rows
                fetched = store.fetch(opened.key, [row.uid for row in rows], [WHOLE], BUDGET)
                assert len(fetched.uids) == len(rows), info.name
                flags = {row.uid: row.flags for row in rows}
                modseqs = {row.uid: row.modseq for row in rows}
                state[info.name] = (
                    opened.uidvalidity, opened.delta.uidnext, opened.delta.highestmodseq, flags, modseqs,
                )  # fmt: skip
        return state


class PowerFailureSequenceTests(SynchronousTestCase):
    def run_sequence(self, sequence: list[tuple[Any, ...]]) -> None:
        base = tempfile.mkdtemp()
        machine = Machine(base)
        try:
            for step in sequence:
                if step[0] == "power":
                    expected, found = machine.fail_after(step[1])
                    self.assertEqual(found, expected)
                elif step[0] == "power during":
                    self.check_interrupted(step[3], *machine.fail_during(*step[1:]))
                else:
                    machine.run(step)
        finally:
            machine.close()
            shutil.rmtree(base)

    def check_interrupted(
        self, step: tuple[Any, ...], before: State, after: State, found: State
    ) -> None:
        """Check that a step was done, or not done, and that what it does not change is unchanged."""
        if step[0] in ("create", "delete", "rename"):
            self.assertIn(set(found), (set(before), set(after)), step)
        kinds = [self.kinds(before), self.kinds(after), self.kinds(found)]
        if step[0] == "copy" and step[4]:
            self.assertEqual(sum(kinds[2].values()), sum(kinds[0].values()), step)
        sizes = [sum(kind.values()) for kind in kinds]
        self.assertLessEqual(min(sizes[:2]), sizes[2], (step, before, after, found))
        self.assertLessEqual(sizes[2], max(sizes[:2]), (step, before, after, found))
        for name in before.keys() & after.keys():
            if before[name][0] != after[name][0]:
                continue
            self.assertEqual(found[name][0], before[name][0], step)
            self.assertGreaterEqual(found[name][1], before[name][1], step)
            self.assertGreaterEqual(found[name][2], before[name][2], step)
            for uid, flags in before[name][3].items():
                if after[name][3].get(uid) == flags:
                    self.assertEqual(found[name][3].get(uid), flags, (step, name, uid))

    def kinds(self, state: State) -> Counter[bytes]:
        return Counter(flags for mailbox in state.values() for flags in mailbox[3].values())

    @given(st.lists(st.one_of(steps, steps, selections, failures), max_size=14))
    @settings(derandomize=True, deadline=None, max_examples=60)
    def test_power_failure_between_commands_loses_nothing(
        self, sequence: list[tuple[Any, ...]]
    ) -> None:
        """After a power failure, clients see all that they had been told, whatever the disk has lost."""
        self.run_sequence([*sequence, ("power", 1), ("power", 2)])

    @given(st.lists(st.one_of(steps, selections, failures_during, failures_during), max_size=10))
    @settings(derandomize=True, deadline=None, max_examples=60)
    def test_power_failure_during_a_command_interrupts_only_that_command(
        self, sequence: list[tuple[Any, ...]]
    ) -> None:
        """After a power failure during a command, it was executed or not; everything else is as before."""
        self.run_sequence(sequence)
