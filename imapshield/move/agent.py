"""The steps of a move on one node: in this process, or over ssh by ``imapshield move --agent`` on the node.

A request is a line of JSON: the user, the directories of the node, the side, the method and its arguments. So is the
answer: a result, or an error. The connection is opened before the user has to wait.
"""

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any, Protocol

from imapshield.control.client import ask
from imapshield.control.request_lines import ControlError, NoServer, Request
from imapshield.cred.realm import MailRoot
from imapshield.cred.users import BadUserName
from imapshield.errors import StoreError
from imapshield.mail_commands import acting_as_owner
from imapshield.move.nodes_file import Node
from imapshield.move.old_copies import OldCopies
from imapshield.move.places import MoveError, Places
from imapshield.move.rights import check_parents
from imapshield.move.source_side import SourceSide
from imapshield.move.target_side import TargetSide

_SOURCE = frozenset(
    {
        *("inspect", "close", "state", "mark", "reopen", "give_up", "retire", "late_mail"),
        "collected",
    }
)
_TARGET = frozenset(
    {
        *("state", "prepare", "sync", "look", "verify", "accept", "late_directory", "deliver_late"),
        "discard",
    }
)
_COPIES = frozenset({"listed", "delete"})


class Agent(Protocol):
    """Does the steps of one user on one node."""

    def call(self, side: str, method: str, *arguments: Any) -> Any:
        """Do a step.

        Args:
            side: ``source``, ``target`` or ``copies``, for `SourceSide`, `TargetSide` and `OldCopies`, or ``server``
                for `close_on_server` and, with the method ``check``, `check_server`.
            method: the method of the side.
            arguments: those of the method; the move comes first for the target.

        Raises:
            MoveError: it has failed, or the node cannot be reached.
        """

    def close(self) -> None:
        """End the connection."""


class LocalAgent:
    """Does the steps in this process.

    Args:
        node: the node.
        user: the user.
    """

    def __init__(self, node: Node, user: str) -> None:
        self._request = _request(node, user)

    def call(self, side: str, method: str, *arguments: Any) -> Any:
        return perform({**self._request, "side": side, "method": method, "arguments": arguments})

    def close(self) -> None: ...


class RemoteAgent:
    """Lets ``imapshield move --agent`` do the steps on another machine.

    Args:
        node: the node.
        user: the user.
        command: what connects to the machine and starts the program.
    """

    def __init__(self, node: Node, user: str, command: list[str]) -> None:
        self._request, self._node = _request(node, user), node
        self._process = subprocess.Popen(  # noqa: S603  the operator has named the machine and the program
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def call(self, side: str, method: str, *arguments: Any) -> Any:
        request = {**self._request, "side": side, "method": method, "arguments": arguments}
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer = json.loads(line)
        except (OSError, ValueError):
            text = f"does not answer over ssh; try `ssh {self._node.ssh} {self._node.command} --version`"
            raise MoveError(
                f"the node {self._node.name} {text}, and name the program with `command`"
            ) from None
        if "error" in answer:
            raise MoveError(f"{self._node.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _request(node: Node, user: str) -> dict[str, Any]:
    return {
        "user": user,
        "mail_root": node.mail_root,
        "index_root": node.index_root,
        "control": node.control,
    }


def serve(requests: Iterable[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        try:
            answer = {"result": perform(json.loads(line))}
        except MoveError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def perform(request: dict[str, Any]) -> Any:
    """Do one step.

    Raises:
        MoveError: it has failed.
    """
    try:
        return _perform(request)
    except MoveError:
        raise
    except BadUserName as error:
        raise MoveError(f"{request['user']}: {error}") from None
    except ValueError as error:
        raise MoveError(f"{request['mail_root']}: {error}") from None
    except (StoreError, sqlite3.Error) as error:
        raise MoveError(str(error)) from None
    except OSError as error:
        where = os.fsdecode(error.filename or request["mail_root"])
        advice = "; run this command as root" if isinstance(error, PermissionError) else ""
        raise MoveError(f"{where}: {error.strerror}{advice}") from None


def _perform(request: dict[str, Any]) -> Any:
    user, method, arguments = request["user"], request["method"], request["arguments"]
    root = MailRoot(request["mail_root"])
    maildir = os.fsencode(root.maildir(user))
    index = maildir
    if request["index_root"]:
        index = os.fsencode(MailRoot(request["index_root"]).maildir(user))
    places = Places(maildir, index)
    if request["side"] != "server":
        check_parents(maildir, root.base)
        if request["index_root"]:
            check_parents(index, MailRoot(request["index_root"]).base)

    def acting(directory: bytes) -> Any:
        return acting_as_owner(os.fsdecode(directory))

    side: Any = None
    if request["side"] == "server":
        control = request["control"]
        return check_server(control) if method == "check" else close_on_server(control, user)
    if request["side"] == "source" and method in _SOURCE:
        side = SourceSide(places, root.base, acting)
    elif request["side"] == "target" and method in _TARGET:
        move, *arguments = arguments
        side = TargetSide(places, move, acting)
    elif request["side"] == "copies" and method in _COPIES:
        side = OldCopies(places, acting)
    if side is None:
        raise MoveError(f"unknown step {method!r}; is the same version of imapshield on all nodes?")
    return getattr(side, method)(*arguments)


def check_server(control: str) -> None:
    """Ask the server of a node whether it runs, if the file of ``--nodes`` says where.

    Raises:
        MoveError: it does not answer.
    """
    if not control:
        return
    try:
        ask(control, Request("status", {}))
    except ControlError as error:
        text = "its server does not answer; start it, or correct `control` in the file of --nodes"
        # What follows is about an option that this command has not.
        raise MoveError(f"{text} ({str(error).partition('; is the server')[0]})") from None


def close_on_server(control: str, user: str) -> bool:
    """Let the server of a node close the account of a user; return whether it has answered.

    It would find out by itself that the account is closed. But it may have the index locked, and keep it open.

    Raises:
        MoveError: the server cannot do that.
    """
    if not control:
        return False
    try:
        ask(control, Request("close-account", {"user": user}))
    except NoServer:
        return False  # it is not running
    except ControlError as error:
        raise MoveError(str(error)) from None
    return True
