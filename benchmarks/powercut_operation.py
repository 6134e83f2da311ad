"""An IMAP command of the power cut benchmark: how it is sent, and what it changes in the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.client import Parts
from benchmarks.powercut_compare import Snapshot
from benchmarks.powercut_model import Account, Fault, Mailbox, Message, in_flight
from benchmarks.powercut_session import codes, fetched


class Operation:
    """A command. Commands in flight change different messages and mailboxes, so that each has its own effect.

    Args:
        account: the account it belongs to.
        command: without a tag; literals are non-synchronizing.
        selected: the mailbox that its untagged responses are about.
        messages: the messages that it changes.
        mailboxes: the mailboxes that it names.
        sealed: the mailboxes that it needs alone.
    """

    name = ""
    in_flight = False
    """The power was cut before the command was answered."""
    on_mailboxes = False
    """The command changes the list of mailboxes: one at a time, and settled before commands on messages."""

    def __init__(
        self,
        account: Account,
        command: bytes,
        *,
        selected: Mailbox | None = None,
        messages: Sequence[Message] = (),
        mailboxes: Sequence[Mailbox] = (),
        sealed: Sequence[Mailbox] = (),
    ) -> None:
        self.account = account
        self.command = command
        self.selected = selected
        self.messages = list(messages)
        self.mailboxes = [*mailboxes, *sealed]
        self.sealed = list(sealed)

    @property
    def by(self) -> str:
        """The name, for faults."""
        return in_flight(self.name) if self.in_flight else self.name

    def lock(self) -> None:
        """Keep other commands off what this one changes."""
        self._set(True)

    def unlock(self) -> None:
        """Undo `lock`."""
        self._set(False)

    def _set(self, locked: bool) -> None:
        for message in self.messages:
            message.busy = locked
        for mailbox in self.mailboxes:
            mailbox.users += 1 if locked else -1
        for mailbox in self.sealed:
            mailbox.sealed = locked
        if self.on_mailboxes:
            self.account.changing = locked

    def announce(self, untagged: Iterable[Parts], tagged: bytes = b"") -> Iterator[Fault]:
        """Record what the responses announce, even if the command is never acknowledged."""
        lines = [parts[0] for parts in untagged]
        if self.selected is not None:
            history = self.selected.history
            for item in fetched(untagged):
                yield from history.announce_state(item.uid, item.modseq, item.flags, self.name)
            found = codes([*lines, tagged])
            if "HIGHESTMODSEQ" in found:
                value = int(found["HIGHESTMODSEQ"][0])
                history.modseq = history.modseq.or_higher(value, self.name)
        yield from self.announce_copies(codes([*lines, tagged]))

    def announce_copies(self, found: dict[str, list[str]]) -> Iterator[Fault]:  # noqa: ARG002
        """Record the UIDs of COPYUID or APPENDUID; `found` has the response codes."""
        return iter(())

    def acknowledge(self) -> Iterator[Fault]:
        """Change the model after OK."""
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:  # noqa: ARG002
        """Change the model as the server did before the cut, which it never acknowledged."""
        return iter(())


def quoted(mailbox: Mailbox | str) -> str:
    """Return a mailbox name for a command."""
    return f'"{mailbox if isinstance(mailbox, str) else mailbox.name}"'


def content_of(token: str) -> bytes:
    """Return the content of the message `token`, which ends in its approximate size in bytes."""
    size = int(token.rpartition("-")[2])
    head = f"From: a@example.org\r\nSubject: {token}\r\nMessage-ID: <{token}@example.org>\r\n\r\n"
    line = f"{token} " * (60 // len(token) + 1) + "\r\n"
    return (head + line * (size // len(line) + 1)).encode()


def token_of(content: bytes) -> str:
    """Return the token of a message; "" if it has none."""
    _, _, rest = content.partition(b"Subject: ")
    return rest.partition(b"\r\n")[0].decode(errors="replace")
