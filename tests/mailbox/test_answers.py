"""What SEARCH compares is what somebody wrote."""

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.answers import header_text, sent_date


class Answers(SynchronousTestCase):
    def test_addresses(self) -> None:
        """An address is found as it is written and as ENVELOPE shows it, but not by what it lacks."""
        for value, shown in (
            (b"ann@example.org", ["ann@example.org"]),
            (
                b"Ann <ann (home)@ (work) example.org>",
                ["ann <ann (home)@ (work) example.org>", "ann@example.org"],
            ),
            (b"Ann <ann>", ["ann <ann>"]),
            (b"Ann, b@c", ["ann, b@c", "b@c"]),
            (b"a@", ["a@"]),
            (b"<@b>", ["<@b>"]),
            (b"Ann <a@b", ["ann <a@b"]),
        ):
            self.assertEqual(header_text(b"From: %b\r\n\r\n" % value, b"from"), shown, value)

    def test_sent(self) -> None:
        """Of two Date fields the last, which ENVELOPE shows; of what is none, none."""
        twice = b"Date: 1 Jan 2001 00:00 +0000\r\nDate: 2 Feb 2002 23 (h):59 -0800\r\n\r\n"
        self.assertEqual(sent_date(twice), date(2002, 2, 2))
        self.assertEqual(sent_date(b"Date: soon\r\n\r\n"), None)
        self.assertEqual(sent_date(b"\r\n"), None)
