"""NOOP, CHECK and IDLE: report what other sessions and programs did to the selected mailbox."""

from imapshield.errors import BadCommand
from imapshield.session.session import Session
from imapshield.session.state import State
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.responses import Tagged, ok


async def noop(session: Session, command: BareCommand) -> Tagged:
    """Handle NOOP and CHECK. They poll the file system, so that mail that has just been delivered is reported.

    One poll answers all of them that run in the same turn: the client had sent them before that poll.
    """
    turn = session.io.turns
    if session.state is State.SELECTED and turn != session.polled_in_turn:
        await session.mailbox.poll()
        session.polled_in_turn = turn
    return ok(f"{command.name.decode()} completed")


async def idle(session: Session, _: BareCommand) -> Tagged:
    """Handle IDLE (RFC 2177): send updates at any time until the client sends DONE.

    Without a selected mailbox the updates are the events of NOTIFY.
    """
    if session.state is State.SELECTED:
        await session.mailbox.watch_for_changes()
        await session.mailbox.poll()
    session.io.write(encode.continuation("idling"))
    session.idling = True
    try:
        session.schedule_updates()
        session.schedule_pending()
        line = await session.io.read_line()
    finally:
        session.idling = False
    await session.sent()  # the response that the client was being sent
    if line.upper() != b"DONE":
        raise BadCommand("Expected DONE to end IDLE")
    return ok("IDLE completed")
