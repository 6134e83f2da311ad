"""The shortcuts for ordinary headers return what the careful parsers return, for every header."""

from __future__ import annotations

from unittest import mock

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.message_items import (
    RECORD_FIELDS,
    header_block,
    header_of,
    record_of,
    search_value,
    search_value_of_envelope,
    searched_texts,
    sent_date,
)
from imapshield.message import headers as message_headers
from imapshield.message import mime_tree, ordinary
from imapshield.message.envelope import EnvelopeBudget, envelope, envelope_within_budget
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.message.mime_tree import parse_mime_tree
from imapshield.message.ordinary import MEMO_ENTRIES, MIN_USES, Memo, fields_named
from imapshield.message.section import header_fields, selected_fields
from imapshield.message.structure import bodystructure
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey
from tests.message import mails

NAMES = (
    *(b"Date", b"Subject", b"From", b"Sender", b"Reply-To", b"To", b"Cc", b"Bcc", b"TO", b"cc"),
    *(b"In-Reply-To", b"Message-ID", b"References", b"X-Other", b"Fro", b"Tom", b"", b"from "),
)
BODIES = (
    *(b"", b" ", b"  ", b"\t", b"Fred <fred@example.org>", b"a@b", b"a@b, c@d", b"two  words"),
    *(b'"Doe, Jane" <j@x>', b'"a\\"b" <c@d>', b"friends: a@b;", b"undisclosed:;", b"<@r:a@b>"),
    *(
        b"=?utf-8?q?J=C3=BCrgen?= <j@x>",
        b"=?utf-8?b?w6k=?=",
        b"caf\xc3\xa9",
        b"\xff",
        b"a\0b",
        b"NIL",
    ),
    *(
        b"\xef\xbf\xbd",
        b'say "hi"',
        b"back\\slash",
        b"Mon, 7 Feb 1994 21:52:25 -0800 (PST)",
        b"<x@y>",
    ),
    *(
        b"plain subject",
        b"\r",
        b"a\rb",
        b"(comment) a@b",
        b"a" * 600,
        b'"' * 7,
        b"{5}",
        b'"\xc3\xa9" <a@b>',
    ),
)
ENDS = (
    b"\r\n",
    b"\n",
    b"\r\n ",
    b"\r\n\t",
    b"\n  x\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"",
    b"\r",
    b"\r\r\n",
)
FIELDS = (b"FROM", b"TO", b"CC", b"BCC")
FIELD_LIST = (b"From", b"subject", b"DATE", b"X-Other")

lines = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from((b":", b" :", b"\t: ", b": ", b"", b"\r\n :")),
    st.lists(st.sampled_from(BODIES), min_size=1, max_size=2).map(b" ".join),
    st.sampled_from((b"\r\n",) * 5 + ENDS),
).map(b"".join)
mime_headers = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *(
                    b"Content-Type",
                    b"content-type",
                    b"Content-Disposition",
                    b"Content-ID",
                    b"MIME-Version",
                ),
                *(
                    b"Content-Language",
                    b"Content-Transfer-Encoding",
                    b"Content-X",
                    b"Content-Location",
                ),
            )
        ),
        st.sampled_from((b":", b" :", b": ", b":\r\n ", b"\r\n :")),
        st.sampled_from(
            (
                *(
                    b"text/plain; charset=utf-8",
                    b'a/b; c=d; e="f"',
                    b"attachment; filename=x",
                    b"inline",
                ),
                *(
                    b"attachment (c); filename*0=a; filename*1=b",
                    b"",
                    b" ",
                    b";",
                    b"base64",
                    b"7bit x",
                    b"1.0",
                ),
                *(
                    b"multipart/mixed; boundary=outer",
                    b"en, de",
                    b"message/rfc822",
                    b"text/html\r\n\t; x=y",
                    b"(c)a;b=c",
                ),
            )
        ),
        st.sampled_from((b"\r\n",) * 5 + ENDS),
    ).map(b"".join),
    max_size=6,
).map(b"".join)
headers = st.one_of(
    st.lists(lines, max_size=10).map(b"".join),
    st.lists(lines, max_size=6).map(lambda found: b"".join(found) + b"\r\n"),
    mails.mutated().map(header_block),
)


def careful_envelope(header: bytes) -> bytes:
    budget = EnvelopeBudget(DEFAULT_LIMITS.addresses, DEFAULT_LIMITS.header)
    return envelope_within_budget(header, DEFAULT_LIMITS, budget)


def careful_value(header: bytes, key: HeaderKey | EnvelopeKey) -> bytes:
    joined = "".join("\0" + text for text in searched_texts(header, key))
    return joined.encode("utf-8", "replace")


