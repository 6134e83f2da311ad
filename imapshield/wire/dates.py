"""Parses and encodes the ``date`` and ``date-time`` of RFC 9051.

Arithmetic only: strptime depends on the locale for the names of months, and takes ten times as long.
"""

import re
from datetime import date
from functools import lru_cache

from imapshield.errors import BadCommand

MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

_MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, 1)}
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_SECONDS_PER_DAY = 86400

# date-text      = date-day "-" date-month "-" date-year
# date-day       = 1*2DIGIT
# date-month     = "Jan" / "Feb" / "Mar" / … (ABNF strings have no case)
# date-year      = 4DIGIT
_DATE = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")

# date-time      = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
# date-day-fixed = (SP DIGIT) / 2DIGIT
# time           = 2DIGIT ":" 2DIGIT ":" 2DIGIT
# zone           = ("+" / "-") 4DIGIT
# A day of one digit without the space is accepted too: several clients write "1-Jan-2024 …".
_DATE_TIME = re.compile(
    rb" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})"
    rb" ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"
)


def parse_date(text: bytes) -> date:
    """Parse ``date-text``, without quotes.

    Raises:
        BadCommand: it is not a date, or there is no such day.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        raise BadCommand("Expected a date such as 17-Jul-1996")
    return _day(*found.groups())


def parse_date_time(text: bytes) -> int:
    """Parse ``date-time``, without quotes, and return the seconds since the epoch.

    Raises:
        BadCommand: it is not a date and time, or there is no such day or time.
    """
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        raise BadCommand('Expected a date and time such as "17-Jul-1996 02:44:25 -0700"')
    days = _day(*found.group(1, 2, 3)).toordinal() - _EPOCH_ORDINAL
    hour, minute, second, zone_hour, zone_minute = map(int, found.group(4, 5, 6, 8, 9))
    # Second 60 is a leap second: legal in RFC 5322 dates, which clients copy.
    if hour > 23 or minute > 59 or second > 60 or zone_hour > 23 or zone_minute > 59:
        raise BadCommand("Expected a time from 00:00:00 to 23:59:60 and a zone such as +0100")
    zone = zone_hour * 60 + zone_minute
    if found[7] == b"-":
        zone = -zone
    return days * _SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - zone * 60


def encode_internaldate(epoch: int) -> bytes:
    """Return ``date-time`` in quotes for `epoch` seconds, in UTC."""
    days, seconds = divmod(epoch, _SECONDS_PER_DAY)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return b'%b%02d:%02d:%02d +0000"' % (_day_text(days), hour, minute, second)


@lru_cache(maxsize=4096)
def _day_text(days: int) -> bytes:
    # A file's mtime can be any number. One outside the years 1 to 9999 becomes the nearest date inside.
    day = date.fromordinal(min(max(days + _EPOCH_ORDINAL, 1), date.max.toordinal()))
    return b'"%02d-%b-%04d ' % (day.day, MONTHS[day.month - 1], day.year)


def _day(day: bytes, month: bytes, year: bytes) -> date:
    number = _MONTH_NUMBERS.get(month.lower())
    if number is None:
        raise BadCommand("Expected a month from Jan to Dec")
    try:
        return date(int(year), number, int(day))
    except ValueError:
        raise BadCommand("This day does not exist in the calendar") from None
