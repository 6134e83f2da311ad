"""The capabilities of a session: those of its commands, its account and its connection."""

from collections.abc import Iterable
from typing import Any

from imapshield.mailbox.account_api import ICatenate
from imapshield.session.command_spec import CommandSpec
from imapshield.session.state import SessionState, State

BASE = (b"IMAP4rev1", b"LITERAL+")
"""What framing and grammar alone implement, listed in every state."""

IMAP4REV2 = frozenset(
    b"BINARY ENABLE ESEARCH IDLE LIST-EXTENDED LIST-STATUS MOVE NAMESPACE SASL-IR SEARCHRES SPECIAL-USE STATUS=SIZE"
    b" UIDPLUS UNSELECT IMAP4rev2".split()
)
"""The extensions of IMAP4rev1 that make up IMAP4rev2 (RFC 9051 appendix E), and its own name for ENABLE."""

ENABLES = (b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"IMAP4rev2", b"UIDONLY")
"""What ENABLE can turn on. `SessionState.enabled` holds them in upper case; its properties say what each means."""

EXTENSIONS = (
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
"""What the handlers of LIST, STATUS, SEARCH, FETCH and APPEND implement beyond IMAP4rev1."""

BEFORE_LOGIN = (b"ID", b"SASL-IR", b"ENABLE", b"IDLE")
"""The capabilities of commands that clients look for before login. The others would only lengthen every greeting."""


def capability_names(state: SessionState, specs: Iterable[CommandSpec[Any]]) -> list[bytes]:
    """Return the capabilities of a session, in a fixed order.

    Args:
        state: the session.
        specs: the commands of the server.
    """
    of_commands = [
        name for spec in specs if state.supports(spec.requires) for name in spec.capability.split()
    ]
    base = list(BASE)
    if {*of_commands, *EXTENSIONS, *ENABLES} >= IMAP4REV2:
        base.insert(1, b"IMAP4rev2")
    if state.state is State.NOT_AUTHENTICATED:
        return base + _before_login(state, of_commands)
    return base + _after_login(state, of_commands)


def _before_login(state: SessionState, of_commands: list[bytes]) -> list[bytes]:
    io = state.io
    names = [name for name in of_commands if name in BEFORE_LOGIN]
    if io.can_start_tls:
        names.append(b"STARTTLS")
    # PLAIN last: Twisted's client takes the first mechanism that it knows.
    names += [b"AUTH=" + name for name in io.sasl_mechanisms()]
    names.append(b"AUTH=PLAIN" if io.secure and io.accepts_passwords else b"LOGINDISABLED")
    return names


def _after_login(state: SessionState, of_commands: list[bytes]) -> list[bytes]:
    limits = state.limits
    names = list(of_commands)
    if not state.io.can_compress:
        names.remove(b"COMPRESS=DEFLATE")  # RFC 4978 section 3: not offered twice
    unsupported = getattr(state.account, "unsupported_capabilities", ())
    names += [name for name in EXTENSIONS if name not in unsupported]
    names += [name for name in ENABLES if name != b"IMAP4rev2"]
    if ICatenate.providedBy(state.account):
        names.append(b"CATENATE")
    if limits.max_messages_per_command:
        names.append(b"MESSAGELIMIT=%d" % limits.max_messages_per_command)
    names.append(b"APPENDLIMIT=%d" % limits.max_message_size)
    return names
