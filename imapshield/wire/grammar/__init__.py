"""Parses one whole command into its value. `PARSERS` has one entry for each command.

Rules
-----
* A parser begins after the name of its command and a space; `parse` checks that it stopped at the end of the command.
* Parsing raises `BadCommand` or `CommandRefused` and nothing else, and no error text quotes the client.
"""

from collections.abc import Callable
from functools import partial

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import BareCommand, Command
from imapshield.wire.commands.messages import Expunge
from imapshield.wire.cursor import DEFAULT_LIMITS, Cursor, GrammarLimits, Parts
from imapshield.wire.grammar import fetch, login, mailboxes, messages, metadata, notify, search
from imapshield.wire.names import MODIFIED_UTF7, NameFormat

Parser = Callable[[Cursor], Command]

_UID_PARSERS: dict[bytes, Callable[..., Command]] = {
    b"SEARCH": search.search,
    b"SORT": search.sort,
    b"THREAD": search.thread,
    b"FETCH": fetch.fetch,
    b"STORE": messages.store,
    b"REPLACE": messages.replace,
    b"COPY": messages.copy,
    b"MOVE": partial(messages.copy, move=True),
}
"""The commands that have a UID form: their parsers take the argument `uid`."""

PARSERS: dict[bytes, Command | Parser] = {
    **{
        name: BareCommand(name)
        for name in (
            b"CAPABILITY NOOP LOGOUT STARTTLS NAMESPACE IDLE UNAUTHENTICATE CHECK CLOSE UNSELECT"
        ).split()
    },
    b"EXPUNGE": Expunge(),
    b"ID": login.identity,
    b"AUTHENTICATE": login.authenticate,
    b"LOGIN": login.login,
    b"ENABLE": login.enable,
    b"COMPRESS": login.compress,
    b"SELECT": mailboxes.select,
    b"EXAMINE": partial(mailboxes.select, readonly=True),
    b"CREATE": mailboxes.create,
    b"DELETE": mailboxes.delete,
    b"RENAME": mailboxes.rename,
    b"SUBSCRIBE": mailboxes.subscribe,
    b"UNSUBSCRIBE": partial(mailboxes.subscribe, subscribe=False),
    b"LIST": mailboxes.list_,
    b"LSUB": mailboxes.lsub,
    b"STATUS": mailboxes.status,
    b"GETQUOTA": mailboxes.getquota,
    b"GETQUOTAROOT": mailboxes.getquotaroot,
    b"SETQUOTA": mailboxes.setquota,
    b"GETMETADATA": metadata.getmetadata,
    b"SETMETADATA": metadata.setmetadata,
    b"NOTIFY": notify.notify,
    b"APPEND": messages.append,
    b"UID EXPUNGE": messages.uid_expunge,
    b"CANCELUPDATE": search.cancel_update,
    b"ESEARCH": search.esearch,
    b"UID ESEARCH": search.esearch,  # as in the examples of RFC 7377 section 2
    **_UID_PARSERS,
    **{b"UID " + name: partial(parser, uid=True) for name, parser in _UID_PARSERS.items()},
}
"""For each command its parser, or its value if it has no arguments."""


_BARE = {name: command for name, command in PARSERS.items() if isinstance(command, Command)}


def bare_command(parts: Parts) -> Command | None:
    """Return the command if it is one without arguments, such as NOOP; None if `parse` has to read it."""
    return _BARE.get(parts[0].upper()) if len(parts) == 1 and isinstance(parts[0], bytes) else None


def parse(
    parts: Parts,
    *,
    limits: GrammarLimits = DEFAULT_LIMITS,
    names: NameFormat = MODIFIED_UTF7,
) -> Command:
    """Parse one command.

    Args:
        parts: texts and literals alternately, after the tag and its space, as in `framing.RawCommand`.
        limits: what one command may contain.
        names: how the client writes mailbox names.

    Raises:
        BadCommand: the command breaks the grammar, is unknown, or exceeds `limits`.
        CommandRefused: the command keeps the grammar, but cannot be executed: an unknown charset or special use.
    """
    cursor = Cursor(parts, limits, names)
    name = cursor.word("a command name")
    if name == b"UID":
        cursor.space("UID")
        name = b"UID " + cursor.word("a command name after UID")
    parser = PARSERS.get(name)
    if parser is None:
        raise BadCommand("Unknown command")
    if isinstance(parser, Command):
        command = parser
    else:
        cursor.space(name.decode("ascii"))
        command = parser(cursor)
    cursor.expect_end()
    return command
