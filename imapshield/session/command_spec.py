"""The description of one command for the dispatcher, and the values that handlers return."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Generic, NamedTuple, TypeVar

from zope.interface import Interface

from imapshield.session.states import State
from imapshield.wire.commands.base import Command
from imapshield.wire.responses import Tagged


class AfterResponse(Enum):
    """What the dispatcher does when it has written the tagged response."""

    START_TLS = auto()
    START_COMPRESSION = auto()
    LOG_OUT = auto()
    CLOSE = auto()


class Response(NamedTuple):
    """The tagged response of a command, and what to do when it is written."""

    tagged: Tagged
    then: AfterResponse | None = None


Result = Tagged | Response
"""What a handler returns; a `Tagged` alone means that nothing follows the response."""

S = TypeVar("S")


class CommandSpec(NamedTuple, Generic[S]):
    """How a session of type `S` executes one command; `table.spec` makes these with checked types.

    Args:
        command: the value that `wire.grammar` makes of the command.
        states: the states in which the command is allowed.
        handler: the coroutine that executes the command.
        expunge: whether EXPUNGE responses may precede the tagged response (RFC 9051 section 7.5.1).
        capability: the capabilities that the command implements, separated by spaces; empty for the base protocol.
        requires: an interface that the account must provide; without it the command does not exist.
        changes_mailbox: the command may change the selected mailbox. Its effects are sent whatever NOTIFY says.
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