KEYS: list[HeaderKey | EnvelopeKey] = [
    kind(field, "")
    for kind in (HeaderKey, EnvelopeKey)
    for field in (b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT")
]


class OrdinaryTests(SynchronousTestCase):
    @settings(max_examples=400)
    @given(headers)
    def test_envelope_equals_the_careful_one(self, header: bytes) -> None:
        """ENVELOPE is the same whether or not the shortcut is used."""
        self.assertEqual(envelope(header), careful_envelope(header))

    @settings(max_examples=300)
    @given(headers)
    def test_search_values_are_equal(self, header: bytes) -> None:
        """What SEARCH compares is the same from the careful parser, the shortcut, ENVELOPE, and the record."""
        block = header_block(header)
        record = record_of(block)
        assert record is not None
        fields = block if (found := header_of(record)) is None else found
        answer = envelope(block)
        for key in KEYS:
            expected = careful_value(block, key)
            self.assertEqual(search_value(block, key), expected, key)
            self.assertEqual(search_value(fields, key), expected, key)
            if isinstance(key, EnvelopeKey):
                self.assertIn(search_value_of_envelope(answer, key), (expected, None), key)

    @settings(max_examples=300)
    @given(headers)
    def test_record_is_as_good_as_the_header(self, header: bytes) -> None:
        """ENVELOPE, the sent date and fields from the record equal those from the header."""
        block = header_block(header)
        record = record_of(block)
        assert record is not None
        fields = header_of(record)
        assume(fields is not None)
        assert fields is not None
        self.assertEqual(envelope(fields), careful_envelope(block))
        self.assertEqual(sent_date(fields), sent_date(block))
        for names in ((b"From", b"date"), tuple(RECORD_FIELDS), (b"SUBJECT",)):
            self.assertEqual(header_fields(fields, names), header_fields(block, names))

    @settings(max_examples=300)
    @given(headers, st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(tuple))
    def test_named_fields_are_equal(self, header: bytes, names: tuple[bytes, ...]) -> None:
        """HEADER.FIELDS is the same before and after its list has a pattern."""
        for _ in range(MIN_USES):
            found = fields_named(header, names)
        if found is not None:
            self.assertEqual(found, selected_fields(header, names, False))

    @settings(max_examples=300)
    @given(st.one_of(mails.mutated(), mime_headers.map(lambda header: header + b"\r\nbody\r\n")))
    def test_parts_are_equal(self, data: bytes) -> None:
        """The MIME tree is the same whether or not the shortcuts are used."""
        part = parse_mime_tree(data)
        found = bodystructure(part, data)
        with (
            mock.patch.object(mime_tree, "content_fields", return_value=None),
            mock.patch.object(message_headers, "_disposition", return_value=None),
        ):
            self.assertEqual(parse_mime_tree(data), part)
            self.assertEqual(bodystructure(part, data), found)

    def test_envelope_answers_most_keys(self) -> None:
        """Ordinary addresses, groups, missing fields, and any subject are found in ENVELOPE."""
        header = b'From: "Doe, Jane" <a@b>\r\nTo: friends: c@d;\r\nSubject: caf\xc3\xa9 \\o/\r\nCc: e@f,\r\n g@h\r\n\r\n'
        answer = envelope(header)
        for key in KEYS:
            if isinstance(key, EnvelopeKey):
                self.assertEqual(search_value_of_envelope(answer, key), careful_value(header, key))
        self.assertEqual(
            search_value_of_envelope(answer, EnvelopeKey(b"FROM", "")), b"\0doe, jane <a@b>"
        )

    def test_envelope_answers_keys_for_names_that_are_literals(self) -> None:
        """Names with 8-bit characters, quotation marks and backslashes are found in ENVELOPE; not a NUL."""
        names = (b"caf\xc3\xa9", b'"a\\"b\\\\c"', b'"' + b'\\"' * 6 + b'"', b"\xff")
        header = b"".join(
            b"%b: x@y, %b <a@b>\r\n" % pair for pair in zip(FIELDS, names, strict=True)
        )
        answer = envelope(header)
        for field in FIELDS:
            key = EnvelopeKey(field, "")
            self.assertEqual(search_value_of_envelope(answer, key), careful_value(header, key))
        nul = envelope(b'From: a <a@b>\r\nTo: "a\0b" <c@d>\r\n')
        self.assertIsNotNone(search_value_of_envelope(nul, EnvelopeKey(b"FROM", "")))
        self.assertIsNone(search_value_of_envelope(nul, EnvelopeKey(b"TO", "")))

    def test_a_list_gets_a_pattern_when_it_is_used_often(self) -> None:
        """The pattern of a list of fields is made when the list was used often, and never for a long list."""
        header, names = b"From: a@b\r\nX: y\r\n\r\n", (b"From", b"X-Pattern-Test")
        found = [fields_named(header, names) for _ in range(MIN_USES)]
        self.assertEqual(found, [None] * (MIN_USES - 1) + [b"From: a@b\r\n"])
        long_list = (b"x" * ordinary.MAX_LIST_SIZE, b"y")
        self.assertEqual({fields_named(header, long_list) for _ in range(2 * MIN_USES)}, {None})

    def test_use_that_was_counted_by_another_thread(self) -> None:
        """A list gets its pattern also if two threads have counted the use at which it is due."""
        field_list = ordinary._FieldList((b"From",), uses=MIN_USES)
        self.assertIsNotNone(field_list.finder())

    def test_memo_is_bounded(self) -> None:
        """A memo forgets all when it is full, and keeps no large value."""
        calls: list[bytes] = []
        memo = Memo(lambda value: calls.append(value) or value)  # type: ignore[func-returns-value]
        for i in range(3 * MEMO_ENTRIES):
            memo[b"%d" % i]
        self.assertLessEqual(len(memo), MEMO_ENTRIES)
        calls.clear()
        for value in (b"a", b"a", b"b" * 300, b"b" * 300):
            self.assertEqual(memo[value], value)
        self.assertEqual(calls, [b"a", b"b" * 300, b"b" * 300])
