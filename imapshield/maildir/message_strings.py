"""Finds the strings of FETCH in one message: BODY[section], BINARY[part], and pieces of them.

A small message is read whole, and a header from the beginning of the file. From a large message, only the piece is read
that the client asks for, as soon as the layout of the message is known (`large_messages`). The first piece has to read
the whole.
"""

import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from imapshield.maildir import filename
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.files import MAX_MESSAGE_SIZE
from imapshield.maildir.large_messages import TemporaryFile
from imapshield.maildir.message_file import MessageReader, is_compressed
from imapshield.maildir.message_layout import (
    FileSource,
    FileState,
    Layout,
    LayoutKey,
    LineMap,
    LineMapSource,
    MemorySource,
    Range,
    Source,
    positions,
)
from imapshield.message import section, transfer_encoding
from imapshield.wire.commands.fetch import Binary, BodySection, Section

LARGE_SIZE = 64 << 10
"""Bytes of a message above which its layout is used. To read, convert and parse that takes 0.2 ms."""

_MAGIC_SIZE = 16
_HEADER_SECTIONS = (b"HEADER", b"HEADER.FIELDS", b"HEADER.FIELDS.NOT")


@dataclass(slots=True, eq=False)
class MessageStrings:
    """The strings of one open message.

    Args:
        account: the account, which keeps the layout and temporary files.
        reader: the message.
    """

    account: AccountState
    reader: MessageReader
    _line_map: LineMap | None = field(default=None, init=False)
    _octets_known: int = field(default=0, init=False)
    _state: FileState = field(init=False)
    _measured_key: LayoutKey | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._state = FileState.of(self.reader.fd)  # before anything is read

    @property
    def _key(self) -> LayoutKey:
        """What the layout depends on. A small message needs no layout, so this is not computed in advance."""
        return self._measured_key or self._index_key

    @property
    def _index_key(self) -> LayoutKey:
        """The key with the size that the index has."""
        message, state = self.reader.message, self._state
        # If the file does not have the size that the index has, its size on the wire is another one, too.
        size = message.size if message.physical == state.size else None
        return LayoutKey(state, size, filename.may_be_compressed(message.name, state.size))

    def string(
        self, item: BodySection | Binary, *, in_pieces: bool = False
    ) -> Range | bytes | None:
        """Return the string that `item` asks for; None for NIL.

        Args:
            item: the item.
            in_pieces: whether the caller will ask for it once for each piece, although `item` is the whole string.

        Raises:
            CommandRefused: UNKNOWN-CTE, from `section.binary_range`.
        """
        reader, message = self.reader, self.reader.message
        in_pieces = in_pieces or item.partial is not None
        if isinstance(item, BodySection) and item.section.text in _HEADER_SECTIONS:
            if not item.section.path:
                return reader.head().content(item)
            if item.section.text != b"HEADER":
                return reader.whole().content(item)
        if max(message.size or 0, message.physical) <= LARGE_SIZE:
            return reader.whole().content(item)
        layout = self._layout(
            needs_parts=not _is_message(item),
            # The beginning of a message can be read without the rest.
            needs_size=item.partial is None or item.partial[1] > LARGE_SIZE,
        )
        if layout is None:
            return reader.whole().content(item)
        return self._located(layout, item, in_pieces)

    def kept_string(self, item: BodySection | Binary) -> Range | None:
        """Return the string that `item` asks for, in a form that is kept, because its pieces will be read one by one.

        Raises:
            CommandRefused: UNKNOWN-CTE, from `section.binary_range`.
        """
        file = self._kept_file(item)
        if file is not None:
            return Range(file, 0, file.size)
        string = self.string(item, in_pieces=True)
        if not isinstance(string, bytes):
            return string
        return Range(self._temporary(item, lambda: (string,)), 0, len(string))

    @property
    def octets_scanned(self) -> int:
        """The bytes of the file that were read to find its line ends."""
        return 0 if self._line_map is None else self._line_map.octets_read - self._octets_known

    def keep_layout(self) -> None:
        """Keep the layout of a large message that was read whole and parsed, because its parts will be fetched next."""
        message = self.reader.message
        if max(message.size or 0, message.physical) > LARGE_SIZE:
            self._layout(needs_parts=True, needs_size=True)

    def _layout(self, needs_parts: bool, needs_size: bool) -> Layout | None:
        """Return the layout of the message, None if its file is too large or was changed while it was read."""
        reader, message, key = self.reader, self.reader.message, self._key
        layout = self.account.large_messages.layout(key)
        if layout is not None and layout.line_map is not None and self._line_map is None:
            self._line_map, self._octets_known = layout.line_map, layout.line_map.octets_read
        if (
            layout is None
            or (needs_parts and layout.part is None)
            or (needs_size and layout.size is None)
        ):
            layout = self._new_layout(layout, needs_parts, needs_size)
            if layout is None:
                return None
            self._keep(layout)
        if layout.size is not None:
            self._measured_key = key._replace(wire_size=layout.size)
            sizes = layout.size, key.state.size
            if sizes != (message.size, message.physical):
                reader.message_files.measured.append((*sizes, message.uid, message.physical))
        return layout

    def _new_layout(
        self, known: Layout | None, needs_parts: bool, needs_size: bool
    ) -> Layout | None:
        """Return a layout.

        Args:
            known: the layout, if it is known, without what is needed now.
            needs_parts: whether it must have the parts. Then the message is read whole.
            needs_size: whether it must have the size.
        """
        layout = known or self._first_layout()
        if layout is None:
            return None
        if needs_parts:
            whole = self.reader.whole()
            if layout.size not in (None, len(whole.data)):
                return None
            return replace(layout, size=len(whole.data), part=positions(whole.part))
        if needs_size and layout.line_map is not None and layout.size is None:
            return replace(layout, size=layout.line_map.measure(self.reader.fd))
        return layout

    def _first_layout(self) -> Layout | None:
        """Return a layout of which only the line ends are not yet known, None if the file is too large."""
        reader, state = self.reader, self._state
        if self._key.may_be_compressed and is_compressed(
            os.pread(reader.fd, _MAGIC_SIZE, 0), reader.message.name, state.size
        ):
            return Layout(len(reader.whole().data), is_compressed=True)
        if self._key.wire_size == state.size:
            return Layout(state.size)
        if state.size > MAX_MESSAGE_SIZE:
            return None
        self._line_map = LineMap(state.size)
        return Layout(None, line_map=self._line_map)

    def _keep(self, layout: Layout) -> None:
        if self._is_unchanged():
            # After this FETCH, the index will have the size on the wire, unless it cannot be written.
            size = self._index_key.wire_size if layout.size is None else layout.size
            for key in {self._index_key, self._index_key._replace(wire_size=size)}:
                self.account.large_messages.add_layout(key, layout)

    def _is_unchanged(self) -> bool:
        """Whether what was read is what the file contained when it had its present state."""
        return (
            self._state.shows_changes(self.account.now())
            and FileState.of(self.reader.fd) == self._state
        )

    def _located(
        self, layout: Layout, item: BodySection | Binary, in_pieces: bool
    ) -> Range | bytes | None:
        """Return the string that `item` asks for, from a layout."""
        found: tuple[int, int, bytes] | None
        if _is_message(item):
            if layout.size is None:
                assert item.partial is not None
                return self._source(layout, in_pieces).read(*item.partial)
            found = 0, layout.size, b"binary"
        else:
            assert layout.part is not None
            if isinstance(item, Binary):
                found = section.binary_range(layout.part, item.path)
            else:
                found = section.plain_range(layout.part, item.section)
        if found is None:
            return None
        start, end, encoding = found
        is_encoded = encoding not in transfer_encoding.IDENTITY
        if is_encoded and end - start > LARGE_SIZE:
            return self._decoded(found, item, in_pieces)
        source = self._source(layout, in_pieces)
        if is_encoded:
            octets = transfer_encoding.decode(source.read(start, end - start), encoding)
            source, start, end = MemorySource(octets), 0, len(octets)
        return Range(source, *_partial_range(start, end, item.partial))

    def _decoded(
        self, encoded: tuple[int, int, bytes], item: BodySection | Binary, in_pieces: bool
    ) -> Range | bytes | None:
        """Return the decoded string of a large part, which is as `section.binary_range` returns it."""
        source: TemporaryFile | MemorySource | None = self._kept_file(encoded)
        if source is None:
            start, end, encoding = encoded
            data = self.reader.whole().data
            if len(data) != self._key.wire_size:  # the file was changed while it was read
                return self.reader.whole().content(item)
            decode = partial(transfer_encoding.decoded_chunks, data, encoding, start, end)
            source = (
                self._temporary(encoded, decode) if in_pieces else MemorySource(b"".join(decode()))
            )
        return Range(source, *_partial_range(0, source.size, item.partial))

    def _source(self, layout: Layout, in_pieces: bool) -> Source:
        """Return what the message is read from, as on the wire."""
        if layout.is_compressed and in_pieces:
            return self._temporary(None, lambda: (self.reader.whole().data,))
        if layout.is_compressed or self.reader.has_whole:
            return MemorySource(self.reader.whole().data)
        if layout.line_map is not None:
            return LineMapSource(self.reader.fd, layout.line_map)
        return FileSource(self.reader.fd)

    def _kept_file(self, name: Hashable) -> TemporaryFile | None:
        account = self.account
        return account.large_messages.file(account, (self._key, name), account.now())

    def _temporary(
        self, name: Hashable, content: Callable[[], Iterable[bytes]]
    ) -> TemporaryFile | MemorySource:
        """Return a temporary file with some content of the message; memory if there is no space for the file.

        Args:
            name: identifies the content within the message.
            content: returns the content in chunks, if it was not kept.
        """
        file = self._kept_file(name)
        if file is not None:
            return file
        try:
            file = TemporaryFile(content())
        except OSError:
            return MemorySource(b"".join(content()))
        if self._is_unchanged():
            account = self.account
            account.large_messages.add_file(account, (self._key, name), file, account.now())
        return file


def _is_message(item: BodySection | Binary) -> bool:
    return isinstance(item, BodySection) and item.section == Section()


def _partial_range(start: int, end: int, partial: tuple[int, int] | None) -> tuple[int, int]:
    """Return (start, size) of the part of a range that ``<offset.size>`` asks for."""
    if partial is None:
        return start, end - start
    offset, size = partial
    return start + offset, max(0, min(size, end - start - offset))
