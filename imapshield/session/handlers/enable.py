"""CAPABILITY, ID, NAMESPACE, ENABLE and COMPRESS: what client and server support."""

from imapshield.errors import BadCommand
from imapshield.session.capabilities import ENABLE_CAPABILITIES
from imapshield.session.command_spec import AfterResponse, Response
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.login import Compress, Enable, Id
from imapshield.wire.responses import Tagged, ok


async def capability(session: Session, _: BareCommand) -> Tagged:
    """Handle CAPABILITY (RFC 9051 section 6.1.1)."""
    session.io.write(encode.capability(session.capabilities()))
    return ok("CAPABILITY completed")


async def identify(session: Session, command: Id) -> Tagged:
    """Handle ID (RFC 2971). The information that the client sends about itself is only logged when a limit triggers."""
    session.io.client_identified(command.fields)
    session.io.write(encode.identity([(b"name", b"imapshield")]))
    return ok("ID completed")


async def enable(session: Session, command: Enable) -> Tagged:
    """Handle ENABLE (RFC 5161), which ignores unknown names."""
    names = [name for name in ENABLE_CAPABILITIES if name.upper() in command.capabilities]
    session.io.write(encode.enabled(names))
    if {b"CONDSTORE", b"QRESYNC"} & set(names):
        session.enable_condstore()
    session.enabled |= {name.upper() for name in names}
    return ok("ENABLE completed")


async def namespace(session: Session, _: BareCommand) -> Tagged:
    """Handle NAMESPACE (RFC 2342): there is one personal namespace."""
    session.io.write(encode.namespace(session.namespace.prefix, names=session.names))
    return ok("NAMESPACE completed")


async def compress(session: Session, command: Compress) -> Response:
    """Handle COMPRESS (RFC 4978), which takes effect after the tagged response."""
    if command.algorithm != b"DEFLATE":
        raise BadCommand("Unknown compression algorithm; use DEFLATE")
    if not session.io.can_compress:
        raise BadCommand("Compression is already active", b"COMPRESSIONACTIVE")
    session.io.check_compression()
    return Response(ok("Begin compression now"), AfterResponse.START_COMPRESSION)
