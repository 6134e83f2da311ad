"""Dates agree with the calendar, whatever the locale is."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.dates import encode_internaldate, parse_date, parse_date_time
from tests.wire.part_writer import MONTHS, date_time
from tests.wire.strategies import LAWS


class DateTests(SynchronousTestCase):
    @LAWS
    @given(st.integers(-62135000000, 253402200000))
    def test_internaldate_is_parsed_as_written(self, epoch: int) -> None:
        """A time that is encoded and parsed again is the same."""
        octets = encode_internaldate(epoch)
        self.assertEqual(len(octets), 28)
        self.assertEqual(parse_date_time(octets[1:-1]), epoch)

    @LAWS
    @given(st.integers(-62135000000, 253402200000), st.integers(-1439, 1439))
    def test_internaldate_agrees_with_datetime(self, epoch: int, zone: int) -> None:
        """The encoded time is that of `datetime`, and a time in any zone is parsed as the same moment."""
        self.assertEqual(encode_internaldate(epoch), b'"%b"' % date_time(epoch, 0))
        self.assertEqual(parse_date_time(date_time(epoch, zone)), epoch)

    @LAWS
    @given(st.dates())
    def test_encoded_date_is_parsed_as_the_same_day(self, day: date) -> None:
        """A date that is encoded and parsed again is the same day."""
        text = f"{day.day}-{MONTHS[day.month - 1]}-{day.year:04}"
        self.assertEqual(parse_date(text.encode()), day)

    def test_all_forms_of_dates_are_parsed(self) -> None:
        """The example of RFC 9051, days of one digit with and without the space, any case, and a leap second are parsed."""
        self.assertEqual(encode_internaldate(837596665), b'"17-Jul-1996 09:44:25 +0000"')
        for octets in (
            b" 7-Jul-1996 02:44:25 -0700",
            b"7-Jul-1996 02:44:25 -0700",
            b"07-JUL-1996 02:44:25 -0700",
        ):
            self.assertEqual(parse_date_time(octets), 836732665)
        self.assertEqual(parse_date(b"1-feb-1994"), date(1994, 2, 1))
        self.assertEqual(parse_date_time(b"31-Dec-2016 23:59:60 +0000"), 1483228800)

    def test_invalid_dates_are_refused(self) -> None:
        """Texts that are not dates, and days and times that do not exist, are refused."""
        for octets in (
            b"", b"1-Feb-94", b"30-Feb-1994", b"0-Feb-1994", b"1-Foo-1994", b"1-Feb-0000",
            b"1/2/1994", b"001-Feb-1994", b"1-Feb-1994 ", b"1-Feb-19\xb24", b"-1-Feb-1994",
            b"1-Feb-1994\n",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse_date, octets)
        for octets in (
            b"", b"17-Jul-1996 02:44:25", b"17-Jul-1996 24:00:00 +0000",
            b"17-Jul-1996 02:60:00 +0000", b"17-Jul-1996 02:44:61 +0000",
            b"17-Jul-1996 02:44:25 +2400", b"17-Jul-1996 02:44:25 +0060",
            b"17-Jul-1996 02:44:25 GMT", b"31-Jun-1996 02:44:25 +0000",
            b"  7-Jul-1996 02:44:25 -0700", b"17-Jul-1996  02:44:25 -0700",
            b"17-Jul-1996 2:44:25 -0700",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse_date_time, octets)

    def test_time_outside_the_calendar_is_encoded(self) -> None:
        """A time outside the years 1 to 9999, which the mtime of a file may have, is still encoded as a date."""
        for epoch in (10**18, -(10**18), 2**63 - 1):
            self.assertEqual(len(encode_internaldate(epoch)), 28)
