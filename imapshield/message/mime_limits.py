"""How much of one message is parsed: `MimeLimits`.

No message is refused. What exceeds a limit is not parsed, and the message is served all the same. The limits bound the
cost and the size of the answers to one message as a whole, and not only those of each part.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class MimeLimits:
    """How much of a message is parsed. A part beyond a limit is not an error: it becomes opaque.

    Attributes:
        depth: levels of nested parts. Dovecot has the same limit, since CVE-2020-12100. BODYSTRUCTURE is written
            recursively, so keep this below 200.
        parts: parts of a message. Dovecot has the same limit. A part costs about 15 µs and 60 bytes of BODYSTRUCTURE.
        headers: bytes of the headers of all parts together, after which no further part is found. 400 forwarded
            messages with headers of 10 KB fit.
        fields: bytes of the Content-X fields of all parts together, after which no further part is found. A hostile
            mebibyte takes half a second. The fields of a genuine part have about 200 bytes.
        field: bytes of one Content-X field that are read. The longest genuine ones are file names of a few kilobytes.
        header: bytes of a header that are searched for fields. Dovecot has a limit since CVE-2024-23185. The largest
            genuine headers list some thousands of recipients. Also bytes of the fields in all envelopes of a
            BODYSTRUCTURE. A hostile header of this size takes half a second.
        parameters: parameters of a field. Dovecot has the same limit, since CVE-2026-27859.
        languages: tags of a Content-Language field.
        addresses: addresses of an envelope, or of all envelopes in a BODYSTRUCTURE. Dovecot has a limit since
            CVE-2024-23184.
        boundary: bytes of a boundary that are compared: the 70 that RFC 2046 allows, and a few more.
    """

    depth: int = 100
    parts: int = 10_000
    headers: int = 1 << 22
    header: int = 1 << 19
    fields: int = 1 << 20
    field: int = 1 << 14
    parameters: int = 128
    languages: int = 100
    addresses: int = 10_000
    boundary: int = 80


DEFAULT_LIMITS: Final = MimeLimits()
