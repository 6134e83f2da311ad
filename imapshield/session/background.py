"""Untagged responses between commands, sent when the fair queue schedules the connection."""

from collections.abc import Awaitable, Callable

from imapshield.session.state import SessionState, State


class BackgroundSender:
    """Runs `send` between commands, one run at a time.

    A large STORE can affect hundreds of idle sessions, so each run waits until the fair queue schedules its connection,
    and until then costs no more than its entry there. It then covers all changes that have happened before.

    Args:
        session: the session.
        send: writes the pending responses. After each await other than `session.send`, it must ask
            `session.may_send_unsolicited` again and stop if it is false, because a response in the middle of another
            one would become part of that.
    """

    __slots__ = ("_scheduled", "_send", "_session")

    def __init__(self, session: SessionState, send: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._send = send
        self._scheduled = False

    def schedule(self) -> None:
        """Run `send` soon, unless a command is running: the end of the command schedules the pending responses."""
        if not self._scheduled and not self._session.busy:
            self._scheduled = True
            self._session.io.call_in_turn(self._begin)

    def _begin(self) -> None:
        if self._session.state is State.LOGOUT:
            self._scheduled = False
        else:
            self._session.run_in_background(self._run())

    async def _run(self) -> None:
        try:
            if await self._session.may_send_unsolicited():
                await self._send()
        finally:
            self._scheduled = False
