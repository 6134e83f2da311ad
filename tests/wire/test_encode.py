"""Responses equal those in the RFCs, and no bytes of a client or a message can break a line."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire import encode, fetch_encoding, strings
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.cursor import Cursor
from imapshield.wire.names import NameFormat
from imapshield.wire.responses import ThreadNode, bad, no, ok
from imapshield.wire.sequence import SequenceSet
from tests.wire.strategies import FETCH_ITEMS, LAWS

OCTETS = st.binary(max_size=12)
LITERAL = re.compile(rb"(~?)\{([0-9]+)\}\r\n")


def whole(function: Callable[..., Any]) -> Callable[..., bytes]:
    """Return a function that joins the pieces that `function` yields."""
    return lambda *args, **kwargs: b"".join(function(*args, **kwargs))


def parts(octets: bytes) -> list[bytes | MemoryLiteral]:
    """Split a response at its first literal, as the framing of a client does."""
    found = LITERAL.search(octets)
    if found is None:
        return [octets]
    end = found.end() + int(found[2])
    return [
        octets[: found.start()],
        MemoryLiteral(octets[found.end() : end], bool(found[1])),
        octets[end:],
    ]


class StringTests(SynchronousTestCase):
    @LAWS
    @given(OCTETS.map(lambda octets: octets.replace(b"\0", b"")), st.booleans())
    def test_encoded_string_is_parsed(self, value: bytes, utf8: bool) -> None:
        """A string, an astring and an nstring that are encoded and parsed again are the same."""
        for octets, read in (
            (strings.string(value, utf8=utf8), Cursor.string),
            (strings.astring(value, utf8=utf8), Cursor.astring),
            (strings.nstring(value, utf8=utf8), Cursor.nstring),
            (strings.literal(value), Cursor.string),
        ):
            cursor = Cursor(parts(octets))
            self.assertEqual(read(cursor, "a string"), value)
            cursor.expect_end()

    @LAWS
    @given(OCTETS)
    def test_lines_are_not_broken(self, value: bytes) -> None:
        """Outside a literal there is no CR, LF or NUL and, before ENABLE, no 8-bit byte."""
        for octets in (
            strings.string(value),
            strings.astring(value),
            strings.nstring(value, binary=True),
        ):
            outside = b"".join(p for p in parts(octets) if isinstance(p, bytes))
            self.assertIsNone(re.search(rb"[\r\n\0\x80-\xff]", outside))

    def test_value_is_sent_in_the_shortest_legal_form(self) -> None:
        """A value is sent as an atom, quoted or as a literal, whichever is the shortest legal form."""
        self.assertEqual(strings.astring(b"INBOX"), b"INBOX")
        self.assertEqual(strings.astring(b""), b'""')
        self.assertEqual(strings.astring(b"nil"), b'"nil"')
        self.assertEqual(strings.astring(b"a b"), b'"a b"')
        for misread in (b"[Gmail]/All", b"]", b"012"):  # npm's imap 0.8 misreads these atoms
            self.assertEqual(strings.astring(misread), b'"%b"' % misread)
        self.assertEqual(strings.string(b"a"), b'"a"')
        self.assertEqual(strings.string(b'a"\\'), b'"a\\"\\\\"')
        self.assertEqual(strings.string(b"a\nb"), b"{3}\r\na\nb")
        self.assertEqual(strings.string(b"a" * 1001)[:8], b"{1001}\r\n")
        self.assertEqual(strings.nstring(None), b"NIL")

    def test_utf8_is_quoted_only_if_enabled(self) -> None:
        """UTF-8 is quoted for a client that enabled it; other 8-bit bytes are never quoted."""
        self.assertEqual(strings.string("é".encode()), b"{2}\r\n\xc3\xa9")
        self.assertEqual(strings.string("é".encode(), utf8=True), b'"\xc3\xa9"')
        self.assertEqual(strings.string(b"\xe9", utf8=True), b"{1}\r\n\xe9")

    def test_nul_is_sent_in_a_literal8(self) -> None:
        """NUL is sent in a literal8, or as 0x80, so that the size is right."""
        self.assertEqual(strings.nstring(b"a\0", binary=True), b"~{2}\r\na\0")
        self.assertEqual(strings.nstring(b"a\0"), b"{2}\r\na\x80")
        self.assertEqual(strings.nstring(b"a", binary=True), b'"a"')
        self.assertEqual(strings.literal_head(9), b"{9}\r\n")
        self.assertEqual(strings.literal_head(9, binary=True), b"~{9}\r\n")


class StatusLineTests(SynchronousTestCase):
    def test_status_responses_are_tagged_or_untagged(self) -> None:
        """Status responses are tagged or untagged; continuation requests begin with a plus sign."""
        self.assertEqual(whole(encode.tagged)(b"a1", ok("Done")), b"a1 OK Done\r\n")
        self.assertEqual(
            whole(encode.tagged)(b"a1", no("Full", b"OVERQUOTA")), b"a1 NO [OVERQUOTA] Full\r\n"
        )
        self.assertEqual(encode.untagged(b"BYE", "Bye"), b"* BYE Bye\r\n")
        self.assertEqual(encode.continuation("Ready"), b"+ Ready\r\n")
        self.assertEqual(encode.continuation(b"AGE="), b"+ AGE=\r\n")
        self.assertEqual(encode.continuation(), b"+ \r\n")
        self.assertEqual(whole(encode.tagged)(b"a", ok("")), b"a OK Done\r\n")

    @LAWS
    @given(OCTETS, st.text(max_size=9), st.none() | OCTETS)
    def test_status_response_is_always_one_line(
        self, tag: bytes, text: str, code: bytes | None
    ) -> None:
        """A status response is one line of ASCII with one response code, whatever its tag, text and code contain."""
        for octets in (
            whole(encode.tagged)(tag, bad(text, code)),
            encode.untagged(b"OK", text, code),
            whole(encode.untagged_pieces)(b"OK", text, code and [code, code]),
            encode.continuation(text),
            whole(encode.esearch)(tag, False, []),
        ):
            self.assertIsNotNone(re.fullmatch(rb"[ -~]+\r\n", octets))
        if code is not None:
            self.assertTrue(encode.untagged(b"OK", "x", code).endswith(b"] x\r\n"))
            self.assertEqual(encode.untagged(b"OK", "x", code).count(b"]"), 1)


class DataResponseTests(SynchronousTestCase):
    def test_lines_are_those_of_the_rfcs(self) -> None:
        """Lines equal those in RFC 9051, 2971, 5161, 7162, 5256 and 4315."""
        for octets, line in (
            (encode.capability([b"IMAP4rev1", b"IDLE"]), b"* CAPABILITY IMAP4rev1 IDLE\r\n"),
            (encode.enabled([b"CONDSTORE"]), b"* ENABLED CONDSTORE\r\n"),
            (encode.enabled([]), b"* ENABLED\r\n"),
            (encode.identity([]), b"* ID NIL\r\n"),
            (encode.identity([(b"name", b"x"), (b"os", None)]), b'* ID ("name" "x" "os" NIL)\r\n'),
            (encode.namespace(), b'* NAMESPACE (("" "/")) NIL NIL\r\n'),
            (whole(encode.flags)([b"\\Seen", b"$Junk"]), b"* FLAGS (\\Seen $Junk)\r\n"),
            (encode.exists(23), b"* 23 EXISTS\r\n"),
            (encode.recent(5), b"* 5 RECENT\r\n"),
            (whole(encode.expunge)([3, 3, 5]), b"* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n* 5 EXPUNGE\r\n"),
            (whole(encode.expunge)([]), b""),
            (whole(encode.vanished)(SequenceSet.from_numbers([1, 2, 9])), b"* VANISHED 1:2,9\r\n"),
            (
                whole(encode.vanished)(SequenceSet.from_numbers([41, 43, 44]), earlier=True),
                b"* VANISHED (EARLIER) 41,43:44\r\n",
            ),
            (whole(encode.search)([2, 84, 882]), b"* SEARCH 2 84 882\r\n"),
            (whole(encode.search)([]), b"* SEARCH\r\n"),
            (whole(encode.search)([2, 5], 917162500), b"* SEARCH 2 5 (MODSEQ 917162500)\r\n"),
            (whole(encode.search)([5, 2], kind=b"SORT"), b"* SORT 5 2\r\n"),
            (
                whole(encode.esearch)(b"A285", True, [(b"MIN", 7), (b"ALL", b"7,9:12")]),
                b'* ESEARCH (TAG "A285") UID MIN 7 ALL 7,9:12\r\n',
            ),
            (whole(encode.esearch)(b"A", False, []), b'* ESEARCH (TAG "A")\r\n'),
            (
                encode.status("blurdybloop", [(b"MESSAGES", 231), (b"MAILBOXID", b"(F1)")]),
                b"* STATUS blurdybloop (MESSAGES 231 MAILBOXID (F1))\r\n",
            ),
        ):
            self.assertEqual(octets, line)

    def test_codes_are_returned_without_brackets(self) -> None:
        """Response codes are returned without their brackets."""
        self.assertEqual(
            whole(encode.copyuid)(38505, [304, 319, 320], [3956, 3957, 3958]),
            b"COPYUID 38505 304,319:320 3956:3958",
        )
        self.assertEqual(whole(encode.appenduid)(38505, [3955]), b"APPENDUID 38505 3955")
        self.assertEqual(
            whole(encode.permanentflags_code)([b"\\Seen", b"\\*"]), b"PERMANENTFLAGS (\\Seen \\*)"
        )

    def test_list_response_encodes_the_name_for_the_client(self) -> None:
        """LIST has the name as the client reads names, and extended items last."""
        self.assertEqual(
            encode.list_response(b"LIST", [b"\\HasChildren"], "Entwürfe"),
            b'* LIST (\\HasChildren) "/" Entw&APw-rfe\r\n',
        )
        self.assertEqual(
            encode.list_response(b"LIST", [], "Entwürfe", names=NameFormat(utf8=True)),
            '* LIST () "/" "Entwürfe"\r\n'.encode(),
        )
        self.assertEqual(encode.list_response(b"LSUB", [], "a b"), b'* LSUB () "/" "a b"\r\n')
        self.assertEqual(
            encode.list_response(b"LIST", [], "x", extended=[(b"CHILDINFO", b'("SUBSCRIBED")')]),
            b'* LIST () "/" x ("CHILDINFO" ("SUBSCRIBED"))\r\n',
        )

    def test_hostile_name_cannot_end_the_line(self) -> None:
        """A line break in a mailbox name cannot end the line."""
        name = "x\r\n* BYE"
        self.assertEqual(strings.mailbox(name), b'"x&AA0ACg-* BYE"')
        self.assertEqual(strings.mailbox(name, names=NameFormat(utf8=True)), b"{8}\r\nx\r\n* BYE")

    def test_threads_of_any_depth_are_encoded(self) -> None:
        """The threads of RFC 5256, a thread without its root, and a thread of depth ten thousand are encoded."""
        roots = [
            ThreadNode(2),
            ThreadNode(
                3,
                [
                    ThreadNode(
                        6,
                        [
                            ThreadNode(4, [ThreadNode(23)]),
                            ThreadNode(44, [ThreadNode(7, [ThreadNode(96)])]),
                        ],
                    )
                ],
            ),
        ]
        self.assertEqual(b"".join(encode.thread(roots)), b"* THREAD (2)(3 6 (4 23)(44 7 96))\r\n")
        orphans = ThreadNode(None, [ThreadNode(3), ThreadNode(5)])
        self.assertEqual(b"".join(encode.thread([orphans])), b"* THREAD ((3)(5))\r\n")
        orphan = ThreadNode(None, [ThreadNode(3, [ThreadNode(5)])])
        self.assertEqual(b"".join(encode.thread([orphan])), b"* THREAD (3 5)\r\n")
        self.assertEqual(b"".join(encode.thread([])), b"* THREAD\r\n")
        chunks = list(encode.thread(ThreadNode(i) for i in range(10_000)))
        self.assertGreater(len(chunks), 5)
        self.assertLess(max(map(len, chunks)), 10_000)
        deep = ThreadNode(10_000)
        for number in range(9_999, 0, -1):
            deep = ThreadNode(number, [deep])
        self.assertEqual(
            b"".join(encode.thread([deep])),
            b"* THREAD (%b)\r\n" % b" ".join(b"%d" % i for i in range(1, 10_001)),
        )


class FetchDataTests(SynchronousTestCase):
    def test_label_names_an_item_without_peek(self) -> None:
        """The label of an item in a response has no PEEK, and only the offset of a partial."""
        for item, label in (
            (Attribute(b"ENVELOPE"), b"ENVELOPE"),
            (BodySection(Section(), peek=True), b"BODY[]"),
            (BodySection(Section((1, 2), b"MIME")), b"BODY[1.2.MIME]"),
            (BodySection(Section((3,)), partial=(0, 512)), b"BODY[3]<0>"),
            (
                BodySection(Section((), b"HEADER.FIELDS", (b"DATE", b"a b"))),
                b'BODY[HEADER.FIELDS (DATE "a b")]',
            ),
            (BodySection(Section(text=b"HEADER"), True, label=b"RFC822.HEADER"), b"RFC822.HEADER"),
            (Binary((1, 2), partial=(5, 9)), b"BINARY[1.2]<5>"),
            (Binary((1,), size_only=True), b"BINARY.SIZE[1]"),
            (Preview(lazy=True), b"PREVIEW"),
        ):
            self.assertEqual(fetch_encoding.label(item), label)

    @LAWS
    @given(FETCH_ITEMS)
    def test_labels_are_one_line(self, item: FetchItem) -> None:
        """No label contains a line break, and a percent sign does not break the template."""
        label = fetch_encoding.label(item)
        self.assertIsNotNone(re.fullmatch(rb"[ -~]+", label))
        value = 1 if label in (b"UID", b"RFC822.SIZE", b"MODSEQ") else b"x"
        line = whole(fetch_encoding.fetch_lines)([7], [label], [[value]])
        self.assertTrue(line.startswith(b"* 7 FETCH (" + label + b" "))

    def test_columns_become_lines(self) -> None:
        """Columns become lines; FLAGS and MODSEQ get their parentheses."""
        self.assertEqual(
            whole(fetch_encoding.fetch_lines)(
                range(1, 3),
                [b"UID", b"FLAGS", b"MODSEQ", b"RFC822.SIZE", b"BODY[]"],
                [
                    array("I", [5, 9]),
                    [b"\\Seen", b""],
                    [7, 8],
                    array("Q", [1, 2]),
                    [b"{1}\r\na", b"NIL"],
                ],
            ),
            b"* 1 FETCH (UID 5 FLAGS (\\Seen) MODSEQ (7) RFC822.SIZE 1 BODY[] {1}\r\na)\r\n"
            b"* 2 FETCH (UID 9 FLAGS () MODSEQ (8) RFC822.SIZE 2 BODY[] NIL)\r\n",
        )
        self.assertEqual(whole(fetch_encoding.fetch_lines)([], [b"UID"], [[]]), b"")

    def test_long_lines_are_joined_up_to_a_size(self) -> None:
        """A piece has as many long lines as fit in its size; a value that does not fit is a piece alone."""
        labels = [b"UID", b"BODY[HEADER.FIELDS (100%)]"]
        texts = [b"x" * size for size in (600, 600, 2000, 600, 2, 600)]
        columns: list[Sequence[bytes | int]] = [array("I", range(11, 17)), texts]
        pieces = list(fetch_encoding.fetch_lines(range(1, 7), labels, columns, size=1500))
        lines = [
            b"* %d FETCH (UID %d BODY[HEADER.FIELDS (100%%)] %b)\r\n" % (number, number + 10, text)
            for number, text in enumerate(texts, 1)
        ]
        begin, text, end = lines[2].partition(texts[2])
        expected = [lines[0] + lines[1], begin, text, end + b"".join(lines[3:])]
        self.assertEqual(pieces, expected)
        self.assertIs(pieces[2], texts[2])  # not copied
        short = [[1], [b"x" * 2000, b"y"]]
        self.assertRaises(ValueError, whole(fetch_encoding.fetch_lines), [1, 2], labels, short)

    def test_value_is_encoded_as_in_a_column(self) -> None:
        """A single value is encoded like the same value in a column."""
        self.assertEqual(fetch_encoding.fetch_value(b"FLAGS", b"\\Seen"), b"(\\Seen)")
        self.assertEqual(fetch_encoding.fetch_value(b"UID", 5), b"5")
        self.assertEqual(fetch_encoding.fetch_value(b"BODY[]", b"NIL"), b"NIL")

    def test_short_column_raises_value_error(self) -> None:
        """A column that is too short is an error in the server, and raises ValueError."""
        self.assertRaises(ValueError, whole(fetch_encoding.fetch_lines), [1, 2], [b"UID"], [[5]])
