"""What is sent over the control socket: one JSON object per line. Pure.

A request names a command and has its arguments::

    {"command": "kick", "arguments": {"who": "alice"}}

The answer is one line with ``result``, or with ``error``: a text for the operator. A command that goes on, such as
``trace``, sends any number of lines with ``item`` before.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imapshield.control.arguments import problem_of

MAX_LINE = 65536
"""Bytes of one request. The longest are those of ``ban``, with a reason."""


class ControlError(Exception):
    """A request cannot be answered. The text is one line for the operator: what is wrong, and what to do."""


class NoServer(ControlError):
    """No server answers at the path of the socket."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        command: the name of the command.
        arguments: its arguments by name, as `ARGUMENTS` has them.

    Raises:
        ControlError: an argument is unknown, missing or not as it must be.
    """

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problem = problem_of(self.command, self.arguments)
        if problem:
            raise ControlError(problem)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument; `default` if it is missing."""
        value = self.arguments.get(name)
        return default if value is None else value


def encode_request(request: Request) -> bytes:
    """Return the line of a request."""
    return _line({"command": request.command, "arguments": dict(request.arguments)})


def parse_request(line: bytes) -> Request:
    """Return the request in a line.

    Raises:
        ControlError: the line is no request, or an argument is wrong.
    """
    try:
        message = json.loads(line)
        command, arguments = message["command"], message.get("arguments", {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ControlError('not a request; send {"command": "status"}') from None
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ControlError('not a request; send {"command": "status"}')
    return Request(command, arguments)


def encode_item(item: object) -> bytes:
    """Return the line of one item of an answer that goes on."""
    return _line({"item": item})


def encode_result(result: object) -> bytes:
    """Return the line that ends a successful answer."""
    return _line({"result": result})


def encode_error(text: str) -> bytes:
    """Return the line that ends an answer with an error."""
    return _line({"error": text})


def _line(message: object) -> bytes:
    # NaN and Infinity are not JSON, and many programs refuse them.
    return json.dumps(message, allow_nan=False).encode() + b"\n"
