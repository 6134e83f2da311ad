"""Dates: RFC 9051 ``date`` and ``date-time`` ⇄ `datetime.date`, epoch seconds and zone minutes.

Arithmetic only: strptime would ask the locale for the months' names, and costs ten times as much.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

from imapshield.errors import BadCommand

MONTHS = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip

_MONTH = {name.lower(): number for number, name in enumerate(MONTHS, 1)}
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY = 86400

# date-text      = date-day "-" date-month "-" date-year
# date-day       = 1*2DIGIT
# date-month     = "Jan" / "Feb" / "Mar" / … (ABNF strings have no case)
# date-year      = 4DIGIT
_DATE = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")

# date-time      = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
# date-day-fixed = (SP DIGIT) / 2DIGIT
# time           = 2DIGIT ":" 2DIGIT ":" 2DIGIT
# zone           = ("+" / "-") 4DIGIT
# One digit without its space is read too: several clients write "1-Jan-2024 …".
_DATE_TIME = re.compile(
    rb" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})"
    rb" ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"
)


def parse_date(octets: bytes) -> date:
    """Read ``date-text``, its quotes removed; Malformed if there is no such day."""
    found = _DATE.fullmatch(octets)
    if found is None:
        raise BadCommand("Expected a date such as 17-Jul-1996")
    return _day(*found.groups())


def parse_date_time(octets: bytes) -> tuple[int, int]:
    """Read ``date-time``, its quotes removed, as (epoch seconds, zone minutes east of UTC).

    Malformed.
    """
    found = _DATE_TIME.fullmatch(octets)
    if found is None:
        raise BadCommand('Expected a date and time such as "17-Jul-1996 02:44:25 -0700"')
    days = _day(*found.group(1, 2, 3)).toordinal() - _EPOCH_DAY
    hour, minute, second, zone_hour, zone_minute = map(int, found.group(4, 5, 6, 8, 9))
    # 60 is a leap second: legal in RFC 5322 dates, which clients copy.
    if hour > 23 or minute > 59 or second > 60 or zone_hour > 23 or zone_minute > 59:
        raise BadCommand("There is no such time of day")
    zone = zone_hour * 60 + zone_minute
    if found[7] == b"-":
        zone = -zone
    return days * _DAY + hour * 3600 + minute * 60 + second - zone * 60, zone


def encode_date(day: date) -> bytes:
    """Return ``date-text``, such as ``17-Jul-1996``."""
    return b"%d-%b-%04d" % (day.day, MONTHS[day.month - 1], day.year)


def encode_internaldate(epoch: int, zone: int = 0) -> bytes:
    """Return quoted ``date-time`` for `epoch` seconds on a clock `zone` minutes east of UTC."""
    days, seconds = divmod(epoch + zone * 60, _DAY)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return b"%b%02d:%02d:%02d %b" % (_day_text(days), hour, minute, second, _zone_text(zone))


@lru_cache(maxsize=4096)
def _day_text(days: int) -> bytes:
    # A file's mtime can be any number; one that no date can show is shown as the nearest that one
    # can.
    day = date.fromordinal(min(max(days + _EPOCH_DAY, 1), date.max.toordinal()))
    return b'"%02d-%b-%04d ' % (day.day, MONTHS[day.month - 1], day.year)


@lru_cache(maxsize=256)
def _zone_text(zone: int) -> bytes:
    return b'%b%02d%02d"' % (b"-" if zone < 0 else b"+", *divmod(abs(zone), 60))


def _day(day: bytes, month: bytes, year: bytes) -> date:
    number = _MONTH.get(month.lower())
    if number is None:
        raise BadCommand("There is no such month")
    try:
        return date(int(year), number, int(day))
    except ValueError:
        raise BadCommand("There is no such day") from None
