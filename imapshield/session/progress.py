"""INPROGRESS (RFC 9585) while one call of the store takes long, such as the COPY of thousands of messages."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from imapshield.session.state import PROGRESS_SECONDS, SessionState, State

T = TypeVar("T")


async def with_progress(session: SessionState, work: Awaitable[T]) -> T:
    """Await `work`, and send INPROGRESS in each `PROGRESS_SECONDS` until it is done.

    The command must not have begun a response that is not complete.
    """
    reports = _Reports(session)
    try:
        return await work
    finally:
        reports.stop()


class _Reports:
    def __init__(self, session: SessionState) -> None:
        self._session: SessionState | None = session
        self._delayed_call: Any = session.io.call_later(PROGRESS_SECONDS, self._is_due)

    def stop(self) -> None:
        """Send no more responses."""
        self._session = None
        self._delayed_call.cancel()

    def _is_due(self) -> None:
        session = self._session
        assert session is not None
        self._delayed_call = session.io.call_later(PROGRESS_SECONDS, self._is_due)
        session.io.call_in_turn(self._report)

    def _report(self) -> None:
        session = self._session
        if session is not None and session.state is not State.LOGOUT and not session.io.full:
            session.report_progress()
