"""What a server has acknowledged and announced: the model that survives a power cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

LOST, DUPLICATED, CHANGED, RENUMBERED = "lost", "duplicated", "changed", "renumbered"
FLAGS, UID_TWICE, MODSEQ_TWICE, REFUSED = "flags lost", "UID twice", "MODSEQ twice", "refused"
IN_PART = "in part"
KINDS = (LOST, DUPLICATED, CHANGED, RENUMBERED, FLAGS, UID_TWICE, MODSEQ_TWICE, REFUSED, IN_PART)

Flags = frozenset[str]

SEPARATOR = "/"
"""The character between levels of mailbox names."""

LETTERED_KEYWORDS = 26
"""Keywords of a Maildir that have a letter in file names; a server must store further ones elsewhere."""

_IN_FLIGHT = ", in flight"


def in_flight(operation: str) -> str:
    """Return how reports name an operation that was not acknowledged before the cut."""
    return operation if is_in_flight(operation) else operation + _IN_FLIGHT


def is_in_flight(operation: str) -> bool:
    """Return whether a name is one of an operation that was not acknowledged."""
    return operation.endswith(_IN_FLIGHT)


class Fault(NamedTuple):
    """A broken promise: one of `KINDS`, the operation that made it, and what was expected and found.

    The operation is named by `in_flight` if only a command that was not acknowledged is concerned. What was
    acknowledged before and is lost is a fault of the operation that was acknowledged, whatever was in flight.
    """

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
                text = f"UID {uid} MODSEQ {modseq} was {flag_text(known)} and is {flag_text(flags)}"
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
        keywords: all that its messages have ever had.
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
    keywords: set[str] = field(default_factory=set)
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
        """Record the UIDVALIDITY of a mailbox that exists.

        A mailbox that has the name and UIDVALIDITY of a removed one continues its UIDs (RFC 9051 section 6.3.5).
        """
        if mailbox.uidvalidity == value:
            return
        if mailbox.uidvalidity:
            text = f"{mailbox.name}: UIDVALIDITY was {mailbox.uidvalidity} and is {value}"
            yield Fault(RENUMBERED, mailbox.named_by, text)
            mailbox.history = History()
        mailbox.uidvalidity = value
        mailbox.history = self.histories.setdefault((mailbox.name, value), mailbox.history)

    def children(self, name: str) -> list[Mailbox]:
        """Return the mailboxes below a name."""
        prefix = name + SEPARATOR
        return [m for other, m in self.mailboxes.items() if other.startswith(prefix)]

    def rename(self, mailbox: Mailbox, name: str, operation: str) -> None:
        """Give a mailbox another name."""
        del self.mailboxes[mailbox.name]
        self.removed[mailbox.name] = mailbox.named_by = operation
        mailbox.name = name
        self.mailboxes[name] = mailbox
        if mailbox.uidvalidity:
            self.histories[name, mailbox.uidvalidity] = mailbox.history

    def remove(self, mailbox: Mailbox, operation: str) -> None:
        """Forget a mailbox that was deleted."""
        del self.mailboxes[mailbox.name]
        self.removed[mailbox.name] = operation

    def settled(self) -> None:
        """Note that the server serves what commands in flight did: from now on it is acknowledged."""
        for mailbox in self.mailboxes.values():
            mailbox.named_by = mailbox.named_by.removesuffix(_IN_FLIGHT)
            for message in mailbox.messages.values():
                message.stored_by = message.stored_by.removesuffix(_IN_FLIGHT)
                message.flagged_by = message.flagged_by.removesuffix(_IN_FLIGHT)
            removed = mailbox.history.removed
            mailbox.history.removed = {k: by.removesuffix(_IN_FLIGHT) for k, by in removed.items()}
        self.removed = {name: by.removesuffix(_IN_FLIGHT) for name, by in self.removed.items()}


def flag_text(flags: Iterable[str] | None) -> str:
    """Return flags as IMAP writes them; "absent" for a message that does not exist."""
    return "absent" if flags is None else f"({' '.join(sorted(flags))})"
