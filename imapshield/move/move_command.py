"""The command ``imapshield move``: its options, and what it prints."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from imapshield.command_output import age, moment, table
from imapshield.move.agent import Agent, LocalAgent, RemoteAgent, serve
from imapshield.move.copying import Copier, Ssh
from imapshield.move.journal import COPYING, DONE, GIVEN_UP, Entry, Journal, new_entry
from imapshield.move.mover import Mover
from imapshield.move.nodes_file import Node, Nodes, parse_nodes
from imapshield.move.old_copies import KINDS
from imapshield.move.places import MoveError
from imapshield.move.user_switch import Shields, UserSwitch
from imapshield.regular_file import open_regular

PROGRESS_SECONDS = 2.0
"""A line of progress is printed after each such time."""

MAX_SHOWN = 1000
"""Moves that ``--status`` shows if no user is named: a node of thousands of users may have been drained."""


def run(options: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        MoveError: it has failed. The text says why, and what to type.
    """
    if options.agent:
        serve(iter(sys.stdin.buffer.readline, b""), sys.stdout.buffer)
        return
    journal = Journal(options.journal)
    if options.status:
        _status(journal, options)
        return
    if not options.user:
        raise MoveError(
            "name the user: imapshield move USER NODE; `imapshield move --help` has the options"
        )
    if "*" in options.user:
        raise MoveError(f"{options.user}: name one user, without *")
    try:
        with Ssh() as ssh, journal.locked(options.user):
            _run_for_user(_Context(options, journal, _read_nodes(options.nodes), ssh))
    except OSError as error:
        raise MoveError(
            f"{error.filename or options.journal}: {error.strerror}; run this command as root"
        ) from None


def _read_nodes(path: str) -> Nodes:
    try:
        with open_regular(path) as file:
            content = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or "the text is not UTF-8"
        raise MoveError(
            f"{path}: {text}; --nodes names the file that describes the nodes"
        ) from None
    return parse_nodes(content, path)


class _Context:
    """One run of the command for one user.

    Args:
        options: the options.
        journal: the journal.
        nodes: the file of ``--nodes``.
        ssh: the connections.
    """

    def __init__(
        self, options: argparse.Namespace, journal: Journal, nodes: Nodes, ssh: Ssh
    ) -> None:
        self.options, self.journal, self.nodes, self.ssh = options, journal, nodes, ssh
        self.user: str = options.user
        self.shields = Shields(nodes.shields, self.user, ssh, _report)
        self._agents: dict[str, Agent] = {}

    def node(self, name: str) -> Node:
        """Return a node by its name."""
        try:
            return self.nodes.nodes[name]
        except KeyError:
            known = ", ".join(self.nodes.nodes) or "none"
            raise MoveError(f"{self.options.nodes} has no node {name}; it has {known}") from None

    def agent(self, name: str) -> Agent:
        """Return what does the steps on a node."""
        if name not in self._agents:
            node = self.node(name)
            if node.ssh:
                command = self.ssh.command(node, "move", "--agent")
                self._agents[name] = RemoteAgent(node, self.user, command)
            else:
                self._agents[name] = LocalAgent(node, self.user)
        return self._agents[name]

    def close(self) -> None:
        """End the connections to the nodes."""
        for agent in self._agents.values():
            agent.close()

    def find_source(self) -> str:
        """Return the node that has the mail of the user.

        Raises:
            MoveError: none has it, or several.
        """
        if self.options.source:
            return self.node(self.options.source).name
        found = [n for n in self.nodes.nodes if self.agent(n).call("source", "inspect")["has_mail"]]
        if len(found) > 1:
            raise MoveError(
                f"{' and '.join(found)} have mail of {self.user}; name the one that the map has: --from NODE"
            )
        if not found:
            raise MoveError(
                f"no node has mail of {self.user}; look at the mail-root of the nodes in {self.options.nodes}"
            )
        return found[0]

    def check_map_and_shields(self, entry: Entry) -> None:
        """Ask before anything is copied; later, a move goes on as far as it can."""
        UserSwitch(self.nodes).check(self.user, entry.target)
        if entry.phase == COPYING:
            self.check_logins(entry.target)

    def check_logins(self, name: str) -> None:
        """Ask the shields and the server of a node whether the user could log in there.

        Raises:
            MoveError: the user could not.
        """
        self.shields.check(name)
        try:
            self.agent(name).call("server", "check")
        except MoveError as error:
            raise MoveError(f"node {name}: {str(error).removeprefix(f'{name}: ')}") from None

    def has_arrived(self, entry: Entry) -> bool:
        """Ask the target of a move whether it has the mail since that move."""
        return bool(self.agent(entry.target).call("target", "state", entry.move) == "accepted")

    def require_mail(self, source: str) -> None:
        """Ask a node whether it has mail of the user, before the journal says so.

        Raises:
            MoveError: it has none.
        """
        if not self.agent(source).call("source", "inspect")["has_mail"]:
            text = f"{source} has no mail of {self.user}"
            raise MoveError(f"{text}; name the node that has it with --from")

    def given_up_move(self, source: str) -> Entry | None:
        """Return the move for which a node has given the account up, although the journal does not know it."""
        mark = self.agent(source).call("source", "mark")
        return Entry(self.user, source, mark["node"], mark["move"], GIVEN_UP) if mark else None


