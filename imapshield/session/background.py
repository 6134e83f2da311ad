"""Untagged responses between commands: wait for the fair queue, then send unless a command is running."""

from collections.abc import Awaitable, Callable

from imapshield.session.state import SessionState, State


class BackgroundSender:
    """Runs `send` between commands, at most once at a time.

    A large STORE can affect hundreds of idle sessions, so each waits until the fair queue schedules it, and by then one
    run of `send` covers everything that has happened.

    Args:
        state: the session.
        send: writes what is pending. It must stop when `state.busy` becomes true during an await, because a response in
            the middle of a streamed FETCH would become part of a message.
    """

    def __init__(self, state: SessionState, send: Callable[[], Awaitable[None]]) -> None:
        self._state = state
        self._send = send
        self._scheduled = False

    def schedule(self) -> None:
        """Run `send` soon. Does nothing while a command runs: its end schedules what is pending."""
        if not self._scheduled and not self._state.busy:
            self._scheduled = True
            self._state.io.run_in_background(self._run())

    async def _run(self) -> None:
        try:
            await self._state.io.drain()
            if not self._state.busy and self._state.state is not State.LOGOUT:
                await self._send()
        finally:
            self._scheduled = False
