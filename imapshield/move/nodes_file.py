"""The file of ``--nodes``: which mail nodes there are, which shields, and how the map of users is changed. TOML, pure.

::

    map = "/etc/imapshield/users.map"        # or: switch-command = "/usr/local/bin/switch-user"

    [shields]
    edge1 = { control = "/run/imapshield/shield.sock" }
    edge2 = { control = "/run/imapshield/shield.sock", ssh = "root@edge2.example.org" }

    [nodes.one]
    mail-root = "/srv/mail"
    index-root = "/var/lib/imapshield/index" # as the server's option, if it has it
    control = "/run/imapshield/control"      # of the server on the node

    [nodes.two]
    ssh = "root@two.example.org"             # if it is another machine
    mail-root = "/srv/mail"
"""

import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from imapshield.move.places import MoveError


class Node(NamedTuple):
    """A mail node.

    Attributes:
        name: its name, as in the map of users.
        mail_root: the value of ``--mail-root`` of its server.
        index_root: the value of ``--index-root``; "" if it is not used.
        ssh: the machine, as ``ssh`` takes it; "" if it is this one.
        control: the control socket of its server; "" if no server needs to be asked.
        command: the command ``imapshield`` on the machine.
    """

    name: str
    mail_root: str = ""
    index_root: str = ""
    ssh: str = ""
    control: str = ""
    command: str = "imapshield"


class Shield(NamedTuple):
    """A shield in front of the nodes; the fields are those of `Node`."""

    name: str
    control: str = ""
    ssh: str = ""
    command: str = "imapshield"


class Nodes(NamedTuple):
    """The content of the file.

    Attributes:
        nodes: by name.
        shields: all shields.
        map: the file that says which node each user has; "" if there is none.
        switch_command: is run with the user and the node to change the map; "" if the file is changed.
    """

    nodes: Mapping[str, Node]
    shields: tuple[Shield, ...]
    map: str = ""
    switch_command: str = ""


def parse_nodes(content: str, path: str) -> Nodes:
    """Read the file of ``--nodes``.

    Raises:
        MoveError: it cannot be used; the text says why.
    """
    try:
        table = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise MoveError(f"{path}: {error}") from None
    unknown = set(table) - {"map", "switch-command", "shields", "nodes"}
    if unknown:
        raise MoveError(
            f"{path}: unknown {min(unknown)}; known are map, switch-command, shields and nodes"
        )
    nodes = {
        name: Node(name, **_fields(values, Node, f"{path}: node {name}"))
        for name, values in _table(table, "nodes", path).items()
    }
    for node in nodes.values():
        if not node.mail_root.startswith("/"):
            raise MoveError(f"{path}: node {node.name} needs a mail-root that is an absolute path")
    shields = tuple(
        Shield(name, **_fields(values, Shield, f"{path}: shield {name}"))
        for name, values in _table(table, "shields", path).items()
    )
    for shield in shields:
        if not shield.control:
            raise MoveError(
                f"{path}: shield {shield.name} needs control, the path of its control socket"
            )
    texts = [table.get(key, "") for key in ("map", "switch-command")]
    if not all(isinstance(text, str) for text in texts):
        raise MoveError(f"{path}: map and switch-command are texts")
    return Nodes(nodes, shields, *texts)


def _table(table: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise MoveError(f"{path}: {key} must be a table, such as [{key}.one]")
    return found


def _fields(values: object, kind: type[Node] | type[Shield], where: str) -> dict[str, str]:
    known = [field.replace("_", "-") for field in kind._fields if field != "name"]
    if not isinstance(values, dict):
        raise MoveError(f"{where}: must be a table with {', '.join(known)}")
    for key, value in values.items():
        if key not in known:
            raise MoveError(f"{where}: unknown {key}; known are {', '.join(known)}")
        if not isinstance(value, str):
            raise MoveError(f"{where}: {key} must be a text")
    return {key.replace("-", "_"): value for key, value in values.items()}
