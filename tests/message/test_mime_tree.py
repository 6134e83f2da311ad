"""The MIME tree has the right parts at the right positions, for valid and for broken messages."""

from __future__ import annotations

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.mime_limits import DEFAULT_LIMITS, MimeLimits
from imapshield.message.mime_tree import Part, parse_mime_tree
from tests.message import mails


def outline(part: Part, data: bytes) -> object:
    """Return (kind, body) of a leaf, or (kind, [outlines]) of a multipart or message."""
    if part.embedded is not None:
        return part.kind, [outline(part.embedded, data)]
    if part.is_multipart:
        return part.kind, [outline(child, data) for child in part.children]
    return part.kind, data[part.body_start : part.end]


def multipart(boundary: bytes, *parts: bytes, kind: bytes = b"mixed") -> bytes:
    """Return a multipart of `parts`, each with its header."""
    head = b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n' % (kind, boundary)
    return (
        head
        + b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
        + b"--%b--\r\n" % boundary
    )


class ParseTests(SynchronousTestCase):
    def check(self, data: bytes, expected: object, limits: MimeLimits = DEFAULT_LIMITS) -> None:
        self.assertEqual(outline(parse_mime_tree(data, limits), data), expected)

    def test_message_without_mime_fields_is_one_text_part(self) -> None:
        """A message without MIME fields is one text part with as many lines as its body has line ends."""
        part = parse_mime_tree(b"Subject: x\r\n\r\none\r\ntwo")
        self.assertEqual((part.start, part.body_start, part.end), (0, 14, 22))
        self.assertEqual((part.kind, part.lines, part.encoding), (b"text/plain", 1, b""))

    def test_empty_message_is_an_empty_text_part(self) -> None:
        """An empty message is an empty text part."""
        self.check(b"", (b"text/plain", b""))

    def test_header_without_blank_line_is_the_whole_message(self) -> None:
        """A header without a blank line is the whole message."""
        part = parse_mime_tree(b"Subject: x\r\nContent-Type: text/html")
        self.assertEqual((part.body_start, part.end, part.kind), (35, 35, b"text/html"))

    def test_message_may_start_with_a_blank_line(self) -> None:
        """A message that starts with a blank line has no fields."""
        self.check(b"\r\nx", (b"text/plain", b"x"))

    def test_first_blank_line_ends_the_header(self) -> None:
        """The first blank line ends the header, with CRLF or LF, even if a blank line of the other kind follows."""
        self.assertEqual(parse_mime_tree(b"a: b\n\n\r\n").body_start, 6)
        self.assertEqual(parse_mime_tree(b"a: b\r\n\r\n\n\n").body_start, 8)

    def test_line_end_before_a_boundary_is_not_in_the_body(self) -> None:
        """The line end before a boundary is not part of the body (RFC 2046 section 5.1.1)."""
        data = (
            b"From: Nathaniel Borenstein <nsb@bellcore.com>\r\nMIME-Version: 1.0\r\n"
            b'Content-type: multipart/mixed; boundary="simple boundary"\r\n\r\n'
            b"This is the preamble.\r\n\r\n--simple boundary\r\n\r\n"
            b"This is implicitly typed plain US-ASCII text.\r\nIt does NOT end with a linebreak.\r\n"
            b"--simple boundary\r\nContent-type: text/plain; charset=us-ascii\r\n\r\n"
            b"This is explicitly typed plain US-ASCII text.\r\nIt DOES end with a linebreak.\r\n\r\n"
            b"--simple boundary--\r\n\r\nThis is the epilogue.\r\n"
        )
        first = (
            b"This is implicitly typed plain US-ASCII text.\r\nIt does NOT end with a linebreak."
        )
        second = (
            b"This is explicitly typed plain US-ASCII text.\r\nIt DOES end with a linebreak.\r\n"
        )
        self.check(data, (b"multipart/mixed", [(b"text/plain", first), (b"text/plain", second)]))
        self.assertEqual([child.lines for child in parse_mime_tree(data).children], [1, 2])

    def test_digest_parts_are_messages_by_default(self) -> None:
        """The parts of a digest are messages by default (RFC 2046 section 5.1.5)."""
        data = multipart(
            b"b", b"\r\nSubject: a\r\n\r\nx", b"Content-Type: text/css\r\n\r\ny", kind=b"digest"
        )
        self.check(
            data,
            (
                b"multipart/digest",
                [(b"message/rfc822", [(b"text/plain", b"x")]), (b"text/css", b"y")],
            ),
        )

    def test_longer_boundary_counts(self) -> None:
        """If a line starts with two boundaries, the longer one counts."""
        inner = multipart(b"outer-inner", b"\r\na", b"\r\nb")
        expected = (b"multipart/mixed", [(b"text/plain", b"a"), (b"text/plain", b"b")])
        self.check(
            multipart(b"outer", inner, b"\r\nc"),
            (b"multipart/mixed", [expected, (b"text/plain", b"c")]),
        )

    def test_dashes_may_belong_to_a_boundary(self) -> None:
        """A line ``--b--`` closes the boundary ``b``, but starts a part if the boundary is ``b--``."""
        self.check(multipart(b"b--", b"\r\na"), (b"multipart/mixed", [(b"text/plain", b"a")]))

    def test_text_after_a_boundary_is_ignored(self) -> None:
        """Text after a boundary on the same line is ignored (RFC 2046 section 5.1.1)."""
        data = b"Content-Type: multipart/x; boundary=b\r\n\r\n--b \t\r\n\r\n1\r\n--bcd\r\n\r\n2\r\n--b--junk\r\n"
        self.check(data, (b"multipart/x", [(b"text/plain", b"1"), (b"text/plain", b"2")]))

    def test_boundary_of_an_ended_multipart_starts_no_part(self) -> None:
        """The boundary of a multipart that has ended starts no part, however often it occurs later."""
        inner = b"Content-Type: multipart/x; boundary=i\r\n\r\n--i\r\n\r\na"
        data = multipart(
            b"o", inner, b"\r\nb\r\n--i\r\n--i--", inner.replace(b"=i", b"=io"), b"\r\n--i--"
        )
        leaf = b"text/plain"
        self.check(
            data.replace(b"--o\r\n\r\nb", b"--o\r\nX: --i\r\n\r\nb"),
            (
                b"multipart/mixed",
                [
                    (b"multipart/x", [(leaf, b"a")]),
                    (leaf, b"b\r\n--i\r\n--i--"),
                    (b"multipart/x", []),
                    (leaf, b"--i--"),
                ],
            ),
        )

    def test_unclosed_multipart_ends_with_its_parent(self) -> None:
        """A multipart that is not closed ends with the message, or with the multipart that contains it."""
        data = multipart(
            b"o", b"Content-Type: multipart/x; boundary=i\r\n\r\n--i\r\n\r\na", b"\r\nb"
        )
        self.check(
            data,
            (
                b"multipart/mixed",
                [(b"multipart/x", [(b"text/plain", b"a")]), (b"text/plain", b"b")],
            ),
        )

    def test_multipart_without_boundary_has_no_children(self) -> None:
        """A multipart without a boundary, or without a part, has no children."""
        for data in (
            b"Content-Type: multipart/mixed\r\n\r\n--\r\nx",
            b"Content-Type: multipart/x; boundary=a\r\n\r\nx",
        ):
            part = parse_mime_tree(data)
            self.assertTrue(part.is_multipart)
            self.assertEqual(part.children, [])
            self.assertEqual(part.end, len(data))

    def test_boundary_without_line_end_starts_no_part(self) -> None:
        """A boundary in the last line starts a part only if the line ends."""
        head = b"Content-Type: multipart/x; boundary=b\r\n\r\n"
        self.check(head + b"--b", (b"multipart/x", []))
        self.check(head + b"--b\r\n", (b"multipart/x", [(b"text/plain", b"")]))

    def test_boundary_ends_a_header(self) -> None:
        """A boundary ends a header too, and includes the line end before it, even the line end of a blank line."""
        for gap in (b"\r\n", b"\r\n\r\n"):
            data = b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\nX: y" + gap + b"--b--\r\n"
            child = parse_mime_tree(data).children[0]
            self.assertEqual(data[child.start : child.body_start], b"X: y" + gap[:-2])
            self.assertEqual((child.body_start, child.lines), (child.end, 0))

    def test_line_end_stays_in_a_message_of_only_a_header(self) -> None:
        """The line end before a boundary is kept in the part around a message that is only a header."""
        data = multipart(b"b", b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n")
        part = parse_mime_tree(data).children[0]
        inner = part.embedded
        assert inner is not None
        self.assertEqual(data[part.body_start : part.end], b"Subject: x\r\n\r\n")
        self.assertEqual(data[inner.start : inner.body_start], b"Subject: x\r\n")
        self.assertEqual((part.lines, inner.lines), (2, 0))

    def test_line_after_the_header_may_be_the_own_boundary(self) -> None:
        """The line after the header of a multipart is its own boundary if it matches better than an outer boundary."""
        inner = b"Content-Type: multipart/x; boundary=outer2\r\n\r\n--outer2\r\n\r\na\r\n--outer2--"
        self.check(
            multipart(b"outer", inner),
            (b"multipart/mixed", [(b"multipart/x", [(b"text/plain", b"a")])]),
        )

    def test_line_end_of_a_closing_boundary_is_kept(self) -> None:
        """The line end of a closing boundary right before an outer boundary is kept, as in Dovecot."""
        data = multipart(b"o", b"Content-Type: multipart/x; boundary=i\r\n\r\n--i--")
        child = parse_mime_tree(data).children[0]
        self.assertEqual(data[child.body_start : child.end], b"--i--\r\n")

    def test_lines_may_end_in_lf(self) -> None:
        """Lines may end in LF."""
        data = multipart(b"b", b"Content-Type: text/x\r\n\r\na\r\nb").replace(b"\r\n", b"\n")
        self.check(data, (b"multipart/mixed", [(b"text/x", b"a\nb")]))

    def test_content_fields_need_mime_version_or_content_type(self) -> None:
        """Without MIME-Version and Content-Type, the other Content-X fields are ignored (RFC 2045 section 4)."""
        self.assertEqual(parse_mime_tree(b"Content-Disposition: inline\r\n\r\n").fields, {})
        part = parse_mime_tree(b"Content-Disposition: inline\r\nMime-Version : 1.0\r\n\r\n")
        self.assertEqual(part.fields, {b"disposition": b"inline"})

    def test_first_readable_field_counts(self) -> None:
        """The first readable field of several with one name counts."""
        part = parse_mime_tree(
            b"Content-Type: a/b\r\ncontent-type: c/d\r\n"
            b"Content-Disposition: inline\r\nContent-Disposition: attachment; a=b\r\nContent-Disposition: x; c=d\r\n"
            b"Content-Transfer-Encoding: 8bit;\r\nContent-Transfer-Encoding: Base64\r\n\r\n"
        )
        self.assertEqual(part.kind, b"a/b")
        self.assertEqual(part.fields[b"disposition"], b"attachment; a=b")
        self.assertEqual((part.encoding, part.transfer_encoding()), (b"Base64", b"base64"))

    def test_unreadable_content_type_is_empty(self) -> None:
        """A Content-Type without a subtype keeps its type, and an unreadable Content-Type is empty."""
        self.assertEqual(parse_mime_tree(b"Content-Type: text\r\n\r\n").kind, b"text/")
        self.assertEqual(parse_mime_tree(b"Content-Type: ;;\r\n\r\n").kind, b"/")
        self.assertTrue(parse_mime_tree(b"Content-Type: multipart\r\n\r\n").opaque)

    def test_message_global_contains_a_message(self) -> None:
        """A message/global part contains a message too (RFC 9051, body-type-msg)."""
        self.check(
            b"Content-Type: message/global\r\n\r\n\r\nx",
            (b"message/global", [(b"text/plain", b"x")]),
        )


class LimitTests(SynchronousTestCase):
    def test_parts_below_the_depth_limit_are_opaque(self) -> None:
        """Multiparts and messages that are nested deeper than the limit are opaque."""
        data = b"Content-Type: message/rfc822\r\n\r\n" * 20
        kinds = [
            (part.embedded is not None, part.opaque)
            for part in parse_mime_tree(data, MimeLimits(depth=5)).walk()
        ]
        self.assertEqual(kinds, [(True, False)] * 4 + [(False, True)])
        data = b"".join(
            b"Content-Type: multipart/x; boundary=b%02d\r\n\r\n--b%02d\r\n" % (i, i)
            for i in range(20)
        )
        parts = list(parse_mime_tree(data, MimeLimits(depth=5)).walk())
        self.assertEqual([part.is_multipart for part in parts], [True] * 4 + [False])
        self.assertTrue(parts[-1].opaque)

    def test_last_part_takes_the_rest_at_the_limit(self) -> None:
        """When the limit is reached, the rest of the message belongs to the last part."""
        data = b"Content-Type: multipart/x; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 50
        part = parse_mime_tree(data, MimeLimits(parts=10))
        self.assertEqual(len(part.children), 9)
        self.assertEqual(part.children[-1].end, len(data))

    def test_fields_beyond_the_limit_are_ignored(self) -> None:
        """Fields beyond the limit are ignored."""
        data = b"X: " + b"y" * 100 + b"\r\nContent-Type: text/x\r\n\r\n"
        self.assertEqual(parse_mime_tree(data, MimeLimits(header=50)).kind, b"text/plain")

    def test_no_part_follows_after_the_limits_on_all_headers_and_fields(self) -> None:
        """When the headers or the fields of all parts reach their limit, the last part takes the rest."""
        part = b"--b\r\nX: 1234\r\nContent-ID: <abcdefgh>\r\n\r\nx\r\n"
        head = b"Content-Type: multipart/x; boundary=b\r\n\r\n"
        data = head + part * 50
        for limits in (MimeLimits(headers=len(head) + 35 * 4), MimeLimits(fields=23 + 10 * 4)):
            children = parse_mime_tree(data, limits).children
            self.assertEqual(len(children), 4)
            self.assertEqual(children[-1].end, len(data))

    def test_message_is_opaque_after_the_limits(self) -> None:
        """When the headers of all parts have reached their limit, an embedded message is not parsed."""
        data = b"Content-Type: message/rfc822\r\n\r\n" * 5
        kinds = [part.opaque for part in parse_mime_tree(data, MimeLimits(headers=70)).walk()]
        self.assertEqual(kinds, [False, False, True])

    def test_long_field_is_read_up_to_the_limit(self) -> None:
        """A long Content-Type keeps its type and its first parameters."""
        data = b"Content-Type: text/x; a=b; " + b"c=ddddddd;" * 9 + b"\r\n\r\n"
        part = parse_mime_tree(data, MimeLimits(field=15))
        self.assertEqual((part.kind, part.params), (b"text/x", [(b"a", b"b")]))

    def test_fields_that_nobody_reads_are_not_kept(self) -> None:
        """Of ten thousand different Content-X fields, only those of BODYSTRUCTURE are kept."""
        many = b"".join(b"Content-%d: x\r\n" % i for i in range(10_000))
        data = b"MIME-Version: 1.0\r\n" + many + b"Content-ID: x\r\n\r\n"
        self.assertEqual(parse_mime_tree(data).fields, {b"id": b"x"})

    def test_boundary_is_compared_up_to_the_limit(self) -> None:
        """A boundary is compared up to the limit."""
        data = b"Content-Type: multipart/x; boundary=abcdef\r\n\r\n--abcxyz\r\n\r\nx\r\n"
        self.assertEqual(len(parse_mime_tree(data, MimeLimits(boundary=3)).children), 1)


class HostileMessageTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=400)
    @given(mails.hostile)
    def test_parts_are_within_their_parents(self, data: bytes) -> None:
        """In any message, parts are within their parents, in order and without overlap."""
        root = parse_mime_tree(data)
        self.assertEqual((root.start, root.end), (0, len(data)))
        for part in root.walk():
            self.assertLessEqual(part.start, part.body_start)
            self.assertLessEqual(part.body_start, part.end)
            self.assertEqual(part.lines, data.count(b"\n", part.body_start, part.end))
            pos = part.body_start
            for child in part.children:
                self.assertLessEqual(pos, child.start)
                pos = child.end
            self.assertLessEqual(pos, part.end)
            if part.embedded is not None:
                self.assertEqual(part.embedded.start, part.body_start)
                self.assertLessEqual(part.embedded.end, part.end)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(mails.hostile)
    def test_parts_are_the_same_with_lf_and_crlf(self, data: bytes) -> None:
        """A message has the same parts with LF as with CRLF."""
        crlf = data.replace(b"\r", b"").replace(b"\n", b"\r\n")
        bare = crlf.replace(b"\r\n", b"\n")

        def kinds(message: bytes) -> list[bytes]:
            return [part.kind for part in parse_mime_tree(message).walk()]

        self.assertEqual(kinds(crlf), kinds(bare))

    def test_hostile_text_takes_linear_time(self) -> None:
        """A megabyte of any text is parsed in linear time; a quadratic algorithm would not finish."""
        size = 1 << 20
        head = b"Content-Type: multipart/x; boundary=b\r\n\r\n"
        for data in (
            head + b"--a\r\n" * (size // 5),
            head + b"--b\r\n" * (size // 5),
            head
            + b"".join(
                b"--b\r\nContent-Type: multipart/x; boundary=n%d\r\n\r\n" % i for i in range(20000)
            ),
            b"".join(
                b"Content-Type: multipart/x; boundary=%b\r\n\r\n--%b\r\n" % (b"a" * i, b"a" * i)
                for i in range(1, 80)
            )
            + b"--aaaa\r\n" * (size // 8),
            b"Content-Type: message/rfc822\r\n\r\n" * (size // 32),
            b"Content-X: y\r\n" * (size // 14),
            b"Content-Type: text/plain (\r\n" * (size // 28),
            b"Content-Disposition: a ("
            + b"c" * (size // 4)
            + b"); a=b\r\n"
            + b"Content-Disposition: x\r\n" * 20000,
            b"Content-Type: a/b" + b";(a" * (size // 4),
            b"Content-Type: a/b" + b';"a' * (size // 4),
            b"Content-Type: a/b" + b"; a*1=b" * (size // 8),
            b"\n" * size,
            b"x" * size,
            b"--" * size,
        ):
            self.assertEqual(parse_mime_tree(data).end, len(data))
