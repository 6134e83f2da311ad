"""Shortcuts for header fields as nearly all mail has them. Whatever is not ordinary is left to the careful parsers.

Each shortcut returns what the careful parser returns, or None. ``tests/message/test_ordinary.py`` compares them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE

MEMO_ENTRIES: Final = 1024
MEMO_SIZE: Final = 512
"""Values that a `Memo` remembers, and bytes of the largest value and its result together: half a mebibyte
for each `Memo`."""

ENVELOPE_FIELDS: Final = (
    *(b"date", b"subject", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"),
    *(b"in-reply-to", b"message-id"),
)

COMPILED_LISTS: Final = 32
MAX_LIST_SIZE: Final = 512
MIN_USES: Final = 50
"""Lists of field names that have a pattern of their own, bytes of the longest such list, and headers that are searched
before: to make a pattern takes a millisecond."""

_BODY: Final = rb"[^\n]*+(?:\n[ \t][^\n]*+)*"

is_field_name: Final = re.compile(rb"[!-9;-~]++").fullmatch
"""Whether a name can be that of a field."""


def _names(names: Sequence[bytes]) -> bytes:
    # The first letters are a quick check, which takes a third of the time of the names.
    first = b"".join(
        {re.escape(letter) for name in names for letter in (name[:1].lower(), name[:1].upper())}
    )
    return b"\n(?=[%b])((?i:%b)" % (first, b"|".join(map(re.escape, names)))


_envelope_fields: Final = re.compile(
    _names(ENVELOPE_FIELDS) + rb")[ \t]*+:[ \t]*+(" + _BODY + b")"
).findall


_content_fields: Final = re.compile(
    rb"\n(?=[cC])(?i:content-(type|transfer-encoding|id|description|md5|disposition|language|location))"
    rb"[ \t]*+:[ \t]*+(" + _BODY + b")"
).findall


class Memo(dict[bytes, bytes]):
    """The results of a function for values that occur in many messages, such as the address of the owner.

    All results are forgotten when there are `MEMO_ENTRIES`.

    Args:
        function: a pure function.
    """

    def __init__(self, function: Callable[[bytes], bytes]) -> None:
        self._function = function

    def __missing__(self, value: bytes) -> bytes:
        result = self._function(value)
        if len(value) + len(result) <= MEMO_SIZE:
            if len(self) >= MEMO_ENTRIES:
                self.clear()
            self[value] = result
        return result


def envelope_fields(header: bytes) -> dict[bytes, bytes] | None:
    """Return the bodies of the fields of ENVELOPE, by name in lower case; None if one of them occurs twice.

    A body is that of `headers.field_body`; but if its first line is blank, it begins with the end of that line, or is
    empty.

    Args:
        header: the header block.
    """
    if len(header) > CHUNK_SIZE or not header.endswith(b"\n"):
        return None
    found = _envelope_fields(b"\n" + header)
    fields = {name.lower(): body.removesuffix(b"\r") for name, body in found}
    return fields if len(fields) == len(found) else None


def content_fields(header: bytes) -> dict[bytes, bytes] | None:
    """Return the bodies of the Content-X fields of `Part.fields`, by X in lower case.

    It is None if one of them occurs twice, or if its first line is blank.

    Args:
        header: the header block.
    """
    if len(header) > CHUNK_SIZE or not header.endswith(b"\n"):
        return None
    found = _content_fields(b"\n" + header)
    fields = {name.lower(): body.removesuffix(b"\r") for name, body in found}
    if len(fields) < len(found) or any(body[:1] in b"\r\n" for body in fields.values()):
        return None
    return fields


@dataclass(slots=True)
class _FieldList:
    """A list of field names, how often it was used, and its pattern if that was often."""

    names: tuple[bytes, ...]
    uses: int = 0
    find: Callable[[bytes], list[bytes]] | None = None

    def finder(self) -> Callable[[bytes], list[bytes]] | None:
        """Return the function that finds the fields of these names, None if the list was not used often yet."""
        self.uses += 1
        if self.find is None and self.uses >= MIN_USES and all(map(is_field_name, self.names)):
            self.find = re.compile(_names(self.names) + rb"[ \t]*+:" + _BODY + b")").findall
        return self.find


_field_list = lru_cache(COMPILED_LISTS)(_FieldList)


def fields_named(header: bytes, names: tuple[bytes, ...]) -> bytes | None:
    """Return the fields of a header that have one of `names`, in their order, without the blank line.

    Args:
        header: the header block.
        names: field names in any case.
    """
    if (
        len(header) > CHUNK_SIZE
        or not header.endswith(b"\n")
        or sum(map(len, names)) > MAX_LIST_SIZE
    ):
        return None
    find = _field_list(names).finder()
    if find is None:
        return None
    return b"".join([field + b"\n" for field in find(b"\n" + header)])
