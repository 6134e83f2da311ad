"""Writes commands as clients do: the inverse of the grammar, for the property ``parse(write(command)) == command``.

The grammar leaves choices to clients (atom, quoted or literal; the case of words): a `Random` makes them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from random import Random
from typing import Any

from imapshield.wire.commands.base import BareCommand, Command, LiteralData
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    Fetch,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.commands.login import Authenticate, Enable, Id, Login
from imapshield.wire.commands.mailboxes import (
    Create,
    Delete,
    List,
    Rename,
    Select,
    Status,
    Subscribe,
)
from imapshield.wire.commands.messages import Append, Copy, Expunge, Store
from imapshield.wire.commands.search import Search, Sort, Thread
from tests.wire.part_writer import Parts, PartWriter
from tests.wire.search_writer import write_search, write_sort, write_thread


def write(command: Command, random: Random, utf8: bool = False) -> Parts:
    """Return the parts that a client could send for `command`."""
    writer = PartWriter(random, utf8)
    _WRITERS[type(command)](writer, command)
    return writer.parts


def _bare_command(writer: PartWriter, command: BareCommand) -> None:
    writer.word(command.name)


def _id(writer: PartWriter, command: Id) -> None:
    def pair(field: tuple[bytes, bytes | None]) -> None:
        writer.string(field[0])
        writer.space()
        writer.nstring(field[1])

    writer.word(b"ID")
    writer.space()
    writer.listed(command.fields, pair) if command.fields else writer.word(b"NIL")


def _enable(writer: PartWriter, command: Enable) -> None:
    writer.word(b"ENABLE")
    writer.space()
    writer.joined(command.capabilities, writer.word)


def _login(writer: PartWriter, command: Login) -> None:
    writer.word(b"LOGIN")
    writer.space()
    writer.astring(command.user)
    writer.space()
    writer.astring(command.password.value)


def _authenticate(writer: PartWriter, command: Authenticate) -> None:
    writer.word(b"AUTHENTICATE")
    writer.space()
    writer.word(command.mechanism)
    if command.initial_response is not None:
        writer.put(b" ", b64encode(command.initial_response.value) or b"=")


def _select(writer: PartWriter, command: Select) -> None:
    writer.word(b"EXAMINE" if command.readonly else b"SELECT")
    writer.space()
    writer.mailbox(command.mailbox)
    parameters = []
    if command.condstore:
        parameters.append(b"CONDSTORE")
    if qresync := command.qresync:
        values = [b"%d %d" % (qresync.uidvalidity, qresync.modseq)]
        if qresync.known_uids is not None:
            values.append(qresync.known_uids.encode())
        if qresync.match_sequence is not None and qresync.match_uids is not None:
            values.append(
                b"(%b %b)" % (qresync.match_sequence.encode(), qresync.match_uids.encode())
            )
        parameters.append(b"QRESYNC (%b)" % b" ".join(values))
    if parameters:
        writer.space()
        writer.listed(writer.shuffled(parameters), writer.put)


def _create(writer: PartWriter, command: Create) -> None:
    writer.word(b"CREATE")
    writer.space()
    writer.mailbox(command.mailbox)
    if command.special_use:
        writer.put(b" (USE ")
        writer.listed(command.special_use, writer.put)
        writer.put(b")")


def _delete(writer: PartWriter, command: Delete) -> None:
    writer.word(b"DELETE")
    writer.space()
    writer.mailbox(command.mailbox)


def _rename(writer: PartWriter, command: Rename) -> None:
    writer.word(b"RENAME")
    writer.space()
    writer.joined((command.old, command.new), writer.mailbox)


def _subscribe(writer: PartWriter, command: Subscribe) -> None:
    writer.word(b"SUBSCRIBE" if command.subscribe else b"UNSUBSCRIBE")
    writer.space()
    writer.mailbox(command.mailbox)


def _list(writer: PartWriter, command: List) -> None:
    def option(word: bytes) -> None:
        writer.word(word)
        if word == b"STATUS":
            writer.space()
            writer.listed(command.status_items, writer.word)

    writer.word(b"LIST" if command.extended else writer.random.choice((b"LIST", b"LSUB")))
    writer.space()
    if command.extended:
        writer.listed(writer.shuffled(command.selection), writer.word)
        writer.space()
    writer.mailbox(command.reference)
    writer.space()
    if len(command.patterns) > 1:
        writer.listed(command.patterns, writer.pattern)
    else:
        writer.pattern(command.patterns[0])
    if command.returns:
        writer.space()
        writer.word(b"RETURN")
        writer.space()
        writer.listed(writer.shuffled(command.returns), option)


def _status(writer: PartWriter, command: Status) -> None:
    writer.word(b"STATUS")
    writer.space()
    writer.mailbox(command.mailbox)
    writer.space()
    writer.listed(command.items, writer.word)


def _append(writer: PartWriter, command: Append) -> None:
    def part(part: LiteralData | bytes) -> None:
        writer.word(b"URL" if isinstance(part, bytes) else b"TEXT")
        writer.space()
        if isinstance(part, bytes):
            writer.astring(part)
        else:
            writer.literal(part)

    writer.word(b"APPEND")
    writer.space()
    writer.mailbox(command.mailbox)
    for message in command.messages:
        writer.space()
        if message.flags or writer.random.random() < 0.2:
            writer.listed(message.flags, writer.flag)
            writer.space()
        if message.internaldate is not None:
            writer.date_time(message.internaldate)
            writer.space()
        if isinstance(message.content, tuple):
            writer.word(b"CATENATE")
            writer.space()
            writer.listed(message.content, part)
        else:
            writer.literal(message.content)


def _expunge(writer: PartWriter, command: Expunge) -> None:
    writer.word(b"EXPUNGE") if command.uids is None else writer.put(
        b"UID EXPUNGE ", command.uids.encode()
    )


def _section(writer: PartWriter, section: Section) -> None:
    path = [b"%d" % part for part in section.path]
    writer.put(b".".join([*path, section.text] if section.text else path))
    if section.fields:
        writer.space()
        writer.listed(section.fields, writer.astring)


def _item(writer: PartWriter, item: FetchItem) -> None:
    if isinstance(item, Attribute):
        writer.word(item.name)
    elif isinstance(item, Preview):
        writer.word(b"PREVIEW")
        writer.put(b" (LAZY)" if item.lazy else b"")
    elif isinstance(item, Binary):
        kind = b".SIZE" if item.size_only else b".PEEK" if item.peek else b""
        writer.put(b"BINARY", kind, b"[", b".".join(b"%d" % part for part in item.path), b"]")
        writer.put(b"<%d.%d>" % item.partial if item.partial else b"")
    elif isinstance(item, BodySection) and item.label:
        writer.word(item.label)
    else:
        writer.word(b"BODY.PEEK" if item.peek else b"BODY")
        writer.put(b"[")
        _section(writer, item.section)
        writer.put(b"]", b"<%d.%d>" % item.partial if item.partial else b"")


def _fetch(writer: PartWriter, command: Fetch) -> None:
    writer.uid(command.uid)
    writer.word(b"FETCH")
    writer.put(b" ", command.sequence.encode(), b" ")
    if len(command.items) == 1 and writer.random.random() < 0.5:
        _item(writer, command.items[0])
    else:
        writer.listed(command.items, lambda item: _item(writer, item))
    modifiers = []
    if command.changed_since is not None:
        modifiers.append(b"CHANGEDSINCE %d" % command.changed_since)
    if command.vanished:
        modifiers.append(b"VANISHED")
    if command.partial:
        modifiers.append(b"PARTIAL %d:%d" % command.partial)
    if modifiers:
        writer.space()
        writer.listed(writer.shuffled(modifiers), writer.put)


def _store(writer: PartWriter, command: Store) -> None:
    writer.uid(command.uid)
    writer.word(b"STORE")
    writer.put(b" ", command.sequence.encode(), b" ")
    if command.unchanged_since is not None:
        writer.put(b"(UNCHANGEDSINCE %d) " % command.unchanged_since)
    writer.put(command.operation)
    writer.word(b"FLAGS.SILENT" if command.silent else b"FLAGS")
    writer.space()
    if command.flags and writer.random.random() < 0.3:
        writer.joined(command.flags, writer.flag)
    else:
        writer.listed(command.flags, writer.flag)


def _copy(writer: PartWriter, command: Copy) -> None:
    writer.uid(command.uid)
    writer.word(b"MOVE" if command.is_move else b"COPY")
    writer.put(b" ", command.sequence.encode(), b" ")
    writer.mailbox(command.mailbox)


_WRITERS: dict[type[Command], Callable[[PartWriter, Any], None]] = {
    BareCommand: _bare_command,
    Id: _id,
    Enable: _enable,
    Login: _login,
    Authenticate: _authenticate,
    Select: _select,
    Create: _create,
    Delete: _delete,
    Rename: _rename,
    Subscribe: _subscribe,
    List: _list,
    Status: _status,
    Append: _append,
    Expunge: _expunge,
    Fetch: _fetch,
    Store: _store,
    Copy: _copy,
    Search: write_search,
    Sort: write_sort,
    Thread: write_thread,
}
