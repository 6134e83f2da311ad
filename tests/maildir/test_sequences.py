"""Any sequence of commands has the same result in the Maildir store as in the in-memory store."""

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

mailboxes = st.sampled_from(("INBOX", "A", "A/b"))
uids = st.lists(st.integers(1, 7), unique=True, max_size=5).map(sorted)
flags = st.lists(st.sampled_from([SEEN, DELETED, b"$Work", b"\\Flagged"]), unique=True, max_size=3)
steps = st.one_of(
    st.tuples(st.just("append"), mailboxes, flags, st.integers(1, 3)),
    st.tuples(st.just("store"), mailboxes, uids, st.sampled_from([b"+", b"-", b""]), flags),
    st.tuples(st.just("expunge"), mailboxes, st.none() | uids),
    st.tuples(st.just("copy"), mailboxes, uids, mailboxes, st.booleans()),
    st.tuples(st.just("create"), mailboxes),
    st.tuples(st.just("delete"), mailboxes),
    st.tuples(st.just("rename"), mailboxes, mailboxes),
    st.tuples(st.just("deliver"), mailboxes),
    st.tuples(st.just("restart")),
)


class Account:
    """A store, and for each mailbox the columns of a session that never closes it."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.columns: dict[int, Columns] = {}

    def run(self, step: tuple[Any, ...]) -> object:
        store = self.store
        try:
            match step:
                case "append", name, flags, count:
                    messages = [
                        NewMessage(tuple(flags), 10**9, MemoryLiteral(MAIL if i else SECOND_MAIL))
                        for i in range(count)
                    ]
                    return store.append(name, messages).uids
                case "deliver", name:
                    return store.append(name, [NewMessage((), None, MemoryLiteral(MAIL))]).uids
                case "store", name, uids, op, flags:
                    key = store.mailbox_key(name)
                    return self.apply(
                        key, store.store_flags(key, uids, op, flags, None, self.since(key))[0]
                    )
                case "expunge", name, uids:
                    key = store.mailbox_key(name)
                    return self.apply(key, store.expunge(key, uids, self.since(key)).delta)
                case "copy", name, uids, target, move:
                    key = store.mailbox_key(name)
                    if not move:  # one missing UID fails a COPY, and few would succeed
                        known = self.columns.setdefault(key, Columns())
                        uids = [uid for uid in uids if known.row(uid) is not None] or uids
                    copied = store.copy(key, uids, target, move, self.since(key))
                    return copied.source_uids, copied.target_uids, self.apply(key, copied.delta)
                case "create", name:
                    store.create(name, [])
                case "delete" | "rename" as method, *names:
                    getattr(store, method)(*names)
        except StoreError:
            return StoreError
        return None

    def since(self, key: int) -> int:
        return self.columns.setdefault(key, Columns()).highestmodseq

    def apply(self, key: int, delta: Any) -> object:
        change = self.columns.setdefault(key, Columns()).apply(delta)
        return sorted(change.vanished)

    def state(self) -> object:
        """Return all that clients can see, and check that the columns agree with a new session."""
        state: list[object] = []
        for info in self.store.mailboxes():
            if not info.selectable:
                state.append(info)
                continue
            key = self.store.mailbox_key(info.name)
            self.apply(key, self.store.changes(key, self.since(key), False))
            columns = self.columns[key]
            opened = self.store.open(info.name, False)
            lists = [columns.flag_lists[i] for i in columns.flag_ids]
            rows = [(row.uid, row.flags) for row in opened.delta.rows]
            assert rows == list(zip(columns.uids, lists, strict=True)), (
                info,
                rows,
                columns.uids,
                lists,
            )
            bodies = self.store.fetch(key, [uid for uid, _ in rows], [WHOLE], BUDGET).columns
            status = self.store.status(info.name)
            state.append((info.name, rows, bodies, status[:5], columns.uidnext))
        return state


class CommandSequenceTests(SynchronousTestCase):
    @given(st.lists(steps, max_size=14))
    @settings(derandomize=True, deadline=None, max_examples=60)
    def test_both_stores_give_the_same_results(self, sequence: list[tuple[Any, ...]]) -> None:
        """After every step, clients see the same in both stores."""
        root = os.path.abspath(self.mktemp())
        opened: list[MaildirStore] = []

        def open_store() -> MaildirStore:
            opened.append(MaildirStore(root, now=time.time, log_warning=self.fail))
            return opened[-1]

        disk, model = Account(open_store()), Account(MemoryStore(time.time))
        try:
            for step in sequence:
                if step[0] == "restart":
                    disk.store.close()
                    disk.store = open_store()
                elif step[0] == "deliver" and step[1] == "INBOX":
                    disk.store.mailboxes()
                    model.run(step)
                    name = f"{time.time_ns()}.mx"
                    with open(f"{root}/tmp/{name}", "wb") as file:
                        file.write(MAIL.replace(b"\r\n", b"\n"))
                    os.rename(f"{root}/tmp/{name}", f"{root}/new/{name}")
                    disk.store.status("INBOX")
                else:
                    self.assertEqual(disk.run(step), model.run(step), step)
                self.assertEqual(disk.state(), model.state(), step)
        finally:
            for store in opened:
                store.close()
            shutil.rmtree(root, ignore_errors=True)
