"""The command table: for each command the states in which it is allowed, its handler and its capabilities.

A new command is a row here, a parser in `wire.grammar` and a coroutine function in `session.handlers`.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from zope.interface import Interface

from imapshield.mailbox.account_api import IMetadata, INotify, IQuota
from imapshield.session.command_spec import (
    ANY_STATE,
    LOGGED_IN,
    NOT_AUTHENTICATED,
    SELECTED,
    CommandSpec,
    Result,
)
from imapshield.session.handlers import (
    append,
    enable,
    fetch,
    idle,
    login,
    mailboxes,
    metadata,
    notify,
    quota,
    search,
    select,
    sort_thread,
    store_copy,
)
from imapshield.session.session import Session
from imapshield.session.state import State
from imapshield.wire.commands.base import BareCommand, Command
from imapshield.wire.commands.fetch import Fetch
from imapshield.wire.commands.login import Authenticate, Compress, Enable, Id, Login
from imapshield.wire.commands.mailboxes import (
    Create,
    Delete,
    GetMetadata,
    GetQuota,
    GetQuotaRoot,
    List,
    Notify,
    Rename,
    Select,
    SetMetadata,
    SetQuota,
    Status,
    Subscribe,
)
from imapshield.wire.commands.messages import Append, Copy, Expunge, Replace, Store
from imapshield.wire.commands.search import CancelUpdate, MultiSearch, Search, Sort, Thread

C = TypeVar("C", bound=Command)


def spec(
    states: frozenset[State],
    command: type[C],
    handler: Callable[[Session, C], Awaitable[Result]],
    *,
    expunge: bool = True,
    capability: bytes = b"",
    requires: type[Interface] | None = None,
    changes_mailbox: bool = False,
    sync: bool = True,
) -> CommandSpec[Session]:
    """Return a row of the table; `CommandSpec` describes the arguments.

    The result does not mention `C`. So mypy infers `C` from the arguments alone, and rejects a handler that takes
    another command.
    """
    return CommandSpec(
        command, states, handler, expunge, capability, requires, changes_mailbox, sync
    )


TABLE: dict[bytes, CommandSpec[Session]] = {
    b"CAPABILITY": spec(ANY_STATE, BareCommand, enable.capability),
    b"NOOP": spec(ANY_STATE, BareCommand, idle.noop),
    b"LOGOUT": spec(ANY_STATE, BareCommand, login.logout),
    b"ID": spec(ANY_STATE, Id, enable.identify, capability=b"ID"),
    b"STARTTLS": spec(NOT_AUTHENTICATED, BareCommand, login.starttls),
    b"LOGIN": spec(NOT_AUTHENTICATED, Login, login.login),
    b"AUTHENTICATE": spec(
        NOT_AUTHENTICATED, Authenticate, login.authenticate, capability=b"SASL-IR"
    ),
    b"ENABLE": spec(LOGGED_IN, Enable, enable.enable, capability=b"ENABLE"),
    b"NAMESPACE": spec(LOGGED_IN, BareCommand, enable.namespace, capability=b"NAMESPACE"),
    b"SELECT": spec(LOGGED_IN, Select, select.select, sync=False),
    b"EXAMINE": spec(LOGGED_IN, Select, select.select, sync=False),
    b"CREATE": spec(LOGGED_IN, Create, mailboxes.create),
    b"DELETE": spec(LOGGED_IN, Delete, mailboxes.delete),
    b"RENAME": spec(LOGGED_IN, Rename, mailboxes.rename),
    b"SUBSCRIBE": spec(LOGGED_IN, Subscribe, mailboxes.subscribe),
    b"UNSUBSCRIBE": spec(LOGGED_IN, Subscribe, mailboxes.subscribe),
    b"LIST": spec(LOGGED_IN, List, mailboxes.list_),
    b"LSUB": spec(LOGGED_IN, List, mailboxes.lsub),
    b"STATUS": spec(LOGGED_IN, Status, mailboxes.status),
    b"APPEND": spec(LOGGED_IN, Append, append.append, changes_mailbox=True),
    b"GETQUOTA": spec(
        LOGGED_IN,
        GetQuota,
        quota.getquota,
        capability=b"QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE",
        requires=IQuota,
    ),
    b"GETQUOTAROOT": spec(LOGGED_IN, GetQuotaRoot, quota.getquotaroot, requires=IQuota),
    b"SETQUOTA": spec(LOGGED_IN, SetQuota, quota.setquota, requires=IQuota),
    b"GETMETADATA": spec(
        LOGGED_IN, GetMetadata, metadata.getmetadata, capability=b"METADATA", requires=IMetadata
    ),
    b"SETMETADATA": spec(LOGGED_IN, SetMetadata, metadata.setmetadata, requires=IMetadata),
    b"NOTIFY": spec(LOGGED_IN, Notify, notify.notify, capability=b"NOTIFY", requires=INotify),
    b"COMPRESS": spec(LOGGED_IN, Compress, enable.compress, capability=b"COMPRESS=DEFLATE"),
    b"UNAUTHENTICATE": spec(
        LOGGED_IN, BareCommand, login.unauthenticate, capability=b"UNAUTHENTICATE"
    ),
    b"IDLE": spec(LOGGED_IN, BareCommand, idle.idle, capability=b"IDLE"),
    b"CHECK": spec(SELECTED, BareCommand, idle.noop),
    b"CLOSE": spec(SELECTED, BareCommand, select.close),
    b"UNSELECT": spec(SELECTED, BareCommand, select.close, capability=b"UNSELECT"),
    b"EXPUNGE": spec(
        SELECTED, Expunge, store_copy.expunge, capability=b"UIDPLUS", changes_mailbox=True
    ),
    b"SEARCH": spec(SELECTED, Search, search.search, expunge=False),
    b"CANCELUPDATE": spec(
        SELECTED, CancelUpdate, search.cancel_update, capability=b"CONTEXT=SEARCH CONTEXT=SORT"
    ),
    b"ESEARCH": spec(
        LOGGED_IN, MultiSearch, search.esearch, expunge=False, capability=b"MULTISEARCH"
    ),
    b"SORT": spec(
        SELECTED,
        Sort,
        sort_thread.sort,
        expunge=False,
        capability=b"SORT SORT=DISPLAY ESORT I18NLEVEL=1",
    ),
    b"THREAD": spec(
        SELECTED,
        Thread,
        sort_thread.thread,
        expunge=False,
        capability=b"THREAD=ORDEREDSUBJECT THREAD=REFERENCES",
    ),
    b"FETCH": spec(SELECTED, Fetch, fetch.fetch, expunge=False),
    b"STORE": spec(SELECTED, Store, store_copy.store, expunge=False, changes_mailbox=True),
    b"REPLACE": spec(
        SELECTED, Replace, append.replace, capability=b"REPLACE", changes_mailbox=True
    ),
    b"COPY": spec(SELECTED, Copy, store_copy.copy, changes_mailbox=True),
    b"MOVE": spec(SELECTED, Copy, store_copy.copy, capability=b"MOVE", changes_mailbox=True),
}
