"""Commands → bytes, as clients write them: the other half of the law ``parse(write(command)) == command``.

A grammar leaves choices (atom, quoted or literal; a word's case): `random` makes them.
"""

from __future__ import annotations

from base64 import b64encode
from random import Random

from imapshield.wire import abnf, dates, names
from imapshield.wire.commands.append import Append
from imapshield.wire.commands.base import BareCommand, Command, LiteralData, MemoryLiteral
from imapshield.wire.commands.enable import Enable, Id
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, Fetch, Preview
from imapshield.wire.commands.login import Authenticate, Login
from imapshield.wire.commands.mailboxes import (
    Create,
    Delete,
    List,
    Rename,
    Status,
    Subscribe,
)
from imapshield.wire.commands.search import Search
from imapshield.wire.commands.search_keys import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    ObjectIdKey,
    Or,
    SearchKey,
    SequenceKey,
    SizeKey,
    TextKey,
)
from imapshield.wire.commands.select import Select
from imapshield.wire.commands.sort_thread import Sort, Thread
from imapshield.wire.commands.store_copy import Copy, Expunge, Store

Parts = list[bytes | LiteralData]


def write(command: Command, random: Random, utf8: bool = False) -> Parts:
    """Return the parts that a client could send for `command`."""
    writer = Writer(random, utf8)
    WRITERS[type(command)](writer, command)
    return writer.parts


class Writer:
    def __init__(self, random: Random, utf8: bool) -> None:
        self.random = random
        self.utf8 = utf8
        self.parts: Parts = [b""]

    def put(self, *pieces: bytes) -> None:
        self.parts[-1] += b"".join(pieces)

    def word(self, word: bytes) -> None:
        self.put(self.random.choice((word, word, word.lower(), word.title())))

    def flag(self, flag: bytes) -> None:
        self.word(flag) if flag.startswith(b"\\") else self.put(flag)

    def sp(self) -> None:
        self.put(b" ")

    def literal(self, content: LiteralData) -> None:
        self.parts += [content, b""]

    def string(self, value: bytes) -> None:
        if self.needs_literal(value) or self.random.random() < 0.2:
            self.literal(MemoryLiteral(value))
        else:
            self.put(b'"', value.replace(b"\\", b"\\\\").replace(b'"', b'\\"'), b'"')

    def needs_literal(self, value: bytes) -> bool:
        if self.utf8:  # then quotes hold nothing else
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                return True
        return b"\r" in value or b"\n" in value

    def astring(self, value: bytes, rule=abnf.ASTRING_ATOM) -> None:
        if rule.fullmatch(value) and self.random.random() < 0.7:
            self.put(value)
        else:
            self.string(value)

    def nstring(self, value: bytes | None) -> None:
        self.word(b"NIL") if value is None else self.string(value)

    def mailbox(self, name: str) -> None:
        self.astring(names.encode_name(name, self.utf8))

    def pattern(self, pattern: str) -> None:
        self.astring(names.encode_name(pattern, self.utf8), abnf.LIST_ATOM)

    def joined(self, items, write) -> None:
        for i, item in enumerate(items):
            if i:
                self.sp()
            write(item)

    def listed(self, items, write) -> None:
        self.put(b"(")
        self.joined(items, write)
        self.put(b")")

    def shuffled(self, items):
        items = sorted(items)
        self.random.shuffle(items)
        return items


def _simple(w: Writer, c: BareCommand) -> None:
    w.word(c.name)


def _id(w: Writer, c: Id) -> None:
    def pair(field) -> None:
        w.string(field[0])
        w.sp()
        w.nstring(field[1])

    w.word(b"ID")
    w.sp()
    w.listed(c.fields, pair) if c.fields else w.word(b"NIL")


def _enable(w: Writer, c: Enable) -> None:
    w.word(b"ENABLE")
    w.sp()
    w.joined(c.capabilities, w.word)


def _login(w: Writer, c: Login) -> None:
    w.word(b"LOGIN")
    w.sp()
    w.astring(c.user)
    w.sp()
    w.astring(c.password.value)


def _authenticate(w: Writer, c: Authenticate) -> None:
    w.word(b"AUTHENTICATE")
    w.sp()
    w.word(c.mechanism)
    if c.initial_response is not None:
        w.put(b" ", b64encode(c.initial_response.value) or b"=")


def _select(w: Writer, c: Select) -> None:
    w.word(b"EXAMINE" if c.readonly else b"SELECT")
    w.sp()
    w.mailbox(c.mailbox)
    parameters = []
    if c.condstore:
        parameters.append(b"CONDSTORE")
    if q := c.qresync:
        values = [b"%d %d" % (q.uidvalidity, q.modseq)]
        if q.known_uids is not None:
            values.append(q.known_uids.encode())
        if q.match_sequence is not None:
            values.append(b"(%b %b)" % (q.match_sequence.encode(), q.match_uids.encode()))
        parameters.append(b"QRESYNC (%b)" % b" ".join(values))
    if parameters:
        w.sp()
        w.listed(w.shuffled(parameters), w.put)


