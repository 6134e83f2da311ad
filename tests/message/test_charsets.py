"""Any bytes under any charset name are decoded."""

from __future__ import annotations

from encodings import _cache

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.charsets import _KNOWN, to_text


class CharsetTests(SynchronousTestCase):
    def test_known_names_are_recognized_in_any_spelling(self) -> None:
        """Charset names are recognized in the spellings that messages use."""
        for data, charset, text in (
            ("é".encode(), b"UTF-8", "é"),
            (b"\xe9", b"iso-8859-1", "é"),
            (b"\x93\x94", b"ISO_8859-1", "\u201c\u201d"),
            (b"\xa4", b"iso-8859-15", "€"),
            ("日本".encode("iso2022_jp"), b"ISO-2022-JP", "日本"),
            ("日本".encode("cp932"), b"Shift_JIS", "日本"),
            ("中文".encode("gb18030"), b"gb2312", "中文"),
            ("привет".encode("koi8_r"), b"KOI8-R", "привет"),
            ("привет".encode("cp1251"), b"windows-1251", "привет"),
            ("é".encode(), b"us-ascii", "é"),
            (b"\xe9", b"us-ascii", "é"),
            ("é".encode(), b"x-unknown", "é"),
            (b"\xff", b"utf-8", "\ufffd"),
            (b"\xff", b"utf8", "\ufffd"),
            (b"\xff", b"UTF_8", "\ufffd"),
            ("éé".encode()[:-1], b"us-ascii", "é\ufffd"),
            ("é€".encode("utf-16-be"), b"utf-16be", "é€"),
            (b"\xfe\xff" + "é€".encode("utf-16-be"), b"utf-16", "é€"),
            ("é€".encode("utf-16-le"), b"utf-16", "é€"),
            ("é€".encode("utf-32-le"), b"utf-32", "é€"),
        ):
            self.assertEqual(to_text(data, charset), text, charset)

    def test_codec_that_is_no_charset_is_never_used(self) -> None:
        """Codecs that are not charsets are never used, because some decompress and some take quadratic time."""
        for name in (
            b"zlib",
            b"bz2",
            b"base64",
            b"rot13",
            b"punycode",
            b"idna",
            b"unicode_escape",
            b"undefined",
        ):
            self.assertEqual(to_text(b"abc", name), "abc")

    def test_unknown_names_are_never_looked_up_in_python(self) -> None:
        """Unknown names are never looked up in Python, which would cache them forever."""
        before = len(_cache)
        for number in range(100):
            to_text(b"\xe9", b"charset-%d" % number)
        self.assertLessEqual(len(_cache), before + 2)

    def test_all_names_decode(self) -> None:
        """Every name in the table has a decoder, and the text that it returns can be encoded."""
        data = bytes(range(256)) + b"+2AA-+AAA\xff\xfe"
        for name in _KNOWN:
            to_text(data, name.encode()).encode()

    def test_all_names_decode_large_text(self) -> None:
        """Text that is decoded in chunks raises nothing, and is decoded as short text is."""
        data = bytes(range(256)) * 1100 + b"+2AA-+AAA\xff\xfe"
        for codec in sorted(set(_KNOWN.values())):
            to_text(data, codec.encode()).encode()
        for charset in (b"utf-16", b"utf-32"):
            text = "é" * 200_000
            self.assertTrue(to_text(text.encode(f"{charset.decode()}-le"), charset) == text)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=40), st.binary(max_size=20))
    def test_any_bytes_under_any_name_are_decoded(self, data: bytes, charset: bytes) -> None:
        """Any bytes under any name are decoded to text that can be encoded."""
        to_text(data, charset).encode()
