"""Which messages of a mailbox may contain a text, and the indexing of those that the text index does not have.

A message is read once for both its text and the answers to FETCH that clients usually ask for.
"""

import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import compress, islice

from imapshield.errors import StoreBusy
from imapshield.mailbox.message_items import MessageItems, is_cacheable
from imapshield.mailbox.values import TextStep
from imapshield.maildir.account_state import AccountState
from imapshield.maildir.fetch_cache import MAX_ANSWER_SIZE
from imapshield.maildir.message_file import FILE_COLUMNS, MessageFile, MessageFiles, MessageReader
from imapshield.maildir.text_index import NOT_INDEXED, UNKNOWN
from imapshield.maildir.text_index_file import GROUP
from imapshield.maildir.text_rows import UNREADABLE, MailboxRows, email_number
from imapshield.maildir.unreadable import log_unreadable
from imapshield.message.pauses import pause_point
from imapshield.message.text import normalize
from imapshield.message.trigrams import IndexTexts, index_texts, trigrams
from imapshield.wire.commands.fetch import FetchItem
from imapshield.wire.commands.search import TextKey

STEP_SECONDS = 0.02
"""Seconds after which a step of the indexing reads no more messages. To store what it has read takes about as long."""

MESSAGES_PER_STEP = 8 * GROUP
"""Messages that one step indexes at most."""

MANY_MESSAGES = 5000
"""Messages of one call that are probably a block of a larger mailbox (`mailbox.query`)."""

MAX_KEPT_CANDIDATES = 10_000
"""Rows that are kept for the next block of messages, in 40 KB, until a search reaches the end of the mailbox."""

_NO_ROWS = (UNKNOWN, NOT_INDEXED, UNREADABLE)
"""In place of rows, of messages that may have any text."""

MAX_MAILBOXES = 8
"""Mailboxes whose rows are kept in memory, as many as `store_account.MAX_UNUSED_MAILBOXES`."""


def candidates(
    account: AccountState, key: int, uids: Sequence[int], search_key: TextKey, count: int
) -> tuple[Sequence[int], int | None]:
    """Return the first of `uids` that may match, and the first of the others that may match too; None if none may.

    Args:
        account: the account.
        key: the mailbox.
        uids: the messages, ascending; at least one.
        search_key: the text.
        count: how many messages to return at most.
    """
    # Without the index, all may match.
    everything = uids[:count], uids[count] if count < len(uids) else None
    wanted = trigrams(normalize(search_key.text))
    if wanted is None or not account.text_index.ensure_open():
        return everything
    known = _rows(account, key)
    if not known.load(uids[-1]) or known.known_to < uids[0]:
        return everything
    stop = bisect_right(uids, known.known_to)
    stopped_at = uids[stop] if stop < len(uids) else None
    if stopped_at is not None:
        uids = uids[:stop]
    rows = known.of(uids)
    # To look for all rows of a mailbox takes hardly longer than to look for those of a block of messages.
    is_block = len(uids) >= MANY_MESSAGES
    low, high = (known.low, known.high) if is_block else (max(min(rows), 0), max(rows))
    found: set[int] | None = set()
    if high > 0:
        found = account.text_index.candidates(wanted, low, high, search_key.headers)
    if found is None:
        return everything
    is_small = len(found) <= MAX_KEPT_CANDIDATES
    found.update(_NO_ROWS)
    chosen = list(islice(compress(uids, map(found.__contains__, rows)), count + 1))
    if len(chosen) > count:
        stopped_at = chosen.pop()
    elif not is_small or not is_block or uids[-1] >= known.uids[-1]:
        account.text_index.forget_candidates()
    return chosen, stopped_at


def _rows(account: AccountState, key: int) -> MailboxRows:
    known = account.text_rows.pop(key, None) or MailboxRows(account.index, account.text_index, key)
    account.text_rows[key] = known
    if len(account.text_rows) > MAX_MAILBOXES:
        del account.text_rows[next(iter(account.text_rows))]
    return known


