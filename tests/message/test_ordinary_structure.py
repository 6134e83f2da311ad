"""The shortcut for the structure of ordinary messages returns what the careful writer returns, for every message."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.message_items import MessageItems
from imapshield.message import structure
from imapshield.message.mime_tree import parse_mime_tree
from imapshield.message.ordinary_structure import (
    KNOWN_HEADERS,
    MAX_DEPTH,
    MAX_KNOWN_SIZE,
    MAX_PARTS,
    MAX_SIZE,
    _known_template_of,
)
from imapshield.message.ordinary_structure import structure as ordinary_structure
from imapshield.wire.commands.fetch import Attribute
from tests.message import mails

TYPES = (
    *(b"multipart/mixed; boundary=a", b'multipart/alternative; boundary="b"'),
    *(b"multipart/mixed; boundary=ab", b'Multipart/Related; type=x; boundary="a--"'),
    *(b"multipart/digest; boundary=a", b"multipart/; boundary=a", b"multipart/mixed"),
    *(b"multipart/mixed; boundary=", b'multipart/mixed; boundary="a b"', b"message/rfc822"),
    *(b"text/plain; charset=utf-8", b"TEXT/html", b"application/pdf; name=x", b"broken", b"/"),
)
HEADERS = (
    b"MIME-Version: 1.0",
    *(b"Content-Type: " + kind for kind in TYPES),
    *(b"Content-Transfer-Encoding: base64", b"Content-Disposition: attachment; filename=x"),
    *(b"Content-ID: <a@b>", b"Content-Language: en", b"Content-MD5: x", b"Subject: hello", b""),
    b"Content-Description:\r\n folded",
)
LINES = (
    *(b"--a", b"--b", b"--ab", b"--a--", b"--b--", b"--a----", b"--ab--", b"--a ", b"--", b"--ax"),
    *(b"", b"", b"text", b" text", b"\r", b"Content-Type: text/plain"),
)
ENDS = (b"\r\n", b"\r\n", b"\n", b"")

lines = st.one_of(st.sampled_from(HEADERS), st.sampled_from(LINES))
messages = st.lists(st.tuples(lines, st.sampled_from(ENDS)).map(b"".join), max_size=24).map(
    b"".join
)


@st.composite
def nested(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Return a message or a part that is mostly well-formed."""
    end = draw(st.sampled_from((b"\r\n", b"\n")))
    fields = draw(st.lists(st.sampled_from(HEADERS[-6:]), max_size=2))
    if depth > 2 or draw(st.booleans()):
        kind = draw(st.sampled_from(TYPES[-6:]))
        body = draw(st.lists(st.sampled_from(LINES), max_size=4))
        return end.join([b"Content-Type: " + kind, *fields, b"", *body])
    boundary = draw(st.sampled_from((b"a", b"b", b"ab", b"c")))
    out = [b"Content-Type: multipart/mixed; boundary=" + boundary, *fields, b""]
    for _ in range(draw(st.integers(0, 3))):
        out += [b"--" + boundary, draw(nested(depth + 1))]
    closing = draw(st.sampled_from((b"--", b"--", b"--", b"", b"-")))
    out += [b"--" + boundary + closing, *draw(st.lists(st.sampled_from(LINES), max_size=1))]
    return end.join(out) + draw(st.sampled_from(ENDS))


def careful(message: bytes, extended: bool) -> bytes:
    write = structure.bodystructure if extended else structure.body
    return write(parse_mime_tree(message), message)


def multipart(parts: list[bytes], boundary: bytes = b"a") -> bytes:
    separated = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
    header = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n" % boundary
    return b"%b%b--%b--\r\n" % (header, separated, boundary)


class OrdinaryStructureTests(SynchronousTestCase):
    @given(st.one_of(messages, nested(), mails.mutated()), st.booleans())
    @example(multipart([multipart([b"\r\nx"], b"ab"), b"\r\ny"]), True)
    @example(multipart([multipart([b"\r\nx"], b"a--")]), True)
    @example(multipart([b"\r\n"]), True)
    @example(multipart([b""]), True)
    @example(b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n--a--\r", True)
    @example(b"Content-Type: multipart/mixed; boundary=a\n\n--a--\n", True)
    @example(b"Content-Language: en\n\n", True)
    @example(multipart([b"--a\r\nContent-Type: text/html\r\n\r\nhello"]), True)
    @example(
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        b"--a\r\n--a\r\nContent-Type: text/html\r\n\r\nhello\r\n--a--\r\n",
        True,
    )
    def test_it_is_that_of_the_careful_writer(self, message: bytes, extended: bool) -> None:
        found = ordinary_structure(message, extended)
        self.assertIn(found, (None, careful(message, extended)))

    def test_ordinary_messages_need_no_tree(self) -> None:
        text = b"Content-Type: text/plain\r\n\r\nhello\r\n"
        for message in (
            b"Subject: x\r\n\r\nhello\r\n",
            text,
            text.replace(b"\r\n", b"\n"),
            multipart([text, multipart([text, text], b"inner")], b"outer"),
        ):
            items = MessageItems(message)
            for name in (b"BODY", b"BODYSTRUCTURE"):
                expected = careful(message, name == b"BODYSTRUCTURE")
                self.assertEqual(items.value(Attribute(name)), expected)
            self.assertIsNone(items._part)

    def test_a_message_in_a_message_is_left_to_the_careful_writer(self) -> None:
        message = multipart([b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n"])
        self.assertIsNone(ordinary_structure(message, True))
        self.assertIn(b"RFC822", MessageItems(message).value(Attribute(b"BODY")).upper())

    def test_the_work_on_a_message_that_is_not_ordinary_is_bounded(self) -> None:
        self.assertIsNotNone(ordinary_structure(multipart([b"\r\nx"] * MAX_PARTS), True))
        self.assertIsNone(ordinary_structure(multipart([b"\r\nx"] * (MAX_PARTS + 1)), True))
        self.assertIsNone(ordinary_structure(b"\r\n" + b"x" * MAX_SIZE, True))
        deep = b"\r\nx"
        for level in range(MAX_DEPTH):
            deep = multipart([deep], b"level%d" % level)
        self.assertIsNotNone(ordinary_structure(deep, True))
        self.assertIsNone(ordinary_structure(multipart([deep], b"top"), True))

    def test_few_and_short_headers_of_parts_are_remembered(self) -> None:
        for number in range(2 * KNOWN_HEADERS):
            ordinary_structure(multipart([b"Content-ID: %d\r\n\r\nx" % number]), True)
        self.assertEqual(_known_template_of.cache_info().currsize, KNOWN_HEADERS)
        before = _known_template_of.cache_info()
        ordinary_structure(multipart([b"Content-ID: %b\r\n\r\n" % (b"x" * MAX_KNOWN_SIZE)]), True)
        self.assertEqual(_known_template_of.cache_info(), before)
