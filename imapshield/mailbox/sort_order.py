"""SORT and THREAD (RFC 5256, RFC 5957): header fields → sort keys, and messages → order or conversations.

Rules
-----
* Nothing recurses and nothing is quadratic, whatever the mail: a subject of a thousand brackets, a conversation a
  hundred thousand deep, references in a circle.
* What goes over all messages awaits `pause` after every `TURN` of them: to link a hundred thousand takes a second, in
  which others want to be served.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from imapshield.message import date_field
from imapshield.message.addresses import addresses
from imapshield.message.headers import decode_header, header_values
from imapshield.wire.responses import ThreadNode

DEEP = 200
"""Ancestors looked at before a reference is taken for a circle. Only references that come before what they refer to are
looked at in this way; the subject brings such a conversation together all the same."""

TURN = 1000

Pause = Callable[[], Awaitable[object]]

_SPACES = re.compile(r"[ \t\r\n]+")  # step 1; no other kind of space
# subj-trailer = "(fwd)" / WSP
_FORWARDED = "(fwd)"
# subj-blob = "[" *BLOBCHAR "]" *WSP
_BLOBS = re.compile(r"(?:\[[^\[\]]*+\] *+)*")
_BLOB = r"(?:\[[^\[\]]*+\] *+)?"
# subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
_REPLY = re.compile(rf"(?:re|fwd?) *+{_BLOB}:", re.IGNORECASE)
_FORWARD = "[fwd:"
_MESSAGE_ID = re.compile(rb"<\s*+([^<>@\s][^<>@]*+@[^<>\s]++)\s*+>")


class _Titles(dict[int, str]):
    """Characters as RFC 5051 compares them: in title case and decomposed, each for itself."""

    def __missing__(self, code: int) -> str:
        title = chr(code).title()
        shown = unicodedata.normalize("NFKD", title if len(title) == 1 else chr(code))
        if len(self) < 1 << 16:
            self[code] = shown
        return shown


_titles = _Titles()


def collated(text: str) -> str:
    """Return what i;unicode-casemap compares (RFC 5051): order it by code points."""
    return text.upper() if text.isascii() else text.translate(_titles)


def base_subject(subject: str) -> tuple[str, bool]:
    """Return the base subject (RFC 5256 section 2.1), and whether the subject is that of a reply or forward."""
    text = _SPACES.sub(" ", subject)
    lower = text.lower() if text.isascii() else "".join(c.lower()[:1] for c in text)
    start, stop, reply = 0, len(text), False
    while True:
        while stop > start:  # step 2: trailers
            if text[stop - 1] == " ":
                stop -= 1
            elif lower.endswith(_FORWARDED, start, stop):
                stop -= len(_FORWARDED)
                reply = True
            else:
                break
        while start < stop:  # steps 3 to 5: leaders, and blobs before something else
            if text[start] == " ":
                start += 1
                continue
            blobs = _BLOBS.match(text, start, stop)
            end = blobs.end() if blobs else start
            if refwd := _REPLY.match(text, end, stop):
                start, reply = refwd.end(), True
            elif end == start:
                break
            elif end < stop:
                start = end
            else:
                start = text.rindex("[", start, stop)  # the last blob is all there is
                break
        # step 6: a subject forwarded whole
        if not (lower.startswith(_FORWARD, start, stop) and text[stop - 1] == "]"):
            return text[start:stop], reply
        start, stop, reply = start + len(_FORWARD), stop - 1, True


def _last(header: bytes, field: bytes) -> bytes | None:
    # of a field given twice the last, as ENVELOPE has it
    values = header_values(header, field)
    return values[-1] if values else None


def subject_key(header: bytes) -> tuple[str, bool]:
    """Return the collated base subject of a message, and whether it is a reply or forward."""
    value = _last(header, b"subject")
    if value is None:
        return "", False
    base, reply = base_subject(decode_header(value))
    return collated(base), reply


def date_key(header: bytes, internaldate: int) -> int:
    """Return the instant of the Date field, or INTERNALDATE where none can be read (RFC 5256 section 2.2)."""
    value = _last(header, b"date")
    sent = None if value is None else date_field.parse(value)
    return internaldate if sent is None else sent.epoch


def address_key(header: bytes, field: bytes) -> str:
    """Return the mailbox of the first address of a field, of a group its name; empty where there is none."""
    for value in header_values(header, field):
        for one in addresses(value, 1):
            return collated((one.mailbox or b"").decode("utf-8", "replace"))
    return ""


def display_key(header: bytes, field: bytes) -> str:
    """Return the name of the first address of a field as it is shown, or else the address (RFC 5957)."""
    for value in header_values(header, field):
        for one in addresses(value, 1):
            if one.host is None:  # a group
                return collated(decode_header(one.mailbox or b""))
            name = decode_header(one.name or b"")
            if name:
                return collated(name)
            shown = b"%b@%b" % (one.mailbox or b"", one.host)
            return collated(shown.decode("utf-8", "replace"))
    return ""


def message_ids(header: bytes, field: bytes) -> list[bytes]:
    """Return the message ids in a field, without quotes, so that both ways to write one are the same."""
    found = []
    for value in header_values(header, field):
        for one in _MESSAGE_ID.findall(value):
            local, _, domain = one.rpartition(b"@")
            if local[:1] == b'"' and local[-1:] == b'"' and len(local) > 1:
                local = re.sub(rb"\\(.)", rb"\1", local[1:-1])
            found.append(local + b"@" + domain)
    return found


def references(header: bytes) -> list[bytes]:
    """Return the ids of a message's ancestors, the oldest first (RFC 5256 section 3, REFERENCES step 1)."""
    return message_ids(header, b"references") or message_ids(header, b"in-reply-to")[:1]


