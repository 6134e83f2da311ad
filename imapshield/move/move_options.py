"""The options of ``imapshield move``. The rest is loaded when the command runs, because it needs Twisted."""

import argparse

DEFAULT_NODES = "/etc/imapshield/nodes.toml"
DEFAULT_JOURNAL = "/var/lib/imapshield/moves"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command.add_argument("user", metavar="USER", nargs="?", help="whose mail is moved")
    command.add_argument("node", metavar="NODE", nargs="?", help="where it is moved to")
    nodes = f"the file that describes the nodes [default: {DEFAULT_NODES}]"
    command.add_argument("--nodes", metavar="FILE", default=DEFAULT_NODES, help=nodes)
    source = "the node that has the mail [default: the only one that has it]"
    command.add_argument("--from", metavar="NODE", dest="source", help=source)
    pause = "seconds for which the user may have to wait [default: 2]"
    command.add_argument("--max-pause", metavar="SECONDS", type=float, default=2.0, help=pause)
    journal = f"where moves are remembered [default: {DEFAULT_JOURNAL}]"
    command.add_argument("--journal", metavar="DIR", default=DEFAULT_JOURNAL, help=journal)
    actions = command.add_mutually_exclusive_group()
    text = "list the moves of the last days, and the old copies of USER"
    actions.add_argument("--status", action="store_true", help=text)
    text = "end an unfinished move of USER, and leave the mail where it is"
    actions.add_argument("--abort", action="store_true", help=text)
    text = "bring mail of USER to the new node that was delivered to the old one since"
    actions.add_argument("--collect", action="store_true", help=text)
    text = "delete old copies of the mail of USER, which moves have left"
    actions.add_argument("--delete-old", action="store_true", help=text)
    text = (
        "do the steps on this node, for the command on another machine, which starts this over ssh"
    )
    actions.add_argument("--agent", action="store_true", help=text)
    text = "with --delete-old: only copies that are at least so many days old [default: 1]"
    command.add_argument("--days", metavar="N", type=float, default=1.0, help=text)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from imapshield.move import move_command

    move_command.run(options)
