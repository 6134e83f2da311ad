"""Finds fields in header blocks, and parses field bodies into MIME parameters, tokens and text.

A header block is the bytes of a header, with or without the blank line at its end. Field bodies keep their folds, which
`imap_string.unfolded_nstring` and `decode_header` remove.
"""

import binascii
import re
from functools import lru_cache

from imapshield.message.charsets import to_text
from imapshield.message.chunks import SCAN_SIZE
from imapshield.message.lexer import BROKEN, END, MORE, TOKEN, Cursor
from imapshield.message.pauses import pause_point
from imapshield.message.transfer_encoding import decode_base64

Parameters = list[tuple[bytes, bytes]]
"""MIME parameters as (name, value), in their order."""

_Section = tuple[bytes, int, bool, bytes]
"""One section of an RFC 2231 parameter: (name, number, whether it is percent-encoded, value)."""

KNOWN_TYPES = 256
MAX_KNOWN_TYPE_SIZE = 80
"""Bodies of Content-Type fields that are remembered, and bytes of the longest one."""

_SPACE = rb"[ \t\r\n]*+"
_WORD = b"([" + TOKEN + b"]++)"
_NAME = b"([" + TOKEN.replace(b"*", b"") + b"]++)"
_VALUE = rb'(?:"([^"\\\r\n\0]*+)"|' + _WORD + b")"
_VALUE_END = _SPACE + rb"(?=;|\Z)"
_token_only = re.compile(_SPACE + _WORD + _SPACE).fullmatch
_token_first = re.compile(_SPACE + _WORD).match
_type = re.compile(_SPACE + _WORD + b"/" + _WORD + _VALUE_END).match
_disposition = re.compile(_SPACE + _WORD + _VALUE_END).match
_parameter = re.compile(b";" + _SPACE + _NAME + b"=" + _VALUE + _VALUE_END).match
_section_name = re.compile(rb"([^*]*+)(?:\*([0-9]{0,9}))(\*?)").fullmatch
_encoded_word = re.compile(rb"=\?([^?]*+)\?([bBqQ])\?([^?]*+)\?=")
_fold = re.compile(rb"\r?\n")
_is_blank = re.compile(_SPACE).fullmatch


def header_end(data: bytes, start: int, limit: int) -> int:
    """Return where a header ends with its blank line, or -1 if there is no blank line before `limit`.

    Lines end with CRLF or with LF alone, and one header may contain both.
    """
    if data.startswith(b"\r\n", start):
        return start + 2
    if data.startswith(b"\n", start):
        return start + 1
    limit = min(limit, len(data))
    while start < limit:
        # Both are searched in one piece before the next, because a message usually has one of them only.
        stop = min(start + SCAN_SIZE, limit)
        with_cr = data.find(b"\n\r\n", start, stop)
        bare = data.find(b"\n\n", start, stop if with_cr < 0 else with_cr + 1)
        if bare >= 0:
            return bare + 2
        if with_cr >= 0:
            return with_cr + 3
        if stop == limit:
            break
        pause_point()
        start = stop - 2
    return -1


def field_end(block: bytes, pos: int) -> int:
    """Return where the field that contains `pos` ends, including its last line end."""
    size = len(block)
    find = block.find
    while True:
        pos = find(b"\n", pos) + 1
        if not pos:
            return size
        if pos >= size or block[pos] not in b" \t":
            return pos


def field_body(block: bytes, colon: int, end: int) -> bytes:
    """Return the body of a field, without the space before it and the line end after it.

    Args:
        block: the header block.
        colon: the position of the field's colon.
        end: where the field ends (`field_end`).
    """
    raw = block[colon + 1 : end]
    raw = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
    body = raw.lstrip(b" \t")
    if body[:1] in b"\r\n" and raw[:1] in (b" ", b"\t"):
        # If the first line is blank, only its first space or tab is removed.
        body = raw[1:]
    return body


def header_values(header: bytes, name: bytes) -> list[bytes]:
    """Return the bodies of all fields with a name, in the order of the message and with their folds.

    Args:
        header: the header block.
        name: a field name in any case.
    """
    block = b"\n" + header
    return find_values(block, block.lower(), name.lower())


