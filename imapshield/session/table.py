"""The command table: for each command the states in which it is allowed, its handler and its capabilities.

A new command is a row here, a parser in `wire.grammar` and a coroutine function in `session.handlers`.
"""

from imapshield.mailbox.account_api import IMetadata, INotify, IQuota
from imapshield.session.command_spec import (
    ANY_STATE,
    AUTHENTICATED,
    NOT_AUTHENTICATED,
    SELECTED,
    CommandSpec,
)
from imapshield.session.handlers import (
    append,
    fetch,
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

TABLE: dict[bytes, CommandSpec[Session]] = {
    b"CAPABILITY": CommandSpec(ANY_STATE, login.capability),
    b"NOOP": CommandSpec(ANY_STATE, notify.noop),
    b"LOGOUT": CommandSpec(ANY_STATE, login.logout),
    b"ID": CommandSpec(ANY_STATE, login.identify, capability=b"ID"),
    b"STARTTLS": CommandSpec(NOT_AUTHENTICATED, login.starttls),
    b"LOGIN": CommandSpec(NOT_AUTHENTICATED, login.login),
    b"AUTHENTICATE": CommandSpec(NOT_AUTHENTICATED, login.authenticate, capability=b"SASL-IR"),
    b"ENABLE": CommandSpec(AUTHENTICATED, login.enable, capability=b"ENABLE"),
    b"NAMESPACE": CommandSpec(AUTHENTICATED, login.namespace, capability=b"NAMESPACE"),
    b"SELECT": CommandSpec(AUTHENTICATED, select.select, sync=False),
    b"EXAMINE": CommandSpec(AUTHENTICATED, select.select, sync=False),
    b"CREATE": CommandSpec(AUTHENTICATED, mailboxes.create),
    b"DELETE": CommandSpec(AUTHENTICATED, mailboxes.delete),
    b"RENAME": CommandSpec(AUTHENTICATED, mailboxes.rename),
    b"SUBSCRIBE": CommandSpec(AUTHENTICATED, mailboxes.subscribe),
    b"UNSUBSCRIBE": CommandSpec(AUTHENTICATED, mailboxes.subscribe),
    b"LIST": CommandSpec(AUTHENTICATED, mailboxes.list_),
    b"LSUB": CommandSpec(AUTHENTICATED, mailboxes.lsub),
    b"STATUS": CommandSpec(AUTHENTICATED, mailboxes.status),
    b"APPEND": CommandSpec(AUTHENTICATED, append.append, changes_mailbox=True),
    b"GETQUOTA": CommandSpec(
        AUTHENTICATED,
        quota.getquota,
        capability=b"QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE",
        requires=IQuota,
    ),
    b"GETQUOTAROOT": CommandSpec(AUTHENTICATED, quota.getquotaroot, requires=IQuota),
    b"SETQUOTA": CommandSpec(AUTHENTICATED, quota.setquota, requires=IQuota),
    b"GETMETADATA": CommandSpec(
        AUTHENTICATED, metadata.getmetadata, capability=b"METADATA", requires=IMetadata
    ),
    b"SETMETADATA": CommandSpec(AUTHENTICATED, metadata.setmetadata, requires=IMetadata),
    b"NOTIFY": CommandSpec(AUTHENTICATED, notify.notify, capability=b"NOTIFY", requires=INotify),
    b"COMPRESS": CommandSpec(AUTHENTICATED, login.compress, capability=b"COMPRESS=DEFLATE"),
    b"UNAUTHENTICATE": CommandSpec(
        AUTHENTICATED, login.unauthenticate, capability=b"UNAUTHENTICATE"
    ),
    b"IDLE": CommandSpec(AUTHENTICATED, notify.idle, capability=b"IDLE"),
    b"CHECK": CommandSpec(SELECTED, notify.noop),
    b"CLOSE": CommandSpec(SELECTED, select.close),
    b"UNSELECT": CommandSpec(SELECTED, select.close, capability=b"UNSELECT"),
    b"EXPUNGE": CommandSpec(
        SELECTED, store_copy.expunge, capability=b"UIDPLUS", changes_mailbox=True
    ),
    b"SEARCH": CommandSpec(SELECTED, search.search, expunge=False),
    b"CANCELUPDATE": CommandSpec(
        SELECTED, search.cancel_update, capability=b"CONTEXT=SEARCH CONTEXT=SORT"
    ),
    b"ESEARCH": CommandSpec(
        AUTHENTICATED, search.esearch, expunge=False, capability=b"MULTISEARCH"
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
    b"STORE": CommandSpec(SELECTED, store_copy.store, expunge=False, changes_mailbox=True),
    b"REPLACE": CommandSpec(SELECTED, append.replace, capability=b"REPLACE", changes_mailbox=True),
    b"COPY": CommandSpec(SELECTED, store_copy.copy, changes_mailbox=True),
    b"MOVE": CommandSpec(SELECTED, store_copy.copy, capability=b"MOVE", changes_mailbox=True),
}
