"""ENVELOPE equals the ENVELOPE of Dovecot byte for byte, and always follows the grammar."""

from __future__ import annotations

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.envelope import envelope
from imapshield.message.mime_limits import MimeLimits
from tests.message import mails
from tests.message.grammar import parse_envelope


class EnvelopeTests(SynchronousTestCase):
    def check(self, header: bytes, *expected: bytes) -> None:
        """Check the ten fields of an envelope. `expected` has the fields that Dovecot 2.3 sends."""
        found = envelope(header)
        self.assertEqual(found, b"(" + b" ".join(expected) + b")")
        parse_envelope(found)

    def test_example_of_rfc_9051_is_reproduced(self) -> None:
        """The example of RFC 9051 section 7.5.2 is reproduced."""
        self.check(
            b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\nFrom: Terry Gray <gray@cac.washington.edu>\r\n"
            b"Subject: IMAP4rev2 WG mtg summary and minutes\r\nTo: imap@cac.washington.edu\r\n"
            b"cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n"
            b"Message-Id: <B27397-0100000@cac.washington.edu>\r\n\r\n",
            b'"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)"',
            b'"IMAP4rev2 WG mtg summary and minutes"',
            *[b'(("Terry Gray" NIL "gray" "cac.washington.edu"))'] * 3,
            b'((NIL NIL "imap" "cac.washington.edu"))',
            b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU"))',
            b"NIL",
            b"NIL",
            b'"<B27397-0100000@cac.washington.edu>"',
        )

    def test_missing_fields_are_nil_and_empty_fields_empty(self) -> None:
        """Missing fields are NIL, and empty fields are empty."""
        self.check(b"", *[b"NIL"] * 10)
        self.check(
            b"Date:\r\nSubject: \r\nFrom: \r\nTo:\r\nMessage-ID:   \r\n\r\n",
            *(b'""', b'""'),
            *[b"NIL"] * 7,
            b'"  "',
        )

    def test_sender_and_reply_to_default_to_from(self) -> None:
        """Sender and Reply-To default to From, also if they are empty (RFC 9051 section 7.5.2)."""
        sender, reply = b'((NIL NIL "s" "t"))', b'((NIL NIL "r" "t"))'
        self.check(
            b"Sender: s@t\r\nReply-To: r@t\r\n",
            b"NIL",
            b"NIL",
            b"NIL",
            sender,
            reply,
            *[b"NIL"] * 5,
        )
        self.check(
            b"From: s@t\r\nSender:\r\nReply-To: r@t\r\n",
            b"NIL",
            b"NIL",
            sender,
            sender,
            reply,
            *[b"NIL"] * 5,
        )

    def test_repeated_address_fields_are_joined(self) -> None:
        """All addresses of repeated address fields are included; of other repeated fields, the last one counts."""
        self.check(
            b"From: a@b\r\nSubject: 1\r\nfrom : c@d\r\nSUBJECT: 2\r\n",
            *(b"NIL", b'"2"'),
            *[b'((NIL NIL "a" "b")(NIL NIL "c" "d"))'] * 3,
            *[b"NIL"] * 5,
        )

    def test_white_space_in_subjects_collapses(self) -> None:
        """White space in subjects collapses; a subject that changes or cannot be quoted is a literal."""
        for written, sent in (
            (b"a\r\n b", b"{3}\r\na b"),
            (b"a  b", b"{3}\r\na b"),
            (b"a ", b"{1}\r\na"),
            (b"\r\n a", b"{1}\r\na"),
            (b'a "b"', b'{5}\r\na "b"'),
            (b"\xc3\xa9", b"{2}\r\n\xc3\xa9"),
            (b"a\0b", b"{5}\r\na\xef\xbf\xbdb"),
            (b"=?utf-8?q?a?=", b'"=?utf-8?q?a?="'),
        ):
            self.check(b"Subject: " + written + b"\r\n\r\n", b"NIL", sent, *[b"NIL"] * 8)

    def test_other_fields_are_unfolded(self) -> None:
        """The folds of other fields are removed, and the rest is unchanged."""
        for written, sent in (
            (b"<a@b>\r\n\t<c@d>", b'"<a@b>\t<c@d>"'),
            (b'"a  b" ', b'"\\"a  b\\" "'),
            (b"a\rb", b'"a b"'),
        ):
            self.check(b"In-Reply-To: " + written + b"\r\n", *[b"NIL"] * 8, sent, b"NIL")

    def test_number_of_addresses_is_limited(self) -> None:
        """The number of addresses of all fields together is limited."""
        found = parse_envelope(
            envelope(b"To: a@b,c@d\r\nFrom: e@f\r\nCc: g@h\r\n", MimeLimits(addresses=2))
        )
        self.assertEqual(
            [len(field) if isinstance(field, list) else 0 for field in found],
            [0, 0, 1, 1, 1, 1, 0, 0, 0, 0],
        )

    def test_hostile_header_is_read_up_to_the_limit(self) -> None:
        """A hundred thousand addresses or fields are read up to the limit."""
        for header in (
            b"To: " + b"a@b, " * 100_000,
            b"To: x\r\n" * 100_000,
            b"Subject: y\r\n" * 100_000,
        ):
            parse_envelope(envelope(header))

    @settings(derandomize=True, deadline=None, max_examples=400)
    @given(mails.hostile)
    def test_envelope_always_follows_the_grammar(self, data: bytes) -> None:
        """The envelope of any header follows the ABNF."""
        parse_envelope(envelope(data))
