"""Encodes a MIME tree as BODY and BODYSTRUCTURE (RFC 9051 section 7.5.2).

Where the RFC leaves a choice, the result is byte for byte that of Dovecot: defaults in lower case, values as they are
in the message, RFC 2231 parameters joined but not decoded.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from imapshield.message.envelope import EnvelopeBudget, envelope_within_budget
from imapshield.message.headers import (
    KNOWN_TYPES,
    MAX_KNOWN_TYPE_SIZE,
    Parameters,
    content_type,
    parse_disposition,
    parse_languages,
)
from imapshield.message.imap_string import string, unfolded_nstring
from imapshield.message.mime_limits import DEFAULT_LIMITS, MimeLimits
from imapshield.message.mime_tree import Part
from imapshield.message.pauses import pause_point

# The grammar requires at least one part in a multipart. This one stands for the parts of an empty multipart.
_NO_PARTS = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'


def body(part: Part, data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH BODY.

    Args:
        part: the MIME tree of the message.
        data: the message.
        limits: how much of parameters and envelopes to include.
    """
    return _Writer(data, limits, False).write(part)


def bodystructure(part: Part, data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH BODYSTRUCTURE: `body` with the extension data."""
    return _Writer(data, limits, True).write(part)


@dataclass(slots=True)
class _Writer:
    """Writes one structure to `out`. `budget` is what is left for the following envelopes."""

    data: bytes
    limits: MimeLimits
    extended: bool
    budget: EnvelopeBudget = field(init=False)
    out: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = EnvelopeBudget(self.limits.addresses, self.limits.header)

    def write(self, part: Part) -> bytes:
        self.part(part)
        return b"".join(self.out)

    def part(self, part: Part) -> None:
        """Write `part`, in parentheses."""
        pause_point()
        self.out.append(b"(")
        if part.is_multipart:
            self.multipart(part)
        else:
            self.single_part(part)
        self.out.append(b")")

    def multipart(self, part: Part) -> None:
        """Write the parts of `part`, and what follows them."""
        for child in part.children:
            self.part(child)
        if not part.children:
            self.out.append(_NO_PARTS + (b" NIL NIL NIL NIL)" if self.extended else b")"))
        self.out.append(multipart_end(part, self.limits, self.extended))

    def single_part(self, part: Part) -> None:
        """Write a part that is not a multipart."""
        before, after = single_part_text(part, self.limits, self.extended)
        self.out.append(b"%b%d" % (before, part.end - part.body_start))
        if part.embedded is not None:
            self.embedded_message(part.embedded)
        if part.embedded is not None or has_lines(part):
            self.out.append(b" %d" % part.lines)
        self.out.append(after)

    def embedded_message(self, message: Part) -> None:
        """Write the envelope and the structure of an embedded message."""
        header = self.data[message.start : message.body_start]
        self.out.append(b" %b " % envelope_within_budget(header, self.limits, self.budget))
        self.part(message)


def has_lines(part: Part) -> bool:
    """Whether the size of a part without other parts is followed by the number of its lines."""
    return part.type.lower() == b"text"


def single_part_text(part: Part, limits: MimeLimits, extended: bool) -> tuple[bytes, bytes]:
    """Return what is written of a part, which is not a multipart, before its size and after its lines."""
    if part.embedded is not None:
        media = b'"message" "%b"' % part.kind.removeprefix(b"message/")
    elif part.opaque:
        media = b'"application" "octet-stream"'
    else:
        media = b"%b %b" % (string(part.type), string(part.subtype))
    fields = part.fields
    before = b"%b %b %b %b %b " % (
        media,
        _type_parameters(part, limits.parameters, has_lines(part)),
        unfolded_nstring(fields.get(b"id")),
        unfolded_nstring(fields.get(b"description")),
        string(part.encoding or b"7bit"),
    )
    if not extended:
        return before, b""
    return before, b" %b%b" % (
        unfolded_nstring(fields.get(b"md5")),
        _extension_data(fields, limits),
    )


def multipart_end(part: Part, limits: MimeLimits, extended: bool) -> bytes:
    """Return what is written of a multipart after its parts."""
    if not extended:
        return b" " + string(part.subtype)
    return b" %b %b%b" % (
        string(part.subtype),
        _type_parameters(part, limits.parameters, False),
        _extension_data(part.fields, limits),
    )


def _type_parameters(part: Part, limit: int, is_text: bool) -> bytes:
    """Return the parameters of Content-Type; `is_text` adds the default charset."""
    body = part.fields.get(b"type", b"")
    if 0 < len(body) <= MAX_KNOWN_TYPE_SIZE:
        return _known_parameters(body, limit, is_text)
    return _encode_parameters(part.params, is_text)


def _extension_data(fields: dict[bytes, bytes], limits: MimeLimits) -> bytes:
    """Return disposition, language and location, each after a space."""
    value = fields.get(b"disposition")
    parsed = None if value is None else parse_disposition(value, limits.parameters)
    disposition = b"NIL"
    if parsed is not None:
        disposition = b"(%b %b)" % (string(parsed[0]), _encode_parameters(parsed[1], False))
    value = fields.get(b"language")
    tags = parse_languages(value, limits.languages) if value else []
    language = b"(%b)" % b" ".join([string(tag) for tag in tags]) if tags else b"NIL"
    return b" %b %b %b" % (disposition, language, unfolded_nstring(fields.get(b"location")))


def _encode_parameters(params: Parameters, is_text: bool) -> bytes:
    if not params:
        return b'("charset" "us-ascii")' if is_text else b"NIL"
    words = [string(word) for pair in params for word in pair]
    if is_text and not any(name.lower() == b"charset" for name, _ in params):
        words.append(b'"charset" "us-ascii"')
    return b"(" + b" ".join(words) + b")"


@lru_cache(KNOWN_TYPES)
def _known_parameters(body: bytes, limit: int, is_text: bool) -> bytes:
    return _encode_parameters(content_type(body, limit)[2], is_text)
