"""The tokens of field bodies are read one by one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.lexer import BROKEN, END, MORE, Cursor


class CursorTests(SynchronousTestCase):
    def check(self, rule: str, value: bytes, stopped: int, text: bytes, rest: bytes = b"") -> None:
        """Check how the method `rule` stops, the text that it reads from `value`, and the remaining text."""
        cursor = Cursor(value)
        found: list[bytes] = []
        self.assertEqual(getattr(cursor, rule)(found), stopped, value)
        self.assertEqual((b"".join(found), value[cursor.pos :]), (text, rest))

    def test_white_space_and_comments_are_skipped(self) -> None:
        """White space, folds and nested comments are skipped, and the last comment is remembered."""
        for value, stopped, comment in (
            (b" \t\r\n x", MORE, b""),
            (b"", END, b""),
            (b"(a(b)\\)c) (d)x", MORE, b"d"),
            (b"(a(b)\\)c)", END, b"a(b))c"),
            (b"(a\r\n b\0)", END, b"a b\xef\xbf\xbd"),
            (b"(a\n b)", END, b"a b"),
            (b"(a", BROKEN, b""),
            (b"(a\\", BROKEN, b""),
            (b"(a\\)b", BROKEN, b"a"),
            (b"(a\\\r\n b)", END, b"a\\ b"),
        ):
            cursor = Cursor(value)
            self.assertEqual((cursor.skip_space(), cursor.last_comment), (stopped, comment), value)

    def test_words_end_at_the_first_other_character(self) -> None:
        """Atoms, tokens and quoted strings end at the first character that they cannot contain."""
        self.check("atom", b"ab (c) d", MORE, b"ab", b"d")
        self.check("atom", b"a.b", MORE, b"a", b".b")
        self.check("atom", b"(a)", BROKEN, b"", b"(a)")
        self.check("token", b"a.b/c", MORE, b"a.b", b"/c")
        self.check("token", b"/c", MORE, b"", b"/c")
        self.check("quoted", b'"a\\"b" c', MORE, b'a"b', b"c")
        self.check("quoted", b'"a\r\n b"', END, b"a b")
        self.check("quoted", b'"a\\', BROKEN, b"")

    def test_phrase_has_one_space_between_words(self) -> None:
        """A phrase is read as its words with one space between them."""
        self.check("phrase", b'a  b "c d"<', MORE, b"a b c d", b"<")
        self.check("phrase", b"a.b c. d", END, b"a.b c. d")
        self.check("phrase", b".a", BROKEN, b"", b".a")
        self.check("phrase", b"", END, b"")

    def test_domains_lose_their_space(self) -> None:
        """Domains lose the space around their dots, and domain literals keep their brackets."""
        self.check("domain", b"@a . b c", MORE, b"a.b", b"c")
        self.check("domain", b"@[1.\r\n2]", END, b"[1.2]")
        self.check("domain", b"@[a\\]b\0]x", MORE, b"[a\\]b\xef\xbf\xbd]", b"x")
        for broken in (b"@", b"@[a", b"@[[", b"@a.", b"@,"):
            self.assertEqual(Cursor(broken).domain([]), BROKEN)
