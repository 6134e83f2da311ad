"""The operations of the power cut benchmark that change messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.client import Parts
from benchmarks.powercut_compare import Snapshot
from benchmarks.powercut_model import (
    FLAGS,
    IN_PART,
    LETTERED_KEYWORDS,
    LOST,
    Account,
    Fault,
    Flags,
    Mailbox,
    Message,
    flag_text,
)
from benchmarks.powercut_operation import Operation, content_of, quoted, token_of
from benchmarks.powercut_session import fetched, uid_list, uid_set

BULK = 1000
"""Messages of a MOVE that has a row of its own in the table."""


def literal(content: bytes) -> bytes:
    """Return a non-synchronizing literal."""
    return b"{%d+}\r\n%b" % (len(content), content)


def flag_list(flags: Flags) -> str:
    """Return flags in parentheses."""
    return f"({' '.join(sorted(flags))})"


def use_keywords(mailbox: Mailbox, flags: Flags) -> bool:
    """Note the keywords of `flags`; return whether some of the mailbox's keywords cannot have a letter."""
    mailbox.keywords |= {flag for flag in flags if not flag.startswith("\\")}
    return len(mailbox.keywords) > LETTERED_KEYWORDS


def uids_of(messages: Sequence[Message]) -> list[int]:
    """Return the UIDs of messages that have one."""
    return [message.uid for message in messages if message.uid is not None]


class Append(Operation):
    """APPEND of one message or several (RFC 3502): all or none."""

    def __init__(
        self, account: Account, mailbox: Mailbox, tokens: Sequence[str], flags: Flags
    ) -> None:
        items = [f" {flag_list(flags)} ".encode() + literal(content_of(t)) for t in tokens]
        command = f"APPEND {quoted(mailbox)}".encode() + b"".join(items)
        super().__init__(account, command, mailboxes=[mailbox])
        self.name = "APPEND" if len(tokens) == 1 else "MULTIAPPEND"
        self.mailbox, self.tokens, self.flags = mailbox, tokens, flags
        self.uids: list[int] = []
        use_keywords(mailbox, flags)

    def announce_copies(self, found: dict[str, list[str]]) -> Iterator[Fault]:
        if "APPENDUID" in found:
            uidvalidity, uids = found["APPENDUID"]
            self.uids = uid_list(uids)
            yield from self.account.learn_uidvalidity(self.mailbox, int(uidvalidity))
            for uid, token in zip(self.uids, self.tokens, strict=True):
                yield from self.mailbox.history.announce_uid(uid, token, self.name)

    def acknowledge(self) -> Iterator[Fault]:
        for uid, token in zip(self.uids, self.tokens, strict=True):
            yield from self._add(uid, token)

    def _add(self, uid: int, token: str) -> Iterator[Fault]:
        yield from self.mailbox.add(Message(token, self.flags, uid, self.by, self.by), uid)

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        taken = [(found.take(self.mailbox, token), token) for token in self.tokens]
        present = [(uid, token) for uid, token in taken if uid is not None]
        yield from partly_done(self.by, len(present), len(taken), self.mailbox)
        for uid, token in present:
            yield from self._add(uid, token)


