"""The description of one command for the dispatcher, and the values that handlers return."""

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Generic, NamedTuple, TypeVar

from zope.interface import Interface

from imapshield.session.state import State
from imapshield.wire.commands.base import Command
from imapshield.wire.responses import Tagged

NOT_AUTHENTICATED = frozenset({State.NOT_AUTHENTICATED})
SELECTED = frozenset({State.SELECTED})
LOGGED_IN = SELECTED | {State.AUTHENTICATED}
ANY_STATE = LOGGED_IN | NOT_AUTHENTICATED


class AfterResponse(Enum):
    """What the dispatcher does when it has written the tagged response.

    `LOG_OUT` closes the connection because the client has asked for that, and `CLOSE` although it has not.
    """

    START_TLS = auto()
    START_COMPRESSION = auto()
    UNAUTHENTICATE = auto()
    LOG_OUT = auto()
    CLOSE = auto()


class Response(NamedTuple):
    """The tagged response of a command, and what to do after it is written."""

    tagged: Tagged
    then: AfterResponse | None = None


Result = Tagged | Response
"""The return type of handlers; a `Tagged` alone means that nothing follows the response."""

S = TypeVar("S")


class CommandSpec(NamedTuple, Generic[S]):
    """How a session of type `S` executes one command; `table.spec` makes one with checked types.

    Args:
        command: what `wire.grammar` makes of the command.
        states: the states in which the command is allowed.
        handler: the coroutine function that executes the command, called with the session and the parsed command.
        expunge: whether EXPUNGE responses may precede the tagged response (RFC 9051 section 7.5.1).
        capability: the capabilities that the command implements, separated by spaces; empty for the base protocol.
        requires: an interface that the account must provide; without it the command does not exist.
        changes_mailbox: whether the command may change the selected mailbox. Its own changes are sent even if NOTIFY
            does not include them.
        sync: whether pending updates are sent before the tagged response. False for SELECT and EXAMINE: clients
            combine the numbers and UIDs of their responses, so nothing may change before the tagged response.
    """

    command: type[Command]
    states: frozenset[State]
    handler: Callable[[S, Any], Awaitable[Result]]
    expunge: bool = True
    capability: bytes = b""
    requires: type[Interface] | None = None
    changes_mailbox: bool = False
    sync: bool = True

    def wrong_state_text(self, state: State) -> str:
        """Return the text of the BAD response to the command in a `state` in which it is not allowed."""
        if self.states == NOT_AUTHENTICATED:
            return "Already logged in"
        return "Log in first" if state is State.NOT_AUTHENTICATED else "Select a mailbox first"
