"""The capabilities of a session: those of its commands, its account and its connection."""

from collections.abc import Iterable
from typing import Any

from imapshield.mailbox.account_api import ICatenate
from imapshield.session.command_spec import CommandSpec
from imapshield.session.state import SessionState, State

BASE = (b"IMAP4rev1", b"LITERAL+")
"""The capabilities that framing and grammar alone implement; they are listed in every session."""

IMAP4REV2 = frozenset(
    b"BINARY ENABLE ESEARCH IDLE LIST-EXTENDED LIST-STATUS MOVE NAMESPACE SASL-IR SEARCHRES"
    b" SPECIAL-USE STATUS=SIZE UIDPLUS UNSELECT IMAP4rev2".split()
)
"""The capabilities that IMAP4rev2 requires (RFC 9051 appendix E), and IMAP4rev2 itself, which ENABLE must accept."""

ENABLE_CAPABILITIES = (b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"IMAP4rev2", b"UIDONLY")
"""The extensions that ENABLE can turn on, as CAPABILITY spells them; `SessionState.enabled` has them in upper case."""

EXTENSIONS = tuple(
    b"CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE ESEARCH SEARCHRES PARTIAL"
    b" WITHIN STATUS=SIZE MULTIAPPEND BINARY PREVIEW OBJECTID SAVEDATE INPROGRESS".split()
)
"""The extensions that the handlers of LIST, STATUS, SEARCH, FETCH and APPEND implement beyond IMAP4rev1."""

BEFORE_LOGIN = (b"ID", b"SASL-IR", b"ENABLE", b"IDLE")
"""The capabilities of commands that are listed before login; the others would only lengthen every greeting."""


class CommandCapabilities:
    """The capabilities of the commands of a server, in the order of the commands.

    They depend on the interfaces of the account alone, so they are computed once for each set of these.

    Args:
        specs: the commands.
    """

    def __init__(self, specs: Iterable[CommandSpec[Any]]) -> None:
        self._specs = [spec for spec in specs if spec.capability]
        self._required = tuple(
            dict.fromkeys(spec.requires for spec in self._specs if spec.requires is not None)
        )
        # For each part of `_required`: what comes first, and all names.
        self._known: dict[tuple[bool, ...], tuple[list[bytes], list[bytes]]] = {}

    def names(self, session: SessionState) -> tuple[list[bytes], list[bytes]]:
        """Return what the list of a session begins with, and the capabilities of its commands. Do not change them."""
        supported = tuple([session.supports(each) for each in self._required])
        found = self._known.get(supported)
        if found is None:
            found = self._known[supported] = self._new_names(session)
        return found

    def _new_names(self, session: SessionState) -> tuple[list[bytes], list[bytes]]:
        supported = (spec for spec in self._specs if session.supports(spec.requires))
        names = [name for spec in supported for name in spec.capability.split()]
        base = list(BASE)
        if IMAP4REV2.issubset([*names, *EXTENSIONS, *ENABLE_CAPABILITIES]):
            base.insert(1, b"IMAP4rev2")
        return base, names


def capability_names(session: SessionState, commands: CommandCapabilities) -> list[bytes]:
    """Return the capabilities of a session, in a fixed order.

    Args:
        session: the session.
        commands: those of the commands of the server.
    """
    base, of_commands = commands.names(session)
    if session.state is State.NOT_AUTHENTICATED:
        return base + _before_login(session, of_commands)
    return base + _after_login(session, of_commands)


def _before_login(session: SessionState, of_commands: list[bytes]) -> list[bytes]:
    io = session.io
    names = [name for name in of_commands if name in BEFORE_LOGIN]
    if io.can_start_tls:
        names.append(b"STARTTLS")
    # PLAIN last: Twisted's client takes the first mechanism that it knows.
    names += [b"AUTH=" + name for name in io.sasl_mechanisms()]
    return [*names, b"AUTH=PLAIN" if io.secure and io.accepts_passwords else b"LOGINDISABLED"]


def _after_login(session: SessionState, of_commands: list[bytes]) -> list[bytes]:
    limits = session.limits
    unsupported = getattr(session.account, "unsupported_capabilities", ())
    names = list(of_commands)
    if not session.io.can_compress:
        # RFC 4978 section 3: it is not offered while compression is active.
        names.remove(b"COMPRESS=DEFLATE")
    names += [name for name in EXTENSIONS if name not in unsupported]
    names += [name for name in ENABLE_CAPABILITIES if name != b"IMAP4rev2"]
    if ICatenate.providedBy(session.account):
        names.append(b"CATENATE")
    if limits.max_messages_per_command:
        names.append(b"MESSAGELIMIT=%d" % limits.max_messages_per_command)
    return [*names, b"APPENDLIMIT=%d" % limits.max_message_size]