def _create(w: Writer, c: Create) -> None:
    w.word(b"CREATE")
    w.sp()
    w.mailbox(c.mailbox)
    if c.special_use:
        w.put(b" (USE ")
        w.listed(c.special_use, w.put)
        w.put(b")")


def _delete(w: Writer, c: Delete) -> None:
    w.word(b"DELETE")
    w.sp()
    w.mailbox(c.mailbox)


def _rename(w: Writer, c: Rename) -> None:
    w.word(b"RENAME")
    w.sp()
    w.joined((c.old, c.new), w.mailbox)


def _subscribe(w: Writer, c: Subscribe) -> None:
    w.word(b"SUBSCRIBE" if c.subscribe else b"UNSUBSCRIBE")
    w.sp()
    w.mailbox(c.mailbox)


def _list(w: Writer, c: List) -> None:
    def option(word: bytes) -> None:
        w.word(word)
        if word == b"STATUS":
            w.sp()
            w.listed(c.status_items, w.word)

    w.word(b"LSUB" if c.lsub else b"LIST")
    w.sp()
    if c.extended:
        w.listed(w.shuffled(c.selection), w.word)
        w.sp()
    w.mailbox(c.reference)
    w.sp()
    if len(c.patterns) > 1:
        w.listed(c.patterns, w.pattern)
    else:
        w.pattern(c.patterns[0])
    if c.returns:
        w.sp()
        w.word(b"RETURN")
        w.sp()
        w.listed(w.shuffled(c.returns), option)


def _status(w: Writer, c: Status) -> None:
    w.word(b"STATUS")
    w.sp()
    w.mailbox(c.mailbox)
    w.sp()
    w.listed(c.items, w.word)


def _append(w: Writer, c: Append) -> None:
    def part(part) -> None:
        w.word(b"URL" if isinstance(part, bytes) else b"TEXT")
        w.sp()
        (w.astring if isinstance(part, bytes) else w.literal)(part)

    w.word(b"APPEND")
    w.sp()
    w.mailbox(c.mailbox)
    for message in c.messages:
        w.sp()
        if message.flags or w.random.random() < 0.2:
            w.listed(message.flags, w.flag)
            w.sp()
        if message.internaldate is not None:
            w.put(dates.encode_internaldate(message.internaldate, message.zone_minutes), b" ")
        if isinstance(message.content, tuple):
            w.word(b"CATENATE")
            w.sp()
            w.listed(message.content, part)
        else:
            w.literal(message.content)


def _expunge(w: Writer, c: Expunge) -> None:
    w.word(b"EXPUNGE") if c.uids is None else w.put(b"UID EXPUNGE ", c.uids.encode())


def _uid(w: Writer, c) -> None:
    if c.uid:
        w.word(b"UID")
        w.sp()


def _section(w: Writer, section) -> None:
    path = [b"%d" % part for part in section.path]
    w.put(b".".join([*path, section.text] if section.text else path))
    if section.fields:
        w.sp()
        w.listed(section.fields, w.astring)


def _item(w: Writer, item) -> None:
    if isinstance(item, Attribute):
        w.word(item.name)
    elif isinstance(item, Preview):
        w.word(b"PREVIEW")
        w.put(b" (LAZY)" if item.lazy else b"")
    elif isinstance(item, Binary):
        kind = b".SIZE" if item.size_only else b".PEEK" if item.peek else b""
        w.put(b"BINARY", kind, b"[", b".".join(b"%d" % part for part in item.path), b"]")
        w.put(b"<%d.%d>" % item.partial if item.partial else b"")
    elif isinstance(item, BodySection) and item.label:
        w.word(item.label)
    else:
        w.word(b"BODY.PEEK" if item.peek else b"BODY")
        w.put(b"[")
        _section(w, item.section)
        w.put(b"]", b"<%d.%d>" % item.partial if item.partial else b"")


def _fetch(w: Writer, c: Fetch) -> None:
    _uid(w, c)
    w.word(b"FETCH")
    w.put(b" ", c.sequence.encode(), b" ")
    if len(c.items) == 1 and w.random.random() < 0.5:
        _item(w, c.items[0])
    else:
        w.listed(c.items, lambda item: _item(w, item))
    modifiers = []
    if c.changed_since is not None:
        modifiers.append(b"CHANGEDSINCE %d" % c.changed_since)
    if c.vanished:
        modifiers.append(b"VANISHED")
    if c.partial:
        modifiers.append(b"PARTIAL %d:%d" % c.partial)
    if modifiers:
        w.sp()
        w.listed(w.shuffled(modifiers), w.put)


