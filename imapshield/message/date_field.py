"""The Date field (RFC 5322 section 3.3, with the obsolete forms of section 4.3) into numbers."""

from __future__ import annotations

import re
from datetime import date
from email.utils import mktime_tz, parsedate_tz
from typing import Final, NamedTuple

# Far longer than a date with any comments in it: what follows is not read.
_OCTETS: Final = 1024
_marks = re.compile(r"\\.|[()]", re.DOTALL)
_spaced = re.compile(r"\s++(?=[:,])|(?<=:)\s++")


class SentDate(NamedTuple):
    """When a message was sent: the day as it was written, whatever the zone, and the instant."""

    day: date
    epoch: int


def parse_date_field(value: bytes) -> SentDate | None:
    """Read the body of a Date field; None where no date and time can be made out.

    Comments and spaces may stand anywhere (obs-date-time); no zone is UTC. More is understood than
    the RFCs allow, but not a time of day that there is none of.
    """
    text = _without_comments(value[:_OCTETS].decode("ascii", "replace"))
    try:
        parsed = parsedate_tz(_spaced.sub("", text))
        if parsed is None or parsed[3] > 23 or parsed[4] > 59 or parsed[5] > 60:
            return None
        return SentDate(date(*parsed[:3]), int(mktime_tz(parsed)))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def _without_comments(text: str) -> str:
    if "(" not in text:
        return text
    kept, depth, start = [], 0, 0
    for mark in _marks.finditer(text):
        found = mark[0]
        if found == "(":
            if depth == 0:
                kept.append(text[start : mark.start()])
            depth += 1
        elif found == ")" and depth:
            depth -= 1
            start = mark.end()
    if depth == 0:
        kept.append(text[start:])
    return " ".join(kept)
