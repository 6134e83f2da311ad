"""What clients see of a move: the shields hold and release the user, and the map says which node has the mail."""

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imapshield.control.client import ask
from imapshield.control.request_lines import ControlError, Request
from imapshield.cred.locked_lines import rewrite_lines
from imapshield.front.map_lines import with_node
from imapshield.move.copying import Ssh
from imapshield.move.nodes_file import Nodes, Shield
from imapshield.move.places import MoveError
from imapshield.regular_file import open_regular

SWITCH_SECONDS = 10.0
"""Seconds that ``switch-command`` may take. Users wait for it."""

FAILING_LOOKS = 6
FAILING_SECONDS = 2.0
"""How often, and after how many seconds each time, a shield is asked again about a node that does not answer.

That may be a restart. A shield of an older version waits for its next check, within ``backend_check_seconds`` (10)."""

_UNKNOWN_CHECK = ("unknown argument 'check'", "unrecognized arguments: --check")
"""What a shield says that is older than its argument ``check``, on its control socket and over ssh."""

_START = "start its server, and run this again when `imapshield nodes` says that it is up"
_NO_LOGINS = {
    "down": _START,
    "failing": _START,
    "draining": "`imapshield undrain` permits logins again",
}
"""The states of a node that gets no logins, or is about to get none, and what to do."""


_LOGINS = ("up", "new")
"""The states of a node that gets logins, and whose last check has not failed."""


def _answers(row: Mapping[str, Any]) -> bool:
    """Whether a node has answered the check that was asked for; a shield of an older version does not say it."""
    return bool(row.get("answers", True))


class Shields:
    """The shields in front of the nodes.

    Args:
        shields: all of them.
        user: the user.
        ssh: the connections.
        report: called with a line for the operator.
    """

    def __init__(
        self,
        shields: Sequence[Shield],
        user: str,
        ssh: Ssh,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._shields, self._user, self._ssh = shields, user, ssh
        self._report, self._old = report, set[str]()

    def check(self, node: str) -> None:
        """Ask the shields whether they answer, and pass logins to a node, before anything is done.

        They check the node now: their last check may be older than the death of its server.

        Raises:
            MoveError: one does not.
        """
        for shield in self._shields:
            row = self._row(shield, node)
            for _ in range(FAILING_LOOKS):
                if row["state"] == "failing" or (row["state"] in _LOGINS and not _answers(row)):
                    time.sleep(FAILING_SECONDS)
                    row = self._row(shield, node)
            state, reason = row["state"], row.get("reason")
            if state in _LOGINS and not _answers(row):
                state, reason = "failing", reason or "it does not answer a check"
            if state in _NO_LOGINS:
                text = f"{node} is {state}" + (f": {reason}" if reason else "")
                text = f"{text}, so {self._user} could not log in there; {_NO_LOGINS[state]}"
                raise MoveError(f"shield {shield.name}: {text}")

    def _row(self, shield: Shield, node: str) -> Any:
        """Return what a shield says of a node."""
        rows = self._rows(shield)
        known = {each["node"]: each for each in rows if each["state"] != "removed"}
        if node not in known:
            text = f"has no --backend with the name {node}; it has {', '.join(known)}"
            advice = "add it to the configuration of that shield, and reload it"
            raise MoveError(f"shield {shield.name}: {text}; {advice}")
        return known[node]

    def _rows(self, shield: Shield) -> Any:
        if shield.name not in self._old:
            try:
                return self._ask(shield, "nodes", {"check": True})
            except MoveError as error:
                if not any(text in str(error) for text in _UNKNOWN_CHECK):
                    raise
            self._old.add(shield.name)
            text = "has an older version of imapshield, which cannot check a node now: its last check counts"
            self._report(f"shield {shield.name} {text}; upgrade it")
        return self._ask(shield, "nodes", {})

    def hold(self, seconds: float) -> None:
        """Let new logins of the user wait, and end the connections.

        Raises:
            MoveError: a shield cannot do that.
        """
        for shield in self._shields:
            self._ask(shield, "hold", {"user": self._user, "seconds": seconds})

    def release(self, node: str = "") -> None:
        """Let the logins of the user go on, with the node that the map has now.

        Args:
            node: the node that it must have; "" permits any.

        Raises:
            MoveError: a shield does not answer, or has another node.
        """
        problems = []
        for shield in self._shields:
            try:
                found = self._ask(shield, "release", {"user": self._user})["node"]
            except MoveError as error:
                problems.append(str(error))
                continue
            # None: the map of the shield says it only with the password of the user.
            if node and found not in (None, node):
                text = f"has {found or 'no node'} for {self._user}, and not {node}"
                problems.append(f"shield {shield.name}: {text}; look at its log and its --user-map")
        if problems:
            raise MoveError("; ".join(problems))

    def _ask(self, shield: Shield, command: str, arguments: dict[str, object]) -> Any:
        try:
            if shield.ssh:
                words = [command, *([self._user] if "user" in arguments else [])]
                words += ["--check"] * ("check" in arguments)
                words += ["--json", "--control", shield.control]
                if "seconds" in arguments:
                    words += ["--seconds", str(arguments["seconds"])]
                return self._over_ssh(shield, words)
            return ask(shield.control, Request(command, arguments))
        except ControlError as error:
            raise MoveError(f"shield {shield.name}: {error}") from None

    def _over_ssh(self, shield: Shield, words: list[str]) -> Any:
        command = self._ssh.command(shield, *map(shlex.quote, words))
        done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ControlError(lines[-1] if lines else f"exit status {done.returncode}")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise ControlError(
                "the answer is not JSON; is imapshield there as old as here?"
            ) from None


class UserSwitch:
    """Changes the map of users and nodes.

    Args:
        nodes: the file of ``--nodes``.

    Raises:
        MoveError: there is nothing to change.
    """

    def __init__(self, nodes: Nodes) -> None:
        if bool(nodes.map) == bool(nodes.switch_command):
            raise MoveError("the file of --nodes needs map or switch-command, and not both")
        self._map, self._command = nodes.map, nodes.switch_command

    def check(self, user: str, node: str) -> None:
        """Look whether the map can be changed so that a node has the mail of a user.

        Raises:
            MoveError: it cannot.
        """
        folder = os.path.dirname(os.path.realpath(self._map)) if self._map else ""
        if self._map and not (os.path.isfile(self._map) and os.access(folder, os.W_OK)):
            raise MoveError(
                f"{self._map} is not a file that this user can replace; run this command as its owner"
            )
        if self._map:
            try:
                with open_regular(self._map) as file:
                    with_node(file.read().splitlines(), self._map, user, node)
            except OSError as error:
                raise MoveError(f"{self._map}: {error.strerror}") from None
            except ValueError as error:
                raise MoveError(str(error)) from None

    def switch(self, user: str, node: str) -> None:
        """Let the map say that a node has the mail of a user. It may say so already.

        Raises:
            MoveError: the map is as it was.
        """
        if self._map:
            try:
                rewrite_lines(
                    self._map, lambda lines: with_node(lines, self._map, user, node), create=False
                )
            except OSError as error:
                raise MoveError(f"{self._map}: {error.strerror}") from None
            except ValueError as error:
                raise MoveError(str(error)) from None
            return
        command = [*shlex.split(self._command), user, node]
        try:
            done = subprocess.run(  # noqa: S603  the operator has written the command
                command, check=False, capture_output=True, timeout=SWITCH_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MoveError(f"switch-command: {error}") from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            text = lines[-1] if lines else f"exit status {done.returncode}"
            raise MoveError(f"switch-command: {text}")
