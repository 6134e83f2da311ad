"""Encodes status responses and continuation requests (RFC 9051 sections 7.1 and 7.6).

The texts are written by the server, but may be derived from anything: every byte outside printable ASCII becomes "?".
"""

from __future__ import annotations

from imapshield.wire.responses import Tagged

CLEAN = bytes(i if 32 <= i < 127 else 63 for i in range(256))
"""A table for `bytes.translate` that replaces everything but printable ASCII by "?"."""

_CLEAN_CODE = CLEAN[:93] + b"?" + CLEAN[94:]  # "]" ends a response code, so it is replaced too


def line(text: bytes) -> bytes:
    """Return the untagged line ``* text``. `text` is sent as it is, so it must not come from a client."""
    return b"* %b\r\n" % text


def tagged(tag: bytes, response: Tagged) -> bytes:
    """Return the tagged response that completes a command."""
    return b"%b %b\r\n" % (tag.translate(CLEAN), _condition(*response))


def untagged(condition: bytes, text: str, code: bytes | None = None) -> bytes:
    """Return an untagged status response; `condition` is OK, NO, BAD, BYE or PREAUTH."""
    return b"* %b\r\n" % _condition(condition, text, code)


def continuation(text: str | bytes = b"") -> bytes:
    """Return a continuation request with a text, or with a SASL challenge in base64."""
    octets = text.encode("ascii", "replace") if isinstance(text, str) else text
    return b"+ %b\r\n" % octets.translate(CLEAN)


def _condition(condition: bytes, text: str, code: bytes | None) -> bytes:
    octets = (text or "Done").encode("ascii", "replace").translate(CLEAN)
    if code is None:
        return b"%b %b" % (condition, octets)
    return b"%b [%b] %b" % (condition, code.translate(_CLEAN_CODE), octets)
