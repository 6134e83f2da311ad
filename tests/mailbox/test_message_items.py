"""SEARCH FROM searches the addresses that ENVELOPE returns; SEARCH HEADER searches the original field."""

from datetime import date

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.message_items import MessageItems, header_block, searched_texts, sent_date
from imapshield.message.headers import decode_header
from imapshield.message.text import normalize
from imapshield.wire.commands.fetch import Attribute, BodySection, Section
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey


class HeaderTests(SynchronousTestCase):
    def test_bare_line_feeds(self) -> None:
        """The header ends where the text begins, whether lines end with CRLF or with LF."""
        for header in (
            b"Subject: x\r\nTo: y\r\n\r\n",
            b"Subject: x\nTo: y\n\n",
            b"Subject: x\r\nTo: y\n\n",
            b"Subject: x\nTo: y\n\r\n",
            b"\r\n",
            b"\n",
        ):
            message = MessageItems(header + b"To: z\n\n\r\n\r\nend")
            self.assertEqual(message.content(BodySection(Section((), b"HEADER"))), header)
            text = message.content(BodySection(Section((), b"TEXT")))
            self.assertEqual(header + (text or b""), message.data)
            self.assertNotIn(b'"z"', message.value(Attribute(b"ENVELOPE")))
        self.assertEqual(header_block(b"Subject: x\r\n"), b"Subject: x\r\n")


class SearchedTextTests(SynchronousTestCase):
    def test_from_is_searched_as_in_envelope(self) -> None:
        """FROM searches each address as in ENVELOPE, and HEADER FROM searches the original field; both ignore case."""
        for value, addresses in (
            (b"Ann@example.org", ["ann@example.org"]),
            (b"Ann (the boss) <ann (home)@ (work) example.org>", ["ann <ann@example.org>"]),
            (b"ann@example.org (Ann O'Hara)", ["ann o'hara <ann@example.org>"]),
            (b'"O\\"Hara, Ann" <"ann o"@example.org>', ['o"hara, ann <ann o@example.org>']),
            (b"=?utf-8?q?Zo=C3=AB?=\r\n  =?utf-8?q?_Q?= <zoe@q>", ["zoe\u0308 q <zoe@q>"]),
            (b"<@a,@b:c@d>", ["@a,@b:c@d"]),
            (
                b'"My  =?utf-8?q?=54eam?=": a@b, C <c@d>;, e@f',
                ["my  team", "a@b", "c <c@d>", "e@f"],
            ),
            (b"none:;", ["none"]),
            (b"Ann, b@c", ["ann@missing_domain", "b@c"]),
            (b"(nobody)", []),
            (b"", []),
        ):
            header = b"From: %b\r\n\r\n" % value
            self.assertEqual(searched_texts(header, EnvelopeKey(b"FROM", "")), addresses, value)
            original = [normalize(decode_header(value))]
            self.assertEqual(searched_texts(header, HeaderKey(b"FROM", "")), original, value)

    def test_repeated_fields_are_searched_as_in_envelope(self) -> None:
        """FROM and SUBJECT search every address and the last subject of repeated fields, as in ENVELOPE."""
        header = b"To: a@b\r\nSubject: One\r\nto: c@d\r\nSubject:  Two \r\n  words\r\n\r\n"
        self.assertEqual(searched_texts(header, EnvelopeKey(b"TO", "")), ["a@b", "c@d"])
        self.assertEqual(searched_texts(header, EnvelopeKey(b"SUBJECT", "")), ["two words"])
        self.assertEqual(searched_texts(header, HeaderKey(b"SUBJECT", "")), ["one", "two   words"])

    def test_fold_is_searched_as_one_space(self) -> None:
        """A fold between two words is searched as one space, whether the fold has a space or a tab."""
        header = b"Subject: one\r\n\ttwo\r\n three\r\n\r\n"
        for key in EnvelopeKey, HeaderKey:
            self.assertEqual(searched_texts(header, key(b"SUBJECT", "")), ["one two three"])

    def test_last_date_field_counts(self) -> None:
        """The last of two Date fields counts, as in ENVELOPE; an unreadable or missing field is no date."""
        twice = b"Date: 1 Jan 2001 00:00 +0000\r\nDate: 2 Feb 2002 23 (h):59 -0800\r\n\r\n"
        self.assertEqual(sent_date(twice), date(2002, 2, 2))
        self.assertEqual(sent_date(b"Date: soon\r\n\r\n"), None)
        self.assertEqual(sent_date(b"\r\n"), None)
