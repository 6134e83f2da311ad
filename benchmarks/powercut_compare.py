"""The comparison of what a server has acknowledged with what it serves after a power cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from benchmarks.powercut_model import (
    CHANGED,
    DUPLICATED,
    FLAGS,
    LOST,
    MODSEQ_TWICE,
    REFUSED,
    RENUMBERED,
    UID_TWICE,
    Account,
    Fault,
    Flags,
    Mailbox,
    Message,
    flag_text,
)


class FoundMessage(NamedTuple):
    """A message as the server serves it; the token is "" if the content is not what was sent."""

    token: str
    flags: Flags
    modseq: int
    text: str = ""


@dataclass(slots=True)
class FoundMailbox:
    """A mailbox as the server serves it; `resynced` is the state of a client after QRESYNC."""

    uidvalidity: int
    uidnext: int
    modseq: int
    messages: dict[int, FoundMessage]
    resynced: dict[int, Flags] | None = None


class Snapshot:
    """An account as the server serves it after a cut.

    Attributes:
        refused: the responses by the names of mailboxes that LIST shows and that cannot be read.
        origins: the command in flight that may have stored a message twice, by (mailbox, token).
        changing: the command in flight that renames or deletes a mailbox, by name.
        deleting: the command in flight that deletes a mailbox, by name.
    """

    def __init__(
        self,
        mailboxes: dict[str, FoundMailbox],
        subscriptions: Iterable[str] = (),
        comments: Mapping[str, str] = MappingProxyType({}),
        refused: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.mailboxes = mailboxes
        self.subscriptions = set(subscriptions)
        self.comments = comments
        self.refused = refused
        self.origins: dict[tuple[str, str], str] = {}
        self.changing: dict[str, str] = {}
        self.deleting: dict[str, str] = {}
        self._extra: dict[str, dict[str, list[int]]] = {}

    def names(self) -> set[str]:
        """Return the names of all mailboxes."""
        return {*self.mailboxes, *self.refused}

    def take(self, mailbox: Mailbox, token: str, *, renumbered: bool = False) -> int | None:
        """Return the UID of a message with this content that the model does not have, each only once.

        Args:
            mailbox: where to look.
            token: the content.
            renumbered: also return UIDs that the model has with another content.
        """
        found = self.mailboxes.get(mailbox.name)
        if found is None:
            return None
        if mailbox.name not in self._extra:
            extra = self._extra[mailbox.name] = defaultdict(list)
            for uid, message in found.messages.items():
                known = mailbox.messages.get(uid)
                if known is None or known.token != message.token:
                    extra[message.token].append(uid)
        uids = self._extra[mailbox.name].get(token, [])
        for uid in uids:
            if renumbered or uid not in mailbox.messages:
                uids.remove(uid)
                return uid
        return None

    def has(self, mailbox: Mailbox, message: Message) -> bool:
        """Return whether a message is served under its UID."""
        found = self.mailboxes.get(mailbox.name)
        here = found.messages.get(message.uid) if found and message.uid else None
        return here is not None and here.token == message.token

    def flags(self, mailbox: Mailbox, uid: int | None) -> Flags:
        """Return the flags of a message that is served."""
        assert uid is not None
        return self.mailboxes[mailbox.name].messages[uid].flags


def compare(account: Account, found: Snapshot) -> Iterator[Fault]:
    """Compare an account, whose commands in flight are settled, with what the server serves."""
    for name in found.names() - account.mailboxes.keys():
        by = account.removed.get(name, "CREATE")
        yield Fault(LOST, by, f"mailbox {name} exists, which was removed")
    for mailbox in account.mailboxes.values():
        served = found.mailboxes.get(mailbox.name)
        if mailbox.name in found.refused:
            by = found.changing.get(mailbox.name, mailbox.named_by)
            yield Fault(REFUSED, by, f"{mailbox.name}: {found.refused[mailbox.name]}")
        elif served is None:
            yield Fault(LOST, mailbox.named_by, f"mailbox {mailbox.name} does not exist")
            for message in (*mailbox.messages.values(), *mailbox.delivered):
                yield Fault(LOST, message.stored_by, f"{message.token} with {mailbox.name}")
        else:
            yield from _compare_mailbox(account, mailbox, served, found)
    for name, subscribed in account.subscriptions.items():
        if subscribed != (name in found.subscriptions):
            by = "SUBSCRIBE" if subscribed else "UNSUBSCRIBE"
            yield Fault(LOST, by, f"subscription of {name}")


def compare_comments(account: Account, found: Snapshot) -> Iterator[Fault]:
    """Compare METADATA."""
    known = {name: mailbox.comment for name, mailbox in account.mailboxes.items()}
    for name, value in {**known, "": account.comment}.items():
        served = found.comments.get(name, "")
        if served != value:
            text = f"entry of mailbox {name!r} was {value!r} and is {served!r}"
            yield Fault(LOST, "SETMETADATA", text)


def _compare_mailbox(
    account: Account, mailbox: Mailbox, served: FoundMailbox, found: Snapshot
) -> Iterator[Fault]:
    where = f" in {mailbox.name}"
    faults = list(account.learn_uidvalidity(mailbox, served.uidvalidity))
    renumbered = bool(faults)
    history = mailbox.history
    yield from faults
    for kind, name, high, now in (
        (UID_TWICE, "UIDNEXT", history.uidnext, served.uidnext),
        (MODSEQ_TWICE, "HIGHESTMODSEQ", history.modseq, served.modseq),
    ):
        if now < high.value and not renumbered:
            yield Fault(kind, high.operation, f"{name} was {high.value} and is {now}{where}")
    explained: set[int] = set()
    for message in (*mailbox.messages.values(), *mailbox.delivered):
        for fault in _compare_message(message, mailbox, served, found, explained):
            # A new UIDVALIDITY is one fault, whatever the new UIDs are.
            if fault.kind == RENUMBERED and renumbered:
                continue
            # A DELETE in flight may remove the mailbox, but not only some of its messages.
            by = found.deleting.get(mailbox.name) if fault.kind == LOST else None
            yield fault._replace(operation=by) if by else fault
    for uid, extra in served.messages.items():
        if uid not in explained:
            if not extra.token:
                yield Fault(CHANGED, "?", f"UID {uid}{where} is {extra.text}")
            else:
                yield _fault_of_extra(uid, extra.token, mailbox, found)
        for fault in (
            *mailbox.history.announce_uid(uid, extra.token, "verification"),
            *mailbox.history.announce_state(uid, extra.modseq, extra.flags, "verification"),
        ):
            yield fault._replace(text=fault.text + where)
    yield from _compare_resynced(served, where)


def _compare_resynced(served: FoundMailbox, where: str) -> Iterator[Fault]:
    """Compare what a client with QRESYNC knows with what is served."""
    flags = {uid: message.flags for uid, message in served.messages.items()}
    if served.resynced is not None and served.resynced != flags:
        different = {
            uid: (flag_text(served.resynced.get(uid)), flag_text(flags.get(uid)))
            for uid in served.resynced.keys() | flags.keys()
            if served.resynced.get(uid) != flags.get(uid)
        }
        yield Fault(MODSEQ_TWICE, "QRESYNC", f"a client knows, and is: {different}{where}")


def _compare_message(
    message: Message,
    mailbox: Mailbox,
    served: FoundMailbox,
    found: Snapshot,
    explained: set[int],
) -> Iterator[Fault]:
    where, uid = f" in {mailbox.name}", message.uid
    here = served.messages.get(uid) if uid else None
    if here is not None and here.token in (message.token, ""):
        assert uid is not None
        explained.add(uid)
        if not here.token:
            yield Fault(CHANGED, message.stored_by, f"{message.token}{where}: {here.text}")
    else:
        other = found.take(mailbox, message.token, renumbered=True)
        if other is None:
            yield Fault(LOST, message.stored_by, f"{message.token}, UID {uid}{where}")
            return
        explained.add(other)
        here = served.messages[other]
        if uid is not None:
            text = f"{message.token} had UID {uid} and has {other}{where}"
            yield Fault(RENUMBERED, message.stored_by, text)
        uid = other
    if here.flags != message.flags:
        before, now = flag_text(message.flags), flag_text(here.flags)
        text = f"{message.token}, UID {uid}{where}: {before} are {now}"
        yield Fault(FLAGS, message.flagged_by, text)


def _fault_of_extra(uid: int, token: str, mailbox: Mailbox, found: Snapshot) -> Fault:
    where = f"{token}, UID {uid} in {mailbox.name}"
    for message in (*mailbox.messages.values(), *mailbox.delivered):
        if message.token == token:
            by = found.origins.get((mailbox.name, token), message.stored_by)
            return Fault(DUPLICATED, by, f"{where}, is there twice")
    if uid in mailbox.history.removed and mailbox.history.contents[uid][0] == token:
        return Fault(LOST, mailbox.history.removed[uid], f"{where}, was removed and is back")
    origin = found.origins.get((mailbox.name, token))
    if origin:
        return Fault(DUPLICATED, origin, f"{where}, is in both mailboxes")
    return Fault(DUPLICATED, "?", f"{where}, was never stored there, or was removed")
