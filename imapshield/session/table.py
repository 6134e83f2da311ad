"""THE table: every command, the states it may be sent in, what it may tell, and who does it.

A new command is a row here, a parser in `wire.grammar` and a coroutine in one of the modules below. `capability` is
what the row lets the server advertise; None belongs to the base protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from zope.interface import Interface

from imapshield.mailbox.interfaces import IMetadata, INotify, IQuota
from imapshield.session import (
    appending,
    changing,
    contexts,
    extras,
    fetching,
    login,
    mailboxes,
    metadata,
    multisearch,
    notifying,
    quota,
    searching,
    selecting,
    sorting,
    watching,
)
from imapshield.session.states import ANY, SELECTED, STRANGER, USER, State
from imapshield.wire.responses import Tagged


class Entry(NamedTuple):
    """One command. `expunge`: EXPUNGE may be told before its tagged line (RFC 9051 section 7.5.1).

    `capability` may be several, with spaces between. An account that does not provide `needs` has no such command.
    `changes`: it may change the selected mailbox, and tells that whatever NOTIFY says. `tells` is False for what tells
    all there is to know by itself: clients put its numbers and UIDs together into one picture, in which nothing may
    move before the tagged line.
    """

    states: frozenset[State]
    handler: Callable[[Any, Any], Awaitable[Tagged]]
    expunge: bool = True
    capability: bytes | None = None
    needs: type[Interface] | None = None
    changes: bool = False
    tells: bool = True


TABLE: dict[bytes, Entry] = {
    b"CAPABILITY": Entry(ANY, extras.capability),
    b"NOOP": Entry(ANY, watching.noop),
    b"LOGOUT": Entry(ANY, login.logout),
    b"ID": Entry(ANY, extras.identify, capability=b"ID"),
    b"STARTTLS": Entry(STRANGER, login.starttls),
    b"LOGIN": Entry(STRANGER, login.login),
    b"AUTHENTICATE": Entry(STRANGER, login.authenticate, capability=b"SASL-IR"),
    b"ENABLE": Entry(USER, extras.enable, capability=b"ENABLE"),
    b"NAMESPACE": Entry(USER, extras.namespace, capability=b"NAMESPACE"),
    b"SELECT": Entry(USER, selecting.select, tells=False),
    b"EXAMINE": Entry(USER, selecting.select, tells=False),
    b"CREATE": Entry(USER, mailboxes.create),
    b"DELETE": Entry(USER, mailboxes.delete),
    b"RENAME": Entry(USER, mailboxes.rename),
    b"SUBSCRIBE": Entry(USER, mailboxes.subscribe),
    b"UNSUBSCRIBE": Entry(USER, mailboxes.subscribe),
    b"LIST": Entry(USER, mailboxes.list_),
    b"LSUB": Entry(USER, mailboxes.list_),
    b"STATUS": Entry(USER, mailboxes.status),
    b"APPEND": Entry(USER, appending.append, changes=True),
    b"GETQUOTA": Entry(
        USER,
        quota.getquota,
        capability=b"QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE",
        needs=IQuota,
    ),
    b"GETQUOTAROOT": Entry(USER, quota.getquotaroot, needs=IQuota),
    b"SETQUOTA": Entry(USER, quota.setquota, needs=IQuota),
    b"GETMETADATA": Entry(USER, metadata.getmetadata, capability=b"METADATA", needs=IMetadata),
    b"SETMETADATA": Entry(USER, metadata.setmetadata, needs=IMetadata),
    b"NOTIFY": Entry(USER, notifying.notify, capability=b"NOTIFY", needs=INotify),
    b"COMPRESS": Entry(USER, extras.compress, capability=b"COMPRESS=DEFLATE"),
    b"UNAUTHENTICATE": Entry(USER, login.unauthenticate, capability=b"UNAUTHENTICATE"),
    b"IDLE": Entry(USER, watching.idle, capability=b"IDLE"),
    b"CHECK": Entry(SELECTED, watching.noop),
    b"CLOSE": Entry(SELECTED, selecting.close),
    b"UNSELECT": Entry(SELECTED, selecting.close, capability=b"UNSELECT"),
    b"EXPUNGE": Entry(SELECTED, changing.expunge, capability=b"UIDPLUS", changes=True),
    b"SEARCH": Entry(SELECTED, searching.search, expunge=False),
    b"CANCELUPDATE": Entry(SELECTED, contexts.cancel, capability=b"CONTEXT=SEARCH CONTEXT=SORT"),
    b"ESEARCH": Entry(USER, multisearch.esearch, expunge=False, capability=b"MULTISEARCH"),
    b"SORT": Entry(
        SELECTED, sorting.sort, expunge=False, capability=b"SORT SORT=DISPLAY ESORT I18NLEVEL=1"
    ),
    b"THREAD": Entry(
        SELECTED,
        sorting.thread,
        expunge=False,
        capability=b"THREAD=ORDEREDSUBJECT THREAD=REFERENCES",
    ),
    b"FETCH": Entry(SELECTED, fetching.fetch, expunge=False),
    b"STORE": Entry(SELECTED, changing.store, expunge=False, changes=True),
    b"REPLACE": Entry(SELECTED, appending.replace, capability=b"REPLACE", changes=True),
    b"COPY": Entry(SELECTED, changing.copy, changes=True),
    b"MOVE": Entry(SELECTED, changing.copy, capability=b"MOVE", changes=True),
}
