"""The operations of the power cut benchmark that change mailboxes, subscriptions and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.client import Parts
from benchmarks.powercut_model import LOST, Account, Fault, Mailbox, Snapshot
from benchmarks.powercut_operation import Operation, quoted
from benchmarks.powercut_session import codes

ENTRY = "/private/comment"


class Select(Operation):
    """SELECT."""

    name = "SELECT"

    def __init__(self, account: Account, mailbox: Mailbox) -> None:
        command = f"SELECT {quoted(mailbox)}".encode()
        super().__init__(account, command, selected=mailbox, mailboxes=[mailbox])
        self.mailbox = mailbox

    def announce(self, untagged: Iterable[Parts], tagged: bytes = b"") -> Iterator[Fault]:
        untagged = list(untagged)
        found = codes(parts[0] for parts in untagged)
        if "UIDVALIDITY" in found:
            yield from self.account.learn_uidvalidity(self.mailbox, int(found["UIDVALIDITY"][0]))
        history = self.mailbox.history
        if "UIDNEXT" in found:
            history.uidnext = history.uidnext.or_higher(int(found["UIDNEXT"][0]), self.name)
        yield from super().announce(untagged, tagged)


class Create(Operation):
    """CREATE."""

    name = "CREATE"
    on_mailboxes = True

    def __init__(self, account: Account, new: str) -> None:
        super().__init__(account, f"CREATE {quoted(new)}".encode())
        self.new = new

    def acknowledge(self) -> Iterator[Fault]:
        self.account.mailboxes[self.new] = Mailbox(self.new, self.name)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        return self.acknowledge() if self.new in found.mailboxes else iter(())


class Delete(Operation):
    """DELETE: the whole mailbox or nothing of it."""

    name = "DELETE"
    on_mailboxes = True

    def __init__(self, account: Account, mailbox: Mailbox) -> None:
        super().__init__(account, f"DELETE {quoted(mailbox)}".encode(), sealed=[mailbox])
        self.mailbox = mailbox

    def acknowledge(self) -> Iterator[Fault]:
        self.account.remove(self.mailbox)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        return iter(()) if self.mailbox.name in found.mailboxes else self.acknowledge()


class Rename(Operation):
    """RENAME: the mailbox has one of both names."""

    name = "RENAME"
    on_mailboxes = True

    def __init__(self, account: Account, mailbox: Mailbox, new: str) -> None:
        command = f"RENAME {quoted(mailbox)} {quoted(new)}".encode()
        super().__init__(account, command, sealed=[mailbox])
        self.mailbox, self.new = mailbox, new

    def acknowledge(self) -> Iterator[Fault]:
        self.account.rename(self.mailbox, self.new)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        if self.mailbox.name in found.mailboxes:
            return
        if self.new not in found.mailboxes:
            yield Fault(LOST, self.name, f"neither {self.mailbox.name} nor {self.new} exists")
        else:
            yield from self.acknowledge()


class Subscribe(Operation):
    """SUBSCRIBE or UNSUBSCRIBE."""

    def __init__(self, account: Account, mailbox: Mailbox, wanted: bool) -> None:
        self.name = "SUBSCRIBE" if wanted else "UNSUBSCRIBE"
        command = f"{self.name} {quoted(mailbox)}".encode()
        super().__init__(account, command, sealed=[mailbox])
        self.target, self.wanted = mailbox.name, wanted

    def acknowledge(self) -> Iterator[Fault]:
        self.account.subscriptions[self.target] = self.wanted
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        if (self.target in found.subscriptions) == self.wanted:
            self.account.subscriptions[self.target] = self.wanted
        return iter(())


class SetMetadata(Operation):
    """SETMETADATA of a mailbox, or of the server."""

    name = "SETMETADATA"

    def __init__(self, account: Account, mailbox: Mailbox | None, value: str) -> None:
        target = quoted(mailbox) if mailbox else '""'
        text = f'"{value}"' if value else "NIL"
        command = f"SETMETADATA {target} ({ENTRY} {text})".encode()
        super().__init__(account, command, sealed=[mailbox] if mailbox else [])
        self.holder: Mailbox | Account = mailbox or account
        self.key = mailbox.name if mailbox else ""
        self.value = value
        self.on_mailboxes = mailbox is None

    def acknowledge(self) -> Iterator[Fault]:
        self.holder.comment = self.value
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        if found.comments.get(self.key, "") == self.value:
            self.holder.comment = self.value
        return iter(())
