"""The commands about mail nodes, and what they print."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from imapshield.command_output import age, counted, table

_HEADS = ("node", "state", ">users", ">sessions", ">connections", ">failures", ">checked", ">latency")  # fmt: skip


def node_lines(nodes: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Yield a line for each node of an answer to ``status``."""
    for node in nodes:
        yield (
            f"node {node['node']:<7} {_state(node)}, {counted(node['users'], 'user')},"
            f" {node['connections']} of {node['max_connections']} connections,"
            f" {counted(node['failures'], 'failure')}{': ' * bool(node['reason'])}{node['reason']}"
        )


def _state(node: dict[str, Any]) -> str:
    """Return the state of a node, and how many failures more make it ``down``."""
    if node["state"] != "failing":
        return str(node["state"])
    return f"failing ({node['consecutive_failures']} of {node['max_consecutive_failures']})"


def _show_nodes(answer: list[dict[str, Any]]) -> Iterable[str]:
    rows = []
    for node in answer:
        checked = "never" if node["checked"] is None else f"{age(node['checked'])} ago"
        latency = "-" if node["latency"] is None else f"{1000 * node['latency']:.1f} ms"
        connections = f"{node['connections']} of {node['max_connections']}"
        numbers = node["users"], node["sessions"], connections, node["failures"]
        rows.append((node["node"], _state(node), *numbers, checked, latency))
    yield from table(_HEADS, rows)
    for node in answer:
        if node["reason"]:
            yield f"{node['node']}: {node['reason']}"
        elif not node.get("answers", True) and node["state"] != "removed":
            yield f"{node['node']}: no answer to a check now"


def _show_drain(answer: dict[str, Any]) -> Iterable[str]:
    sessions = f"{counted(answer['sessions'], 'session')} of {counted(answer['users'], 'user')}"
    goes_on = "goes on" if answer["sessions"] == 1 else "go on"
    already = ", as before" * answer["unchanged"]
    return [f"{answer['node']}: no further logins{already}; {sessions} {goes_on}"]


def _show_undrain(answer: dict[str, Any]) -> Iterable[str]:
    already = ", as before" * answer["unchanged"]
    return [f"{answer['node']}: logins are possible{already}; it is {answer['state']}"]


def _show_hold(answer: dict[str, Any]) -> Iterable[str]:
    ended = counted(answer["ended"], "connection")
    cut = f", {answer['cut']} of them within a command" if answer["cut"] else ""
    node = f"; the node is {answer['node']}" if answer["node"] else ""
    yield f"{answer['user']}: logins wait for {age(answer['seconds'])}; {ended} ended{cut}{node}"
    if answer["node"] == "":
        yield "the user map does not know this user; if you mistyped the name, `imapshield release` ends this hold"


def _show_release(answer: dict[str, Any]) -> Iterable[str]:
    node = f"on {answer['node']}" if answer["node"] else "unknown to the user map"
    if answer["node"] is None:
        node = "on the node that the user map says with the password"
    held = "logins go on" if answer["held"] else "was not held"
    return [f"{answer['user']}: {held}, {node}"]


_NODE = ("node", {"metavar": "NODE", "help": "the NAME of a --backend NAME=ENDPOINT"})
NODE_COMMANDS: Sequence[
    tuple[str, Callable[[Any], Iterable[str]], str, Sequence[tuple[str, Any]]]
] = (
    (
        "nodes",
        _show_nodes,
        "list the mail nodes behind the server",
        (("--check", {"action": "store_true", "help": "check them now, in at most 3 seconds"}),),
    ),
    ("drain", _show_drain, "let a mail node have no further logins; sessions go on", (_NODE,)),
    ("undrain", _show_undrain, "let a drained mail node have logins again", (_NODE,)),
    (
        "hold",
        _show_hold,
        "end the sessions of a user on a mail node, and let logins wait until `imapshield release`",
        (
            ("user", {"metavar": "USER", "help": "the user, who moves to another node"}),
            (
                "--seconds",
                {"type": float, "metavar": "N", "help": "at most for so long [default: 10]"},
            ),
        ),
    ),
    (
        "release",
        _show_release,
        "look up again which mail node has a user, and let the logins go on that wait",
        (("user", {"metavar": "USER", "help": "the user"}),),
    ),
)
