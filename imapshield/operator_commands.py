"""The subcommands of ``imapshield`` that ask a running server over its control socket."""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from imapshield.advise_command import show_advice
from imapshield.command_output import age, counted, moment, note_if_slow, plain, size, table
from imapshield.control.client import ask, follow
from imapshield.control.request_lines import Request
from imapshield.control.socket_file import client_path
from imapshield.node_output import NODE_COMMANDS, node_lines

TOP_SECONDS = 2.0
"""Seconds between two pictures of `imapshield top`."""

_MEASURES = {"commands": "commands", "octets": "octets", "cpu": "busy", "resets": "resets"}
"""What `top` shows, by the names in its tables: the names in the answer of the server."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", folder: str
) -> None:
    """Add the subcommands to those of the console script. `folder` is the user's own data directory."""
    path = client_path(folder)
    for name, run, text, arguments in _COMMANDS:
        command = commands.add_parser(name, help=text, description=text)
        for argument, options in arguments:
            command.add_argument(argument, **options)
        add_control_option(command, path)
        command.add_argument("--json", action="store_true", help="print the answer as JSON")
        command.set_defaults(run=partial(_run, run, name))
    text = "show the dialogue of the connections of a user or an address, without secrets and mail"
    command = commands.add_parser("trace", help=text, description=text)
    command.add_argument("who", **_WHO)
    when = "for how long, such as 90s or 1h [default: 10m]"
    command.add_argument(
        "--for", dest="seconds", metavar="DURATION", type=duration, default=600, help=when
    )
    add_control_option(command, path)
    command.set_defaults(run=_trace)
    text = "show live who causes most of the work, by connection, address, network and user"
    command = commands.add_parser("top", help=text, description=text)
    periods = ("minute", "ten minutes", "day")
    period = "how far to look back [default: minute]"
    command.add_argument("--period", choices=periods, default="minute", help=period)
    by = tuple(_MEASURES)
    command.add_argument("--by", choices=by, default="commands", help="what orders the rows")
    command.add_argument("--number", type=int, default=5, help="rows of each table [default: 5]")
    command.add_argument("--once", action="store_true", help="print it once, as into a pipe")
    add_control_option(command, path)
    command.set_defaults(run=_top)


def add_control_option(
    command: argparse.ArgumentParser, path: str, default: str | None = ""
) -> None:
    """Add the option ``--control``, whose default is `path`, or another value that stands for it."""
    text = f"the socket of the server's option --control [default: {path}]"
    default = path if default == "" else default
    command.add_argument("--control", metavar="PATH", default=default, help=text)


def _run(show: Callable[[Any], Iterable[str]], name: str, options: argparse.Namespace) -> int:
    left_out = ("run", "control", "json")
    given = {k: v for k, v in vars(options).items() if v is not None and v is not False}
    arguments = {k: v for k, v in given.items() if k not in left_out}
    with note_if_slow("waiting for the server"):
        answer = ask(options.control, Request(name, arguments))
    if options.json:
        json.dump(answer, sys.stdout, indent=2)
        print()
    else:
        for line in show(answer):
            print(line)
    return int(isinstance(answer, dict) and bool(answer.get("problems")))