class Copy(Operation):
    """UID COPY: all or none."""

    name = "COPY"
    verb = "UID COPY"

    def __init__(
        self, account: Account, source: Mailbox, messages: Sequence[Message], target: Mailbox
    ) -> None:
        command = f"{self.verb} {uid_set(uids_of(messages))} {quoted(target)}".encode()
        boxes = [source, target]
        super().__init__(account, command, selected=source, messages=messages, mailboxes=boxes)
        self.source, self.target = source, target
        self.by_uid = {message.uid: message for message in messages}
        self.copies: dict[int, int] = {}

    def announce_copies(self, found: dict[str, list[str]]) -> Iterator[Fault]:
        if "COPYUID" in found:
            uidvalidity, sources, targets = found["COPYUID"]
            self.copies = dict(zip(uid_list(sources), uid_list(targets), strict=True))
            yield from self.account.learn_uidvalidity(self.target, int(uidvalidity))
            for uid, copy in self.copies.items():
                token = self.by_uid[uid].token
                yield from self.target.history.announce_uid(copy, token, self.name)

    def acknowledge(self) -> Iterator[Fault]:
        for message in self.messages:
            if message.uid not in self.copies:
                text = f"OK without the new UID of {message.token} in {self.target.name}"
                yield Fault(LOST, self.name, text)
            else:
                yield from self._done(message, self.copies[message.uid])

    def _done(self, message: Message, uid: int) -> Iterator[Fault]:
        use_keywords(self.target, message.flags)
        copy = Message(message.token, message.flags, None, self.by, self.by)
        yield from self.target.add(copy, uid)

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        taken = [(found.take(self.target, m.token), m) for m in self.messages]
        present = [(uid, message) for uid, message in taken if uid is not None]
        yield from partly_done(self.by, len(present), len(taken), self.target)
        for uid, message in present:
            yield from self._done(message, uid)


class Move(Copy):
    """UID MOVE: each message is in exactly one mailbox."""

    verb = "UID MOVE"

    def __init__(
        self, account: Account, source: Mailbox, messages: Sequence[Message], target: Mailbox
    ) -> None:
        super().__init__(account, source, messages, target)
        self.name = f"MOVE of {BULK:,} or more" if len(messages) >= BULK else "MOVE"

    def _done(self, message: Message, uid: int) -> Iterator[Fault]:
        use_keywords(self.target, message.flags)
        self.source.remove(message, self.by)
        message.stored_by = message.flagged_by = self.by
        yield from self.target.add(message, uid)

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        moved = 0
        for message in self.messages:
            found.origins[self.target.name, message.token] = self.by
            if not found.has(self.source, message):
                uid = found.take(self.target, message.token)
                if uid is not None:
                    moved += 1
                    yield from self._done(message, uid)
        if 0 < moved < len(self.messages):
            yield Fault(IN_PART, self.by, f"{moved} of {len(self.messages)} messages were moved")


class Store(Operation):
    """UID STORE. For each message it is done or not."""

    def __init__(
        self,
        account: Account,
        mailbox: Mailbox,
        messages: Sequence[Message],
        sign: str,
        flags: Flags,
    ) -> None:
        text = f"UID STORE {uid_set(uids_of(messages))} {sign}FLAGS {flag_list(flags)}"
        boxes = [mailbox]
        super().__init__(
            account, text.encode(), selected=mailbox, messages=messages, mailboxes=boxes
        )
        self.mailbox, self.sign, self.flags = mailbox, sign, flags
        many = use_keywords(mailbox, flags if sign != "-" else frozenset())
        self.name = f"STORE, over {LETTERED_KEYWORDS} keywords" if many else "STORE"

    def _after(self, message: Message) -> Flags:
        if self.sign == "+":
            return message.flags | self.flags
        return message.flags - self.flags if self.sign == "-" else self.flags

    def acknowledge(self) -> Iterator[Fault]:
        for message in self.messages:
            message.flags, message.flagged_by = self._after(message), self.name
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        for message in self.messages:
            if found.has(self.mailbox, message):
                before, after = message.flags, self._after(message)
                now = found.flags(self.mailbox, message.uid)
                if before & after <= now <= before | after and now != before:
                    message.flags, message.flagged_by = now, self.by
                    # File names hold the letters of 26 keywords. The others are in the index alone, so of a STORE that
                    # was interrupted, the letters can have reached the disk and the others not.
                    if now != after and self.name == "STORE":
                        text = f"{message.token} has {flag_text(now)} instead of "
                        text += f"{flag_text(before)} or {flag_text(after)}"
                        yield Fault(FLAGS, self.by, text)


