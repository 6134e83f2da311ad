"""The states of RFC 9051 section 3, and which commands each may send."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a session stands; the value is Twisted's word for it."""

    STRANGER = "unauth"
    USER = "auth"
    SELECTED = "select"
    GONE = "logout"


ANY = frozenset({State.STRANGER, State.USER, State.SELECTED})
STRANGER = frozenset({State.STRANGER})
USER = frozenset({State.USER, State.SELECTED})
SELECTED = frozenset({State.SELECTED})

WRONG_STATE = {
    State.STRANGER: "Log in first",
    State.USER: "Select a mailbox first",
    State.SELECTED: "You are logged in already",
    State.GONE: "You have logged out",
}
"""What a command is told that may not be sent in this state."""


def refusal(state: State, allowed: frozenset[State]) -> str:
    """Say why a command of the states `allowed` cannot be done in `state`."""
    if allowed == STRANGER:
        return WRONG_STATE[State.SELECTED]
    return WRONG_STATE[state]
