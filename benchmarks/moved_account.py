"""An account with mail of all kinds that moves between nodes: what clients can see of it, and the steps of its move."""

from __future__ import annotations

import os
import pkgutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from unittest import mock

from imapshield.errors import AccountMoved
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.filename import base
from imapshield.maildir.store import MaildirStore
from imapshield.move import manifest
from imapshield.testing.store_contract import DELETED, FLAGGED, MAIL
from imapshield.wire.commands.base import MemoryLiteral

KEPT = (
    (
        "SELECT id, name, uidvalidity, uidnext, highestmodseq, recentuid, mailbox_id, special_use, keywords, floor,"
        " logged FROM mailbox ORDER BY id"
    ),
    (
        "SELECT mailbox, uid, name, place, flags, modseq, size, physical, internaldate, saved, email_id FROM message"
        " ORDER BY mailbox, uid"
    ),
    "SELECT * FROM expunged ORDER BY mailbox, modseq, uid",
    "SELECT * FROM metadata ORDER BY mailbox, entry",
    "SELECT * FROM retired ORDER BY uidvalidity",
    "SELECT uidvalidity, octets, messages FROM account",
)
"""Everything of an index that clients can see."""

_STEPS = (
    *(f"os.{name}" for name in ("rename", "unlink", "mkdir", "rmdir")),
    *(f"imapshield.maildir.index_handover.{name}" for name in ("_change", "_empty_log")),
    "imapshield.move.source_side.exchange",
    "imapshield.move.agent.perform",
)


@contextmanager
def steps_counted(step: Callable[[], object]) -> Iterator[None]:
    """Run a block in which a function is called before each call that changes a directory or a mark."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step()
            return function(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for name in _STEPS:
            module, _, attribute = name.rpartition(".")
            function = getattr(pkgutil.resolve_name(module), attribute)
            stack.enter_context(mock.patch(name, wrapped(function)))
        yield


@contextmanager
def opened_store(
    maildir: str, index: str, now: Callable[[], float], log_warning: Callable[[str], None]
) -> Iterator[MaildirStore]:
    """Open an account, as the server of a node does."""
    store = MaildirStore(
        maildir, now=now, log_warning=log_warning, index_directory=index, has_text_index=False
    )
    try:
        yield store
    finally:
        store.close()


def fill_account(store: MaildirStore, maildir: str) -> None:
    """Give the user mail of all kinds."""
    store.mailboxes()
    for name in ("Sent", "Lists/Café", "Gone"):
        store.create(name, [b"\\Sent"] if name == "Sent" else [])
    store.delete("Gone")
    for name, flags in (
        ("INBOX", [b"\\Seen"]),
        ("INBOX", [b"$Work", b"Urgent"]),
        ("INBOX", []),
        ("Sent", [b"\\Seen", b"\\Answered"]),
        ("Lists/Café", [b"\\Draft"]),
    ):
        content = MemoryLiteral(MAIL + name.encode())
        store.append(name, [NewMessage(tuple(flags), None, content)])
    inbox = store.open("INBOX", True).key
    store.store_flags(inbox, [1], b"+", [DELETED], None, 0)
    store.store_flags(inbox, [2], b"+", [FLAGGED], None, 0)
    store.expunge(inbox, None, 0)
    store.set_subscribed("Sent", True)
    store.set_metadata("", {b"/private/comment": b"mine"})
    store.set_metadata("Sent", {b"/shared/comment": b"ours"})
    with open(f"{maildir}/new/1700000000.P1.mx", "wb") as file:
        file.write(MAIL)


def dump_account(store: MaildirStore, maildir: str, index: str) -> dict[str, Any]:
    """Return everything that clients can see of an account."""
    names = sorted(mailbox.name for mailbox in store.mailboxes())
    for name in names:
        store.open(name, False)
    subscriptions = sorted(store.subscriptions())
    with closing(sqlite3.connect(f"{index}/imapshield.sqlite")) as db:
        rows = [db.execute(query).fetchall() for query in KEPT]
    content = {}
    for path in manifest.delivered_mail(os.fsencode(maildir)):
        with open(os.path.join(os.fsencode(maildir), path), "rb") as file:
            content[base(os.path.basename(path))] = file.read()
    return {"names": names, "subscriptions": subscriptions, "rows": rows, "content": content}


def is_refused(store: MaildirStore) -> bool:
    """Whether an account cannot be opened, because it is or was moved away."""
    try:
        store.mailboxes()
    except AccountMoved:
        return True
    return False
