"""Asks a running server over its control socket. Blocking: for the command ``imapshield``."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from imapshield.control.request_lines import ControlError, NoServer, Request, encode_request

TIMEOUT = 10.0
"""Seconds that a server may take to answer. One that is flooded answers in less than one."""


def ask(path: str, request: Request) -> Any:
    """Return the answer of the server whose control socket is at `path`.

    Raises:
        NoServer: no server is there.
        ControlError: there is no answer, or the server has answered with an error.
    """
    answer = None
    for item, answer in _lines(path, request, TIMEOUT):  # noqa: B007
        pass
    return answer


def follow(path: str, request: Request) -> Iterator[Any]:
    """Yield the items of an answer that goes on, until the server ends it.

    Raises:
        ControlError: as for `ask`.
    """
    for item, _ in _lines(path, request, None):
        if item is not None:
            yield item


def _lines(path: str, request: Request, timeout: float | None) -> Iterator[tuple[Any, Any]]:
    """Yield (item, result) of each line of the answer; one of the two is None."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            connection.settimeout(timeout)
            with suppress(BrokenPipeError):  # a server that refuses says why, and closes
                connection.sendall(encode_request(request))
            for line in connection.makefile("rb"):
                message = json.loads(line)
                if "error" in message:
                    raise ControlError(str(message["error"]))
                yield message.get("item"), message.get("result")
                if "result" in message:
                    return
    except TimeoutError:
        raise ControlError(f"{path}: the server does not answer; look at its log") from None
    except OSError as error:
        advice = "is the server running? Name the socket that its log names as `control=`: --control PATH"
        if isinstance(error, PermissionError):
            advice = "run the command as the user who started the server, or as root"
        raise NoServer(f"{path}: {error.strerror or error}; {advice}") from None
    except (ValueError, TypeError):
        raise ControlError(f"{path}: this is not a control socket of imapshield") from None
    raise ControlError(f"{path}: the server has closed the connection; look at its log")
