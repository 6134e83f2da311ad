"""The calls in the source that end connections, and which of them a test has run."""

from __future__ import annotations

import ast
import glob
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

import imapshield

PACKAGE = os.path.dirname(os.path.abspath(imapshield.__file__))

ENDING = frozenset(
    (
        *("abortConnection", "loseConnection", "abort", "reset", "bye", "evict", "refuse"),
        *("Reset", "Disconnect", "_reset", "_disconnect_at", "session_failed"),
    )
)
"""Functions that end a connection, or that decide it."""

SOCKETS = frozenset({"skt.close", "waiting.close", "counted.owner.close", "self._owner.close"})
"""Calls of `close` that end a connection; most others close files and tables."""

FILES = (
    *("edge/*.py", "guard/connection_guard.py", "process/user_watch.py"),
    *("control/commands.py", "session/fetch_responses.py"),
)

EXEMPT = {
    "edge/ban_command.py processExited": "the standard input of a program, no connection",
    "edge/factory.py connectionMade": "a refused connection; `Gate` closes it before, see test_refusals",
    "guard/connection_guard.py discard": "stands for the end of a connection that has ended already",
}
"""Calls that end no connection of a client, or not on its own."""


class Site(NamedTuple):
    """A call that ends a connection: its file, function and first and last line."""

    file: str
    function: str
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.file} {self.function}"


def sites() -> Iterator[Site]:
    """Yield all calls in the source that end connections."""
    for pattern in FILES:
        for path in sorted(glob.glob(os.path.join(PACKAGE, pattern))):
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read())
            name = os.path.relpath(path, PACKAGE)
            yield from _sites(tree, name, "")


def _sites(node: ast.AST, file: str, function: str) -> Iterator[Site]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""
        if isinstance(child, ast.Call):
            called = ast.unparse(child.func)
            if called.rpartition(".")[2] in ENDING or called in SOCKETS:
                yield Site(file, function, child.lineno, child.end_lineno or child.lineno)
        yield from _sites(child, file, inside or function)


class Lines:
    """Notes which lines of `FILES` run in a block."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        self._files = {os.path.join(PACKAGE, site.file): site.file for site in sites()}

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        file = self._files.get(frame.f_code.co_filename)
        return None if file is None else lambda f, e, a: self._line(file, f)

    def _line(self, file: str, frame: FrameType) -> Any:
        self.seen.add((file, frame.f_lineno))
        return lambda f, e, a: self._line(file, f)