class Expunge(Operation):
    r"""EXPUNGE, or UID EXPUNGE, of messages with the flag \Deleted."""

    def __init__(
        self, account: Account, mailbox: Mailbox, messages: Sequence[Message], by_uid: bool
    ) -> None:
        self.name = "UID EXPUNGE" if by_uid else "EXPUNGE"
        text = f"UID EXPUNGE {uid_set(uids_of(messages))}" if by_uid else "EXPUNGE"
        sealed = [] if by_uid else [mailbox]
        shared = [mailbox] if by_uid else []
        super().__init__(
            account,
            text.encode(),
            selected=mailbox,
            messages=messages,
            mailboxes=shared,
            sealed=sealed,
        )
        self.mailbox = mailbox

    def acknowledge(self) -> Iterator[Fault]:
        for message in self.messages:
            self.mailbox.remove(message, self.by)
        return iter(())

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        for message in self.messages:
            if not found.has(self.mailbox, message):
                self.mailbox.remove(message, self.by)
        return iter(())


class Replace(Operation):
    """UID REPLACE (RFC 8508): the new message or the old one, with its flags."""

    def __init__(
        self,
        account: Account,
        source: Mailbox,
        old: Message,
        target: Mailbox,
        token: str,
        flags: Flags,
    ) -> None:
        text = f"UID REPLACE {old.uid} {quoted(target)} {flag_list(flags)} "
        super().__init__(
            account,
            text.encode() + literal(content_of(token)),
            selected=source,
            messages=[old],
            mailboxes=[source, target],
        )
        self.source, self.target, self.token, self.flags = source, target, token, flags
        self.uid = 0
        self.name = "REPLACE" if source is target else "REPLACE across mailboxes"
        use_keywords(target, flags)

    def announce_copies(self, found: dict[str, list[str]]) -> Iterator[Fault]:
        if "APPENDUID" in found:
            uidvalidity, uid = found["APPENDUID"]
            self.uid = int(uid)
            yield from self.account.learn_uidvalidity(self.target, int(uidvalidity))
            yield from self.target.history.announce_uid(self.uid, self.token, self.name)

    def acknowledge(self) -> Iterator[Fault]:
        self.source.remove(self.messages[0], self.by)
        message = Message(self.token, self.flags, self.uid, self.by, self.by)
        yield from self.target.add(message, self.uid)

    def settle(self, found: Snapshot) -> Iterator[Fault]:
        uid = found.take(self.target, self.token)
        if uid is None:
            return
        (old,) = self.messages
        if found.has(self.source, old):
            yield Fault(IN_PART, self.by, f"{old.token} and its replacement {self.token} exist")
        else:
            self.source.remove(old, self.by)
        yield from self.target.add(Message(self.token, self.flags, uid, self.by, self.by), uid)


class Fetch(Operation):
    """UID FETCH of flags and subjects, which announces UIDs of deliveries."""

    name = "FETCH"

    def __init__(self, account: Account, mailbox: Mailbox) -> None:
        command = b"UID FETCH 1:* (FLAGS MODSEQ BODY.PEEK[HEADER.FIELDS (SUBJECT)])"
        super().__init__(account, command, selected=mailbox, mailboxes=[mailbox])
        self.mailbox = mailbox

    def announce(self, untagged: Iterable[Parts], tagged: bytes = b"") -> Iterator[Fault]:
        untagged = list(untagged)
        for item in fetched(untagged):
            if item.literal:
                token = token_of(item.literal)
                self.mailbox.announced(token, item.uid)
                yield from self.mailbox.history.announce_uid(item.uid, token, self.name)
        yield from super().announce(untagged, tagged)


def partly_done(name: str, present: int, expected: int, mailbox: Mailbox) -> Iterator[Fault]:
    """Yield a fault if a command that is atomic was done in part."""
    if 0 < present < expected:
        yield Fault(LOST, name, f"{present} of {expected} messages in {mailbox.name}")
