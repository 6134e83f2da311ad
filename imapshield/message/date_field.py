"""Parses the Date field (RFC 5322 section 3.3, and the obsolete forms of section 4.3)."""

import re
from datetime import date
from email.utils import mktime_tz, parsedate_tz
from typing import Final, NamedTuple

# Bytes of the field that are read. Genuine dates with comments are much shorter.
_MAX_LENGTH: Final = 1024
_comment_marks = re.compile(r"\\.|[()]", re.DOTALL)
_spaces_to_drop = re.compile(r"\s++(?=[:,])|(?<=:)\s++")


class SentDate(NamedTuple):
    """When a message was sent.

    Attributes:
        day: the day as written in the field, in the zone of the field.
        epoch: the time in seconds since the epoch.
    """

    day: date
    epoch: int


def parse_date_field(value: bytes) -> SentDate | None:
    """Return the date in the body of a Date field, or None if no date and time can be recognized.

    Comments and spaces are permitted between any two tokens (obs-date-time). A missing zone is UTC. More forms are
    accepted than the RFCs allow, but the time of day must exist.
    """
    text = _without_comments(value[:_MAX_LENGTH].decode("ascii", "replace"))
    try:
        parsed = parsedate_tz(_spaces_to_drop.sub("", text))
        if parsed is None or parsed[3] > 23 or parsed[4] > 59 or parsed[5] > 60:
            return None
        return SentDate(date(*parsed[:3]), int(mktime_tz(parsed)))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def _without_comments(text: str) -> str:
    if "(" not in text:
        return text
    parts, depth, start = [], 0, 0
    for match in _comment_marks.finditer(text):
        mark = match[0]
        if mark == "(":
            if depth == 0:
                parts.append(text[start : match.start()])
            depth += 1
        elif mark == ")" and depth:
            depth -= 1
            start = match.end()
    if depth == 0:
        parts.append(text[start:])
    return " ".join(parts)
