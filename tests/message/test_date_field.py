"""A Date field is read in every form that RFC 5322 allows; an invalid Date field has no result."""

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.date_field import SentDate, parse_date_field


class DateFieldTests(SynchronousTestCase):
    def test_all_forms_of_rfc_5322_are_read(self) -> None:
        """Zones, two-digit years, folds, comments, spaces around colons and days before 1970 are read."""
        for value, sent in (
            (b"Thu, 1 Jan 1970 01:00:10 +0100", SentDate(date(1970, 1, 1), 10)),
            (b"1 Jan 1970 00:00:20", SentDate(date(1970, 1, 1), 20)),
            (b"1 Jan 70 00:00 GMT", SentDate(date(1970, 1, 1), 0)),
            (b"Wed, 31 Dec 1969 23:00:00 -0200", SentDate(date(1969, 12, 31), 3600)),
            (b"Tue, 30 Dec 1969 00:00:00 +0000", SentDate(date(1969, 12, 30), -172800)),
            (
                b"Thu,\r\n 1\r\n Jan\r\n 1970\r\n 00:00:05\r\n +0000 (here)",
                SentDate(date(1970, 1, 1), 5),
            ),
            (
                b"(a) Thu(b), 1 (c(d)) Jan 1970 00(e) :\t01 : 07 +0000",
                SentDate(date(1970, 1, 1), 67),
            ),
            (rb"1 Jan 1970 (a \) b \( c) 00:00:08 (\\) +0000", SentDate(date(1970, 1, 1), 8)),
            (b"1 Jan 1970 00:00:09 +0000 (never closed", SentDate(date(1970, 1, 1), 9)),
            (b"Thu, 31 Dec 1998 23:59:60 +0000", SentDate(date(1998, 12, 31), 915148800)),
        ):
            self.assertEqual(parse_date_field(value), sent, value)

    def test_invalid_date_has_no_result(self) -> None:
        """A text that is not a date, and a date with an impossible day or time, have no result."""
        for value in (
            b"",
            b"never",
            b"99 Foo 99999999999 00:00",
            b"1 Jan 1970 24:00:00 +0000",
            b"1 Jan 1970 59:10 +0000",
            b"1 Jan 1970 10:60:00 +0000",
            b"1 Jan 1970 10:00:61 +0000",
            b"0 Jan 1970 10:00:00 +0000",
            b"31 Feb 1970 10:00:00 +0000",
            b"31 Dec 10000 10:00:00 +0000",
            b"(1 Jan 1970 10:00:00 +0000",
            b"(" * 100_000,
            b" " * 100_000 + b",",
        ):
            self.assertEqual(parse_date_field(value), None, value[:99])
