"""Encodes responses: each function returns whole lines or one element of a line, ready to send (RFC 9051 section 7).

Import the package and call ``encode.exists(5)``; its modules are for the package itself.

Rules
-----
* No byte from a client or a message can break a line: texts and response codes are cleaned, and strings are sent as an
  atom, quoted or as a literal, whichever can hold them.
* Nothing here knows what a response means or when it may be sent.
"""

from imapshield.wire.encode.data_responses import (
    appenduid,
    capability,
    capability_code,
    copyuid,
    enabled,
    esearch,
    esearch_mailbox,
    exists,
    expunge,
    flags,
    identity,
    list_response,
    metadata,
    metadata_changed,
    namespace,
    permanentflags_code,
    quota,
    quotaroot,
    recent,
    search,
    status,
    thread,
    vanished,
)
from imapshield.wire.encode.fetch_data import (
    fetch_lines,
    fetch_value,
    label,
)
from imapshield.wire.encode.status_lines import (
    continuation,
    line,
    tagged,
    untagged,
)
from imapshield.wire.encode.strings import (
    NIL,
    astring,
    literal,
    literal_head,
    mailbox,
    nstring,
    parenthesised,
    quoted,
    string,
)

__all__ = [
    "NIL", "appenduid", "astring", "capability", "capability_code", "continuation", "copyuid",
    "enabled", "esearch", "esearch_mailbox", "exists", "expunge", "fetch_lines", "fetch_value",
    "flags", "identity", "label", "line", "list_response", "literal", "literal_head", "mailbox",
    "metadata", "metadata_changed", "namespace", "nstring", "parenthesised",
    "permanentflags_code", "quota", "quotaroot", "quoted", "recent", "search", "status",
    "string", "tagged", "thread", "untagged", "vanished",
]  # fmt: skip
