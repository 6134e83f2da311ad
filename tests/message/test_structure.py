"""BODY and BODYSTRUCTURE equal those of Dovecot byte for byte, and always follow the grammar."""

from __future__ import annotations

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.mime_limits import DEFAULT_LIMITS, MimeLimits
from imapshield.message.mime_tree import parse_mime_tree
from imapshield.message.structure import body, bodystructure
from tests.message import mails
from tests.message.grammar import parse_body


def bodystructure_of(data: bytes, limits: MimeLimits = DEFAULT_LIMITS) -> bytes:
    return bodystructure(parse_mime_tree(data, limits), data, limits)


class BodystructureTests(SynchronousTestCase):
    def check(self, data: bytes, expected: bytes) -> None:
        """Check the BODYSTRUCTURE of `data`. `expected` is the response of Dovecot 2.3, except where a test says
        otherwise."""
        self.assertEqual(bodystructure_of(data), expected)
        parse_body(expected, extended=True)

    def check_field(self, field: bytes, expected: bytes) -> None:
        """Check the BODYSTRUCTURE of an empty message with `field` in its header."""
        self.check(b"MIME-Version: 1.0\r\n" + field + b"\r\n\r\n", expected)

    def test_example_of_rfc_3501_is_reproduced(self) -> None:
        """The example of RFC 3501 section 7.4.2 is reproduced, as far as its message can be built."""
        data = (
            b"MIME-Version: 1.0\r\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\n"
            + b"x\r\n" * 92
        )
        part = parse_mime_tree(data)
        self.assertEqual(
            body(part, data), b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7bit" 276 92)'
        )

    def test_multipart_example_of_rfc_3501_is_reproduced(self) -> None:
        """The two-part example of RFC 3501 section 7.4.2 is reproduced."""
        diff = b"0123456789abcdef" * 71 + b"\r\n" * 8 + b"\r"
        data = (
            b"Content-Type: MULTIPART/MIXED; boundary=b\r\n\r\n"
            b"--b\r\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\nhi\r\n\r\n"
            b'--b\r\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME="cc.diff"\r\n'
            b"Content-ID: <960723163407.20117h@cac.washington.edu>\r\nContent-Description: Compiler diff\r\n"
            b"Content-Transfer-Encoding: BASE64\r\n\r\n" + diff + b"\r\n--b--\r\n"
        )
        self.assertEqual(
            body(parse_mime_tree(data), data),
            b'(("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7bit" 4 1)'
            b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME" "cc.diff") '
            b'"<960723163407.20117h@cac.washington.edu>" "Compiler diff" "BASE64" 1153 8) "MIXED")',
        )

    def test_missing_fields_have_default_values(self) -> None:
        """Missing fields have Dovecot's default values."""
        self.check(
            b"", b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)'
        )
        self.check_field(
            b"Content-Type: text/x; a=b",
            b'("text" "x" ("a" "b" "charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)',
        )
        self.check_field(
            b"Content-Type: image/png", b'("image" "png" NIL NIL NIL "7bit" 0 NIL NIL NIL NIL)'
        )

    def test_extension_data_follows_at_the_end(self) -> None:
        """MD5, disposition, language and location follow at the end."""
        self.check_field(
            b"Content-Type: a/b\r\nContent-MD5: Q2hlY2s=\r\nContent-Disposition: Attachment; filename=x\r\n"
            b"Content-Language: en, de-DE\r\nContent-Location: http://x/\r\n y\r\nContent-Description: a\r\n b",
            b'("a" "b" NIL NIL "a b" "7bit" 0 "Q2hlY2s=" ("Attachment" ("filename" "x")) ("en" "de-DE") "http://x/ y")',
        )
        self.check_field(
            b"Content-Type: a/b\r\nContent-Disposition: inline",
            b'("a" "b" NIL NIL NIL "7bit" 0 NIL ("inline" NIL) NIL NIL)',
        )
        self.check_field(
            b"Content-Type: a/b\r\nContent-Language: ,en",
            b'("a" "b" NIL NIL NIL "7bit" 0 NIL NIL NIL NIL)',
        )

    def test_parameters_are_read_with_any_text_between_them(self) -> None:
        """Parameters are read with any text between them, and keep their case."""
        for field, params in (
            (
                b'TEXT/HTML;\r\n\tcharset="iso-8859-1"; format=flowed;',
                b'"charset" "iso-8859-1" "format" "flowed"',
            ),
            (b"TEXT/HTML (c); Charset=x (d); a = b", b'"Charset" "x" "a" "b"'),
            (b"TEXT / HTML ; charset=x; a=", b'"charset" "x" "a" ""'),
            (b"TEXT/HTML; charset=x; ; lost=y; a=b", b'"charset" "x" "a" "b"'),
            (b'TEXT/HTML; charset="a;b\\"c.png"', b'"charset" "a;b\\"c.png"'),
            (b"TEXT/HTML; charset==?utf-8?q?a?=; x=y", b'"charset" "=?utf-8?q?a?=" "x" "y"'),
            (b'TEXT/HTML; charset="x" y; z=1', b'"charset" "x" "z" "1"'),
            (b"TEXT/HTML; charset", b'"charset" "us-ascii"'),
            (b'TEXT/HTML; a="', b'"charset" "us-ascii"'),
            (b'TEXT/HTML; a="\xc3\xa9"', b'"a" {2}\r\n\xc3\xa9 "charset" "us-ascii"'),
            (b'TEXT/HTML; a="x\0y"', b'"a" {5}\r\nx\xef\xbf\xbdy "charset" "us-ascii"'),
            (b'TEXT/HTML; a="' + b'\\"' * 5 + b'"', b'"a" {5}\r\n""""" "charset" "us-ascii"'),
        ):
            self.check_field(
                b"Content-Type: " + field,
                b'("TEXT" "HTML" (' + params + b') NIL NIL "7bit" 0 0 NIL NIL NIL NIL)',
            )

    def test_parameter_sections_are_joined(self) -> None:
        """The sections of a parameter are joined and stay encoded; if one is missing, they stay separate."""
        for field, params in (
            (b"a*0*=utf-8''x%20; a*1=y%z", b'"a*" "utf-8\'\'x%20y%25z"'),
            (b"a*1=y; a*0=x", b'"a" "xy"'),
            (b"a*=utf-8''%e2; b=c", b'"b" "c" "a*" "utf-8\'\'%e2"'),
            (b"a*1=x; a*2*=y; b=c", b'"b" "c" "a*1" "x" "a*2*" "y"'),
            (b"a*0=x; a*1*=%20", b'"a*" "\'\'x%20"'),
            (b"a*x=1", b'"a*x" "1"'),
            # The example of RFC 2231 section 3. Its sections may have any order.
            (
                b'\r\n URL*0="ftp://";\r\n URL*1="cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"',
                b'"URL" "ftp://cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"',
            ),
            # RFC 2231 section 4.1.
            (
                (
                    b"\r\n title*0*=us-ascii'en'This%20is%20even%20more%20\r\n ;"
                    b'title*1*=%2A%2A%2Afun%2A%2A%2A%20;\r\n title*2="isn\'t it!"'
                ),
                b'"title*" "us-ascii\'en\'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn\'t it!"',
            ),
        ):
            self.check_field(
                b"Content-Type: a/b; " + field,
                b'("a" "b" (' + params + b') NIL NIL "7bit" 0 NIL NIL NIL NIL)',
            )

    def test_unreadable_type_is_empty(self) -> None:
        """An unreadable type is empty, not text/plain; a multipart without a subtype is opaque."""
        self.check_field(b"Content-Type: ", b'("" "" NIL NIL NIL "7bit" 0 NIL NIL NIL NIL)')
        self.check_field(
            b"Content-Type: text",
            b'("text" "" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)',
        )
        self.check_field(
            b"Content-Type: a/b c; d=e", b'("" "" NIL NIL NIL "7bit" 0 NIL NIL NIL NIL)'
        )
        self.check_field(
            b"Content-Type: multipart",
            b'("application" "octet-stream" NIL NIL NIL "7bit" 0 NIL NIL NIL NIL)',
        )

    def test_encoding_of_one_token_is_sent_unchanged(self) -> None:
        """An encoding is sent unchanged if it is one token."""
        for written, sent in (
            (b"BASE64", b"BASE64"),
            (b"8bit (x)", b"8bit"),
            (b"7bit;", b"7bit"),
            (b"x-y z", b"7bit"),
        ):
            self.check_field(
                b"Content-Transfer-Encoding: " + written,
                b'("text" "plain" ("charset" "us-ascii") NIL NIL "'
                + sent
                + b'" 0 0 NIL NIL NIL NIL)',
            )

    def test_multipart_without_parts_gets_an_empty_part(self) -> None:
        """A multipart without parts is sent with an empty part, because the grammar requires one."""
        empty = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'
        self.check_field(
            b"Content-Type: multipart/x; y=z",
            b"(" + empty + b' NIL NIL NIL NIL) "x" ("y" "z") NIL NIL NIL)',
        )
        data = b"Content-Type: multipart/x\r\n\r\n"
        self.assertEqual(body(parse_mime_tree(data), data), b"(" + empty + b') "x")')

    def test_embedded_message_has_envelope_and_structure(self) -> None:
        """A message/rfc822 has an envelope, a structure and lines, and its extension data after them."""
        self.check(
            b"Content-Type: Message/RFC822; a=b\r\nContent-Disposition: inline\r\n\r\nSubject: x\r\n\r\ny\r\n",
            b'("message" "rfc822" ("a" "b") NIL NIL "7bit" 17 (NIL "x" NIL NIL NIL NIL NIL NIL NIL NIL) '
            b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 1 NIL NIL NIL NIL) 3 NIL ("inline" NIL) NIL NIL)',
        )

    def test_encoding_of_an_embedded_message_is_ignored(self) -> None:
        """The encoding of a message/rfc822, which RFC 2046 section 5.2.1 forbids, is ignored."""
        self.check(
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==\r\n",
            b'("message" "rfc822" NIL NIL NIL "base64" 18 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) '
            b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) 1 NIL NIL NIL NIL)',
        )

    def test_opaque_part_is_an_octet_stream(self) -> None:
        """Opaque parts are sent as application/octet-stream."""
        for kind in (b"message/rfc822", b"multipart/x; boundary=b"):
            found = bodystructure_of(
                b"Content-Type: " + kind + b"\r\n\r\n--b\r\n\r\n", MimeLimits(depth=1)
            )
            self.assertTrue(found.startswith(b'("application" "octet-stream"'), found)


