"""What a session can do, derived from the table and from what the connection and the account can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.mailbox.account_api import ICatenate
from imapshield.session import table
from imapshield.session.handlers import enable
from imapshield.session.states import State

if TYPE_CHECKING:
    from imapshield.session.session import Session

GRAMMAR = (b"IMAP4rev1", b"LITERAL+")
"""What framing and grammar alone make true; anybody may be told."""

REV2 = frozenset(
    b"BINARY ENABLE ESEARCH IDLE LIST-EXTENDED LIST-STATUS MOVE NAMESPACE SASL-IR SEARCHRES SPECIAL-USE STATUS=SIZE"
    b" UIDPLUS UNSELECT IMAP4rev2".split()
)
"""The extensions of IMAP4rev1 that IMAP4rev2 is made of (RFC 9051 appendix E), and what ENABLE calls the whole."""

MAILBOX = (
    b"CHILDREN",
    b"LIST-EXTENDED",
    b"LIST-STATUS",
    b"SPECIAL-USE",
    b"CREATE-SPECIAL-USE",
    b"ESEARCH",
    b"SEARCHRES",
    b"PARTIAL",
    b"WITHIN",
    b"STATUS=SIZE",
    b"MULTIAPPEND",
    b"BINARY",
    b"PREVIEW",
    b"OBJECTID",
    b"SAVEDATE",
    b"INPROGRESS",
)
"""What the handlers of LIST, STATUS, SEARCH, FETCH and APPEND do beyond IMAP4rev1."""

BEFORE_LOGIN = (b"ID", b"SASL-IR", b"ENABLE", b"IDLE")
"""Of the table's: what clients look for before they log in. The rest would only lengthen every greeting."""


def of(session: Session) -> list[bytes]:
    """Return the capability names, in a fixed order."""
    names = list(GRAMMAR)
    from_table = [
        name
        for entry in table.TABLE.values()
        if session.can(entry)
        for name in (entry.capability or b"").split()
    ]
    if REV2 <= {*from_table, *MAILBOX, *enable.ENABLES}:
        names.insert(1, b"IMAP4rev2")
    if session.state is State.NOT_AUTHENTICATED:
        names += [name for name in from_table if name in BEFORE_LOGIN]
        if session.io.can_start_tls:
            names.append(b"STARTTLS")
        # PLAIN last: Twisted's client takes the first that it knows.
        names += [b"AUTH=" + name for name in session.io.sasl_mechanisms()]
        if session.io.secure and session.io.accepts_passwords:
            names.append(b"AUTH=PLAIN")
        else:
            names.append(b"LOGINDISABLED")
        return names
    if not session.io.can_compress:
        from_table.remove(b"COMPRESS=DEFLATE")  # RFC 4978 section 3: not offered twice
    names += from_table
    unsupported = getattr(session.account, "unsupported_capabilities", ())
    names += [name for name in MAILBOX if name not in unsupported]
    names += [name for name in enable.ENABLES if name != b"IMAP4rev2"]
    if ICatenate.providedBy(session.account):
        names.append(b"CATENATE")
    if session.limits.max_messages_per_command:
        names.append(b"MESSAGELIMIT=%d" % session.limits.max_messages_per_command)
    names.append(b"APPENDLIMIT=%d" % session.limits.max_message_size)
    return names
