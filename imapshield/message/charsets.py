"""Decodes bytes in a named charset to text. Every charset name and every sequence of bytes has a result."""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from encodings.aliases import aliases
from itertools import chain
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE, chunks

# Python looks up a codec by importing a module with that name, and never forgets a name. So only the names of known
# charsets are looked up. This set excludes codecs that are not charsets, some of which decompress their input (zlib,
# bz2), and the codecs punycode and idna, whose cost is quadratic.
_NOT_CHARSETS: Final = {
    *("base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec"),
    *("zlib_codec", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"),
    *("mbcs", "oem", "tactis"),
}
# Names that Python does not know, and names that mailers use for a superset of the charset.
_MORE_NAMES: Final = {
    "ansi": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso_8859_8_i": "iso8859_8",
    "ks_c_5601_1987": "cp949",
    "macintosh": "mac_roman",
    "unicode_1_1_utf_7": "utf_7",
    "utf8mb4": "utf_8",
    "windows_874": "cp874",
    "x_gbk": "gb18030",
    "x_mac_roman": "mac_roman",
    "x_sjis": "cp932",
}
_KNOWN: Final = {
    name: codec
    for name, codec in (aliases | {c: c for c in aliases.values()} | _MORE_NAMES).items()
    if codec not in _NOT_CHARSETS
}
# Without a byte order mark, the incremental decoders of these codecs raise an exception, and the others assume the byte
# order of the machine.
_BYTE_ORDER_MARKS: Final = {
    "utf_16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf_32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
# The decoder of UTF-7 decodes a run of its base64 again with each chunk until the run ends. Genuine runs are shorter.
_MAX_UNDECODED: Final = 1 << 16
_ASCII_SUPERSETS: Final = (b"utf-8", b"us-ascii", b"", b"iso-8859-1")
_surrogate = re.compile("[\ud800-\udfff]")
_punctuation = re.compile(r"[^a-z0-9]+")


def to_text(data: bytes, charset: bytes) -> str:
    """Return `data` decoded. Bytes that cannot be decoded become U+FFFD.

    Args:
        data: the bytes.
        charset: the name of their charset, in any case. For US-ASCII and for an unknown charset, `data` is decoded as
            UTF-8 if it is valid UTF-8, and otherwise as cp1252.
    """
    if data.isascii() and charset.lower() in _ASCII_SUPERSETS:
        return data.decode("ascii")
    if len(data) > CHUNK_SIZE:
        return "".join(text_chunks(lambda: chunks(data), charset))
    codec = _codec_of(charset, lambda: (data,))
    return _without_surrogates(data.decode(codec, "replace"), codec)


def text_chunks(read: Callable[[], Iterable[bytes]], charset: bytes) -> Iterator[str]:
    """Yield what `to_text` returns, in pieces.

    Args:
        read: returns the chunks of the data (`chunks`). It is called several times.
        charset: as for `to_text`.
    """
    source = iter(read())
    rest: Iterable[bytes] = source
    if charset.lower() in _ASCII_SUPERSETS:
        for chunk in source:
            if not chunk.isascii():
                rest = chain((chunk,), source)
                break
            yield chunk.decode("ascii")
        else:
            return
    codec = _codec_of(charset, read)
    decoder = codecs.getincrementaldecoder(codec)("replace")
    for chunk in rest:
        yield _without_surrogates(decoder.decode(chunk), codec)
        if len(decoder.getstate()[0]) > _MAX_UNDECODED:
            yield _without_surrogates(decoder.decode(b"", True), codec)
            decoder.reset()
    yield _without_surrogates(decoder.decode(b"", True), codec)


def _codec_of(charset: bytes, read: Callable[[], Iterable[bytes]]) -> str:
    """Return Python's name of the charset of data, of which `read` returns the chunks."""
    codec = _codec(charset)
    if codec == "ascii":
        return "utf_8" if _is_utf8(read()) else "cp1252"
    marks = _BYTE_ORDER_MARKS.get(codec)
    if marks is not None and not next(iter(read()), b"").startswith(marks):
        return codec + "_le"  # what mailers on Windows write
    return codec


def _is_utf8(source: Iterable[bytes]) -> bool:
    """Return whether the chunks together are UTF-8.

    A character that is cut off at their end, as in a preview, is not a sign of another charset if others precede it.
    """
    decoder = codecs.getincrementaldecoder("utf_8")()
    is_ascii = True
    remaining = iter(source)
    for chunk in remaining:
        try:
            is_ascii = decoder.decode(chunk).isascii() and is_ascii
        except UnicodeDecodeError as error:
            is_ascii = is_ascii and error.object[: error.start].isascii()
            return not is_ascii and error.end == len(error.object) and not any(remaining)
    return not decoder.getstate()[0] or not is_ascii


def _without_surrogates(text: str, codec: str) -> str:
    # UTF-7 is the only decoder that returns lone surrogates, which no encoder accepts.
    return _surrogate.sub("\ufffd", text) if codec == "utf_7" else text


def _codec(charset: bytes) -> str:
    """Return Python's name of a charset, "ascii" for an unknown one."""
    if len(charset) > 40:
        return "ascii"
    name = _punctuation.sub("_", charset.decode("latin-1").lower()).strip("_")
    codec = _KNOWN.get(name) or _KNOWN.get(name.replace("windows_", "cp")) or "ascii"
    # Mailers that write Latin-1 mean cp1252, as web browsers have found.
    return "cp1252" if codec == "latin_1" else codec
