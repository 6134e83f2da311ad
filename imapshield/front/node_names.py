"""Finds the node that a service of ``--user-map`` means."""

from collections.abc import Sequence

from imapshield.front.backend_address import BackendAddress
from imapshield.front.user_map import EntryWrong


def node_named(nodes: Sequence[BackendAddress], text: str, port: int | None = None) -> str:
    """Return the name of the node that a service means: a name, or the host and the port of a backend.

    So a service, whatever it says, cannot make the server connect to anywhere else.

    Raises:
        EntryWrong: there is no such node.
    """
    host, separator, digits = text.rpartition(":")
    if port is None and separator and digits.isdigit():
        text, port = host, int(digits)
    text = text.strip("[]")
    for address in nodes:
        is_named = port is None and address.node == text
        if is_named or (address.host == text and port in (None, address.port)):
            return address.node
    raise EntryWrong("it names a node that no --backend has")