def _run_for_user(context: _Context) -> None:
    options = context.options
    try:
        if options.delete_old:
            _delete_old(context)
        elif options.abort or options.collect:
            entry = context.journal.read(context.user)
            if entry is None:
                raise MoveError(f"{options.journal} has no move of {context.user}")
            with _mover(context, entry) as mover:
                if options.abort:
                    what = "stays on" if mover.abort() else "has no mail to move on"
                    print(f"{context.user} {what} {entry.source}")
                else:
                    print(f"collected {mover.collect()} messages")
        else:
            _move(context)
    finally:
        context.close()


def _move(context: _Context) -> None:
    options, user = context.options, context.user
    if not options.node:
        raise MoveError(f"name the node: imapshield move {user} NODE")
    target = context.node(options.node)
    entry = context.journal.read(user)
    if entry is None or entry.phase == DONE:
        if entry is not None and entry.target == target.name and context.has_arrived(entry):
            count = _collect_late(context, entry)
            print(f"{user} is on {target.name} already; collected {count} messages")
            return
        source, previous = context.find_source(), entry
        entry = context.given_up_move(source)
        if entry is None:
            if source == target.name:
                print(f"{user} is on {source} already")
                return
            context.require_mail(source)
            entry = new_entry(user, source, target.name)
        if previous is not None and previous.target == source and context.has_arrived(previous):
            _collect_late(context, previous)  # the journal forgets that move
    context.check_map_and_shields(entry)
    context.journal.write(entry)
    if entry.target != target.name:
        again = f"`imapshield move {user} {entry.target}` ends it"
        stop = f", and `imapshield move {user} --abort` gives it up" * (not entry.is_final)
        raise MoveError(f"a move of {user} to {entry.target} is not done: {again}{stop}")
    began = time.monotonic()
    with _mover(context, entry) as mover:
        try:
            mover.run()
        except MoveError as error:
            now = context.journal.read(user)
            if now is not None and now.is_final:
                text = f"the mail belongs to {entry.target} already; run the same command again, which goes on"
                raise MoveError(f"{error}; {text}") from None
            raise
    pause = f", with a pause of {mover.pause:.2f} s" if mover.pause else ""
    print(
        f"moved {user} from {entry.source} to {entry.target} in {time.monotonic() - began:.1f} s{pause}"
    )


def _collect_late(context: _Context, entry: Entry) -> int:
    if entry.source not in context.nodes.nodes:
        return 0  # the operator has taken it away
    with _mover(context, entry) as mover:
        return mover.collect()


@contextmanager
def _mover(context: _Context, entry: Entry) -> Iterator[Mover]:
    source, target = context.node(entry.source), context.node(entry.target)
    if bool(source.index_root) != bool(target.index_root):
        raise MoveError(f"{source.name} and {target.name} must both have an index-root, or none")
    switch = UserSwitch(context.nodes)
    copier = Copier(source, target, context.ssh, _Progress().step)
    yield Mover(
        context.journal,
        entry,
        context.agent(source.name),
        context.agent(target.name),
        copier,
        context.shields,
        switch.switch,
        check=lambda: context.check_logins(target.name),
        max_pause=context.options.max_pause,
        report=_report,
    )


def _report(text: str) -> None:
    print(f"imapshield: {text}", file=sys.stderr)


class _Progress:
    def __init__(self) -> None:
        self._files, self._last = 0, time.monotonic()

    def step(self) -> None:
        self._files += 1
        if time.monotonic() - self._last >= PROGRESS_SECONDS:
            self._last = time.monotonic()
            print(f"imapshield: copied {self._files} files so far", file=sys.stderr)


def _status(journal: Journal, options: argparse.Namespace) -> None:
    entries = journal.moves(options.user)[::-1] if options.user else journal.recent()
    shown = entries[-MAX_SHOWN:]
    rows = [(e.user, e.source, e.target, e.phase, moment(e.seconds)) for e in shown]
    heads = ("user", "from", "to", "phase", "since")
    lines: Sequence[str] = table(heads, rows) if rows else ["no moves"]
    for line in lines:
        print(line)
    if len(entries) > len(shown):
        print(f"and {len(entries) - len(shown)} earlier ones: `imapshield move USER --status`")
    for entry in shown:
        if entry.has_ended:
            continue
        if journal.is_locked(entry.user):
            print(f"the move of {entry.user} to {entry.target} runs now")
            continue
        print(f"`imapshield move {entry.user} {entry.target}` goes on with that of {entry.user}")
    if options.user:
        with Ssh() as ssh:
            context = _Context(options, journal, _read_nodes(options.nodes), ssh)
            for name, copy in _copies(context):
                what = KINDS[copy["kind"]]
                print(f"{what} on {name}: {copy['path']}, {age(copy['age'])} old")
            context.close()


def _copies(context: _Context) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the copies that moves have left, with the node, except those of a move that goes on."""
    entry = context.journal.read(context.user)
    for name in context.nodes.nodes:
        for copy in context.agent(name).call("copies", "listed"):
            if entry is None or entry.has_ended or copy["move"] != entry.move:
                yield name, copy


def _delete_old(context: _Context) -> None:
    entry = context.journal.read(context.user)
    if entry is not None and entry.phase != DONE:
        text = f"run `imapshield move {context.user} {entry.target}` first"
        raise MoveError(f"the move of {context.user} is not done; {text}")
    for name, copy in _copies(context):
        path = f"{copy['path']} on {name}"
        if copy["age"] >= context.options.days * 86400:
            context.agent(name).call("copies", "delete", copy["kind"], copy["move"])
            print(f"deleted {path}")
        else:
            days = f"{context.options.days:g} day{'s' * (context.options.days != 1)}"
            print(f"kept {path}: {age(copy['age'])} old, and not {days}; --days 0 deletes it now")