def index_text(account: AccountState, key: int) -> TextStep:
    """Index some messages of a mailbox; `ITextIndexStore.index_text` describes the arguments."""
    index = account.text_index
    generation, index.is_locked = index.generation, False
    has_more = _index_text(account, key)
    if index.is_locked:
        raise StoreBusy
    if generation != index.generation:
        return TextStep.MORE_EVERYWHERE
    return TextStep.MORE if has_more else TextStep.DONE


def _index_text(account: AccountState, key: int) -> bool:
    index = account.text_index
    uidnext = account.index.mailbox(key).uidnext
    closed_rows = account.text_rows.get(key) if index.is_at_rest() else None
    if closed_rows is not None and closed_rows.count_unknown(uidnext - 1, GROUP) < GROUP:
        return False  # as after most messages that arrive one by one: to open the file takes 2 ms
    if not index.ensure_open(create=uidnext > GROUP):
        return False
    known = _rows(account, key)
    if not known.load(uidnext - 1):
        return False
    uids = known.unknown(MESSAGES_PER_STEP)
    if len(uids) < GROUP:
        return known.known_to < uidnext - 1 or _put_in_order(account)
    step = _Step(account, key)
    step.read(uids)
    rows = index.add(step.texts)
    if rows is None:
        return False
    known.set(step.uids, rows)
    known.set(step.unreadable, [UNREADABLE] * len(step.unreadable))
    return True


def _put_in_order(account: AccountState) -> bool:
    """Merge the trees of the text index, or build it again if most of its messages are expunged.

    Returns:
        whether there is more to do.
    """
    index = account.text_index
    more = index.merge()
    if more is None or more:
        return bool(more)
    if not index.has_waste(account.usage().messages):
        index.is_in_order = True
        return False
    index.rebuild()
    return True


class _Step:
    """The messages that one step indexes.

    Attributes:
        uids: the messages that were read.
        texts: what `TextIndex.add` takes, for each of `uids`.
        unreadable: the messages that could not be read, or have gone.
        answers: answers to FETCH, as for `FetchCache.add`.
    """

    def __init__(self, account: AccountState, key: int) -> None:
        self.uids: list[int] = []
        self.texts: list[tuple[int, int, IndexTexts | None]] = []
        self.unreadable: list[int] = []
        self.answers: list[tuple[object, int, int]] = []
        self._wanted: list[tuple[int, FetchItem, set[int]]] = []
        self._account = account
        self._key = key
        self._files = MessageFiles(account.folder(key))

    def read(self, uids: Sequence[int]) -> None:
        """Read messages, until that has taken `STEP_SECONDS`."""
        account, key = self._account, self._key
        until = time.monotonic() + STEP_SECONDS
        rows = account.index.message_rows(f"{FILE_COLUMNS}, hex(email_id)", key, uids)
        found = {row[0] for row in rows}
        self.unreadable += [uid for uid in uids if uid not in found]
        self._wanted = account.cache.wanted(key, uids)
        for *columns, email_id in rows:
            pause_point()
            message = MessageFile._make(columns)
            try:
                self._read(message, email_number(email_id))
            except Exception as error:
                log_unreadable(account, self._files.path(message), error)
                self.unreadable.append(message.uid)
            if time.monotonic() > until:
                break
        account.cache.add(key, self.answers, self._files.measured)

    def _read(self, message: MessageFile, number: int) -> None:
        fd = self._files.open(message) if number else None
        if fd is None:
            self.unreadable.append(message.uid)
            return
        try:
            items = MessageReader(self._files, message, fd).whole()
            texts = index_texts(items.part, items.data)
            self._answer(message.uid, items)
            self.texts.append((number, os.fstat(fd).st_size, texts))
            self.uids.append(message.uid)
        finally:
            os.close(fd)

    def _answer(self, uid: int, items: MessageItems) -> None:
        """Answer what clients of the account ask for, for a message that was read."""
        for item_id, item, answered in self._wanted:
            pause_point()
            if uid not in answered and is_cacheable(item, items):
                value = items.value(item)
                if len(value) <= MAX_ANSWER_SIZE:
                    self.answers.append((value, uid, item_id))