def duration(text: str) -> float:
    """Return the seconds of a duration such as ``10m``.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration; write for example 90s, 10m, 2h or 1d"
        )
    return int(match[1]) * _UNITS[match[2]]


def _show_status(answer: dict[str, Any]) -> Iterable[str]:
    for warning in answer.get("warnings", ()):
        yield f"warning: {warning}"
    yield f"imapshield {answer['version']}, up for {age(answer['seconds'])}"
    yield (
        f"connections  {answer['connections']} of {answer['max_connections']},"
        f" {answer['without_login']} without a login"
    )
    yield f"commands     {answer['pending_commands']} pending"
    yield (
        f"memory       {size(answer['memory_of_connections'])} of {size(answer['max_memory'])}"
        " held for connections"
    )
    yield f"bans         {answer['bans']}"
    yield from node_lines(answer.get("nodes", ()))
    if user_map := answer.get("user_map", {}).get("user_map"):
        yield f"user map     {user_map}{', which fails' if answer['user_map']['problem'] else ''}"
    if certificate := answer.get("certificate"):
        days = (certificate["expires"] - time.time()) / 86400
        until = time.strftime("%Y-%m-%d", time.gmtime(certificate["expires"]))
        yield f"certificate  valid until {until}, {days:.0f} days; {certificate['option']}"
    if (redis := answer.get("guard_redis")) is not None:
        others = counted(len(redis["others"]), "other server")
        yield f"guard-redis  {redis['problem'] or f'connected, shares with {others}'}"
    for each in answer.get("workers", ()):
        state = "" if each["serves"] else "; does not serve clients yet"
        started = f", started {each['starts']} times" if each["starts"] > 1 else ""
        yield (
            f"worker {each['worker']:<5} pid {each['pid']}, up for {age(each['seconds'])}{started},"
            f" {counted(each['connections'], 'connection')}, memory {size(each['memory'])}{state}"
        )


def _show_who(answer: list[dict[str, Any]]) -> Iterable[str]:
    heads = (
        "#",
        "user",
        "address",
        ">age",
        ">commands",
        ">pending",
        ">in",
        ">out",
        ">cpu",
        "client",
    )
    rows = [
        (
            *(each["connection"], each["user"] or "-", each["peer"], age(each["seconds"])),
            *(each["commands"], f"{each['pending']}{'*' if each['paused'] else ''}"),
            *(size(each["octets_in"]), size(each["octets_out"]), f"{each['busy']:.1f}s"),
            each["client_id"][:40],
        )
        for each in answer
    ]
    return table(heads, rows) if rows else ["no connections"]


def _show_kick(answer: int) -> Iterable[str]:
    return [f"reset {counted(answer, 'connection')}"]


def _top(options: argparse.Namespace) -> None:
    """Show who causes most of the work: every two seconds on a terminal, otherwise once."""
    by = _MEASURES[options.by]
    arguments = {"period": options.period, "by": by, "number": options.number}
    live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not options.once
    while True:
        status = ask(options.control, Request("status"))
        talkers = ask(options.control, Request("talkers", arguments))
        headlines = talkers["headlines"]  # first, because often nothing else is needed
        lines = [*headlines, *_show_status(status), "", *_show_talkers(talkers)]
        if live:
            height = shutil.get_terminal_size().lines - 1
            sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(lines[:height]) + "\n")
            sys.stdout.flush()
            time.sleep(TOP_SECONDS)
        else:
            print("\n".join(lines))
            return


def _trace(options: argparse.Namespace) -> None:
    """Print the dialogue of connections until the trace ends."""
    arguments = {"who": options.who, "seconds": options.seconds}
    for line in follow(options.control, Request("trace", arguments)):
        print(line, flush=True)


def _show_talkers(answer: dict[str, Any]) -> Iterable[str]:
    totals = answer["totals"]
    yield (
        f"last {age(answer['seconds'])}: {size(totals['commands'])} commands, {size(totals['octets'])} octets,"
        f" {totals['busy']:.1f} s of processor time, {size(totals['resets'])} resets"
    )
    for subject, rows in answer["tables"].items():
        if rows:
            yield ""
            networks = f"{subject} (IPv4 /26, IPv6 /56)"
            heads = (
                networks if subject == "network" else subject,
                *(f">{measure}" for measure in _MEASURES),
            )
            shares = [
                [row["key"], *(_percent(row[measure]) for measure in _MEASURES.values())]
                for row in rows
            ]
            yield from table(heads, shares)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share else "-"


def _show_why(answer: dict[str, Any]) -> Iterable[str]:
    if "unknown" in answer:
        network = answer["networks"][0]["network"]
        yield f"nothing known of {answer['unknown']}; of its network {network}:"
    elif answer.get("networks"):
        yield "ends without a login, by network (IPv4 /21, IPv6 /48); `imapshield why ADDRESS` is about one address"
    if answer.get("networks") == []:
        yield "no connection without a login has ended"
    for end in answer.get("ends") or answer["networks"]:
        since = f", first {moment(end['first'])}" if end["count"] > 1 else ""
        yield f"{moment(end['last'])}  {end['count']} x {end['action'] or 'ended'}: {_cause(end)}{since}"
        who = f"user {end['user']} from {end['peer']}" if end["user"] else f"address {end['peer']}"
        who = f"network {end['network']}, last {end['peer']}" if "network" in end else who
        connection = f", connection {end['connection']}" if end["connection"] else ""
        commands = f", last commands {' '.join(end['commands'])}" if end["commands"] else ""
        detail = f", {end['detail']}" if end["detail"] else ""
        yield f"    {who}{connection}{commands}{detail}"


def _cause(end: dict[str, Any]) -> str:
    if end["cause"] == "login refused: unavailable":
        return f"{end['cause']}; `imapshield status` and the log say why"
    if not end["value"]:
        return str(end["cause"])
    option = "" if end["setting"] in ("", "none") else f"; to change it: {end['setting']}"
    return f"{end['cause']}={end['value']:.12g}, seen {end['observed']:.12g}{option}"


def show_bans(answer: list[dict[str, Any]]) -> Iterable[str]:
    """Yield a line for each ban of an answer."""
    for ban in answer:
        scope = ", strangers only" if ban["strangers_only"] else ""
        yield f"{plain(ban['network'])}  {age(ban['remaining'])} left, {ban['reason']}, ban {ban['number']}{scope}"


def _show_ban(answer: dict[str, Any]) -> Iterable[str]:
    reset = counted(answer["reset"], "connection")
    return [f"banned {plain(answer['network'])} for {age(answer['seconds'])}; {reset} reset"]


def _show_reload(answer: dict[str, Any]) -> Iterable[str]:
    for change in answer["changed"]:
        yield f"changed {change}"
    if answer["needs_restart"]:
        yield f"needs a restart: {', '.join(answer['needs_restart'])}"
    for problem in answer["problems"]:
        yield f"problem: {problem}"
    if not any(answer.values()):
        yield "reloaded; no setting has changed"


def _show_admin(answer: dict[str, str]) -> Iterable[str]:
    if not answer["token"]:
        yield f"{answer['url']} with a user and password of --admin-auth"
    elif answer["url"].startswith("unix:"):
        yield f"{answer['url']} with the token {answer['token']}"
    else:
        # Browsers do not send what is after the #, so no log has it.
        yield f"{answer['url']}login#{answer['token']}"


ENDLESS = (_top, _trace)
"""The commands that end when they are interrupted."""

_WHO: dict[str, Any] = {"metavar": "USER|ADDRESS|NETWORK|NUMBER", "help": "whose connections"}
_COMMANDS: Sequence[tuple[str, Callable[[Any], Iterable[str]], str, Sequence[tuple[str, Any]]]] = (
    ("status", _show_status, "show what the running server is doing", ()),
    (
        "reload",
        _show_reload,
        "let the server read its configuration, users and certificates again; fails if one is wrong",
        (),
    ),
    (
        "who",
        _show_who,
        "list the connections; * means that reading pauses",
        (("who", {"nargs": "?", **_WHO}),),
    ),
    ("kick", _show_kick, "reset connections", (("who", _WHO),)),
    ("admin", _show_admin, "print the address of the status page, and how to log in", ()),
    (
        "why",
        _show_why,
        "say why connections ended; without an argument, those of strangers by network",
        (
            (
                "who",
                {
                    "nargs": "?",
                    "metavar": "USER|ADDRESS|NETWORK|NUMBER|REFERENCE",
                    "help": "whose; a REFERENCE is in the answer to a command that failed",
                },
            ),
        ),
    ),
    (
        "advise",
        show_advice,
        "say which values the limits should have, from what clients need; begin with --report-only",
        (
            (
                "--forget",
                {
                    "action": "store_true",
                    "dest": "forget",
                    "help": "then begin to observe again from nothing, such as after a change",
                },
            ),
        ),
    ),
    (
        "ban",
        _show_ban,
        "ban an address or network, and reset its connections",
        (
            ("network", {"metavar": "ADDRESS|NETWORK", "help": "such as 192.0.2.0/26"}),
            (
                "--force",
                {"action": "store_true", "help": "ban even this machine, or more than a /8"},
            ),
            (
                "--for",
                {
                    "dest": "seconds",
                    "metavar": "DURATION",
                    "type": duration,
                    "help": "such as 10m or 1d [default: the limits ban_seconds and max_ban_seconds]",
                },
            ),
        ),
    ),
    *NODE_COMMANDS,
)
