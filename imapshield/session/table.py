"""THE table: every command, the states it may be sent in, what it may tell, and who does it.

A new command is a row here, a parser in `wire.grammar` and a coroutine in one of the modules below. `capability` is
what the row lets the server advertise; None belongs to the base protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from zope.interface import Interface

from imapshield.mailbox.account_api import IMetadata, INotify, IQuota
from imapshield.session import search_contexts
from imapshield.session.handlers import (
    append,
    enable,
    fetch,
    idle,
    login,
    mailboxes,
    metadata,
    multisearch,
    notify,
    quota,
    search,
    select,
    sort_thread,
    store_copy,
)
from imapshield.session.states import ANY_STATE, AUTHENTICATED, NOT_AUTHENTICATED, SELECTED, State
from imapshield.wire.responses import Tagged


class CommandSpec(NamedTuple):
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


TABLE: dict[bytes, CommandSpec] = {
    b"CAPABILITY": CommandSpec(ANY_STATE, enable.capability),
    b"NOOP": CommandSpec(ANY_STATE, idle.noop),
    b"LOGOUT": CommandSpec(ANY_STATE, login.logout),
    b"ID": CommandSpec(ANY_STATE, enable.identify, capability=b"ID"),
    b"STARTTLS": CommandSpec(NOT_AUTHENTICATED, login.starttls),
    b"LOGIN": CommandSpec(NOT_AUTHENTICATED, login.login),
    b"AUTHENTICATE": CommandSpec(NOT_AUTHENTICATED, login.authenticate, capability=b"SASL-IR"),
    b"ENABLE": CommandSpec(AUTHENTICATED, enable.enable, capability=b"ENABLE"),
    b"NAMESPACE": CommandSpec(AUTHENTICATED, enable.namespace, capability=b"NAMESPACE"),
    b"SELECT": CommandSpec(AUTHENTICATED, select.select, tells=False),
    b"EXAMINE": CommandSpec(AUTHENTICATED, select.select, tells=False),
    b"CREATE": CommandSpec(AUTHENTICATED, mailboxes.create),
    b"DELETE": CommandSpec(AUTHENTICATED, mailboxes.delete),
    b"RENAME": CommandSpec(AUTHENTICATED, mailboxes.rename),
    b"SUBSCRIBE": CommandSpec(AUTHENTICATED, mailboxes.subscribe),
    b"UNSUBSCRIBE": CommandSpec(AUTHENTICATED, mailboxes.subscribe),
    b"LIST": CommandSpec(AUTHENTICATED, mailboxes.list_),
    b"LSUB": CommandSpec(AUTHENTICATED, mailboxes.list_),
    b"STATUS": CommandSpec(AUTHENTICATED, mailboxes.status),
    b"APPEND": CommandSpec(AUTHENTICATED, append.append, changes=True),
    b"GETQUOTA": CommandSpec(
        AUTHENTICATED,
        quota.getquota,
        capability=b"QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE",
        needs=IQuota,
    ),
    b"GETQUOTAROOT": CommandSpec(AUTHENTICATED, quota.getquotaroot, needs=IQuota),
    b"SETQUOTA": CommandSpec(AUTHENTICATED, quota.setquota, needs=IQuota),
    b"GETMETADATA": CommandSpec(
        AUTHENTICATED, metadata.getmetadata, capability=b"METADATA", needs=IMetadata
    ),
    b"SETMETADATA": CommandSpec(AUTHENTICATED, metadata.setmetadata, needs=IMetadata),
    b"NOTIFY": CommandSpec(AUTHENTICATED, notify.notify, capability=b"NOTIFY", needs=INotify),
    b"COMPRESS": CommandSpec(AUTHENTICATED, enable.compress, capability=b"COMPRESS=DEFLATE"),
    b"UNAUTHENTICATE": CommandSpec(
        AUTHENTICATED, login.unauthenticate, capability=b"UNAUTHENTICATE"
    ),
    b"IDLE": CommandSpec(AUTHENTICATED, idle.idle, capability=b"IDLE"),
    b"CHECK": CommandSpec(SELECTED, idle.noop),
    b"CLOSE": CommandSpec(SELECTED, select.close),
    b"UNSELECT": CommandSpec(SELECTED, select.close, capability=b"UNSELECT"),
    b"EXPUNGE": CommandSpec(SELECTED, store_copy.expunge, capability=b"UIDPLUS", changes=True),
    b"SEARCH": CommandSpec(SELECTED, search.search, expunge=False),
    b"CANCELUPDATE": CommandSpec(
        SELECTED, search_contexts.cancel, capability=b"CONTEXT=SEARCH CONTEXT=SORT"
    ),
    b"ESEARCH": CommandSpec(
        AUTHENTICATED, multisearch.esearch, expunge=False, capability=b"MULTISEARCH"
    ),
    b"SORT": CommandSpec(
        SELECTED, sort_thread.sort, expunge=False, capability=b"SORT SORT=DISPLAY ESORT I18NLEVEL=1"
    ),
    b"THREAD": CommandSpec(
        SELECTED,
        sort_thread.thread,
        expunge=False,
        capability=b"THREAD=ORDEREDSUBJECT THREAD=REFERENCES",
    ),
    b"FETCH": CommandSpec(SELECTED, fetch.fetch, expunge=False),
    b"STORE": CommandSpec(SELECTED, store_copy.store, expunge=False, changes=True),
    b"REPLACE": CommandSpec(SELECTED, append.replace, capability=b"REPLACE", changes=True),
    b"COPY": CommandSpec(SELECTED, store_copy.copy, changes=True),
    b"MOVE": CommandSpec(SELECTED, store_copy.copy, capability=b"MOVE", changes=True),
}
