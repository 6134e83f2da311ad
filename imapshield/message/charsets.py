"""Octets of a named charset into text. Any name, any octets: there is always an answer."""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases
from typing import Final

from imapshield.message.chunks import CHUNK_SIZE

# Python looks a charset up by importing a module of that name and remembers every name for ever, so
# only names that are known to be charsets may reach it. Left out besides: codecs that are no
# charsets, some of which inflate what they are given (zlib, bz2), and punycode and idna, whose cost
# is quadratic.
_NOT_CHARSETS: Final = {
    *("base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec"),
    *("zlib_codec", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"),
    *("mbcs", "oem", "tactis"),
}
_KNOWN: Final = {
    name: codec
    for name, codec in (
        aliases
        | {codec: codec for codec in aliases.values()}
        | {
            "utf8mb4": "utf_8",
            "x_sjis": "cp932",
            "ks_c_5601_1987": "cp949",
            "gb2312": "gb18030",
            "gbk": "gb18030",
        }
        | {"unicode_1_1_utf_7": "utf_7", "windows_874": "cp874", "iso_8859_8_i": "iso8859_8"}
        | {
            "x_mac_roman": "mac_roman",
            "macintosh": "mac_roman",
            "x_gbk": "gb18030",
            "ansi": "cp1252",
        }
    ).items()
    if codec not in _NOT_CHARSETS
}
# ASCII and Latin-1 are what mailers say when they mean cp1252, as browsers have found.
_AS_IF: Final = {"ascii": "utf_8", "latin_1": "cp1252"}
_surrogate = re.compile("[\ud800-\udfff]")
_other = re.compile(r"[^a-z0-9]+")


def to_text(octets: bytes, charset: bytes) -> str:
    """Return `octets` as text; unknown charsets and ASCII are UTF-8 if they can, else cp1252."""
    if octets.isascii():
        name = charset.lower()
        if name in (b"utf-8", b"us-ascii", b"", b"iso-8859-1"):
            return octets.decode("ascii")
    codec = _codec(charset)
    if codec == "utf_8" and charset.lower() != b"utf-8":
        try:
            return octets.decode("utf_8")
        except UnicodeDecodeError as error:
            # A character cut in two at the end does not make it another charset.
            cut = error.end == len(octets) and not octets[: error.start].isascii()
            codec = "utf_8" if cut else "cp1252"
    text = _decoded(octets, codec)
    # This decoder alone lets half a character through, which no encoder would take again.
    return _surrogate.sub("\ufffd", text) if codec == "utf_7" else text


def _decoded(octets: bytes, codec: str) -> str:
    if len(octets) <= CHUNK_SIZE:
        return octets.decode(codec, "replace")
    decoder = codecs.getincrementaldecoder(codec)("replace")
    pieces = range(0, len(octets), CHUNK_SIZE)
    return "".join(
        [
            decoder.decode(octets[at : at + CHUNK_SIZE], at + CHUNK_SIZE >= len(octets))
            for at in pieces
        ]
    )


def _codec(charset: bytes) -> str:
    if len(charset) > 40:
        return "utf_8"
    name = _other.sub("_", charset.decode("latin-1").lower()).strip("_")
    codec = _KNOWN.get(name) or _KNOWN.get(name.replace("windows_", "cp")) or "utf_8"
    return _AS_IF.get(codec, codec)
