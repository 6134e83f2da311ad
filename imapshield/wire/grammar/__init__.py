"""One whole command → its value. `PARSERS` is all that a client can say.

Rules
-----
* A parser starts behind its command's name and stops where it likes; `parse` asks
  that to be the end.
* Nothing but `BadCommand` and `CommandRefused` comes out, whatever goes in, and no text
  quotes the client.
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
    fetch,
    login,
    mailbox_filters,
    mailboxes,
    metadata,
    notify,
    quota,
    search,
    sort_thread,
    store_copy,
)

Parser = Callable[[Cursor], Command]


def _simple(name: bytes) -> Parser:
    return lambda _cursor: BareCommand(name)


PARSERS: dict[bytes, Parser] = {
    # any state
    b"CAPABILITY": _simple(b"CAPABILITY"),
    b"NOOP": _simple(b"NOOP"),
    b"LOGOUT": _simple(b"LOGOUT"),
    b"ID": login.identity,
    # not authenticated
    b"STARTTLS": _simple(b"STARTTLS"),
    b"AUTHENTICATE": login.authenticate,
    b"LOGIN": login.login,
    # authenticated
    b"ENABLE": login.enable,
    b"SELECT": mailboxes.select,
    b"EXAMINE": partial(mailboxes.select, readonly=True),
    b"CREATE": mailboxes.create,
    b"DELETE": mailboxes.delete,
    b"RENAME": mailboxes.rename,
    b"SUBSCRIBE": mailboxes.subscribe,
    b"UNSUBSCRIBE": partial(mailboxes.subscribe, subscribe=False),
    b"LIST": mailboxes.list_,
    b"LSUB": mailboxes.lsub,
    b"NAMESPACE": _simple(b"NAMESPACE"),
    b"STATUS": mailboxes.status,
    b"APPEND": append.append,
    b"IDLE": _simple(b"IDLE"),
    b"COMPRESS": login.compress,
    b"UNAUTHENTICATE": _simple(b"UNAUTHENTICATE"),
    b"GETQUOTA": quota.getquota,
    b"GETQUOTAROOT": quota.getquotaroot,
    b"SETQUOTA": quota.setquota,
    b"GETMETADATA": metadata.getmetadata,
    b"SETMETADATA": metadata.setmetadata,
    # selected
    b"CHECK": _simple(b"CHECK"),
    b"CLOSE": _simple(b"CLOSE"),
    b"UNSELECT": _simple(b"UNSELECT"),
    b"EXPUNGE": lambda _cursor: Expunge(),
    b"UID EXPUNGE": store_copy.uid_expunge,
    b"SEARCH": search.search,
    b"UID SEARCH": partial(search.search, uid=True),
    b"NOTIFY": notify.notify,
    b"CANCELUPDATE": search.cancel_update,
    b"ESEARCH": mailbox_filters.esearch,
    b"UID ESEARCH": mailbox_filters.esearch,  # the examples of RFC 7377 section 2 have it so
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
    """Return the command that `parts` spell.

    Args:
        parts: text and literals by turns, from behind the tag and its space, as framing makes them.
        limits: what one command may hold.
        utf8: whether the client enabled IMAP4rev2 or UTF8=ACCEPT, so ``&`` in names is itself.

    Raises:
        Malformed: the command breaks the grammar, is unknown, or exceeds `limits`.
        Refused: the grammar is kept, and we cannot do it: an unknown charset or special use.
    """
    cursor = Cursor(parts, limits, utf8)
    name = cursor.word("a command")
    if name == b"UID":
        cursor.space("UID")
        name = b"UID " + cursor.word("a command after UID")
    parser = PARSERS.get(name)
    if parser is None:
        raise BadCommand("Unknown command")
    command = parser(cursor)
    cursor.expect_end()
    return command
