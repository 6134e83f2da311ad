"""Writes SEARCH, SORT and THREAD commands as clients do."""

from __future__ import annotations

from imapshield.wire import dates
from imapshield.wire.commands.search import (
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
    Search,
    SearchKey,
    SequenceKey,
    SizeKey,
    Sort,
    TextKey,
    Thread,
)
from tests.wire.part_writer import PartWriter


def _result_options(writer: PartWriter, command: Search | Sort) -> None:
    def option(word: bytes) -> None:
        writer.word(word)
        if word == b"PARTIAL":
            assert command.partial is not None
            writer.put(b" %d:%d" % command.partial)

    if command.returns is not None:
        writer.word(b"RETURN")
        writer.space()
        options = [] if command.returns == {b"ALL"} else writer.shuffled(command.returns)
        writer.listed(options, option)
        writer.space()


def _keys(writer: PartWriter, key: SearchKey) -> None:
    if isinstance(key, And) and key.keys:
        writer.joined(key.keys, lambda inner: _key(writer, inner))
    else:
        _key(writer, key)


def _key(writer: PartWriter, key: SearchKey) -> None:
    """Write one key; `_value_key` and `_text_key` write the keys with arguments."""
    match key:
        case And(()):
            writer.word(b"ALL")
        case And(keys):
            writer.listed(keys, lambda inner: _key(writer, inner))
        case Or(keys):
            for inner in keys[:-1]:
                writer.word(b"OR")
                writer.space()
                _key(writer, inner)
                writer.space()
            _key(writer, keys[-1])
        case Not(FlagKey(flag)) if flag.startswith(b"\\") and flag != b"\\Recent":
            writer.word(b"UN" + flag[1:])
        case Not(inner):
            writer.word(b"NOT")
            writer.space()
            _key(writer, inner)
        case FlagKey(flag) if flag.startswith(b"\\"):
            writer.word(flag[1:])
        case FlagKey(flag):
            writer.put(b"KEYWORD ", flag)
        case EnvelopeKey() | HeaderKey() | TextKey():
            _text_key(writer, key)
        case _:
            _value_key(writer, key)


def _text_key(writer: PartWriter, key: EnvelopeKey | HeaderKey | TextKey) -> None:
    match key:
        case EnvelopeKey(field, text):
            writer.word(field)
        case HeaderKey(field, text):
            writer.put(b"HEADER ")
            writer.astring(field)
        case TextKey(text, headers):
            writer.word(b"TEXT" if headers else b"BODY")
    writer.space()
    writer.astring(text.encode("utf-8"))


def _value_key(writer: PartWriter, key: SearchKey) -> None:
    match key:
        case SequenceKey(sequence, uid):
            writer.put(b"UID " if uid else b"", sequence.encode())
        case SizeKey(larger, size):
            writer.put(b"%b %d" % (b"LARGER" if larger else b"SMALLER", size))
        case DateKey(comparison, day, field):
            writer.word((b"" if field == b"INTERNAL" else field) + comparison)
            writer.space()
            writer.astring(b"%d-%b-%04d" % (day.day, dates.MONTHS[day.month - 1], day.year))
        case AgeKey(younger, seconds):
            writer.put(b"%b %d" % (b"YOUNGER" if younger else b"OLDER", seconds))
        case ModseqKey(modseq):
            with_entry = writer.random.random() < 0.3
            writer.put(b'MODSEQ "/flags/\\\\draft" all ' if with_entry else b"MODSEQ ")
            writer.put(b"%d" % modseq)
        case ObjectIdKey(is_thread_id, object_id):
            writer.put(b"THREADID " if is_thread_id else b"EMAILID ", object_id)
        case _:
            raise AssertionError(key)


def write_search(writer: PartWriter, command: Search) -> None:
    writer.uid(command.uid)
    writer.word(b"SEARCH")
    writer.space()
    _result_options(writer, command)
    if writer.random.random() < 0.3:
        writer.put(b"CHARSET utf-8 ")
    _keys(writer, command.key)


def write_sort(writer: PartWriter, command: Sort) -> None:
    def criterion(pair: tuple[bool, bytes]) -> None:
        writer.put(b"REVERSE " if pair[0] else b"")
        writer.word(pair[1])

    writer.uid(command.uid)
    writer.word(b"SORT")
    writer.space()
    _result_options(writer, command)
    writer.listed(command.criteria, criterion)
    writer.put(b" UTF-8 ")
    _keys(writer, command.key)


def write_thread(writer: PartWriter, command: Thread) -> None:
    writer.uid(command.uid)
    writer.word(b"THREAD")
    writer.space()
    writer.word(command.algorithm)
    writer.put(b" UTF-8 ")
    _keys(writer, command.key)
