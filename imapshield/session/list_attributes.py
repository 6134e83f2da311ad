"""The attributes of mailboxes in LIST responses, for LIST, SELECT and NOTIFY."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from imapshield.mailbox.values import MailboxInfo
from imapshield.wire.names import parent_names


def parents(names: Iterable[str]) -> set[str]:
    """Return the names of all mailboxes above `names`."""
    return {parent for name in names for parent in parent_names(name)}


def attributes(
    name: str,
    infos: Mapping[str, MailboxInfo],
    parents: Container[str],
    *,
    extended: bool = True,
    subscribed: Container[str] = (),
) -> list[bytes]:
    r"""Return the attributes of mailbox `name`.

    Args:
        name: a mailbox, or a name that only has children.
        infos: the mailboxes of the account.
        parents: the names above all mailboxes.
        extended: whether the client knows \NonExistent (RFC 5258, RFC 9051).
        subscribed: the subscribed names, if \Subscribed is wanted.
    """
    info = infos.get(name)
    found: list[bytes] = []
    if info is None or not info.selectable:
        found.append(b"\\NonExistent" if extended else b"\\Noselect")
    found.append(b"\\HasChildren" if name in parents else b"\\HasNoChildren")
    if info is not None:
        found += info.special_use
    if name in subscribed:
        found.append(b"\\Subscribed")
    return found
