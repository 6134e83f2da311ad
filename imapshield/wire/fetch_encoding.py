"""Encodes FETCH responses (RFC 9051 section 7.5.2): the names of items, and lines from columns of values."""

from collections.abc import Iterable, Iterator, Sequence

from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem, Section
from imapshield.wire.pieces import LONG_LINE, PIECE_SIZE, gathered, joined
from imapshield.wire.strings import astring, parenthesised

# How `fetch_lines` writes the values of an item. The values of all other items are bytes ready to send.
_FORMATS = {b"UID": b"%d", b"RFC822.SIZE": b"%d", b"MODSEQ": b"(%d)", b"FLAGS": b"(%b)"}


def label(item: FetchItem) -> bytes:
    """Return the name of `item` in a FETCH response: without PEEK, and with only the offset of a partial."""
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
    columns: Sequence[Sequence[bytes | int]],
    *,
    kind: bytes = b"FETCH",
    size: int = PIECE_SIZE,
) -> Iterator[bytes]:
    r"""Yield a FETCH line for each message, all from one template, in pieces.

    A piece of short lines has so many that the longest would fit in it. Long ones are joined up to `size` (`gathered`).

    Args:
        numbers: the sequence numbers of the messages, or their UIDs if `kind` is ``UIDFETCH`` (RFC 9586).
        labels: the name of each column, from `label`.
        columns: for each label the values of all messages. UID, RFC822.SIZE and MODSEQ are int, FLAGS is a flag list
            without its parentheses (``\Seen $Junk``), and everything else is bytes ready to send.
        kind: ``FETCH`` or ``UIDFETCH``.
        size: bytes of a piece of long lines.

    Raises:
        ValueError: the columns differ in length.
    """
    items = [name.replace(b"%", b"%%") + b" " + _FORMATS.get(name, b"%b") for name in labels]
    template = b"* %d " + kind + b" (" + b" ".join(items) + b")\r\n"
    longest = len(template) + sum(map(_longest, columns))
    if longest <= LONG_LINE or not template.endswith(b"%b)\r\n"):
        lines = map(template.__mod__, zip(numbers, *columns, strict=True))
        return joined(lines, max(1, PIECE_SIZE // longest))
    *others, values = columns
    begins = map(template[:-5].__mod__, zip(numbers, *others, strict=True))
    return gathered(begins, values, template[-3:], size)  # type: ignore[arg-type]


def _longest(column: Sequence[bytes | int]) -> int:
    """Return the size of the longest value of a column."""
    if column and isinstance(column[0], bytes):
        return max(map(len, column))  # type: ignore[arg-type]
    return len("18446744073709551615")


def fetch_value(name: bytes, value: bytes | int) -> bytes:
    """Return one value as `fetch_lines` writes it in the column `name`."""
    return _FORMATS.get(name, b"%b") % value
