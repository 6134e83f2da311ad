"""The states of RFC 9051 section 3, and the states in which commands are allowed."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """The state of a session; the values are the ones that `twisted.mail.imap4` uses."""

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
    State.SELECTED: "Already logged in",
    State.LOGOUT: "Already logged out",
}
"""The text of the BAD response to a command that is not allowed in this state."""


def wrong_state_text(state: State, allowed: frozenset[State]) -> str:
    """Return the text of the BAD response to a command that is allowed only in the states `allowed`."""
    if allowed == NOT_AUTHENTICATED:
        return WRONG_STATE[State.SELECTED]
    return WRONG_STATE[state]