def find_values(block: bytes, low: bytes, name: bytes) -> list[bytes]:
    """Return what `header_values` returns. If several names are looked up, the header is copied only once.

    Args:
        block: a line end and the header block.
        low: `block` in lower case.
        name: a field name in lower case.
    """
    found = []
    needle = b"\n" + name
    pos = low.find(needle)
    while pos >= 0:
        colon = pos + len(needle)
        while low[colon : colon + 1] in (b" ", b"\t"):
            colon += 1
        if low[colon : colon + 1] == b":":
            end = field_end(block, colon)
            found.append(field_body(block, colon, end))
            pos = end - 2
        pos = low.find(needle, pos + 1)
    return found


def parse_content_type(body: bytes, limit: int) -> tuple[bytes, bytes, Parameters]:
    """Return the body of a Content-Type field as (type, subtype, parameters), each as written.

    An unreadable one is (b"", b"", []). It is not text/plain, because a client must not display the part as such.

    Args:
        body: the field body.
        limit: the maximum number of parameters.
    """
    match = _type(body)
    if match is not None:
        return match[1], match[2], parse_parameters(body, match.end(), limit)
    cursor = Cursor(body)
    main: list[bytes] = []
    sub: list[bytes] = []
    if cursor.skip_space() != MORE or cursor.token(main) != MORE:
        return b"".join(main), b"", []
    if not main[0] or not cursor.at(b"/"):
        return b"", b"", []
    cursor.pos += 1
    if cursor.skip_space() != MORE or cursor.token(sub) == BROKEN or not sub[0]:
        return b"", b"", []
    if cursor.pos < cursor.end and not cursor.at(b";"):
        return b"", b"", []
    return main[0], sub[0], parse_parameters(body, cursor.pos, limit)


_known_content_type = lru_cache(KNOWN_TYPES)(parse_content_type)


def content_type(body: bytes, limit: int) -> tuple[bytes, bytes, Parameters]:
    """Return what `parse_content_type` returns, with parameters that must not be changed.

    Most bodies are one of a few, such as ``text/plain; charset=utf-8``.
    """
    parse = _known_content_type if len(body) <= MAX_KNOWN_TYPE_SIZE else parse_content_type
    return parse(body, limit)


def sole_token(body: bytes) -> bytes:
    """Return the token that is the whole field body, or b"" if the body is not exactly one token."""
    match = _token_only(body)
    if match is not None:
        return match[1]
    cursor = Cursor(body)
    text: list[bytes] = []
    if cursor.skip_space() == MORE and cursor.token(text) == END:
        return text[0]
    return b""


def leading_token(body: bytes) -> bytes:
    """Return the first token of a field body in lower case, or b"" if the body does not begin with a token."""
    match = _token_first(body)
    return match[1].lower() if match is not None else b""


def parse_disposition(body: bytes, limit: int) -> tuple[bytes, Parameters] | None:
    """Return the body of a Content-Disposition field as (disposition, parameters), or None if it is unreadable."""
    match = _disposition(body)
    if match is not None:
        return match[1], parse_parameters(body, match.end(), limit)
    cursor = Cursor(body)
    cursor.skip_space()
    text: list[bytes] = []
    if cursor.token(text) == BROKEN:
        return None
    return text[0], parse_parameters(body, cursor.pos, limit)


def parse_languages(body: bytes, limit: int) -> list[bytes]:
    """Return the first `limit` language tags of a Content-Language field, up to the first text that is not a tag."""
    cursor = Cursor(body)
    found: list[bytes] = []
    cursor.skip_space()
    while True:
        text: list[bytes] = []
        if cursor.atom(text) == BROKEN:
            return found
        found.append(text[0])
        if not cursor.at(b",") or len(found) >= limit:
            return found
        cursor.pos += 1
        cursor.skip_space()


def parse_parameters(body: bytes, pos: int, limit: int) -> Parameters:
    """Return the MIME parameters of a field body.

    The sections of RFC 2231 section 3 are joined: ``name*0*=`` and ``name*1=`` become one ``name*``. Its value stays
    percent-encoded and keeps the charset at its start, because clients decode it themselves.

    Args:
        body: the field body.
        pos: where the first ``; name=value`` starts.
        limit: the maximum number of parameters, and of attempts to read one.
    """
    found: Parameters = []
    sections: list[_Section] = []
    size = len(body)
    while pos < size and len(found) < limit:
        match = _parameter(body, pos)
        if match is None:
            _parse_irregular_parameters(Cursor(body, pos), limit, found, sections)
            break
        value = match[2]
        found.append((match[1], match[3] if value is None else value))
        pos = match.end()
    if sections:
        found += _join_sections(sections)
    return found


