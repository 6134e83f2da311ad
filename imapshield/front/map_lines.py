"""The lines of a file that says which node has the mail of a user. Without Twisted.

Lines
-----
``alice mail1``: the mail of alice is on the node mail1. ``*@example.org mail2``: that of all others of a domain.
``* mail3``: that of everybody else. Empty lines, and lines that begin with ``#``, mean nothing.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from imapshield.regular_file import open_regular

EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class MapTable:
    """One state of a file. It never changes, so the reactor uses it while a thread reads the next one.

    Attributes:
        nodes: the node of each user, and of each ``*@domain``; names are in lower case.
        version: which state of the file it is.
    """

    nodes: Mapping[str, str] = field(default_factory=dict)
    version: object = None

    def node(self, user: str) -> str:
        """Return the node of a user; "" if there is none."""
        domain = EVERYBODY + "@" + user.rpartition("@")[2]
        names = (user, domain, EVERYBODY)
        return next((self.nodes[name] for name in names if name in self.nodes), "")


def read_map(path: str, nodes: Collection[str]) -> MapTable:
    """Read a file. Blocking.

    Args:
        path: the file.
        nodes: the names of all nodes.

    Raises:
        ValueError: the file cannot be read, is empty or is wrong; the text has the path, and the number of the line.
    """
    try:
        version = file_version(path)
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; name a readable file") from None
    found = parse_map(content, path, nodes)
    if not found:
        # All users would be unknown. A file that is being written, or was cut, is no reason to ban them.
        raise ValueError(f"{path}: has no line with a user and a node; write * NODE for everybody")
    return MapTable(found, version)


def parse_map(content: bytes, path: str, nodes: Collection[str] | None = None) -> Mapping[str, str]:
    """Return the node of each user, and of each ``*@domain``; names are in lower case.

    Args:
        content: the content of the file.
        path: its path, for errors.
        nodes: the names of all nodes; None permits any.

    Raises:
        ValueError: it is wrong.
    """
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    # The table has one text for each node, however many users it has.
    names = {name: name for name in nodes or ()}
    for number, line in enumerate(_text(content, path).split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        if len(words) != 2:
            raise ValueError(f"{where}: has {len(words)} words; write a user and a node")
        user, node = words[0].lower(), words[1]
        if nodes is not None and node not in names:
            known = ", ".join(nodes)
            raise ValueError(f"{where}: no --backend has the name {node}; known are {known}")
        if "*" in user and user != EVERYBODY and not user.startswith("*@"):
            raise ValueError(f"{where}: * stands for everybody, and *@DOMAIN for a domain")
        if user in found:
            raise ValueError(f"{where}: {user} is in line {lines[user]} already; remove one")
        found[user], lines[user] = names.setdefault(node, node), number
    return found


def with_node(lines: Sequence[bytes], path: str, user: str, node: str) -> list[bytes]:
    """Return the lines of a file in which a user has a node; the line of the user stays where it is.

    Args:
        lines: the lines of the file.
        path: its path, for errors.
        user: the user, in any case.
        node: the name of the node.

    Raises:
        ValueError: the file is wrong, or no line can name this user and this node.
    """
    name, found, edited = user.lower(), False, []
    if f"{name} {node}".split() != [name, node] or name.startswith("#") or "*" in name:
        raise ValueError(f"{path}: no line of a map can name the user {user!r} and the node {node}")
    for line in _text(b"\n".join(lines), path).split("\n") if lines else ():
        words = line.split(maxsplit=1)
        if words and words[0].lower() == name:
            found, line = True, f"{words[0]} {node}"  # noqa: PLW2901
        edited.append(line)
    if not found:
        edited.append(f"{name} {node}")
    content = "\n".join(edited).encode()
    if parse_map(content, path).get(name) != node:
        raise ValueError(f"{path}: the line of {user!r} would not be read as one")
    return content.split(b"\n")


def _text(content: bytes, path: str) -> str:
    """Return a content as text, without the mark that some editors write at the begin of a file."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the text is not UTF-8") from None


def file_version(path: str) -> object:
    """Return a value that changes with the file."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino
