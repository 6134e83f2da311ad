"""Groups messages into conversations for THREAD, by ORDEREDSUBJECT or REFERENCES (RFC 5256 section 3).

Rules
-----
* Nothing recurses and nothing takes quadratic time, whatever the mail contains: a conversation a hundred thousand
  messages deep, references in a circle, a thousand references per message.
* Loops over all messages await `pause` after every `MESSAGES_PER_PAUSE` of them. Linking a hundred thousand messages
  takes a second, and other connections must not wait for it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from imapshield.wire.responses import ThreadNode

MAX_ANCESTORS = 200
"""Ancestors that are examined before a reference counts as circular.

Only a reference to a message that already has replies is examined in this way. A message whose reference is dropped
still joins the conversation by its subject.
"""

MESSAGES_PER_PAUSE = 1000

Pause = Callable[[], Awaitable[object]]


class ThreadMessage(NamedTuple):
    """What threading needs of a message.

    Attributes:
        number: the sequence number or UID of the message in the response.
        date: the sent date in epoch seconds (`sort_order.date_key`).
        subject: the base subject (`sort_order.subject_key`).
        is_reply: whether the subject is that of a reply or forward.
        id: the message id, b"" if it has none.
        references: the ids of its ancestors, the oldest first.
    """

    number: int
    date: int
    subject: str
    is_reply: bool = False
    id: bytes = b""
    references: Sequence[bytes] = ()

    @property
    def sort_key(self) -> int:
        """The order of siblings: by date, then by number."""
        return (self.date << 32) + self.number


async def thread_by_subject(messages: Sequence[ThreadMessage], pause: Pause) -> list[ThreadNode]:
    """Return the threads of ORDEREDSUBJECT: the oldest message of each subject, the others as its children."""
    children_of: dict[str, list[ThreadNode]] = {}
    threads: list[ThreadNode] = []
    for done, message in enumerate(sorted(messages, key=lambda m: m.sort_key), 1):
        if message.subject in children_of:
            children_of[message.subject].append(ThreadNode(message.number))
        else:
            children: list[ThreadNode] = []
            children_of[message.subject] = children
            threads.append(ThreadNode(message.number, children))
        if not done % MESSAGES_PER_PAUSE:
            await pause()
    return threads


async def thread_by_references(messages: Sequence[ThreadMessage], pause: Pause) -> list[ThreadNode]:
    """Return the threads of REFERENCES. The steps below are those of RFC 5256 section 3."""
    forest = _Forest(pause)
    await forest.link(messages)
    await forest.prune()
    await forest.merge_subjects()
    return await forest.nodes()


class _Forest:
    """The containers of REFERENCES, as parallel lists indexed by container.

    `messages[i]` is the message in container i, or None for a dummy; `parents[i]` its parent, -1 for none;
    `children[i]` its children. `roots` are the containers without a parent.
    """

    def __init__(self, pause: Pause) -> None:
        self._pause = pause
        self.messages: list[ThreadMessage | None] = []
        self.parents: list[int] = []
        self.children: list[list[int]] = []
        self.roots: list[int] = []
        self._is_childless: list[bool] = []
        self._by_id: dict[bytes, int] = {}

    async def link(self, messages: Sequence[ThreadMessage]) -> None:
        """Steps 1 and 2: link every message to its parent, and find the roots."""
        work = 0
        for message in messages:
            self._add(message)
            work += 1 + len(message.references)
            if work >= MESSAGES_PER_PAUSE:
                work = 0
                await self._pause()
        self.children = [[] for _ in self.parents]
        for i, parent in enumerate(self.parents):
            (self.roots if parent < 0 else self.children[parent]).append(i)
            if not (i + 1) % MESSAGES_PER_PAUSE:
                await self._pause()

    def _new_container(self, message: ThreadMessage | None = None) -> int:
        self.messages.append(message)
        self.parents.append(-1)
        self._is_childless.append(True)
        return len(self.messages) - 1

    def _add(self, message: ThreadMessage) -> None:
        """Step 1: add a message and link its references."""
        container = self._by_id.get(message.id, -1) if message.id else -1
        if container < 0 or self.messages[container] is not None:  # new, or a duplicate id
            container = self._new_container(message)
            if message.id:
                self._by_id.setdefault(message.id, container)
        else:
            self.messages[container] = message
        parent = -1
        for reference in message.references:
            ancestor = self._by_id.get(reference, -1)
            if ancestor < 0:
                ancestor = self._by_id[reference] = self._new_container()
            if parent >= 0 and self.parents[ancestor] < 0:
                self._link(parent, ancestor)
            parent = ancestor
        # A message's own references override what other messages implied about its parent (step 1C), even if the
        # message has none, and even if the link would be circular.
        self.parents[container] = -1
        if parent >= 0:
            self._link(parent, container)

    def _link(self, parent: int, child: int) -> None:
        if not self._is_circular(parent, child):
            self.parents[child] = parent
            self._is_childless[parent] = False

    def _is_circular(self, parent: int, child: int) -> bool:
        if parent == child:
            return True
        if self._is_childless[child]:
            return False
        ancestor = parent
        for _ in range(MAX_ANCESTORS):
            ancestor = self.parents[ancestor]
            if ancestor < 0:
                return False
            if ancestor == child:
                return True
        return True

    def _top_down(self) -> list[int]:
        """Return all containers below the roots, each before its children."""
        order = list(self.roots)
        for i in order:
            order += self.children[i]
        return order

    async def prune(self) -> None:
        """Step 3: remove dummies, except at the root where one holds several conversations together."""
        for done, i in enumerate(reversed(self._top_down()), 1):
            children: list[int] = []
            for child in self.children[i]:
                if self.messages[child] is not None:
                    children.append(child)
                elif len(self.children[child]) > len(children):
                    # The smaller list joins the larger: a chain of dummies would be quadratic otherwise. Steps 4 and
                    # 6 put the children in order.
                    self.children[child] += children
                    children = self.children[child]
                else:
                    children += self.children[child]
            self.children[i] = children
            if not done % MESSAGES_PER_PAUSE:
                await self._pause()
        roots = []
        for i in self.roots:
            if self.messages[i] is None and len(self.children[i]) < 2:
                roots += self.children[i]
            else:
                roots.append(i)
        self.roots = roots

    def _first_message(self, i: int) -> ThreadMessage:
        """Return the message in container i, or that of its first child if i is a dummy."""
        message = self.messages[i] or self.messages[self.children[i][0]]
        assert message is not None  # a dummy's children are never dummies after step 3
        return message

    async def _sort(self) -> None:
        """Steps 4 and 6: sort siblings by date, a dummy by its first child."""
        sort_keys = [0] * len(self.messages)
        for done, i in enumerate(reversed(self._top_down()), 1):
            self.children[i].sort(key=sort_keys.__getitem__)
            sort_keys[i] = self._first_message(i).sort_key
            if not done % MESSAGES_PER_PAUSE:
                await self._pause()
        self.roots.sort(key=sort_keys.__getitem__)
        await self._pause()

    async def merge_subjects(self) -> None:
        """Steps 4 to 6: sort, join conversations that have the same base subject, sort again."""
        await self._sort()
        by_subject = await self._subject_table()
        merged: set[int] = set()
        for done, i in enumerate(list(self.roots), 1):
            if not done % MESSAGES_PER_PAUSE:
                await self._pause()
            first = self._first_message(i)
            target = by_subject.get(first.subject, i)
            if target == i:
                continue
            if self.messages[target] is None:
                # The children of a dummy join the other dummy; a message joins as one child.
                self.children[target] += self.children[i] if self.messages[i] is None else [i]
            elif first.is_reply and not self._first_message(target).is_reply:
                self.children[target].append(i)
            else:
                dummy = self._new_container()
                self.children.append([target, i])
                by_subject[first.subject] = dummy
                merged.add(target)
                self.roots.append(dummy)
            merged.add(i)
        self.roots = [i for i in self.roots if i not in merged]
        await self._sort()

    async def _subject_table(self) -> dict[str, int]:
        """Steps 5A and 5B: return, for each subject, the root that other roots join.

        It is a dummy if there is one, else a message that is not a reply.
        """
        table: dict[str, int] = {}
        for done, i in enumerate(self.roots, 1):
            if not done % MESSAGES_PER_PAUSE:
                await self._pause()
            first = self._first_message(i)
            if not first.subject:
                continue
            known = table.setdefault(first.subject, i)
            is_dummy, known_is_dummy = self.messages[i] is None, self.messages[known] is None
            if (is_dummy and not known_is_dummy) or (
                not known_is_dummy and self._first_message(known).is_reply and not first.is_reply
            ):
                table[first.subject] = i
        return table

    async def nodes(self) -> list[ThreadNode]:
        """Return the conversations as values."""
        node_of: dict[int, ThreadNode] = {}
        for done, i in enumerate(reversed(self._top_down()), 1):
            message = self.messages[i]
            children = tuple([node_of.pop(child) for child in self.children[i]])
            node_of[i] = ThreadNode(None if message is None else message.number, children)
            if not done % MESSAGES_PER_PAUSE:
                await self._pause()
        return [node_of[i] for i in self.roots]
