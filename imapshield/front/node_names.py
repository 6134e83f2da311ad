"""Finds the node that a service of ``--user-map`` means."""

from collections.abc import Sequence

from imapshield.front.backend_address import BackendAddress
from imapshield.front.user_map import EntryWrong


def node_named(nodes: Sequence[BackendAddress], text: str, port: int | None = None) -> str:
    """Return the name of the node that a service means: a name, or the host and the port of a backend.

    So a service, whatever it says, cannot make the server connect to anywhere else.

    A name counts before a host. A host needs its port if several backends have it.

    Raises:
        EntryWrong: there is no such node, or there are several.
    """
    host, separator, digits = text.rpartition(":")
    number = whole_number(digits, 5) if separator else None
    if port is None and number is not None:
        text, port = host, number
    text = text.strip("[]")
    if port is None and any(each.node == text for each in nodes):
        return text
    found = [each.node for each in nodes if each.host == text and port in (None, each.port)]
    if len(found) > 1:
        raise EntryWrong("it names a host that several --backend have; it must name the node")
    if not found:
        raise EntryWrong("it names a node that no --backend has")
    return found[0]


def whole_number(text: str, most_digits: int) -> int | None:
    """Return the number that a service has written; None if it is none, or has more digits."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= most_digits
    return int(text) if is_number else None
