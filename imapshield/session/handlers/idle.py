"""NOOP, CHECK and IDLE: hearing of what others did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imapshield.errors import BadCommand
from imapshield.session.states import State
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.responses import Tagged, ok

if TYPE_CHECKING:
    from imapshield.session.session import Session


async def noop(session: Session, _: BareCommand) -> Tagged:
    """NOOP and CHECK: look at the disk, so that the client hears of mail that came just now."""
    if session.state is State.SELECTED:
        await session.mailbox.poll()
    return ok("Done")


async def idle(session: Session, _: BareCommand) -> Tagged:
    """IDLE (RFC 2177): tell at once, until DONE."""
    if session.state is State.SELECTED:
        await session.mailbox.watch_for_changes()
        await session.mailbox.poll()
    session.io.write(encode.continuation("Idling"))
    if session.state is State.SELECTED:
        session.send_pending_updates(expunge=True)
    session.idling = session.state is State.SELECTED
    session.search_contexts.settle()
    try:
        line = await session.io.read_line()
    finally:
        session.idling = False
    if line.upper() != b"DONE":
        raise BadCommand("IDLE ends with DONE")
    return ok("Done idling")
