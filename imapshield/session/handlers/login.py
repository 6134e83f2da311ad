"""LOGIN, AUTHENTICATE, STARTTLS and LOGOUT: how a stranger becomes a user, and how either leaves."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.login import Authenticate, Login
from imapshield.wire.grammar.login import decode_base64
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.mailbox.account_api import IAccount
    from imapshield.session.session import Session


async def logout(session: Session, _: BareCommand) -> Tagged:
    """LOGOUT."""
    session.leave()
    session.io.write(encode.untagged(b"BYE", "Good-bye"))
    session.closing = True
    return ok("Logged out")


async def unauthenticate(session: Session, _: BareCommand) -> Tagged:
    """UNAUTHENTICATE (RFC 8437): a stranger again once the OK is written, with TLS as it is."""
    session.leave()
    session.logout_due = True
    return ok("You may log in again")


async def starttls(session: Session, _: BareCommand) -> Tagged:
    """STARTTLS (RFC 9051 section 6.2.1). The edge changes over once the OK is written."""
    if not session.io.can_start_tls:
        raise BadCommand("TLS cannot be started here")
    session.tls_due = True
    return ok("Begin TLS now")


async def login(session: Session, command: Login) -> Tagged:
    """LOGIN (RFC 9051 section 6.2.3)."""
    _may_send_password(session)
    account = await session.io.login(command.user, command.password.value, "LOGIN")
    return _welcome(session, account)


async def authenticate(session: Session, command: Authenticate) -> Tagged:
    """AUTHENTICATE (RFC 9051 section 6.2.2), with an initial response (RFC 4959)."""
    initial = None if command.initial_response is None else command.initial_response.value

    async def ask(challenge: bytes) -> bytes:
        nonlocal initial
        if initial is not None:
            if challenge:
                raise BadCommand("With this mechanism the server speaks first")
            answer, initial = initial, None
            return answer
        session.io.write(encode.continuation(base64.b64encode(challenge)))
        line = await session.io.read_line()
        if line == b"*":
            raise BadCommand("Authentication was called off")
        return decode_base64(line)

    if command.mechanism == b"PLAIN":
        _may_send_password(session)
        user, password = _plain(await ask(b""))
        account = await session.io.login(user, password, "PLAIN")
    elif command.mechanism in session.io.sasl_mechanisms():
        account = await session.io.login_sasl(command.mechanism, ask)
    else:
        raise CommandRefused(b"CANNOT", "That mechanism is not offered; CAPABILITY tells which are")
    return _welcome(session, account)


def _plain(message: bytes) -> tuple[bytes, bytes]:
    """Return user and password of SASL PLAIN (RFC 4616); to act for another user is not offered."""
    fields = message.split(b"\0")
    if len(fields) != 3 or not fields[1]:
        raise BadCommand("PLAIN takes NUL, user, NUL, password")
    if fields[0] not in (b"", fields[1]):
        raise CommandRefused(b"AUTHORIZATIONFAILED", "You may not act for another user")
    return fields[1], fields[2]


def _may_send_password(session: Session) -> None:
    if not session.io.secure:
        raise CommandRefused(
            b"PRIVACYREQUIRED",
            "Use TLS: a password in the clear can be read on the way",
        )


def _welcome(session: Session, account: IAccount) -> Tagged:
    session.log_in(account)
    return ok("Welcome", encode.capability_code(session.capabilities()))
