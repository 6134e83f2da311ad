"""Header blocks into field bodies, field bodies into MIME parameters and text.

A block is a header as it stands in the message, with or without the blank line at its end. Field
bodies keep their folds; `quoting.unfolded` and `decode_header` take them out.
"""

from __future__ import annotations

import binascii
import re

from imapshield.message.charsets import to_text
from imapshield.message.lexer import BROKEN, END, MORE, TOKEN, Cursor
from imapshield.message.transfer_encoding import decode_base64

Parameters = list[tuple[bytes, bytes]]

_token_only = re.compile(b"[ \t\r\n]*+([" + TOKEN + b"]++)[ \t\r\n]*+").fullmatch
_token_first = re.compile(b"[ \t\r\n]*+([" + TOKEN + b"]++)").match
_type = re.compile(
    b"[ \t\r\n]*+([" + TOKEN + b"]++)/([" + TOKEN + rb"]++)[ \t\r\n]*+(?=;|\Z)"
).match
_parameter = re.compile(
    b";[ \t\r\n]*+(["
    + TOKEN.replace(b"*", b"")
    + rb']++)=(?:"([^"\\\r\n\0]*+)"|(['
    + TOKEN
    + rb"]++))[ \t\r\n]*+(?=;|\Z)"
).match
_index = re.compile(rb"([^*]*+)(?:\*([0-9]{0,9}))(\*?)").fullmatch
_encoded_word = re.compile(rb"=\?([^?]*+)\?([bBqQ])\?([^?]*+)\?=")
_fold = re.compile(rb"\r?\n")
_blank = re.compile(rb"[ \t\r\n]*+").fullmatch


def field_end(block: bytes, pos: int) -> int:
    """Where the field that `pos` is in ends, after its last line end."""
    size = len(block)
    find = block.find
    while True:
        pos = find(b"\n", pos) + 1
        if not pos:
            return size
        if pos >= size or block[pos] not in b" \t":
            return pos


def field_body(block: bytes, colon: int, end: int) -> bytes:
    """Return what stands from the colon to the field's end, less space after it and line end."""
    stop = end
    if block[end - 1] == 0x0A:
        stop -= 2 if block[end - 2] == 0x0D and end - 2 > colon else 1
    raw = block[colon + 1 : stop]
    body = raw.lstrip(b" \t")
    if body[:1] in b"\r\n" and raw[:1] in (b" ", b"\t"):
        # Nothing but blanks in the first line: only the first of them goes.
        body = raw[1:]
    return body


def header_values(header: bytes, name: bytes) -> list[bytes]:
    """Return the bodies of all fields called `name`, in the order of the message, folds kept.

    Args:
        header: the block.
        name: a field name in any case.
    """
    block = b"\n" + header
    return find_values(block, block.lower(), name.lower())


def find_values(block: bytes, low: bytes, name: bytes) -> list[bytes]:
    """Do as `header_values`; `block` starts with a line end, `low` is `block` in lower case."""
    found = []
    needle = b"\n" + name
    at = low.find(needle)
    while at >= 0:
        colon = at + len(needle)
        while low[colon : colon + 1] in (b" ", b"\t"):
            colon += 1
        if low[colon : colon + 1] == b":":
            end = field_end(block, colon)
            found.append(field_body(block, colon, end))
            at = end - 2
        at = low.find(needle, at + 1)
    return found


def parse_content_type(body: bytes, limit: int) -> tuple[bytes, bytes, Parameters]:
    """Return a Content-Type body as (type, subtype, parameters), each as written.

    What cannot be read at all is (b"", b"", []): not text/plain, for a client must not show it as
    if it were.
    """
    match = _type(body)
    if match is not None:
        return match[1], match[2], parse_parameters(body, match.end(), limit)
    cursor = Cursor(body)
    main: list[bytes] = []
    sub: list[bytes] = []
    if cursor.skip() != MORE or cursor.token(main) != MORE:
        return b"".join(main), b"", []
    if not main[0] or not cursor.at(b"/"):
        return b"", b"", []
    cursor.pos += 1
    if cursor.skip() != MORE or cursor.token(sub) == BROKEN or not sub[0]:
        return b"", b"", []
    if cursor.pos < cursor.end and not cursor.at(b";"):
        return b"", b"", []
    return main[0], sub[0], parse_parameters(body, cursor.pos, limit)


def sole_token(body: bytes) -> bytes:
    """Return the one token that a body consists of, b"" if it does not."""
    match = _token_only(body)
    if match is not None:
        return match[1]
    cursor = Cursor(body)
    text: list[bytes] = []
    if cursor.skip() == MORE and cursor.token(text) == END:
        return text[0]
    return b""


def leading_token(body: bytes) -> bytes:
    """Return the token that a body begins with, in lower case, whatever follows it."""
    match = _token_first(body)
    return match[1].lower() if match is not None else b""


def parse_disposition(body: bytes, limit: int) -> tuple[bytes, Parameters] | None:
    """Return a Content-Disposition body as (disposition, parameters); None if it is broken."""
    cursor = Cursor(body)
    cursor.skip()
    text: list[bytes] = []
    if cursor.token(text) == BROKEN:
        return None
    return text[0], parse_parameters(body, cursor.pos, limit)