async def ordered(
    numbers: Sequence[int], keys: Sequence[tuple[bool, Sequence[object]]], pause: Pause
) -> Sequence[int]:
    """Return `numbers` sorted by `keys`, the first counting most: (reverse, a key for each number).

    Equals stay in the order they came, reversed or not.
    """
    order = list(range(len(numbers)))
    for reverse, column in reversed(keys):
        order.sort(key=column.__getitem__, reverse=reverse)  # type: ignore[arg-type]
        await pause()
    return [numbers[i] for i in order]


class Threaded(NamedTuple):
    """What threading needs of a message; `number` is what will be answered."""

    number: int
    date: int
    subject: str
    reply: bool = False
    id: bytes = b""
    references: Sequence[bytes] = ()

    @property
    def age(self) -> int:
        """What siblings are ordered by: the date, then the number."""
        return (self.date << 32) + self.number


async def by_subject(messages: Sequence[Threaded], pause: Pause) -> list[ThreadNode]:
    """Return the threads of ORDEREDSUBJECT: the oldest message of a subject, and the others as its answers."""
    answers: dict[str, list[ThreadNode]] = {}
    threads: list[ThreadNode] = []
    for done, message in enumerate(sorted(messages, key=lambda m: m.age), 1):
        if message.subject in answers:
            answers[message.subject].append(ThreadNode(message.number))
        else:
            below: list[ThreadNode] = []
            answers[message.subject] = below
            threads.append(ThreadNode(message.number, below))
        if not done % TURN:
            await pause()
    return threads


async def by_references(messages: Sequence[Threaded], pause: Pause) -> list[ThreadNode]:
    """Return the threads of REFERENCES (RFC 5256 section 3)."""
    forest = _Forest(pause)
    await forest.link(messages)
    await forest.prune()
    await forest.gather()
    return await forest.nodes()


