"""Any sequence of commands has the same result on disk as in the reference store in memory."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import StoreError
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.store import MaildirStore
from imapshield.testing.memory_store import MemoryStore
from imapshield.testing.store_contract import BUDGET, DELETED, MAIL, SECOND_MAIL, SEEN, WHOLE
from imapshield.wire.commands.base import MemoryLiteral

BOXES = ("INBOX", "A", "A/b")
boxes = st.sampled_from(BOXES)
uids = st.lists(st.integers(1, 7), unique=True, max_size=5).map(sorted)
flags = st.lists(st.sampled_from([SEEN, DELETED, b"$Work", b"\\Flagged"]), unique=True, max_size=3)
steps = st.one_of(
    st.tuples(st.just("append"), boxes, flags, st.integers(1, 3)),
    st.tuples(st.just("store"), boxes, uids, st.sampled_from([b"+", b"-", b""]), flags),
    st.tuples(st.just("expunge"), boxes, st.none() | uids),
    st.tuples(st.just("copy"), boxes, uids, boxes, st.booleans()),
    st.tuples(st.just("create"), boxes),
    st.tuples(st.just("delete"), boxes),
    st.tuples(st.just("rename"), boxes, boxes),
    st.tuples(st.just("deliver"), boxes),
    st.tuples(st.just("restart")),
)


class Account:
    """A store and, for each mailbox, the columns of a session that never closes it."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.seen: dict[int, Columns] = {}

    def do(self, step: tuple[Any, ...]) -> object:
        store = self.store
        try:
            match step:
                case "append", box, flags, count:
                    messages = [
                        NewMessage(tuple(flags), 10**9, MemoryLiteral(MAIL if i else SECOND_MAIL))
                        for i in range(count)
                    ]
                    return store.append(box, messages).uids
                case "deliver", box:
                    return store.append(box, [NewMessage((), None, MemoryLiteral(MAIL))]).uids
                case "store", box, uids, op, flags:
                    key = store.key(box)
                    return self.heard(
                        key, store.store_flags(key, uids, op, flags, None, self.since(key))[0]
                    )
                case "expunge", box, uids:
                    key = store.key(box)
                    return self.heard(key, store.expunge(key, uids, self.since(key)))
                case "copy", box, uids, target, move:
                    key = store.key(box)
                    if not move:  # or else few would be of messages that are all there
                        known = self.seen.setdefault(key, Columns())
                        uids = [uid for uid in uids if known.row(uid) is not None] or uids
                    copied = store.copy(key, uids, target, move, self.since(key))
                    return copied.source_uids, copied.target_uids, self.heard(key, copied.delta)
                case "create", box:
                    store.create(box, [])
                case "delete", box:
                    store.delete(box)
                case "rename", old, new:
                    store.rename(old, new)
        except StoreError:
            return StoreError
        return None

    def since(self, key: int) -> int:
        return self.seen.setdefault(key, Columns()).highestmodseq

    def heard(self, key: int, delta: Any) -> object:
        change = self.seen.setdefault(key, Columns()).apply(delta)
        return sorted(change.vanished)

    def state(self) -> object:
        """All that clients can see, from the session's columns and afresh."""
        state: list[object] = []
        for info in self.store.mailboxes():
            if not info.selectable:
                state.append(info)
                continue
            key = self.store.key(info.name)
            self.heard(key, self.store.changes(key, self.since(key), False))
            columns = self.seen[key]
            opened = self.store.open(info.name, False)
            lists = [columns.flag_lists[i] for i in columns.flag_ids]
            fresh = [(row.uid, row.flags) for row in opened.delta.rows]
            assert fresh == list(zip(columns.uids, lists, strict=True)), (
                info,
                fresh,
                columns.uids,
                lists,
            )
            bodies = self.store.fetch(key, [uid for uid, _ in fresh], [WHOLE], BUDGET).columns
            status = self.store.status(info.name)
            state.append((info.name, fresh, bodies, status[:5], columns.uidnext))
        return state


class SequenceTests(SynchronousTestCase):
    @given(st.lists(steps, max_size=14))
    @settings(derandomize=True, deadline=None, max_examples=60)
    def test_like_the_reference(self, sequence) -> None:
        """After every step all that clients can see is what the reference store shows."""
        root = os.path.abspath(self.mktemp())
        opened: list[MaildirStore] = []

        def open_store() -> MaildirStore:
            opened.append(MaildirStore(root, now=time.time, note=self.fail))
            return opened[-1]

        disk, model = Account(open_store()), Account(MemoryStore(time.time))
        try:
            for step in sequence:
                if step[0] == "restart":
                    disk.store.close()
                    disk.store = open_store()
                elif step[0] == "deliver" and step[1] == "INBOX":
                    disk.store.mailboxes()
                    model.do(step)
                    name = f"{time.time_ns()}.mx"
                    with open(f"{root}/tmp/{name}", "wb") as file:
                        file.write(MAIL.replace(b"\r\n", b"\n"))
                    os.rename(f"{root}/tmp/{name}", f"{root}/new/{name}")
                    disk.store.status("INBOX")
                else:
                    self.assertEqual(disk.do(step), model.do(step), step)
                self.assertEqual(disk.state(), model.state(), step)
        finally:
            for store in opened:
                store.close()
            shutil.rmtree(root, ignore_errors=True)