def _parse_irregular_parameters(
    cursor: Cursor, limit: int, found: Parameters, sections: list[_Section]
) -> None:
    """Read the parameters that follow the first one with an irregular form."""
    for _ in range(len(found), limit):
        if cursor.pos >= cursor.end:
            return
        pair = _parse_parameter(cursor)
        if pair is None:
            # Skip to the next semicolon, where a readable parameter may start.
            cursor.pos = cursor.data.find(b";", cursor.pos + 1)
            if cursor.pos < 0:
                return
            continue
        name, value = pair
        match = _section_name(name)
        if match is None:
            found.append(pair)
        else:
            is_encoded = bool(match[3]) or not match[2]
            sections.append((match[1], int(match[2] or b"0"), is_encoded, value))


def _parse_parameter(cursor: Cursor) -> tuple[bytes, bytes] | None:
    if not cursor.at(b";"):
        return None
    cursor.pos += 1
    name: list[bytes] = []
    if cursor.skip_space() != MORE or cursor.token(name) != MORE or not cursor.at(b"="):
        return None
    cursor.pos += 1
    value: list[bytes] = []
    stopped = cursor.skip_space()
    if stopped == MORE:
        if cursor.at(b'"'):
            stopped = cursor.quoted(value)
        elif cursor.at(b"="):
            stopped = cursor.encoded_value(value)
        else:
            stopped = cursor.token(value)
    return None if stopped == BROKEN else (name[0], b"".join(value))


def _join_sections(sections: list[_Section]) -> Parameters:
    """Join the sections of each parameter. If one is missing, return the sections as parameters of their own."""
    groups: list[list[_Section]] = []
    for section in sorted(sections, key=lambda section: section[:2]):
        if groups and groups[-1][0][0].lower() == section[0].lower():
            groups[-1].append(section)
        else:
            groups.append([section])
    found: Parameters = []
    for group in groups:
        name = group[0][0]
        if any(section[1] != expected for expected, section in enumerate(group)):
            for own_name, number, is_encoded, value in group:
                found.append((b"%b*%d%b" % (own_name, number, b"*" if is_encoded else b""), value))
        elif any(is_encoded for _, _, is_encoded, _ in group):
            charset = b"" if group[0][2] else b"''"
            values = [value if enc else value.replace(b"%", b"%25") for _, _, enc, value in group]
            found.append((name + b"*", charset + b"".join(values)))
        else:
            found.append((name, b"".join(value for _, _, _, value in group)))
    return found


def unfold(body: bytes) -> bytes:
    """Return `body` without its line ends, but with the white space after them (RFC 5322 section 2.2.3).

    A tab at the start of a line becomes a space. Many mailers that fold at a space replace it with a tab, and a user
    who searches for two words cannot know where the line was folded.
    """
    return _fold.sub(b"", body.replace(b"\n\t", b"\n ")) if b"\n" in body else body


def decode_header(body: bytes) -> str:
    """Return a field body as text: unfolded, with encoded words decoded (RFC 2047) and 8-bit bytes read as UTF-8.

    Text that only resembles an encoded word is not changed.
    """
    body = unfold(body)
    if b"=?" not in body:
        return to_text(body, b"")
    texts: list[str] = []
    word_bytes: list[bytes] = []
    charset = b""
    pos = 0
    for word in _encoded_word.finditer(body):
        pause_point()
        gap = body[pos : word.start()]
        word_charset = word[1].partition(b"*")[0].lower()
        if not word_bytes or not _is_blank(gap):
            if word_bytes:
                texts.append(to_text(b"".join(word_bytes), charset))
                word_bytes = []
            texts.append(to_text(gap, b""))
        elif word_charset != charset:
            texts.append(to_text(b"".join(word_bytes), charset))
            word_bytes = []
        charset = word_charset
        # Adjacent words with one charset are joined before they are decoded, because many mailers split a character
        # between two words.
        word_bytes.append(_decode_word(word[2], word[3]))
        pos = word.end()
    texts.append(to_text(b"".join(word_bytes), charset))
    texts.append(to_text(body[pos:], b""))
    return "".join(texts)


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    return decode_base64(text) if encoding in b"bB" else binascii.a2b_qp(text, header=True)
