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
        arguments: its arguments by name: strings, numbers and booleans.
    """

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return an argument that is a text.

        Raises:
            ControlError: it is missing, or is no text.
        """
        value = self.arguments.get(name)
        if not isinstance(value, str) or not value:
            raise ControlError(f"{self.command} needs the argument {name}")
        return value

    def number(self, name: str, default: float) -> float:
        """Return an argument that is a number; `default` if it is missing.

        Raises:
            ControlError: it is no number.
        """
        value = self.arguments.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ControlError(f"{self.command}: {name} must be a number")
        return value


def encode_request(request: Request) -> bytes:
    """Return the line of a request."""
    return _line({"command": request.command, "arguments": dict(request.arguments)})


def parse_request(line: bytes) -> Request:
    """Return the request in a line.

    Raises:
        ControlError: the line is no request.
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
    return json.dumps(message).encode() + b"\n"
