"""Chooses the next command of a client at random, such that commands in flight do not change the same things."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from benchmarks.powercut_mailboxes import Create, Delete, Rename, Select, SetMetadata, Subscribe
from benchmarks.powercut_messages import Append, Copy, Expunge, Fetch, Move, Replace, Store
from benchmarks.powercut_model import SEPARATOR, Account, Flags, Mailbox, Message
from benchmarks.powercut_operation import Operation

NAMES = ("Box1", "Box1/a", "Box1/a/b", "Box1/c", "Box2", "Box2/a", "Box3", "Box4")
"""Few names, so that mailboxes are often created under the name of one that was removed, or below another one."""

USUAL_SIZE = 50
"""Messages of an account above which messages are removed more often than stored, to keep verification short."""

_SYSTEM_FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted")
_USUAL_KEYWORDS = ("$Forwarded", "$Junk", "Work", "later")
# More than 26 in a mailbox have no letter in a Maildir's file names.
_ALL_KEYWORDS = (*_USUAL_KEYWORDS, *(f"keyword{number}" for number in range(36)))
_SIZES = (200, 200, 200, 200, 900, 900, 3000, 3000, 20_000)

_STORING = {"append": 10, "multiappend": 4, "copy": 6, "delivery": 4, "create": 3}
_REMOVING = {"delete_flag": 6, "expunge": 6, "uid_expunge": 6, "delete": 2}
_OTHER = {
    "store": 16,
    "move": 10,
    "replace": 5,
    "rename": 5,
    "subscribe": 3,
    "metadata": 3,
    "select": 5,
    "fetch": 2,
}


class Chooser:
    """Chooses commands for the clients of one account.

    Args:
        account: the model.
        rng: the random numbers.
        new_token: returns the token of a new message; the argument is its size.
        deliver: stores a message as a delivery agent does.
        unsupported: names of choices that the server cannot do.
    """

    def __init__(
        self,
        account: Account,
        rng: random.Random,
        new_token: Callable[[int], str],
        deliver: Callable[[Mailbox, str], None],
        unsupported: Sequence[str] = (),
    ) -> None:
        self.account = account
        self.rng = rng
        self._new_token = new_token
        self._deliver = deliver
        weights = {**_STORING, **_REMOVING, **_OTHER}
        self._weights = {name: w for name, w in weights.items() if name not in unsupported}

    def choose(self, selected: Mailbox | None, all_selected: Sequence[Mailbox]) -> Operation | None:
        """Return a command for a client that has selected a mailbox; None if every try found nothing to do.

        Args:
            selected: the mailbox of this client.
            all_selected: the mailboxes of all clients, which are not renamed or deleted.
        """
        self._selected, self._all_selected = selected, all_selected
        weights = dict(self._weights)
        size = sum(len(m.messages) + len(m.delivered) for m in self.account.mailboxes.values())
        for name in _REMOVING:
            if size > USUAL_SIZE and name in weights:
                weights[name] *= 5
        for _ in range(10):
            (name,) = self.rng.choices(list(weights), list(weights.values()))
            found: Operation | None = getattr(self, f"_{name}")()
            if found is not None:
                return found
        return None

    def _target(self) -> Mailbox | None:
        """Return a mailbox that no command needs alone."""
        free = [m for m in self.account.mailboxes.values() if not m.sealed]
        return self.rng.choice(free) if free else None

    def _alone(self, mailbox: Mailbox) -> bool:
        return not mailbox.users and not mailbox.sealed

    def _unused(self, mailbox: Mailbox) -> bool:
        return self._alone(mailbox) and mailbox not in self._all_selected

    def _removable(self) -> list[Mailbox]:
        """Return the mailboxes that can be renamed or deleted now."""
        return [
            mailbox
            for mailbox in self.account.mailboxes.values()
            if mailbox.name != "INBOX" and not self.account.changing and self._unused(mailbox)
        ]

    def _free_name(self) -> str | None:
        """Return a name whose parents exist: only some servers create them."""
        names = self.account.mailboxes
        free = [name for name in NAMES if name not in names and names.keys() >= _parents(name)]
        return self.rng.choice(free) if free and not self.account.changing else None

    def _free_messages(self, *, deleted: bool | None = None) -> list[Message]:
        mailbox = self._selected
        if mailbox is None or mailbox.sealed:
            return []
        return [
            message
            for message in mailbox.messages.values()
            if not message.busy and deleted in (None, "\\Deleted" in message.flags)
        ]

    def _some(self, messages: list[Message]) -> list[Message]:
        kind = self.rng.random()
        count = 1 if kind < 0.5 else self.rng.randint(1, 5) if kind < 0.8 else len(messages)
        return sorted(self.rng.sample(messages, min(count, len(messages))), key=_uid)

    def _flags(self, *, deleted: bool = True) -> Flags:
        system = _SYSTEM_FLAGS if deleted else _SYSTEM_FLAGS[:-1]
        many = self.rng.random() < 0.05
        keywords = (
            self.rng.sample(_ALL_KEYWORDS, self.rng.randint(1, 30))
            if many
            else self.rng.sample(_USUAL_KEYWORDS, self.rng.randint(0, 2))
        )
        return frozenset([*self.rng.sample(system, self.rng.randint(0, 2)), *keywords])

    def _token(self) -> str:
        return self._new_token(self.rng.choice(_SIZES))

    def _append(self) -> Operation | None:
        target = self._target()
        return (
            None
            if target is None
            else Append(self.account, target, [self._token()], self._flags(deleted=False))
        )

    def _multiappend(self) -> Operation | None:
        target = self._target()
        tokens = [self._token() for _ in range(self.rng.randint(2, 5))]
        return (
            None
            if target is None
            else Append(self.account, target, tokens, self._flags(deleted=False))
        )

    def _delivery(self) -> None:
        target = self._target()
        if target is not None:
            token = self._token()
            self._deliver(target, token)
            target.delivered.append(Message(token, frozenset(), None, "delivery", "delivery"))

    def _copy(self) -> Operation | None:
        messages, target = self._free_messages(), self._target()
        if not messages or target is None or self._selected is None:
            return None
        return Copy(self.account, self._selected, self._some(messages), target)

    def _move(self) -> Operation | None:
        messages, target = self._free_messages(), self._target()
        if not messages or target in (None, self._selected) or self._selected is None:
            return None
        assert target is not None
        return Move(self.account, self._selected, self._some(messages), target)

    def _store(self) -> Operation | None:
        messages = self._free_messages()
        if not messages or self._selected is None:
            return None
        flags, sign = self._flags(), self.rng.choice(["+", "+", "-", ""])
        return Store(self.account, self._selected, self._some(messages), sign, flags)

    def _delete_flag(self) -> Operation | None:
        messages = self._free_messages(deleted=False)
        if not messages or self._selected is None:
            return None
        deleted = frozenset({"\\Deleted"})
        return Store(self.account, self._selected, self._some(messages), "+", deleted)

    def _expunge(self) -> Operation | None:
        mailbox = self._selected
        messages = self._free_messages(deleted=True)
        if not messages or mailbox is None or not self._alone(mailbox):
            return None
        return Expunge(self.account, mailbox, messages, by_uid=False)

    def _uid_expunge(self) -> Operation | None:
        messages = self._free_messages(deleted=True)
        if not messages or self._selected is None:
            return None
        return Expunge(self.account, self._selected, self._some(messages), by_uid=True)

    def _replace(self) -> Operation | None:
        messages, target = self._free_messages(), self._target()
        if not messages or target is None or self._selected is None:
            return None
        if self.rng.random() < 0.5:
            target = self._selected
        old, flags = self.rng.choice(messages), self._flags(deleted=False)
        return Replace(self.account, self._selected, old, target, self._token(), flags)

    def _create(self) -> Operation | None:
        name = self._free_name()
        return None if name is None else Create(self.account, name)

    def _delete(self) -> Operation | None:
        free = self._removable()
        return Delete(self.account, self.rng.choice(free)) if free else None

    def _rename(self) -> Operation | None:
        children = self.account.children
        name = self._free_name()
        free = [m for m in self._removable() if all(map(self._unused, children(m.name)))]
        parents = [mailbox for mailbox in free if children(mailbox.name)]
        if name is None or not free or children(name):
            return None
        mailbox = self.rng.choice(parents or free)
        if name.startswith(mailbox.name + SEPARATOR):
            return None
        return Rename(self.account, mailbox, name)

    def _subscribe(self) -> Operation | None:
        free = [m for m in self.account.mailboxes.values() if self._alone(m)]
        if not free:
            return None
        mailbox = self.rng.choice(free)
        wanted = not self.account.subscriptions.get(mailbox.name, False)
        return Subscribe(self.account, mailbox, wanted)

    def _metadata(self) -> Operation | None:
        free = [m for m in self.account.mailboxes.values() if self._alone(m)]
        value = self.rng.choice(["", f"value {self.rng.randrange(10**6)}"])
        if self.rng.random() < 0.2 and not self.account.changing:
            return SetMetadata(self.account, None, value)
        return SetMetadata(self.account, self.rng.choice(free), value) if free else None

    def _select(self) -> Operation | None:
        target = self._target()
        return None if target is None else Select(self.account, target)

    def _fetch(self) -> Operation | None:
        if self._selected is None or self._selected.sealed:
            return None
        return Fetch(self.account, self._selected)


def _parents(name: str) -> set[str]:
    levels = name.split(SEPARATOR)
    return {SEPARATOR.join(levels[:count]) for count in range(1, len(levels))}


def _uid(message: Message) -> int:
    return message.uid or 0