def _store(w: Writer, c: Store) -> None:
    _uid(w, c)
    w.word(b"STORE")
    w.put(b" ", c.sequence.encode(), b" ")
    if c.unchanged_since is not None:
        w.put(b"(UNCHANGEDSINCE %d) " % c.unchanged_since)
    w.put(c.operation)
    w.word(b"FLAGS.SILENT" if c.silent else b"FLAGS")
    w.sp()
    if c.flags and w.random.random() < 0.3:
        w.joined(c.flags, w.flag)
    else:
        w.listed(c.flags, w.flag)


def _copy(w: Writer, c: Copy) -> None:
    _uid(w, c)
    w.word(b"MOVE" if c.is_move else b"COPY")
    w.put(b" ", c.sequence.encode(), b" ")
    w.mailbox(c.mailbox)


def _returns(w: Writer, c) -> None:
    def option(word: bytes) -> None:
        w.word(word)
        if word == b"PARTIAL":
            w.put(b" %d:%d" % c.partial)

    if c.returns is not None:
        w.word(b"RETURN")
        w.sp()
        w.listed(() if c.returns == {b"ALL"} else w.shuffled(c.returns), option)
        w.sp()


def _keys(w: Writer, key: SearchKey) -> None:
    if isinstance(key, And) and key.keys:
        w.joined(key.keys, lambda k: _key(w, k))
    else:
        _key(w, key)


def _text(w: Writer, word: bytes, text: str) -> None:
    w.word(word)
    w.sp()
    w.astring(text.encode("utf-8"))


def _key(w: Writer, key: SearchKey) -> None:  # noqa: C901
    match key:
        case And(()):
            w.word(b"ALL")
        case And(keys):
            w.listed(keys, lambda k: _key(w, k))
        case Or(keys):
            for k in keys[:-1]:
                w.word(b"OR")
                w.sp()
                _key(w, k)
                w.sp()
            _key(w, keys[-1])
        case Not(FlagKey(flag)) if flag.startswith(b"\\") and flag != b"\\Recent":
            w.word(b"UN" + flag[1:])
        case Not(inner):
            w.word(b"NOT")
            w.sp()
            _key(w, inner)
        case FlagKey(flag) if flag.startswith(b"\\"):
            w.word(flag[1:])
        case FlagKey(flag):
            w.put(b"KEYWORD ", flag)
        case SequenceKey(sequence, uid):
            w.put(b"UID " if uid else b"", b"$" if sequence is None else sequence.encode())
        case SizeKey(more, octets):
            w.put(b"%b %d" % (b"LARGER" if more else b"SMALLER", octets))
        case DateKey(how, day, field):
            w.word((b"" if field == b"INTERNAL" else field) + how)
            w.sp()
            w.astring(b"%d-%b-%04d" % (day.day, dates.MONTHS[day.month - 1], day.year))
        case AgeKey(younger, seconds):
            w.put(b"%b %d" % (b"YOUNGER" if younger else b"OLDER", seconds))
        case EnvelopeKey(field, text):
            _text(w, field, text)
        case HeaderKey(field, text):
            w.put(b"HEADER ")
            w.astring(field)
            w.sp()
            w.astring(text.encode("utf-8"))
        case TextKey(text, headers):
            _text(w, b"TEXT" if headers else b"BODY", text)
        case ModseqKey(modseq):
            w.put(b'MODSEQ "/flags/\\\\draft" all ' if w.random.random() < 0.3 else b"MODSEQ ")
            w.put(b"%d" % modseq)
        case ObjectIdKey(thread, id_):
            w.put(b"THREADID " if thread else b"EMAILID ", id_)
        case _:
            raise AssertionError(key)


def _search(w: Writer, c: Search) -> None:
    _uid(w, c)
    w.word(b"SEARCH")
    w.sp()
    _returns(w, c)
    if w.random.random() < 0.3:
        w.put(b"CHARSET utf-8 ")
    _keys(w, c.key)


def _sort(w: Writer, c: Sort) -> None:
    def criterion(pair) -> None:
        w.put(b"REVERSE " if pair[0] else b"")
        w.word(pair[1])

    _uid(w, c)
    w.word(b"SORT")
    w.sp()
    _returns(w, c)
    w.listed(c.criteria, criterion)
    w.put(b" UTF-8 ")
    _keys(w, c.key)


def _thread(w: Writer, c: Thread) -> None:
    _uid(w, c)
    w.word(b"THREAD")
    w.sp()
    w.word(c.algorithm)
    w.put(b" UTF-8 ")
    _keys(w, c.key)


WRITERS = {
    BareCommand: _simple,
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
    Search: _search,
    Sort: _sort,
    Thread: _thread,
}
