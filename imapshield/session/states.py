"""The states of RFC 9051 section 3, and which commands each may send."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a session stands; the value is Twisted's word for it."""

    NOT_AUTHENTICATED = "unauth"
    AUTHENTICATED = "auth"
    SELECTED = "select"
    LOGOUT = "logout"


ANY_STATE = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})
NOT_AUTHENTICATED = frozenset({State.NOT_AUTHENTICATED})
AUTHENTICATED = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED = frozenset({State.SELECTED})

WRONG_STATE = {
    State.NOT_AUTHENTICATED: "Log in first",
    State.AUTHENTICATED: "Select a mailbox first",
    State.SELECTED: "You are logged in already",
    State.LOGOUT: "You have logged out",
}
"""What a command is told that may not be sent in this state."""


def wrong_state_text(state: State, allowed: frozenset[State]) -> str:
    """Say why a command of the states `allowed` cannot be done in `state`."""
    if allowed == NOT_AUTHENTICATED:
        return WRONG_STATE[State.SELECTED]
    return WRONG_STATE[state]
