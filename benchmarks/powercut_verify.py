"""Reads everything that a server serves after a power cut, and compares it with what it has acknowledged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from benchmarks.client import Response
from benchmarks.powercut_compare import (
    FoundMailbox,
    FoundMessage,
    Snapshot,
    compare,
    compare_comments,
)
from benchmarks.powercut_mailboxes import ENTRY
from benchmarks.powercut_model import REFUSED, Account, Fault, Flags, Mailbox
from benchmarks.powercut_operation import Operation, content_of, quoted, token_of
from benchmarks.powercut_session import Closed, Session, codes, fetched, vanished

_LISTED = re.compile(rb'\* (?:LIST|LSUB) \(([^)]*)\) (?:"."|NIL) "?([^"\r\n]+)"?\r\n')
_NO_MAILBOX = re.compile(rb"(?i)\\Noselect|\\NonExistent")
_METADATA = re.compile(rb'\* METADATA "?([^" ]*)"? \(\S+ "([^"]*)"\)')
_FETCH_ALL = b"UID FETCH 1:* (FLAGS MODSEQ BODY.PEEK[])"


class VerificationRefused(Exception):
    """The server refused a command of the verification; the text is its response."""


def log_in(session: Session, account: Account, password: str) -> None:
    """Log in, and enable QRESYNC."""
    login = f'LOGIN "{account.user}" "{password}"'.encode()
    _ok(session.run(login, b"ENABLE QRESYNC"))


def read_account(connect: Callable[[], Session], account: Account, *, metadata: bool) -> Snapshot:
    """Read an account. A mailbox that cannot be read is one fault, and does not hide the others.

    Args:
        connect: returns a session that has logged in.
        account: the model, for what a client knows that uses QRESYNC.
        metadata: read METADATA, too.

    Raises:
        VerificationRefused: a command that is not about one mailbox was refused.
        Closed, OSError: the connection failed before a mailbox was read.
    """
    session = connect()
    try:
        listed, subscribed = _ok(session.run(b'LIST "" *', b'LSUB "" *'))
        names = _names(listed)
        comments = _read_comments(session, names) if metadata else {}
        found, refused = {}, {}
        for name in names:
            try:
                found[name] = _read_mailbox(session, name, account.mailboxes.get(name))
            except VerificationRefused as error:
                refused[name] = str(error)
            except (Closed, OSError) as error:
                refused[name] = str(error) or "the connection was closed"
                session.close()
                session = connect()
    finally:
        session.close()
    return Snapshot(found, _names(subscribed, existing=False), comments, refused)


def _read_comments(session: Session, names: Iterable[str]) -> dict[str, str]:
    """Return the METADATA entry of each mailbox, and of the server with the name ""."""
    comments: dict[str, str] = {}
    commands = [f"GETMETADATA {quoted(name)} {ENTRY}".encode() for name in ("", *names)]
    for response in session.run(*commands):
        for parts in response.untagged:
            if match := _METADATA.match(b"".join(parts)):
                comments[match[1].decode()] = match[2].decode()
    return comments


def _read_mailbox(session: Session, name: str, known: Mailbox | None) -> FoundMailbox:
    select = f"SELECT {quoted(name)}"
    synced = known.synced if known else None
    if synced:
        select += f" (QRESYNC ({synced[0]} {synced[1]}))"
    selected, contents = _ok(session.run(select.encode(), _FETCH_ALL))
    values = codes(parts[0] for parts in selected.untagged)
    messages = {}
    for item in fetched(contents.untagged):
        if item.literal is not None and item.flags is not None:
            token, text = _identify(item.literal)
            messages[item.uid] = FoundMessage(token, item.flags, item.modseq or 0, text)
    uidvalidity = int(values["UIDVALIDITY"][0])
    resynced = None
    if synced and synced[0] == uidvalidity:
        resynced = _resync(synced[2], selected)
    return FoundMailbox(
        uidvalidity,
        int(values["UIDNEXT"][0]),
        int(values["HIGHESTMODSEQ"][0]),
        messages,
        resynced,
    )


def _resync(known: dict[int, Flags], selected: Response) -> dict[int, Flags]:
    gone = vanished(selected.untagged)
    state = {uid: flags for uid, flags in known.items() if uid not in gone}
    for item in fetched(selected.untagged):
        if item.flags is not None:
            state[item.uid] = item.flags
    return state


def _identify(content: bytes) -> tuple[str, str]:
    """Return the token of a message and ""; or "" and a description, if it is not what was sent."""
    token = token_of(content)
    try:
        if content_of(token) == content:
            return token, ""
    except ValueError:
        pass
    return "", f"{token!r}, {len(content)} bytes, which begin with {content[:40]!r}"


def _names(response: Response, *, existing: bool = True) -> list[str]:
    r"""Return the names of LIST or LSUB; those with \Noselect only if they need not exist."""
    return [
        match[2].decode()
        for parts in response.untagged
        if (match := _LISTED.match(b"".join(parts)))
        and not (existing and _NO_MAILBOX.search(match[1]))
    ]


def _ok(responses: Iterable[Response]) -> list[Response]:
    responses = list(responses)
    for response in responses:
        if response.tagged.split(b" ")[1] != b"OK":
            raise VerificationRefused(response.tagged.decode(errors="replace").strip())
    return responses


def verify(
    account: Account, found: Snapshot, in_flight: Iterable[Operation], *, metadata: bool
) -> Iterator[Fault]:
    """Settle the commands in flight, compare, and continue with what was found.

    Args:
        account: the model, which is right for the next cut only if there is no fault.
        found: what the server serves.
        in_flight: commands of this account that were not answered.
        metadata: compare METADATA, too.
    """
    in_flight = list(in_flight)
    for operation in in_flight:
        operation.in_flight = True
        if operation.on_mailboxes:
            yield from operation.settle(found)
    for mailbox in account.mailboxes.values():
        _find_deliveries(mailbox, found)
    for operation in in_flight:
        refused = any(mailbox.name in found.refused for mailbox in operation.mailboxes)
        if not operation.on_mailboxes and not refused:
            yield from operation.settle(found)
    yield from compare(account, found)
    if metadata:
        yield from compare_comments(account, found)
    account.settled()
    for mailbox in account.mailboxes.values():
        served = found.mailboxes.get(mailbox.name)
        if served:
            _note(mailbox, served)


def _find_deliveries(mailbox: Mailbox, found: Snapshot) -> None:
    for message in [*mailbox.delivered]:
        uid = found.take(mailbox, message.token)
        if uid is not None:
            mailbox.announced(message.token, uid)


def _note(mailbox: Mailbox, served: FoundMailbox) -> None:
    history, by = mailbox.history, "verification"
    history.uidnext = history.uidnext.or_higher(served.uidnext, by)
    history.modseq = history.modseq.or_higher(served.modseq, by)
    flags = {uid: message.flags for uid, message in served.messages.items()}
    mailbox.synced = (served.uidvalidity, served.modseq, flags)


def refused(error: Exception) -> Fault:
    """Return the fault of a verification that failed."""
    return Fault(REFUSED, "verification", str(error) or type(error).__name__)