class _Forest:
    """Containers by number: `children` and `parent` of each, and the message in it, None for a dummy's."""

    def __init__(self, pause: Pause) -> None:
        self._pause = pause
        self.message: list[Threaded | None] = []
        self.parent: list[int] = []
        self.children: list[list[int]] = []
        self.roots: list[int] = []
        self._childless: list[bool] = []
        self._by_id: dict[bytes, int] = {}

    async def link(self, messages: Sequence[Threaded]) -> None:
        """Steps 1 and 2: parents, and what has none."""
        work = 0
        for message in messages:
            self._add(message)
            work += 1 + len(message.references)
            if work >= TURN:
                work = 0
                await self._pause()
        self.children = [[] for _ in self.parent]
        for i, parent in enumerate(self.parent):
            (self.roots if parent < 0 else self.children[parent]).append(i)
            if not (i + 1) % TURN:
                await self._pause()

    def _new(self, message: Threaded | None = None) -> int:
        self.message.append(message)
        self.parent.append(-1)
        self._childless.append(True)
        return len(self.message) - 1

    def _add(self, message: Threaded) -> None:
        """Step 1: put a message and its references into place."""
        mine = self._by_id.get(message.id, -1) if message.id else -1
        if mine < 0 or self.message[mine] is not None:  # new, or another has this id already
            mine = self._new(message)
            if message.id:
                self._by_id.setdefault(message.id, mine)
        else:
            self.message[mine] = message
        above = -1
        for one in message.references:
            here = self._by_id.get(one, -1)
            if here < 0:
                here = self._by_id[one] = self._new()
            if above >= 0 and self.parent[here] < 0:
                self._link(above, here)
            above = here
        # Counts more than what others' references said, even if it leads nowhere, even if it is nothing.
        self.parent[mine] = -1
        if above >= 0:
            self._link(above, mine)

    def _link(self, above: int, below: int) -> None:
        if not self._circular(above, below):
            self.parent[below] = above
            self._childless[above] = False

    def _circular(self, above: int, below: int) -> bool:
        if above == below:
            return True
        if self._childless[below]:
            return False
        for _ in range(DEEP):
            above = self.parent[above]
            if above < 0:
                return False
            if above == below:
                return True
        return True

    def _downwards(self) -> list[int]:
        """All containers under the roots, each before its children."""
        order = list(self.roots)
        for i in order:
            order += self.children[i]
        return order

    async def prune(self) -> None:
        """Step 3: remove dummies; those that hold several conversations together stay, at the root."""
        for done, i in enumerate(reversed(self._downwards()), 1):
            kept: list[int] = []
            for child in self.children[i]:
                if self.message[child] is not None:
                    kept.append(child)
                elif len(self.children[child]) > len(kept):
                    # the smaller to the larger, for chains of dummies; steps 4 and 6 put them in order
                    self.children[child] += kept
                    kept = self.children[child]
                else:
                    kept += self.children[child]
            self.children[i] = kept
            if not done % TURN:
                await self._pause()
        roots = []
        for i in self.roots:
            if self.message[i] is None and len(self.children[i]) < 2:
                roots += self.children[i]
            else:
                roots.append(i)
        self.roots = roots

    def _first(self, i: int) -> Threaded:
        message = self.message[i] or self.message[self.children[i][0]]
        assert message is not None  # a dummy's children are none
        return message

    async def _sort(self) -> None:
        """Steps 4 and 6: siblings by date, a dummy by its first child."""
        ages = [0] * len(self.message)
        for done, i in enumerate(reversed(self._downwards()), 1):
            self.children[i].sort(key=ages.__getitem__)
            ages[i] = self._first(i).age
            if not done % TURN:
                await self._pause()
        self.roots.sort(key=ages.__getitem__)
        await self._pause()

    async def gather(self) -> None:
        """Step 5: bring together what has one subject."""
        await self._sort()
        table: dict[str, int] = {}
        for done, i in enumerate(self.roots, 1):
            if not done % TURN:
                await self._pause()
            subject = self._first(i).subject
            if not subject:
                continue
            known = table.setdefault(subject, i)
            dummy, known_dummy = self.message[i] is None, self.message[known] is None
            if (dummy and not known_dummy) or (
                not known_dummy and self._first(known).reply and not self._first(i).reply
            ):
                table[subject] = i
        moved: set[int] = set()
        for done, i in enumerate(list(self.roots), 1):
            if not done % TURN:
                await self._pause()
            known = table.get(self._first(i).subject, i)
            if known == i:
                continue
            if self.message[known] is None:
                # what a dummy holds; else itself
                self.children[known] += self.children[i] if self.message[i] is None else [i]
            elif self._first(i).reply and not self._first(known).reply:
                self.children[known].append(i)
            else:
                both = self._new()
                self.children.append([known, i])
                table[self._first(i).subject] = both
                moved.add(known)
                self.roots.append(both)
            moved.add(i)
        self.roots = [i for i in self.roots if i not in moved]
        await self._sort()

    async def nodes(self) -> list[ThreadNode]:
        """The conversations as values."""
        made: dict[int, ThreadNode] = {}
        for done, i in enumerate(reversed(self._downwards()), 1):
            message = self.message[i]
            children = tuple([made.pop(child) for child in self.children[i]])
            made[i] = ThreadNode(None if message is None else message.number, children)
            if not done % TURN:
                await self._pause()
        return [made[i] for i in self.roots]
