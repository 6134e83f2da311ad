"""Computes the sort keys of SORT and THREAD from header fields, and sorts by them (RFC 5256, RFC 5957).

Rules
-----
* Everything takes time linear in the mail, whatever it contains: a subject may consist of a thousand brackets.
"""

import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence

from imapshield.message import date_field
from imapshield.message.addresses import parse_addresses
from imapshield.message.headers import decode_header, header_values

# Step 1 of RFC 5256 section 2.1. Only these characters are white space there: U+00A0, for example, is not.
_SPACES = re.compile(r"[ \t\r\n]+")
# subj-trailer = "(fwd)" / WSP
_FORWARDED = "(fwd)"
# subj-blob = "[" *BLOBCHAR "]" *WSP
_BLOBS = re.compile(r"(?:\[[^\[\]]*+\] *+)*")
_BLOB = r"(?:\[[^\[\]]*+\] *+)?"
# subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
_REPLY = re.compile(rf"(?:re|fwd?) *+{_BLOB}:", re.IGNORECASE)
_FORWARD = "[fwd:"
_MESSAGE_ID = re.compile(rb"<\s*+([^<>@\s][^<>@]*+@[^<>\s]++)\s*+>")


class _TitleCase(dict[int, str]):
    """Maps each character to the form that RFC 5051 compares: title case, decomposed. Filled on demand."""

    def __missing__(self, code: int) -> str:
        title = chr(code).title()
        decomposed = unicodedata.normalize("NFKD", title if len(title) == 1 else chr(code))
        if len(self) < 1 << 16:
            self[code] = decomposed
        return decomposed


_title_case = _TitleCase()


def collation_key(text: str) -> str:
    """Return the form of `text` that i;unicode-casemap compares (RFC 5051). Compare it by code points."""
    return text.upper() if text.isascii() else text.translate(_title_case)


def base_subject(subject: str) -> tuple[str, bool]:
    """Return the base subject (RFC 5256 section 2.1), and whether the subject is that of a reply or forward.

    The comments number the RFC's steps.
    """
    text = _SPACES.sub(" ", subject)  # Step 1.
    lower = text.lower() if text.isascii() else "".join(c.lower()[:1] for c in text)
    start, stop, is_reply = 0, len(text), False
    while True:
        stop, has_trailer = _without_trailers(text, lower, start, stop)
        start, has_leader = _without_leaders(text, start, stop)
        is_reply = is_reply or has_trailer or has_leader
        # Step 6: the subject of a message that was forwarded as a whole, "[fwd: ...]".
        if not (lower.startswith(_FORWARD, start, stop) and text[stop - 1] == "]"):
            return text[start:stop], is_reply
        start, stop, is_reply = start + len(_FORWARD), stop - 1, True


def _without_trailers(text: str, lower: str, start: int, stop: int) -> tuple[int, bool]:
    """Step 2: return where ``text[start:stop]`` ends without its trailers, and whether "(fwd)" was one of them."""
    is_forward = False
    while stop > start:
        if text[stop - 1] == " ":
            stop -= 1
        elif lower.endswith(_FORWARDED, start, stop):
            stop -= len(_FORWARDED)
            is_forward = True
        else:
            break
    return stop, is_forward


def _without_leaders(text: str, start: int, stop: int) -> tuple[int, bool]:
    """Steps 3 to 5: return where ``text[start:stop]`` starts without its leaders, and whether "re:" was one of them.

    Leaders are spaces, "re:" and "fwd:", and blobs such as "[list]" unless they end the subject.
    """
    is_reply = False
    while start < stop:
        if text[start] == " ":
            start += 1
            continue
        blobs = _BLOBS.match(text, start, stop)
        end = blobs.end() if blobs else start
        if leader := _REPLY.match(text, end, stop):
            start, is_reply = leader.end(), True
        elif end == start:
            break
        elif end < stop:
            start = end
        else:
            start = text.rindex("[", start, stop)  # only blobs are left: the last is the subject
            break
    return start, is_reply


def _last_value(header: bytes, field: bytes) -> bytes | None:
    # If a field occurs twice, the last one counts, as in ENVELOPE.
    values = header_values(header, field)
    return values[-1] if values else None


def subject_key(header: bytes) -> tuple[str, bool]:
    """Return the collation key of a message's base subject, and whether the message is a reply or forward."""
    value = _last_value(header, b"subject")
    if value is None:
        return "", False
    base, is_reply = base_subject(decode_header(value))
    return collation_key(base), is_reply


def date_key(header: bytes, internaldate: int) -> int:
    """Return the sent date in epoch seconds (RFC 5256 section 2.2): the Date field, or `internaldate` if the field is
    missing or unreadable."""
    value = _last_value(header, b"date")
    sent = None if value is None else date_field.parse_date_field(value)
    return internaldate if sent is None else sent.epoch


def address_key(header: bytes, field: bytes) -> str:
    """Return the collation key of an address field: the mailbox of its first address, or the name of its first group.

    The key is empty if there is no address (RFC 5256 section 3, CC, FROM and TO).
    """
    for value in header_values(header, field):
        for address in parse_addresses(value, 1):
            return collation_key((address.mailbox or b"").decode("utf-8", "replace"))
    return ""


def display_key(header: bytes, field: bytes) -> str:
    """Return the collation key of an address field as it is displayed: the first name, or else the address (RFC
    5957)."""
    for value in header_values(header, field):
        for address in parse_addresses(value, 1):
            if address.host is None:  # a group
                return collation_key(decode_header(address.mailbox or b""))
            name = decode_header(address.name or b"")
            if name:
                return collation_key(name)
            shown = b"%b@%b" % (address.mailbox or b"", address.host)
            return collation_key(shown.decode("utf-8", "replace"))
    return ""


def message_ids(header: bytes, field: bytes) -> list[bytes]:
    """Return the message ids in a field. Quotes are removed, so that both spellings of an id are equal."""
    found = []
    for value in header_values(header, field):
        for message_id in _MESSAGE_ID.findall(value):
            local, _, domain = message_id.rpartition(b"@")
            if local[:1] == b'"' and local[-1:] == b'"' and len(local) > 1:
                local = re.sub(rb"\\(.)", rb"\1", local[1:-1])
            found.append(local + b"@" + domain)
    return found


def references(header: bytes) -> list[bytes]:
    """Return the ids of a message's ancestors, the oldest first (RFC 5256 section 3, REFERENCES step 1)."""
    return message_ids(header, b"references") or message_ids(header, b"in-reply-to")[:1]


async def sort_by_keys(
    numbers: Sequence[int],
    keys: Sequence[tuple[bool, Sequence[object]]],
    pause: Callable[[], Awaitable[object]],
) -> Sequence[int]:
    """Return `numbers` in the order of `keys`. Equal messages keep their order, also where a key is reversed.

    Args:
        numbers: sequence numbers or UIDs.
        keys: the sort criteria, the most significant first, as (reverse, a key for each of `numbers`).
        pause: awaited after each criterion.
    """
    order = list(range(len(numbers)))
    for reverse, column in reversed(keys):
        order.sort(key=column.__getitem__, reverse=reverse)  # type: ignore[arg-type]
        await pause()
    return [numbers[i] for i in order]