class SizeTests(SynchronousTestCase):
    FIELDS = (
        (b"Content-Type: a/b", b";a=b"),
        *((b"Content-%b: " % name, b"a,") for name in (b"Language", b"ID", b"Location", b"MD5")),
        (b"Content-Disposition: a", b";a=b"),
        (b"Content-Description: ", b"\xff"),
        *((b"\r\n%b: " % name, b"a,") for name in (b"From", b"Subject", b"Message-ID")),
        (b"\r\nFrom: a", b"\r\nFrom: a"),
        (b"\r\nFrom: ", b"a@" + b"a." * 500 + b"b,"),
    )

    def test_size_does_not_grow_with_the_message(self) -> None:
        """Whatever field a message repeats, its structure is smaller than 1.6 MiB; a longer message has no larger
        one."""
        for field, unit in self.FIELDS:
            part = b"--b\r\n" + field + unit * (450_000 // len(unit)) + b"\r\n\r\n\r\n"
            kind = b"digest" if field[:1] == b"\r" else b"mixed"
            head = b"MIME-Version: 1.0\r\nContent-Type: multipart/%b; boundary=b\r\n\r\n" % kind
            sizes = [len(bodystructure_of(head + part * count)) for count in (9, 10)]
            self.assertLess(sizes[1], 1.6 * (1 << 20), field)
            self.assertLess(sizes[1] - sizes[0], 100_000, field)

    def test_languages_are_limited(self) -> None:
        """A part has at most the permitted number of languages."""
        data = b"MIME-Version: 1.0\r\nContent-Language: " + b"en," * 5000 + b"\r\n\r\n"
        found = bodystructure_of(data)
        self.assertEqual(found.count(b'"en"'), DEFAULT_LIMITS.languages)


class GrammarTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=500)
    @given(mails.hostile)
    def test_structures_always_follow_the_grammar(self, data: bytes) -> None:
        """For any message, both values follow the ABNF of RFC 9051 and agree with each other."""
        part = parse_mime_tree(data)
        basic = parse_body(body(part, data), extended=False)
        extended = parse_body(bodystructure(part, data), extended=True)
        self.assertEqual(basic["subtype"], extended["subtype"])

    def test_deepest_message_can_be_encoded(self) -> None:
        """BODYSTRUCTURE of a message with the deepest possible nesting is encoded."""
        data = b"Content-Type: message/rfc822\r\n\r\n" * 200
        self.assertEqual(bodystructure_of(data).count(b'"message" "rfc822"'), 99)

    def test_addresses_of_all_embedded_messages_are_limited(self) -> None:
        """One limit covers the addresses of all embedded messages, because addresses can be longer than the message."""
        message = b"--b\r\n\r\nFrom: " + b"a," * 5000 + b"\r\n\r\n\r\n"
        data = b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + message * 50
        self.assertLess(len(bodystructure_of(data)), 3 * len(data) + 10_000 * 3 * 50)
