"""CAPABILITY, ID, ENABLE and NAMESPACE: what client and server tell each other about themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import BadCommand
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.enable import Compress, Enable, Id
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session

ENABLES = (b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"IMAP4rev2", b"UIDONLY")
"""What ENABLE can turn on. `Session.enabled` has them in upper case; its properties say what each means."""


async def capability(session: Session, _: BareCommand) -> Tagged:
    """CAPABILITY (RFC 9051 section 6.1.1)."""
    session.io.write(encode.capability(session.capabilities()))
    return ok("That is what this server can do")


async def identify(session: Session, command: Id) -> Tagged:
    """ID (RFC 2971). Who the client says it is stands in the log when it misbehaves."""
    session.client = {
        name.decode("ascii", "replace")[:30].lower(): (value or b"").decode("utf-8", "replace")[
            :200
        ]
        for name, value in command.fields[:30]
    }
    session.io.write(encode.identity([(b"name", b"imapshield")]))
    return ok("Pleased to meet you")


async def enable(session: Session, command: Enable) -> Tagged:
    """ENABLE (RFC 5161): names that mean nothing to us are passed over."""
    names = [name for name in ENABLES if name.upper() in command.capabilities]
    session.io.write(encode.enabled(names))
    if {b"CONDSTORE", b"QRESYNC"} & set(names):
        session.enable_condstore()
    session.enabled.update(name.upper() for name in names)
    return ok("Enabled")


async def compress(session: Session, command: Compress) -> Tagged:
    """COMPRESS (RFC 4978): from the end of the OK on."""
    if command.algorithm != b"DEFLATE":
        raise BadCommand("The only algorithm is DEFLATE")
    if not session.io.can_compress:
        raise BadCommand("The connection is compressed already", b"COMPRESSIONACTIVE")
    session.compression_due = True
    return ok("What follows is deflated")


async def namespace(session: Session, _: BareCommand) -> Tagged:
    """NAMESPACE (RFC 2342): one, personal, without a prefix."""
    session.io.write(encode.namespace())
    return ok("That is all there is")
