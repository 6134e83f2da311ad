"""Decodes bytes in a named charset to text. Every charset name and every sequence of bytes has a result."""

import codecs
import re
from encodings.aliases import aliases
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE

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
_surrogate = re.compile("[\ud800-\udfff]")
_punctuation = re.compile(r"[^a-z0-9]+")


def to_text(data: bytes, charset: bytes) -> str:
    """Return `data` decoded. Bytes that cannot be decoded become U+FFFD.

    Args:
        data: the bytes.
        charset: the name of their charset, in any case. For US-ASCII and for an unknown charset, `data` is decoded as
            UTF-8 if it is valid UTF-8, and otherwise as cp1252.
    """
    if data.isascii():
        name = charset.lower()
        if name in (b"utf-8", b"us-ascii", b"", b"iso-8859-1"):
            return data.decode("ascii")
    codec = _codec(charset)
    if codec == "ascii":
        try:
            return data.decode("utf_8")
        except UnicodeDecodeError as error:
            # A UTF-8 character that is cut off at the end of the data is not a sign of another charset.
            is_cut_off = error.end == len(data) and not data[: error.start].isascii()
            codec = "utf_8" if is_cut_off else "cp1252"
    text = _decode(data, codec)
    # UTF-7 is the only decoder that returns lone surrogates, which no encoder accepts.
    return _surrogate.sub("\ufffd", text) if codec == "utf_7" else text


def _decode(data: bytes, codec: str) -> str:
    if codec in _BYTE_ORDER_MARKS and not data.startswith(_BYTE_ORDER_MARKS[codec]):
        codec += "_le"  # what mailers on Windows write
    if len(data) <= CHUNK_SIZE:
        return data.decode(codec, "replace")
    decoder = codecs.getincrementaldecoder(codec)("replace")
    stops = range(CHUNK_SIZE, len(data) + CHUNK_SIZE, CHUNK_SIZE)
    return "".join(
        [decoder.decode(data[stop - CHUNK_SIZE : stop], stop >= len(data)) for stop in stops]
    )


def _codec(charset: bytes) -> str:
    """Return Python's name of a charset, "ascii" for an unknown one."""
    if len(charset) > 40:
        return "ascii"
    name = _punctuation.sub("_", charset.decode("latin-1").lower()).strip("_")
    codec = _KNOWN.get(name) or _KNOWN.get(name.replace("windows_", "cp")) or "ascii"
    # Mailers that write Latin-1 mean cp1252, as web browsers have found.
    return "cp1252" if codec == "latin_1" else codec
