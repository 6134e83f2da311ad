"""The operations of the power cut benchmark that change mailboxes, subscriptions and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.client import Parts
from benchmarks.powercut_compare import Snapshot
from benchmarks.powercut_model import LOST, Account, Fault, Mailbox
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
        self.account.mailboxes[self.new] = Mailbox(self.new, self.by)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        return self.acknowledge() if self.new in found.names() else iter(())


class Delete(Operation):
    """DELETE: the whole mailbox or nothing of it. Mailboxes below it stay."""

    name = "DELETE"
    on_mailboxes = True

    def __init__(self, account: Account, mailbox: Mailbox) -> None:
        super().__init__(account, f"DELETE {quoted(mailbox)}".encode(), sealed=[mailbox])
        self.mailbox = mailbox

    def acknowledge(self) -> Iterator[Fault]:
        self.account.remove(self.mailbox, self.by)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        found.changing[self.mailbox.name] = found.deleting[self.mailbox.name] = self.by
        return iter(()) if self.mailbox.name in found.names() else self.acknowledge()


class Rename(Operation):
    """RENAME of a mailbox and all mailboxes below it: all have their old names, or all have their new names."""

    on_mailboxes = True

    def __init__(self, account: Account, mailbox: Mailbox, new: str) -> None:
        self.renamed = [mailbox, *account.children(mailbox.name)]
        self.name = "RENAME of a parent" if len(self.renamed) > 1 else "RENAME"
        command = f"RENAME {quoted(mailbox)} {quoted(new)}".encode()
        super().__init__(account, command, sealed=self.renamed)
        start = len(mailbox.name)
        self.names = [(m.name, new + m.name[start:]) for m in self.renamed]

    def acknowledge(self) -> Iterator[Fault]:
        for mailbox, (_, new) in zip(self.renamed, self.names, strict=True):
            self.account.rename(mailbox, new, self.by)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        done = 0
        for mailbox, (old, new) in zip(self.renamed, self.names, strict=True):
            found.changing[old] = found.changing[new] = self.by
            if old in found.names():
                continue
            if new in found.names():
                self.account.rename(mailbox, new, self.by)
                done += 1
            else:
                yield Fault(LOST, self.by, f"neither {old} nor {new} exists")
        if 0 < done < len(self.names):
            yield Fault(LOST, self.by, f"{done} of {len(self.names)} mailboxes were renamed")


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
