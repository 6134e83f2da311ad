"""BODY and BODYSTRUCTURE, ready to send (RFC 9051 section 7.5.2).

Where the RFC leaves a choice, the text is what Dovecot sends, octet for octet: lower-case defaults,
values as the author wrote them, RFC 2231 parameters put together but not decoded.
"""

from __future__ import annotations

from imapshield.message.envelope import envelope
from imapshield.message.headers import Parameters, disposition, languages
from imapshield.message.quoting import string, unfolded
from imapshield.message.skeleton import DEFAULT_LIMITS, MimeLimits, Part

# A multipart must have a part in the grammar even if it has none in the message.
_NO_PARTS = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'


def body(part: Part, data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH BODY, for `part` of the message `data`."""
    out: list[bytes] = []
    _write(part, data, out, False, limits)
    return b"".join(out)


def bodystructure(part: Part, data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    """Return the value of FETCH BODYSTRUCTURE: BODY with the extension data."""
    out: list[bytes] = []
    _write(part, data, out, True, limits)
    return b"".join(out)


def _write(part: Part, data: bytes, out: list[bytes], extended: bool, limits: MimeLimits) -> None:
    out.append(b"(")
    if part.is_multipart:
        for child in part.children:
            _write(child, data, out, extended, limits)
        if not part.children:
            out.append(_NO_PARTS + (b" NIL NIL NIL NIL)" if extended else b")"))
        out.append(b" " + string(part.subtype))
        if extended:
            out.append(b" " + _params(part.params, False))
    else:
        _single(part, data, out, extended, limits)
        if extended:
            out.append(b" " + unfolded(part.fields.get(b"md5")))
    if extended:
        _common(part, out, limits)
    out.append(b")")


def _single(part: Part, data: bytes, out: list[bytes], extended: bool, limits: MimeLimits) -> None:
    is_text = part.type.lower() == b"text"
    if part.embedded is not None:
        media = b'"message" "rfc822"' if part.kind == b"message/rfc822" else b'"message" "global"'
    elif part.opaque:
        media = b'"application" "octet-stream"'
    else:
        media = b"%b %b" % (string(part.type), string(part.subtype))
    fields = part.fields
    out.append(
        b"%b %b %b %b %b %d"
        % (
            media,
            _params(part.params, is_text),
            unfolded(fields.get(b"id")),
            unfolded(fields.get(b"description")),
            string(part.encoding or b"7bit"),
            part.end - part.body_start,
        )
    )
    if is_text:
        out.append(b" %d" % part.lines)
    elif part.embedded is not None:
        header = data[part.embedded.start : part.embedded.body_start]
        out.append(b" " + envelope(header, limits) + b" ")
        _write(part.embedded, data, out, extended, limits)
        out.append(b" %d" % part.lines)


def _params(params: Parameters, is_text: bool) -> bytes:
    if not params:
        return b'("charset" "us-ascii")' if is_text else b"NIL"
    words = [string(word) for pair in params for word in pair]
    if is_text and not any(name.lower() == b"charset" for name, _ in params):
        words.append(b'"charset" "us-ascii"')
    return b"(" + b" ".join(words) + b")"


def _common(part: Part, out: list[bytes], limits: MimeLimits) -> None:
    """Disposition, language and location."""
    fields = part.fields
    field = fields.get(b"disposition")
    parsed = disposition(field, limits.parameters) if field is not None else None
    if parsed is None:
        out.append(b" NIL")
    else:
        out.append(b" (%b %b)" % (string(parsed[0]), _params(parsed[1], False)))
    field = fields.get(b"language")
    tags = languages(field) if field is not None else []
    out.append(b" (%b)" % b" ".join([string(tag) for tag in tags]) if tags else b" NIL")
    out.append(b" " + unfolded(fields.get(b"location")))
