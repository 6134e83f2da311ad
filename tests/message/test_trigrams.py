"""The texts of the index contain whatever SEARCH finds, so the index never hides a message."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.message_items import MessageItems
from imapshield.message import text, trigrams
from imapshield.message.chunks import CHUNK_SIZE
from tests.maildir.test_answer_version import message
from tests.message import mails

TEXTS = st.text(
    st.sampled_from("aB1 2-.\0\n\r\tß\u0130é\u0301日本語\ud800\ufffe\U0001f600") | st.characters()
)


class FoldTests(SynchronousTestCase):
    @settings(max_examples=300)
    @given(TEXTS, TEXTS, TEXTS)
    def test_part_of_a_text_is_part_of_the_folded_text(
        self, before: str, part: str, after: str
    ) -> None:
        """What a text contains, its folded form contains folded, wherever the text is divided into chunks."""
        self.patch(trigrams, "CHUNK_SIZE", 3)
        self.assertIn(trigrams.fold(part), trigrams.fold(before + part + after))

    @given(TEXTS)
    def test_sqlite_can_store_folded_text(self, given_text: str) -> None:
        """A folded text has no NUL, no surrogate, no quotation mark, and no two spaces in a row."""
        folded = trigrams.fold(given_text)
        folded.encode("utf-8")
        for absent in ("\0", '"', "  "):
            self.assertNotIn(absent, folded)

    def test_chunks_are_divided_anywhere(self) -> None:
        """A run of spaces at the end of a chunk becomes one space."""
        for spaces in range(4):
            given_text = "a" * (CHUNK_SIZE - 2) + " " * spaces + "b"
            expected = "a" * (CHUNK_SIZE - 2) + " " * min(spaces, 1) + "b"
            self.assertEqual(trigrams.fold(given_text), expected)


class TrigramTests(SynchronousTestCase):
    def test_needle_has_trigrams(self) -> None:
        """A needle has the trigrams of its folded form, each once."""
        self.assertEqual(trigrams.trigrams("banana"), ["ban", "ana", "nan"])
        self.assertEqual(trigrams.trigrams("a,\r b7"), ["a b", " b6"])

    def test_index_cannot_answer_all_needles(self) -> None:
        """A needle that is short, also after it is folded, or spans lines has no trigrams."""
        for needle in ("", "ab", "日本", "....", "a--", "line\nline"):
            self.assertIsNone(trigrams.trigrams(needle), needle)

    def test_long_needle_has_some_trigrams(self) -> None:
        """Of the first trigrams of a very long needle some are chosen, evenly."""
        needle = "".join(chr(0x4E00 + i) for i in range(1000))
        chosen = trigrams.trigrams(needle)
        assert chosen is not None
        self.assertLessEqual(len(chosen), trigrams.MAX_TRIGRAMS)
        self.assertGreater(needle.index(chosen[-1]), trigrams.MAX_NEEDLE - 10)
        self.assertLess(needle.index(chosen[-1]), trigrams.MAX_NEEDLE)
        self.assertEqual(trigrams.trigrams("x" * 255 + "yz\n" * 99), ["xxx", "xxy"])


class IndexTextsTests(SynchronousTestCase):
    def test_texts_contain_what_search_finds(self) -> None:
        """Each line of a header is in one of the two texts of a message, and each line of a body in the first."""
        for content in [*mails.ALL, *map(message, range(300))]:
            items = MessageItems(content)
            texts = trigrams.index_texts(items.part, content)
            assert texts is not None
            for is_header, found in (
                (True, text.header_texts(items.part, content)),
                (False, text.body_texts(items.part, content)),
            ):
                for pieces in found:
                    normalized = text.normalize("".join(pieces))
                    for line in normalized.split("\n"):
                        folded = trigrams.fold(line)
                        self.assertTrue(
                            folded in texts.own or (is_header and folded in texts.shared)
                        )
                    if not is_header:
                        self.assertIn(trigrams.fold(normalized), texts.own)

    def test_fields_that_people_search_are_not_shared(self) -> None:
        """The fields with people and the subject are in the text of the message, the others in the shared one."""
        content = b"Received: from relay\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nTo:\r\n folded\r\n\r\nbody"
        texts = trigrams.index_texts(MessageItems(content).part, content)
        assert texts is not None
        for word, is_own in (
            ("gru\u0308sse", True),
            ("folded", True),
            ("body", True),
            ("relay", False),
        ):
            self.assertEqual((word in texts.own, word in texts.shared), (is_own, not is_own))

    def test_long_text_is_not_indexed(self) -> None:
        """A message with more text than the bound has none for the index, whether in its header or in its body."""
        self.patch(trigrams, "MAX_INDEXED_TEXT", 100)
        for content, is_long in (
            (b"A: b\r\n\r\n" + b"x" * 90, False),
            (b"A: b\r\n\r\n" + b"x" * 101, True),
            (b"A: " + b"x" * 101 + b"\r\n\r\n", True),
            (b"A: " + b"x" * 60 + b"\r\n\r\n" + b"x" * 60, True),
            (b"Content-Type: image/png\r\n\r\n" + b"x" * 1000, False),
        ):
            texts = trigrams.index_texts(MessageItems(content).part, content)
            self.assertEqual(texts is None, is_long, content[:20])