def parse_languages(body: bytes) -> list[bytes]:
    """Return the tags of a Content-Language body, up to the first that is none."""
    cursor = Cursor(body)
    found: list[bytes] = []
    cursor.skip()
    while True:
        text: list[bytes] = []
        if cursor.atom(text) == BROKEN:
            return found
        found.append(text[0])
        if not cursor.at(b","):
            return found
        cursor.pos += 1
        cursor.skip()


def parse_parameters(body: bytes, pos: int, limit: int) -> Parameters:
    """Read ``; name=value`` pairs from `pos` on, `limit` of them or of attempts at one.

    The pieces of RFC 2231 section 3 are put together: ``name*0*=``, ``name*1=`` are sent as one
    ``name*``, its value still percent-encoded with its charset in front, for decoding that is the
    client's right.
    """
    found: Parameters = []
    pieces: list[tuple[bytes, int, bool, bytes]] = []
    size = len(body)
    while pos < size and len(found) < limit:
        match = _parameter(body, pos)
        if match is None:
            _irregular_parameters(Cursor(body, pos), limit, found, pieces)
            break
        value = match[2]
        found.append((match[1], match[3] if value is None else value))
        pos = match.end()
    if pieces:
        found += _joined(pieces)
    return found


def _irregular_parameters(
    cursor: Cursor, limit: int, found: Parameters, pieces: list[tuple[bytes, int, bool, bytes]]
) -> None:
    """Read on after the last parameter of regular form."""
    tries = len(found)
    while cursor.pos < cursor.end and tries < limit:
        pair = _one_parameter(cursor)
        if pair is None:
            # Whatever stands here, the next semicolon may begin a good one.
            at = cursor.data.find(b";", cursor.pos + 1)
            tries += 1
            if at < 0:
                return
            cursor.pos = at
            continue
        tries += 1
        name, value = pair
        match = _index(name)
        if match is None:
            found.append(pair)
        else:
            pieces.append((match[1], int(match[2] or b"0"), bool(match[3]) or not match[2], value))


def _one_parameter(cursor: Cursor) -> tuple[bytes, bytes] | None:
    if not cursor.at(b";"):
        return None
    cursor.pos += 1
    name: list[bytes] = []
    if cursor.skip() != MORE or cursor.token(name) != MORE or not cursor.at(b"="):
        return None
    cursor.pos += 1
    value: list[bytes] = []
    stopped = cursor.skip()
    if stopped == MORE:
        if cursor.at(b'"'):
            stopped = cursor.quoted(value)
        elif cursor.at(b"="):
            stopped = cursor.encoded_value(value)
        else:
            stopped = cursor.token(value)
    return None if stopped == BROKEN else (name[0], b"".join(value))


def _joined(pieces: list[tuple[bytes, int, bool, bytes]]) -> Parameters:
    """Put continuations together; where a piece is missing, return the pieces as they are."""
    groups: list[list[tuple[bytes, int, bool, bytes]]] = []
    for piece in sorted(pieces, key=lambda piece: piece[:2]):
        if groups and groups[-1][0][0].lower() == piece[0].lower():
            groups[-1].append(piece)
        else:
            groups.append([piece])
    found: Parameters = []
    for group in groups:
        name = group[0][0]
        if any(piece[1] != wanted for wanted, piece in enumerate(group)):
            for own, number, extended, value in group:
                found.append((b"%b*%d%b" % (own, number, b"*" if extended else b""), value))
        elif any(extended for _, _, extended, _ in group):
            charset = b"" if group[0][2] else b"''"
            joined = [value if ext else value.replace(b"%", b"%25") for _, _, ext, value in group]
            found.append((name + b"*", charset + b"".join(joined)))
        else:
            found.append((name, b"".join(value for _, _, _, value in group)))
    return found


def unfold(body: bytes) -> bytes:
    """Return `body` without its line ends; white space stays (RFC 5322 section 2.2.3).

    But a tab that begins a line is a space: many mailers fold at a space and put a tab in its place, and who
    searches for two words cannot know where the line was broken.
    """
    return _fold.sub(b"", body.replace(b"\n\t", b"\n ")) if b"\n" in body else body


def decode_header(body: bytes) -> str:
    """Return a field body as text: unfolded, encoded words (RFC 2047) decoded, 8-bit as UTF-8.

    What is not an encoded word after all stands as it is.
    """
    body = unfold(body)
    if b"=?" not in body:
        return to_text(body, b"")
    shown: list[str] = []
    octets: list[bytes] = []
    charset = b""
    done = 0
    for word in _encoded_word.finditer(body):
        between = body[done : word.start()]
        word_charset = word[1].partition(b"*")[0].lower()
        if not octets or not _blank(between):
            if octets:
                shown.append(to_text(b"".join(octets), charset))
                octets = []
            shown.append(to_text(between, b""))
        elif word_charset != charset:
            shown.append(to_text(b"".join(octets), charset))
            octets = []
        charset = word_charset
        # Words of one charset are joined before they are decoded: many mailers cut inside a
        # character.
        octets.append(_word(word[2], word[3]))
        done = word.end()
    shown.append(to_text(b"".join(octets), charset))
    shown.append(to_text(body[done:], b""))
    return "".join(shown)


def _word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"bB":
        return decode_base64(text)
    return binascii.a2b_qp(text, header=True)
