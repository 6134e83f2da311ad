"""Copies directories between nodes with rsync, and connects to other machines with ssh."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from imapshield.maildir.account_state import MOVED_FILE
from imapshield.maildir.index_files import INDEX_FILE
from imapshield.move.manifest import MANIFEST, TEXT_INDEX
from imapshield.move.nodes_file import Node, Shield
from imapshield.move.places import MoveError, TooSlow

_ENDINGS = (b"-wal", b"-shm", b"-journal")
_LEFT_OUT = (
    *("--exclude=/tmp/*", "--exclude=/.*/tmp/*"),
    *("--include=*/", "--include=cur/*", "--include=new/*", "--exclude=*.tmp"),
    "--exclude=/" + os.fsdecode(MOVED_FILE),
    *("--exclude=/" + os.fsdecode(INDEX_FILE + ending) for ending in _ENDINGS),
    "--exclude=/" + os.fsdecode(TEXT_INDEX) + "*",
)
"""What rsync leaves out, as `manifest.copied_files` does. The first pattern that matches counts: a mailbox may be named
``tmp``, and the name of a message may end with ``.tmp``."""

_HAS_VANISHED = 24
"""The exit status of rsync when files were renamed while it ran."""

_ALIVE = ("ConnectTimeout=10", "ServerAliveInterval=3", "ServerAliveCountMax=3")
"""A connection that is cut ends after 12 s, as the hold of the user does, and not after the minutes of TCP."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Ssh:
    """Connections to other machines. All to one machine share one connection, so that a step costs no new login."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="imapshield-move-")
        self._hosts: set[str] = set()

    def options(self) -> list[str]:
        """Return ``ssh`` with its options. A machine that does not answer for some seconds ends the connection."""
        shared = f"ControlPath={self._folder}/%C"
        options = ("BatchMode=yes", "ControlMaster=auto", "ControlPersist=60", shared, *_ALIVE)
        return ["ssh", *(word for option in options for word in ("-o", option))]

    def command(self, node: Node | Shield, *words: str) -> list[str]:
        """Return what runs ``imapshield`` with some words on the machine of a node or shield."""
        self._hosts.add(node.ssh)
        return [*self.options(), node.ssh, "--", node.command, *words]

    def __enter__(self) -> "Ssh":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for host in self._hosts:
            command = [*self.options(), "-O", "exit", host]
            subprocess.run(command, check=False, capture_output=True)  # noqa: S603
        shutil.rmtree(self._folder, ignore_errors=True)


class Copier:
    """Copies from one node to another.

    Args:
        source: the node with the mail.
        target: the other node.
        ssh: the connections.
        on_file: called for each file that is copied.

    Raises:
        MoveError: rsync cannot copy between these nodes from here.
    """

    def __init__(
        self, source: Node, target: Node, ssh: Ssh, on_file: Callable[[], object] = lambda: None
    ) -> None:
        if source.ssh and target.ssh and source.ssh != target.ssh:
            text = "are both other machines; run this command on one of the two"
            raise MoveError(f"the nodes {source.name} and {target.name} {text}")
        if shutil.which("rsync") is None:
            raise MoveError("rsync is not installed; apt-get install rsync, here and on the nodes")
        self._source, self._target = source.ssh, target.ssh
        self._ssh, self._uids = ssh.options(), dict[str, str]()
        self._runs_there = self._source if self._source == self._target else ""
        self._uid, self._gid, self._on_file = 0, 0, on_file

    def act_as(self, uid: int, gid: int) -> None:
        """Let root's rsync copy with the rights of the owner of the mail, who may put links into it meanwhile."""
        self._uid, self._gid = uid, gid

    def _rights(self) -> list[str]:
        options: list[str] = []
        if not (self._source or self._target):
            return options
        if self._uid and self._is_root(self._runs_there):
            options.append(f"--copy-as={self._uid}:{self._gid}")
        other = self._source or self._target
        if self._uid and other != self._runs_there and self._is_root(other):
            options.append(f"-M--copy-as={self._uid}:{self._gid}")
        return options

    def _owner(self) -> dict[str, Any]:
        """Return the arguments for a process that copies on this machine. An rsync that changes its rights itself would
        not end with its parent."""
        if self._source or self._target or not self._uid or os.geteuid() != 0:
            return {}
        return {"user": self._uid, "group": self._gid, "extra_groups": []}

    def _is_root(self, host: str) -> bool:
        if not host:
            return os.geteuid() == 0
        if host not in self._uids:
            command = [*self._ssh, host, "--", "id", "-u"]
            found = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
            self._uids[host] = found.stdout.strip()
        return self._uids[host] == "0"

    def copy(
        self, source: str, target: str, *, is_last: bool, seconds: float | None = None
    ) -> None:
        """Make `target` the same as the directory `source`.

        Args:
            source: a directory on the source.
            target: a directory on the target.
            is_last: whether the manifest is copied, too.
            seconds: how long it may take; None: as long as it takes.

        Raises:
            TooSlow: it has taken longer, and was ended.
            MoveError: that is not possible.
        """
        manifest = () if is_last else ("--exclude=/" + os.fsdecode(MANIFEST),)
        options = ["--delete", "--hard-links", *_LEFT_OUT, *manifest]
        self._run(options, source + "/", target + "/", seconds=seconds)

    def copy_files(self, source: str, paths: Sequence[str], target: str) -> None:
        """Copy some files of a directory, with the directories above them."""
        names = b"\0".join(map(os.fsencode, paths))
        options = ["--files-from=-", "--from0", "--no-implied-dirs"]
        self._run(options, source + "/", target + "/", names)

    def _run(
        self,
        options: list[str],
        source: str,
        target: str,
        names: bytes = b"",
        seconds: float | None = None,
    ) -> None:
        # -s: ssh does not give the paths to a shell, which would split them. --modify-window=-1: a file that was
        # written twice in a second, and has the same size, is copied again. Owners are numbers, as in `prepare`.
        command = [
            "rsync",
            "-a",
            "--no-D",
            "--numeric-ids",
            "-s",
            "--modify-window=-1",
            "--out-format=.",
            *self._rights(),
            *options,
        ]
        if self._runs_there:
            if seconds is not None:  # rsync there does not end with ssh here
                command = ["timeout", f"{max(seconds, 0.1):.1f}", *command]
            command = [
                *self._ssh,
                self._runs_there,
                "--",
                *map(_quoted, [*command, source, target]),
            ]
        else:
            if self._source or self._target:
                command += ["-e", " ".join(self._ssh)]
            command += [_on(self._source, source), _on(self._target, target)]
        with subprocess.Popen(  # noqa: S603  the operator has named the machines
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            **self._owner(),
            preexec_fn=_end_with_parent(),  # noqa: PLW1509  it takes no lock
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            ended = threading.Event()

            def end() -> None:
                ended.set()
                process.terminate()  # rsync removes its unfinished file

            timer = threading.Timer(seconds or 0.0, end)
            if seconds is not None:
                timer.start()
            try:
                process.stdin.write(names)
                process.stdin.close()
                for _ in process.stdout:
                    self._on_file()
                error = process.stderr.read().decode("utf-8", "replace").strip()
            finally:
                timer.cancel()
        if ended.is_set():
            raise TooSlow(f"the last copy was ended after {seconds:.1f} s")
        if process.returncode not in (0, _HAS_VANISHED):
            lines = error.splitlines() or [f"exit status {process.returncode}"]
            raise MoveError(f"rsync: {lines[0]}")


def _end_with_parent() -> Callable[[], object] | None:
    """Return what lets a new process end when this one is killed: rsync must not go on in a copy that is in use."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return None if prctl is None else lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _on(host: str, path: str) -> str:
    return f"{host}:{path}" if host else path


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
