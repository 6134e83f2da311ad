"""FETCH of RFC 9051 and 3501, with BINARY, PREVIEW, CONDSTORE, QRESYNC and PARTIAL."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.message.mime_limits import DEFAULT_LIMITS
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    Fetch,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.grammar import parse
from imapshield.wire.sequence import SAVED, SequenceSet
from tests.wire.grammar.typed_parse import parse_as
from tests.wire.part_writer import Parts

numbers = SequenceSet.parse


def items(text: bytes) -> tuple[FetchItem, ...]:
    """Parse a FETCH of one message and return its items."""
    return parse_as(Fetch, [b"FETCH 1 " + text]).items


class ItemTests(SynchronousTestCase):
    def test_macros_are_expanded(self) -> None:
        """ALL, FAST and FULL are expanded as in RFC 9051 section 6.4.5."""
        fast = [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"]
        for macro, names in (
            (b"FAST", fast),
            (b"all", [*fast, b"ENVELOPE"]),
            (b"FULL", [*fast, b"ENVELOPE", b"BODY"]),
        ):
            self.assertEqual(items(macro), tuple(map(Attribute, names)))
        self.assertRaises(BadCommand, items, b"(ALL)")

    def test_attributes_are_accepted_in_any_case(self) -> None:
        """Items of one word are accepted in any case, alone or in parentheses."""
        for name in (
            b"UID", b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY",
            b"BODYSTRUCTURE", b"MODSEQ", b"EMAILID", b"THREADID", b"SAVEDATE",
        ):  # fmt: skip
            self.assertEqual(items(name.lower()), (Attribute(name),))
            self.assertEqual(items(b"(" + name + b")"), (Attribute(name),))

    def test_body_sections_are_parsed_in_all_forms(self) -> None:
        """BODY[…] is parsed in all forms."""
        for text, section in (
            (b"BODY[]", Section()),
            (b"BODY[1]", Section((1,))),
            (b"BODY[1.2.3]", Section((1, 2, 3))),
            (b"BODY[HEADER]", Section((), b"HEADER")),
            (b"body[text]", Section((), b"TEXT")),
            (b"BODY[4.2.HEADER]", Section((4, 2), b"HEADER")),
            (b"BODY[4.2.2.MIME]", Section((4, 2, 2), b"MIME")),
            (b"BODY[HEADER.FIELDS (DATE From)]", Section((), b"HEADER.FIELDS", (b"DATE", b"From"))),
            (b'BODY[2.HEADER.FIELDS.NOT ("To")]', Section((2,), b"HEADER.FIELDS.NOT", (b"To",))),
        ):
            self.assertEqual(items(text), (BodySection(section),))
            self.assertEqual(
                items(text[:4] + b".PEEK" + text[4:]), (BodySection(section, peek=True),)
            )

    def test_every_part_of_a_bodystructure_can_be_fetched(self) -> None:
        """Every part of a BODYSTRUCTURE can be fetched."""
        deepest = b"1." * (DEFAULT_LIMITS.depth - 1) + b"1"
        self.assertEqual(
            items(b"BODY[%b.MIME]" % deepest),
            (BodySection(Section((1,) * DEFAULT_LIMITS.depth, b"MIME")),),
        )

    def test_field_names_may_be_literals(self) -> None:
        """Field names are astrings, so they may be literals."""
        parts: Parts = [b"FETCH 1 BODY[HEADER.FIELDS (", MemoryLiteral(b"DATE"), b" FROM)]"]
        section = Section((), b"HEADER.FIELDS", (b"DATE", b"FROM"))
        self.assertEqual(parse_as(Fetch, parts).items, (BodySection(section),))

    def test_impossible_field_names_are_accepted(self) -> None:
        """Names that no header field can have, such as ``Subject:``, are accepted."""
        (item,) = items(b'BODY[HEADER.FIELDS (Subject: "" "X Y")]')
        assert isinstance(item, BodySection)
        self.assertEqual(item.section.fields, (b"Subject:", b"", b"X Y"))

    def test_partial_has_an_offset_and_a_size(self) -> None:
        """A partial has an offset and a size; the size is not 0, and no number is negative."""
        self.assertEqual(items(b"BODY[]<0.2048>"), (BodySection(Section(), partial=(0, 2048)),))
        for text in (
            b"BODY[]<0.0>",
            b"BODY[]<-5.-9>",
            b"BODY[]<0>",
            b"BODY[]<0.1",
            b"BODY[]<.1>",
            b"ENVELOPE<0.1>",
        ):
            self.assertRaises(BadCommand, items, text)

    def test_rfc822_items_keep_their_names(self) -> None:
        r"""Responses to the items of RFC 3501 keep the names of the items; only RFC822.HEADER does not set \Seen."""
        self.assertEqual(
            items(b"(RFC822 RFC822.HEADER RFC822.TEXT)"),
            (
                BodySection(Section(), label=b"RFC822"),
                BodySection(Section(text=b"HEADER"), peek=True, label=b"RFC822.HEADER"),
                BodySection(Section(text=b"TEXT"), label=b"RFC822.TEXT"),
            ),
        )
        self.assertRaises(BadCommand, items, b"RFC822.PEEK")

    def test_binary_has_part_numbers(self) -> None:
        """BINARY has part numbers, and perhaps a partial or SIZE (RFC 3516)."""
        self.assertEqual(items(b"BINARY[1.2]<0.9>"), (Binary((1, 2), partial=(0, 9)),))
        self.assertEqual(items(b"BINARY.PEEK[1]"), (Binary((1,), peek=True),))
        self.assertEqual(items(b"BINARY.SIZE[1]"), (Binary((1,), size_only=True),))
        self.assertEqual(items(b"BINARY[]"), (Binary(()),))
        for text in (
            b"BINARY",
            b"BINARY[TEXT]",
            b"BINARY[1.]",
            b"BINARY.SIZE[1]<0.1>",
            b"BINARY[0]",
        ):
            self.assertRaises(BadCommand, items, text)

    def test_preview_may_have_a_modifier(self) -> None:
        """PREVIEW may have its own modifier (RFC 8970), or be followed by the modifiers of FETCH."""
        self.assertEqual(items(b"PREVIEW"), (Preview(),))
        self.assertEqual(items(b"(PREVIEW (lazy) UID)"), (Preview(lazy=True), Attribute(b"UID")))
        parsed = parse_as(Fetch, [b"FETCH 1 PREVIEW (CHANGEDSINCE 5)"])
        self.assertEqual((parsed.items, parsed.changed_since), ((Preview(),), 5))
        self.assertRaises(BadCommand, items, b"(PREVIEW (EAGER))")

    def test_repeated_items_count_once(self) -> None:
        """2,300 repetitions of BODY[] are one BODY[]; different items are counted."""
        self.assertEqual(len(items(b"(" + b"BODY[] " * 2300 + b"UID)")), 2)
        many = b"(" + b" ".join(b"BODY[%d]" % i for i in range(1, 252)) + b")"
        self.assertRaises(BadCommand, items, many)

    def test_invalid_items_are_refused(self) -> None:
        """Unknown items and damaged sections are refused."""
        for text in (
            b"", b"()", b"(FLAGS", b"FLAGS UID", b"(FLAGS  UID)", b"FOO", b"BODY[0]", b"BODY[1.0]",
            b"BODY[01.]", b"BODY[MIME]", b"BODY[FOO]", b"BODY[1.]", b"BODY[.1]", b"BODY[1 2]",
            b"BODY[1TEXT]", b"BODY[TEXT", b"BODY[HEADER.FIELDS]", b"BODY[HEADER.FIELDS ()]",
            b"BODY[HEADER.FIELDS DATE]", b"BODY [TEXT]", b"BODY[4294967296]", b"FLAGS[]",
            b"BODYSTRUCTURE[1]", b"BODY[" + b"1." * 100 + b"1]", b"BODY[HEADER (x)]", b"BODY.PEEK",
        ):  # fmt: skip
            self.assertRaises(BadCommand, items, text)
        self.assertRaises(
            BadCommand, parse, [b"FETCH 1 BODY[HEADER.FIELDS (", MemoryLiteral(b"a\r\nb"), b")]"]
        )


class FetchTests(SynchronousTestCase):
    def test_example_of_rfc_9051_is_parsed(self) -> None:
        """The example of RFC 9051 section 6.4.5 is parsed."""
        self.assertEqual(
            parse([b"FETCH 2:4 (FLAGS BODY[HEADER.FIELDS (DATE FROM)])"]),
            Fetch(
                numbers(b"2:4"),
                (
                    Attribute(b"FLAGS"),
                    BodySection(Section((), b"HEADER.FIELDS", (b"DATE", b"FROM"))),
                ),
            ),
        )
        self.assertEqual(parse([b"uid fetch $ uid"]), Fetch(SAVED, (Attribute(b"UID"),), uid=True))

    def test_the_same_arguments_are_parsed_once(self) -> None:
        """Arguments that a client sends again are not parsed again, but for other limits."""
        first = parse_as(Fetch, [b"FETCH 1 (UID FLAGS)"])
        again = parse_as(Fetch, [b"FETCH 2:3 (UID FLAGS)"])
        self.assertIs(first.items, again.items)
        self.assertEqual(again.sequence, numbers(b"2:3"))
        limits = GrammarLimits(max_fetch_items=1)
        self.assertRaises(BadCommand, parse, [b"FETCH 1 (UID FLAGS)"], limits=limits)

    def test_modifiers_are_parsed(self) -> None:
        """CHANGEDSINCE, VANISHED and PARTIAL are parsed (RFC 7162, RFC 9394)."""
        self.assertEqual(
            parse([b"UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED PARTIAL -1:-30)"]),
            Fetch(
                numbers(b"300:500"),
                (Attribute(b"FLAGS"),),
                uid=True,
                changed_since=12345,
                vanished=True,
                partial=(-1, -30),
            ),
        )

    def test_invalid_modifiers_are_refused(self) -> None:
        """VANISHED needs UID FETCH and CHANGEDSINCE; unknown modifiers are refused."""
        for line in (
            b"FETCH", b"FETCH 1", b"FETCH x FLAGS", b"FETCH 1 FLAGS ()", b"FETCH 1 FLAGS (FOO)",
            b"UID FETCH 1 FLAGS (VANISHED)", b"FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)",
            b"FETCH 1 FLAGS (PARTIAL 1:2)", b"UID FETCH 1 FLAGS (PARTIAL 0:2)",
            b"FETCH 1 FLAGS (CHANGEDSINCE x)", b"UID FETCH 1 FLAGS (PARTIAL -1:2)",
            b"FETCH 1 FLAGS (CHANGEDSINCE 1) x",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])
