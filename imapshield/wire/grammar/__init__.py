"""One whole command → its value. `PARSERS` is all that a client can say.

Rules
-----
* A parser starts behind its command's name and stops where it likes; `parse` asks
  that to be the end.
* Nothing but `Malformed` and `Refused` comes out, whatever goes in, and no text
  quotes the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from imapshield.errors import Malformed
from imapshield.wire.commands import Command, Expunge, Octets, Simple
from imapshield.wire.cursor import DEFAULT, Cursor, GrammarLimits
from imapshield.wire.grammar import (
    append,
    fetch,
    filters,
    mailboxes,
    metadata,
    nonauth,
    notify,
    quota,
    search,
    sort,
    store,
)

Parser = Callable[[Cursor], Command]


def _simple(name: bytes) -> Parser:
    return lambda _cursor: Simple(name)


PARSERS: dict[bytes, Parser] = {
    # any state
    b"CAPABILITY": _simple(b"CAPABILITY"),
    b"NOOP": _simple(b"NOOP"),
    b"LOGOUT": _simple(b"LOGOUT"),
    b"ID": nonauth.identity,
    # not authenticated
    b"STARTTLS": _simple(b"STARTTLS"),
    b"AUTHENTICATE": nonauth.authenticate,
    b"LOGIN": nonauth.login,
    # authenticated
    b"ENABLE": nonauth.enable,
    b"SELECT": mailboxes.select,
    b"EXAMINE": partial(mailboxes.select, readonly=True),
    b"CREATE": mailboxes.create,
    b"DELETE": mailboxes.delete,
    b"RENAME": mailboxes.rename,
    b"SUBSCRIBE": mailboxes.subscribe,
    b"UNSUBSCRIBE": partial(mailboxes.subscribe, on=False),
    b"LIST": mailboxes.list_,
    b"LSUB": mailboxes.lsub,
    b"NAMESPACE": _simple(b"NAMESPACE"),
    b"STATUS": mailboxes.status,
    b"APPEND": append.append,
    b"IDLE": _simple(b"IDLE"),
    b"COMPRESS": nonauth.compress,
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
    b"UID EXPUNGE": store.uid_expunge,
    b"SEARCH": search.search,
    b"UID SEARCH": partial(search.search, uid=True),
    b"NOTIFY": notify.notify,
    b"CANCELUPDATE": search.cancel_update,
    b"ESEARCH": filters.esearch,
    b"UID ESEARCH": filters.esearch,  # the examples of RFC 7377 section 2 have it so
    b"SORT": sort.sort,
    b"UID SORT": partial(sort.sort, uid=True),
    b"THREAD": sort.thread,
    b"UID THREAD": partial(sort.thread, uid=True),
    b"FETCH": fetch.fetch,
    b"UID FETCH": partial(fetch.fetch, uid=True),
    b"STORE": store.store,
    b"UID STORE": partial(store.store, uid=True),
    b"REPLACE": append.replace,
    b"UID REPLACE": partial(append.replace, uid=True),
    b"COPY": store.copy,
    b"UID COPY": partial(store.copy, uid=True),
    b"MOVE": partial(store.copy, move=True),
    b"UID MOVE": partial(store.copy, uid=True, move=True),
}


def parse(
    parts: Sequence[bytes | Octets], *, limits: GrammarLimits = DEFAULT, utf8: bool = False
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
        cursor.sp("UID")
        name = b"UID " + cursor.word("a command after UID")
    parser = PARSERS.get(name)
    if parser is None:
        raise Malformed("Unknown command")
    command = parser(cursor)
    cursor.end()
    return command
