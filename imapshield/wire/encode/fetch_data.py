"""Encodes FETCH responses, many at once from one template (RFC 9051 section 7.5.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem, Section
from imapshield.wire.encode.strings import astring, parenthesised

# How the value of an item is written. The values of all other items are bytes ready to send.
_FORMATS = {
    b"UID": b"%d",
    b"RFC822.SIZE": b"%d",
    b"MODSEQ": b"(%d)",
    b"FLAGS": b"(%b)",
}


def label(item: FetchItem) -> bytes:
    """Return the name of `item` in a FETCH response: without PEEK, and of a partial only the offset."""
    if isinstance(item, Attribute):
        return item.name
    if isinstance(item, BodySection):
        name = item.label or b"BODY[%b]" % _section(item.section)
    elif isinstance(item, Binary):
        path = b".".join([b"%d" % part for part in item.path])
        name = b"BINARY.SIZE[%b]" % path if item.size_only else b"BINARY[%b]" % path
    else:
        return b"PREVIEW"
    return name if item.partial is None else b"%b<%d>" % (name, item.partial[0])


def _section(section: Section) -> bytes:
    words = [b"%d" % part for part in section.path]
    if section.text:
        words.append(section.text)
    name = b".".join(words)
    if section.fields:
        name += b" " + parenthesised(map(astring, section.fields))
    return name


def fetch_lines(
    numbers: Iterable[int],
    labels: Sequence[bytes],
    columns: Sequence[Iterable[bytes | int]],
    *,
    kind: bytes = b"FETCH",
) -> bytes:
    r"""Return a FETCH line for each message, all from one template.

    Args:
        numbers: the sequence numbers of the messages, or their UIDs if `kind` is ``UIDFETCH`` (RFC 9586).
        labels: the name of each column, from `label`.
        columns: for each label the values of all messages. UID, RFC822.SIZE and MODSEQ are int, FLAGS is a flag list
            without its parentheses (``\Seen $Junk``), and everything else is bytes ready to send.
        kind: ``FETCH`` or ``UIDFETCH``.

    Raises:
        ValueError: the columns differ in length.
    """
    items = [name.replace(b"%", b"%%") + b" " + _FORMATS.get(name, b"%b") for name in labels]
    template = b"* %d " + kind + b" (" + b" ".join(items) + b")\r\n"
    return b"".join(map(template.__mod__, zip(numbers, *columns, strict=True)))


def fetch_value(name: bytes, value: bytes | int) -> bytes:
    """Return one value as `fetch_lines` writes it in the column `name`."""
    return _FORMATS.get(name, b"%b") % value
