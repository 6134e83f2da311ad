"""STARTTLS, LOGIN, AUTHENTICATE, UNAUTHENTICATE and LOGOUT."""

import base64

from imapshield.errors import BadCommand, CommandRefused
from imapshield.mailbox.account_api import IAccount
from imapshield.session.command_spec import AfterResponse, Response
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.login import Authenticate, Login
from imapshield.wire.grammar.login import decode_base64
from imapshield.wire.responses import Tagged, ok


async def starttls(session: Session, _: BareCommand) -> Response:
    """Handle STARTTLS (RFC 9051 section 6.2.1)."""
    if not session.io.can_start_tls:
        raise BadCommand("STARTTLS is not available")
    return Response(ok("Begin TLS negotiation now"), AfterResponse.START_TLS)


async def login(session: Session, command: Login) -> Tagged:
    """Handle LOGIN (RFC 9051 section 6.2.3)."""
    _require_privacy(session, command.user, "LOGIN")
    account = await session.io.login(command.user, command.password.value, "LOGIN")
    return _log_in(session, account)


async def authenticate(session: Session, command: Authenticate) -> Tagged:
    """Handle AUTHENTICATE (RFC 9051 section 6.2.2), with an initial response (RFC 4959)."""
    return _log_in(session, await _authenticated_account(session, command))


async def _authenticated_account(session: Session, command: Authenticate) -> IAccount:
    initial = None if command.initial_response is None else command.initial_response.value

    async def send_challenge(challenge: bytes) -> bytes:
        nonlocal initial
        if initial is not None:
            if challenge:
                raise BadCommand("This mechanism has no initial response")
            response, initial = initial, None
            return response
        session.io.write(encode.continuation(base64.b64encode(challenge)))
        line = await session.io.read_line()
        if line == b"*":
            raise BadCommand("Authentication cancelled")
        return decode_base64(line)

    if command.mechanism == b"PLAIN":
        _require_privacy(session, b"", "PLAIN")
        acting_for, user, password = _parse_plain(await send_challenge(b""))
        if acting_for not in (b"", user):
            return await session.io.login(
                session.io.master_name(user, acting_for), password, "PLAIN"
            )
        return await session.io.login(user, password, "PLAIN")
    if command.mechanism in session.io.sasl_mechanisms():
        return await session.io.login_sasl(command.mechanism, send_challenge)
    text = "Unsupported authentication mechanism; CAPABILITY lists the supported ones"
    raise CommandRefused(b"CANNOT", text)


def _parse_plain(message: bytes) -> tuple[bytes, bytes, bytes]:
    """Return whose mail is wanted (which may be empty), the user and the password in a SASL PLAIN message (RFC 4616).

    Raises:
        BadCommand: the message is malformed.
    """
    fields = message.split(b"\0")
    if len(fields) != 3 or not fields[1]:
        raise BadCommand("Invalid PLAIN response; expected NUL, user, NUL, password")
    return fields[0], fields[1], fields[2]


def _require_privacy(session: Session, user: bytes, mechanism: str) -> None:
    if not session.io.secure:
        session.io.login_refused(user, mechanism)
        advice = "use STARTTLS first" if session.io.can_start_tls else "this server offers no TLS"
        raise CommandRefused(b"PRIVACYREQUIRED", f"Cleartext login is not allowed; {advice}")


def _log_in(session: Session, account: IAccount) -> Tagged:
    session.log_in(account)
    return ok("Logged in", encode.capability_code(session.capabilities()))


async def unauthenticate(session: Session, _: BareCommand) -> Response:
    """Handle UNAUTHENTICATE (RFC 8437), after which the client can log in again over the same TLS connection."""
    session.leave()
    return Response(ok("UNAUTHENTICATE completed"), AfterResponse.UNAUTHENTICATE)


async def logout(session: Session, _: BareCommand) -> Response:
    """Handle LOGOUT (RFC 9051 section 6.1.3)."""
    session.leave()
    session.io.write(encode.untagged(b"BYE", "Logging out"))
    return Response(ok("LOGOUT completed"), AfterResponse.LOG_OUT)
