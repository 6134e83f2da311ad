"""What a server has acknowledged and announced, and the comparison with what it serves after a power cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

LOST, DUPLICATED, CHANGED, RENUMBERED = "lost", "duplicated", "changed", "renumbered"
FLAGS, UID_TWICE, MODSEQ_TWICE, REFUSED = "flags lost", "UID twice", "MODSEQ twice", "refused"
KINDS = (LOST, DUPLICATED, CHANGED, RENUMBERED, FLAGS, UID_TWICE, MODSEQ_TWICE, REFUSED)

Flags = frozenset[str]


class Fault(NamedTuple):
    """A broken promise: one of `KINDS`, the operation that made it, and what was expected and found."""

    kind: str
    operation: str
    text: str


@dataclass(frozen=True, slots=True)
class Announced:
    """The highest value that a server has announced, and the operation that was answered with it."""

    value: int = 0
    operation: str = ""

    def or_higher(self, value: int, operation: str) -> Announced:
        """Return the higher one of this and another announced value."""
        return Announced(value, operation) if value > self.value else self


@dataclass(eq=False, slots=True)
class History:
    """Everything that was ever announced of one mailbox and UIDVALIDITY.

    Attributes:
        contents: the message by UID, and the operation that announced it; a UID never means another one.
        states: the flags by (UID, MODSEQ); a MODSEQ never means other flags of the same message.
        removed: the operation that removed a message, by UID.
        uidnext: UIDs below it may have been announced.
        modseq: the highest MODSEQ.
    """

    contents: dict[int, tuple[str, str]] = field(default_factory=dict)
    removed: dict[int, str] = field(default_factory=dict)
    states: dict[tuple[int, int], Flags] = field(default_factory=dict)
    uidnext: Announced = Announced(1)
    modseq: Announced = Announced()

    def announce_uid(self, uid: int, token: str, operation: str) -> Iterator[Fault]:
        """Record the message of a UID."""
        self.uidnext = self.uidnext.or_higher(uid + 1, operation)
        known, by = self.contents.setdefault(uid, (token, operation))
        if known != token:
            yield Fault(UID_TWICE, by, f"UID {uid} was {known} and is {token}")

    def announce_state(
        self, uid: int, modseq: int | None, flags: Flags | None, operation: str
    ) -> Iterator[Fault]:
        """Record a FETCH response."""
        self.uidnext = self.uidnext.or_higher(uid + 1, operation)
        if modseq is None:
            return
        self.modseq = self.modseq.or_higher(modseq, operation)
        if flags is not None:
            known = self.states.setdefault((uid, modseq), flags)
            if known != flags:
                text = f"UID {uid} MODSEQ {modseq} was {_text(known)} and is {_text(flags)}"
                yield Fault(MODSEQ_TWICE, operation, text)


@dataclass(eq=False, slots=True)
class Message:
    """An acknowledged message.

    Attributes:
        token: identifies its content.
        uid: None for a delivery that no client has seen.
        stored_by, flagged_by: the operations that stored it and last set its flags.
        busy: a command in flight changes it.
    """

    token: str
    flags: Flags
    uid: int | None
    stored_by: str
    flagged_by: str
    busy: bool = False


@dataclass(eq=False, slots=True)
class Mailbox:
    """An acknowledged mailbox.

    Attributes:
        named_by: the operation that gave it its name.
        uidvalidity: 0 while it is not known.
        delivered: messages whose UID is not known.
        comment: the value of its METADATA entry.
        users: commands in flight that name it. sealed: one of them needs it alone.
        synced: (UIDVALIDITY, HIGHESTMODSEQ, flags by UID) as a client knows it from the last verification.
    """

    name: str
    named_by: str
    uidvalidity: int = 0
    history: History = field(default_factory=History)
    messages: dict[int, Message] = field(default_factory=dict)
    delivered: list[Message] = field(default_factory=list)
    comment: str = ""
    users: int = 0
    sealed: bool = False
    synced: tuple[int, int, dict[int, Flags]] | None = None

    def add(self, message: Message, uid: int) -> Iterator[Fault]:
        """Add a message under its announced UID."""
        message.uid = uid
        yield from self.history.announce_uid(uid, message.token, message.stored_by)
        self.messages[uid] = message

    def remove(self, message: Message, operation: str) -> None:
        """Remove a message that has a UID."""
        assert message.uid is not None
        del self.messages[message.uid]
        self.history.removed[message.uid] = operation

    def announced(self, token: str, uid: int) -> None:
        """Note the UID of a delivery, if `token` is one."""
        for message in self.delivered:
            if message.token == token:
                self.delivered.remove(message)
                message.uid = uid
                self.messages[uid] = message
                return


@dataclass(eq=False, slots=True)
class Account:
    """Everything acknowledged of one user.

    Attributes:
        subscriptions: names, each with whether it is subscribed and the operation that decided it.
        removed: the operation by name that last removed a mailbox.
        histories: by (name, UIDVALIDITY), also of mailboxes that do not exist any more.
        comment: the value of the METADATA entry of the server.
        changing: a command in flight changes the list of mailboxes, or METADATA of the server.
    """

    user: str
    mailboxes: dict[str, Mailbox] = field(default_factory=dict)
    subscriptions: dict[str, bool] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    histories: dict[tuple[str, int], History] = field(default_factory=dict)
    comment: str = ""
    changing: bool = False

    def learn_uidvalidity(self, mailbox: Mailbox, value: int) -> Iterator[Fault]:
        """Record the UIDVALIDITY of a mailbox that exists."""
        if mailbox.uidvalidity == value:
            return
        if mailbox.uidvalidity:
            text = f"{mailbox.name}: UIDVALIDITY was {mailbox.uidvalidity} and is {value}"
            yield Fault(RENUMBERED, mailbox.named_by, text)
            mailbox.history = History()
        mailbox.uidvalidity = value
        known = self.histories.setdefault((mailbox.name, value), mailbox.history)
        if known is not mailbox.history and known.contents:
            text = f"UIDVALIDITY {value} of {mailbox.name} belonged to a mailbox that was removed"
            yield Fault(UID_TWICE, mailbox.named_by, text)

    def rename(self, mailbox: Mailbox, name: str) -> None:
        """Give a mailbox another name."""
        del self.mailboxes[mailbox.name]
        self.removed[mailbox.name] = mailbox.named_by = "RENAME"
        mailbox.name = name
        self.mailboxes[name] = mailbox
        if mailbox.uidvalidity:
            self.histories[name, mailbox.uidvalidity] = mailbox.history

    def remove(self, mailbox: Mailbox) -> None:
        """Forget a mailbox that was deleted."""
        del self.mailboxes[mailbox.name]
        self.removed[mailbox.name] = "DELETE"


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
        origins: the command in flight that may have stored a message twice, by (mailbox, token).
    """

    def __init__(
        self,
        mailboxes: dict[str, FoundMailbox],
        subscriptions: Iterable[str],
        comments: dict[str, str],
    ) -> None:
        self.mailboxes = mailboxes
        self.subscriptions = set(subscriptions)
        self.comments = comments
        self.origins: dict[tuple[str, str], str] = {}
        self._extra: dict[str, dict[str, list[int]]] = {}

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
    for name in found.mailboxes.keys() - account.mailboxes.keys():
        by = account.removed.get(name, "CREATE")
        yield Fault(LOST, by, f"mailbox {name} exists, which was removed")
    for mailbox in account.mailboxes.values():
        served = found.mailboxes.get(mailbox.name)
        if served is None:
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
    history = mailbox.history
    faults = list(account.learn_uidvalidity(mailbox, served.uidvalidity))
    renumbered = bool(faults)
    yield from faults
    for kind, name, high, now in (
        (UID_TWICE, "UIDNEXT", history.uidnext, served.uidnext),
        (MODSEQ_TWICE, "HIGHESTMODSEQ", history.modseq, served.modseq),
    ):
        if now < high.value and not renumbered:
            yield Fault(kind, high.operation, f"{name} was {high.value} and is {now}{where}")
    explained: set[int] = set()
    for message in (*mailbox.messages.values(), *mailbox.delivered):
        yield from _compare_message(message, mailbox, served, found, explained)
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
    flags = {uid: message.flags for uid, message in served.messages.items()}
    if served.resynced is not None and served.resynced != flags:
        different = {
            uid: (_text(served.resynced.get(uid)), _text(flags.get(uid)))
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
        text = f"{message.token}, UID {uid}{where}: {_text(message.flags)} are {_text(here.flags)}"
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


def _text(flags: Iterable[str] | None) -> str:
    return "absent" if flags is None else f"({' '.join(sorted(flags))})"
