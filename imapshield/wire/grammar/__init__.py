"""Parses one whole command into its value. `PARSERS` has one entry for each command.

Rules
-----
* A parser begins after the name of its command; `parse` checks that it stopped at the end of the command.
* Parsing raises `BadCommand` or `CommandRefused` and nothing else, and no error text quotes the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import BareCommand, Command, LiteralData
from imapshield.wire.commands.store_copy import Expunge
from imapshield.wire.cursor import DEFAULT_LIMITS, Cursor, GrammarLimits
from imapshield.wire.grammar import (
    append,
    enable,
    fetch,
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

Parser = Callable[[Cursor], Command]


def _without_arguments(name: bytes) -> Parser:
    return lambda _cursor: BareCommand(name)


PARSERS: dict[bytes, Parser] = {
    # any state
    b"CAPABILITY": _without_arguments(b"CAPABILITY"),
    b"NOOP": _without_arguments(b"NOOP"),
    b"LOGOUT": _without_arguments(b"LOGOUT"),
    b"ID": enable.identity,
    # not authenticated
    b"STARTTLS": _without_arguments(b"STARTTLS"),
    b"AUTHENTICATE": login.authenticate,
    b"LOGIN": login.login,
    # authenticated
    b"ENABLE": enable.enable,
    b"SELECT": select.select,
    b"EXAMINE": partial(select.select, readonly=True),
    b"CREATE": mailboxes.create,
    b"DELETE": mailboxes.delete,
    b"RENAME": mailboxes.rename,
    b"SUBSCRIBE": mailboxes.subscribe,
    b"UNSUBSCRIBE": partial(mailboxes.subscribe, subscribe=False),
    b"LIST": mailboxes.list_,
    b"LSUB": mailboxes.lsub,
    b"NAMESPACE": _without_arguments(b"NAMESPACE"),
    b"STATUS": mailboxes.status,
    b"APPEND": append.append,
    b"IDLE": _without_arguments(b"IDLE"),
    b"COMPRESS": enable.compress,
    b"UNAUTHENTICATE": _without_arguments(b"UNAUTHENTICATE"),
    b"GETQUOTA": quota.getquota,
    b"GETQUOTAROOT": quota.getquotaroot,
    b"SETQUOTA": quota.setquota,
    b"GETMETADATA": metadata.getmetadata,
    b"SETMETADATA": metadata.setmetadata,
    # selected
    b"CHECK": _without_arguments(b"CHECK"),
    b"CLOSE": _without_arguments(b"CLOSE"),
    b"UNSELECT": _without_arguments(b"UNSELECT"),
    b"EXPUNGE": lambda _cursor: Expunge(),
    b"UID EXPUNGE": store_copy.uid_expunge,
    b"SEARCH": search.search,
    b"UID SEARCH": partial(search.search, uid=True),
    b"NOTIFY": notify.notify,
    b"CANCELUPDATE": search.cancel_update,
    b"ESEARCH": multisearch.esearch,
    b"UID ESEARCH": multisearch.esearch,  # as in the examples of RFC 7377 section 2
    b"SORT": sort_thread.sort,
    b"UID SORT": partial(sort_thread.sort, uid=True),
    b"THREAD": sort_thread.thread,
    b"UID THREAD": partial(sort_thread.thread, uid=True),
    b"FETCH": fetch.fetch,
    b"UID FETCH": partial(fetch.fetch, uid=True),
    b"STORE": store_copy.store,
    b"UID STORE": partial(store_copy.store, uid=True),
    b"REPLACE": append.replace,
    b"UID REPLACE": partial(append.replace, uid=True),
    b"COPY": store_copy.copy,
    b"UID COPY": partial(store_copy.copy, uid=True),
    b"MOVE": partial(store_copy.copy, move=True),
    b"UID MOVE": partial(store_copy.copy, uid=True, move=True),
}


def parse(
    parts: Sequence[bytes | LiteralData],
    *,
    limits: GrammarLimits = DEFAULT_LIMITS,
    utf8: bool = False,
) -> Command:
    """Parse one command.

    Args:
        parts: text and literals in turn, after the tag and its space, as in `framing.RawCommand`.
        limits: what one command may contain.
        utf8: whether the client enabled IMAP4rev2 or UTF8=ACCEPT; ``&`` in names then has no special meaning.

    Raises:
        BadCommand: the command breaks the grammar, is unknown, or exceeds `limits`.
        CommandRefused: the command keeps the grammar, but cannot be executed: an unknown charset or special use.
    """
    cursor = Cursor(parts, limits, utf8)
    name = cursor.word("a command name")
    if name == b"UID":
        cursor.space("UID")
        name = b"UID " + cursor.word("a command name after UID")
    parser = PARSERS.get(name)
    if parser is None:
        raise BadCommand("Unknown command")
    command = parser(cursor)
    cursor.expect_end()
    return command
