"""`SessionState`: the state of one client, which handlers and the parts of a session read and write."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from enum import Enum
from itertools import chain, islice, starmap
from typing import Any, TypeVar

from zope.interface import Interface

from imapshield.errors import BadCommand, CommandRefused
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.mailbox.request import Request, run_for
from imapshield.mailbox.values import DEFAULT_NAMESPACE, Namespace
from imapshield.mailbox.view import View
from imapshield.session.connection import Connection
from imapshield.wire import encode, strings
from imapshield.wire.commands.base import Command
from imapshield.wire.names import NameFormat
from imapshield.wire.pieces import PIECE_SIZE
from imapshield.wire.sequence import SequenceSet, runs

T = TypeVar("T")

MESSAGE_NEW, MESSAGE_EXPUNGE, FLAG_CHANGE = b"MESSAGENEW", b"MESSAGEEXPUNGE", b"FLAGCHANGE"
DEFAULT_EVENTS = frozenset({MESSAGE_NEW, MESSAGE_EXPUNGE, FLAG_CHANGE})
"""The events of the selected mailbox that a client is sent until its first NOTIFY (RFC 5465 section 3.1)."""

PROGRESS_SECONDS = 10
"""Minimum seconds between INPROGRESS responses (RFC 9585 section 4)."""

PIECE_WORK = PIECE_SIZE // 64
"""The work of encoding a piece: so many lines, or twice as many numbers, are in it."""

LOOKED_AT = 1000
"""Ranges or messages that a command looks at before it counts them as work."""

Spans = Sequence[tuple[int, int]]
"""Rows of a view, as ascending (start, stop)."""


class State(Enum):
    """The state of a session (RFC 9051 section 3); the values are the ones that `twisted.mail.imap4` uses."""

    __hash__ = object.__hash__  # that of `Enum` is a function in Python, and each command needs it

    NOT_AUTHENTICATED = "unauth"
    AUTHENTICATED = "auth"
    SELECTED = "select"
    LOGOUT = "logout"


def partial_bounds(partial: tuple[int, int], count: int) -> tuple[int, int]:
    """Return which of `count` items PARTIAL selects, as (start, stop) (RFC 9394).

    It counts from the first item, and negative numbers from the last: (-1, -10) selects the last ten.
    """
    near, far = partial
    return (near - 1, far) if near > 0 else (max(0, count + far), max(0, count + near + 1))


def rows_in(spans: Spans) -> Iterator[int]:
    """Yield each row of `spans`."""
    return chain.from_iterable(starmap(range, spans))


def slice_spans(spans: Spans, low: int, high: int) -> Spans:
    """Return the rows from position `low` up to `high` of the rows in `spans`."""
    found = []
    for start, stop in spans:
        first, last = max(start, start + low), min(stop, start + high)
        if first < last:
            found.append((first, last))
        low, high = low - (stop - start), high - (stop - start)
    return found


class SessionState:
    """The state of one session.

    Attributes:
        io: the connection.
        request: what the client waits for; abandoned when the connection ends.
        state: the state of RFC 9051 section 3. `account` exists after login, `mailbox` and `view` in state SELECTED.
        enabled: the extensions that ENABLE has turned on, in upper case.
        readonly: whether the mailbox was opened by EXAMINE.
        saved_search: the UIDs that ``$`` stands for (RFC 5182).
        subscribed_events: the events of the selected mailbox that are sent to the client (RFC 5465).
        announced_keywords: the number of keywords of the selected mailbox that FLAGS responses have announced.
        tag: the tag of the running command.
        command: the running command, once it is parsed.
        command_running: whether a command is being executed.
        mailbox_changed: whether the selected mailbox has changed since the running command began.
        polled_in_turn: the turn of the last NOOP that asked the mailbox (`Connection.turns`).
        idling: whether the running command is IDLE, which permits untagged responses at any time.
        sending: whether `send` has written a part of a response, and waits for the client to read it.
        failed_messages: the number of messages that the running command could not process; its response is then NO.
        limit_code: the response code of a command that stopped at MESSAGELIMIT (RFC 9738).
    """

    enabled: frozenset[bytes] = frozenset()

    def __init__(self, io: Connection, limits: Limits, now: Callable[[], float]) -> None:
        self.io = io
        self.request = Request(io)
        self.limits = limits
        self.now = now
        self.monotonic: Callable[[], float] = time.monotonic
        self._chunk_size = max(1, limits.fetch_chunk_size // 8)
        self.state = State.NOT_AUTHENTICATED
        self.readonly = False
        self.saved_search: Sequence[int] = ()
        self.subscribed_events = DEFAULT_EVENTS
        self.announced_keywords = 0
        self.tag = b""
        self.command: Command | None = None
        self.command_running = False
        self.mailbox_changed = False
        self.polled_in_turn = -1
        self.idling = False
        self.sending = False
        self.failed_messages = 0
        self.limit_code: bytes | None = None
        self._account: IAccount | None = None
        self._mailbox: IMailbox | None = None
        self._view: View | None = None
        self._progress_sent_at = 0.0
        self._progress = 0, 0

    def next_chunk_size(self) -> int:
        """Return how many bytes of message data to read now: few until the client reads, then twice as many each time.

        A chunk is in memory until the client reads it. A thousand clients that read nothing would hold 256 MB.
        """
        size = self._chunk_size
        if self.io.client_reads:
            self._chunk_size = min(2 * size, self.limits.fetch_chunk_size)
        return size

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` of this session concurrently with commands. Other sessions may cause it (`mailbox.request`)."""
        self.io.run_in_background(run_for(self.request, work))

    @property
    def account(self) -> IAccount:
        """The account of the user."""
        assert self._account is not None
        return self._account

    @property
    def mailbox(self) -> IMailbox:
        """The selected mailbox."""
        assert self._mailbox is not None
        return self._mailbox

    @property
    def view(self) -> View:
        """The client's view of the selected mailbox."""
        assert self._view is not None
        return self._view

    @property
    def utf8(self) -> bool:
        """Whether mailbox names are sent in UTF-8 (RFC 6855, RFC 9051)."""
        return bool(self.enabled & {b"UTF8=ACCEPT", b"IMAP4REV2"})

    @property
    def namespace(self) -> Namespace:
        """The namespace of the user's account."""
        return getattr(self._account, "namespace", DEFAULT_NAMESPACE)

    @property
    def names(self) -> NameFormat:
        """How mailbox names are written on the wire."""
        return NameFormat(self.utf8, self.namespace.separator)

    @property
    def rev2(self) -> bool:
        """Whether the client has enabled IMAP4rev2 (RFC 9051 appendix E)."""
        return b"IMAP4REV2" in self.enabled

    @property
    def condstore(self) -> bool:
        """Whether FETCH responses carry MODSEQ (RFC 7162)."""
        return bool(self.enabled & {b"CONDSTORE", b"QRESYNC"})

    @property
    def qresync(self) -> bool:
        """Whether VANISHED replaces EXPUNGE and HIGHESTMODSEQ is sent after it (RFC 7162)."""
        return b"QRESYNC" in self.enabled

    @property
    def uid_only(self) -> bool:
        """Whether the session no longer uses sequence numbers (RFC 9586)."""
        return b"UIDONLY" in self.enabled

    @property
    def busy(self) -> bool:
        """Whether a running command forbids unsolicited responses."""
        return self.command_running and not self.idling

    def begin_command(self, tag: bytes) -> None:
        """Reset the state that belongs to one command, which has this tag."""
        self.tag = tag
        self.command_running = True
        self.mailbox_changed = False
        self.failed_messages = 0
        self.limit_code = None
        self._progress_sent_at = self.monotonic()
        self._progress = 0, 0

    def end_command(self) -> None:
        """Reset the running command, because its tagged response was written."""
        self.command_running = False
        self.command = None

    async def send(self, pieces: Iterable[bytes], *, held: Callable[[], int] = int) -> None:
        """Send responses that may be long, no faster than the client reads them.

        Args:
            pieces: whole responses, in pieces of any size. They are written as there is room for them, and some in
                each turn, so an iterator needs no memory for the whole response. Nothing else is written before the
                last one.
            held: returns the bytes of the result that the pieces are made from. They count while this waits for the
                client, and a large piece does, too. Most responses are sent without waiting.
        """
        io = self.io
        self.sending = True
        io.unfinished += 1
        try:
            for piece in pieces:
                rest = memoryview(piece)  # slices of it are no copies
                while rest:
                    room = io.room
                    if not room:
                        large = len(piece) if len(piece) > PIECE_SIZE else 0
                        with io.hold_result(held() + large):
                            while not (room := io.room):
                                await io.drain()
                    is_whole = len(rest) == len(piece) <= room
                    io.write(piece if is_whole else rest[:room])
                    rest = rest[room:]
                io.add_work(min(PIECE_WORK, 1 + len(piece) // 64))
        finally:
            io.unfinished -= 1
            self.sending = False

    async def send_as_one(self, sending: Awaitable[T]) -> T:
        """Return the result of `sending`, which sends one response in several steps."""
        self.io.unfinished += 1
        try:
            return await sending
        finally:
            self.io.unfinished -= 1

    async def sent(self) -> None:
        """Wait until no response is half sent. Nothing else may be written before."""
        while self.sending:
            await self.io.drain()

    async def may_send_unsolicited(self) -> bool:
        """Wait until no response is half sent, the client has read enough, and others had their turn.

        Returns:
            whether unsolicited responses may be written now.
        """
        while self.sending or self.io.full or self.io.turn_is_over:
            await self.io.drain()
        return not self.busy and self.state is not State.LOGOUT

    def supports(self, required: type[Interface] | None) -> bool:
        """Whether the account provides the interface that a command requires, if it requires one."""
        return required is None or bool(required.providedBy(self._account))

    def is_selected(self, mailbox: str) -> bool:
        """Whether the selected mailbox has this name."""
        return self.state is State.SELECTED and self.mailbox.name == mailbox

    def enable_condstore(self) -> None:
        """Enable CONDSTORE because a command shows that the client knows MODSEQ (RFC 7162 section 3.1)."""
        if self.condstore:
            return
        self.enabled |= {b"CONDSTORE"}
        if self.state is State.SELECTED:
            code = b"HIGHESTMODSEQ %d" % self.mailbox.columns.highestmodseq
            self.io.write(encode.untagged(b"OK", "Highest", code))

    def highestmodseq_code(self) -> bytes | None:
        """Return the HIGHESTMODSEQ code for a command that has expunged messages, or None without QRESYNC.

        RFC 7162 sections 3.2.7 and 3.2.8 demand it.
        """
        if not self.qresync:
            return None
        return b"HIGHESTMODSEQ %d" % self.mailbox.columns.highestmodseq

    def uid_required(self) -> BadCommand:
        """Return the error for a sequence number after ENABLE UIDONLY (RFC 9586 section 3)."""
        return BadCommand("Sequence numbers are not allowed after ENABLE UIDONLY", b"UIDREQUIRED")

    def require_qresync(self) -> None:
        """Raise `BadCommand` unless the client has enabled QRESYNC, which the command uses."""
        if not self.qresync:
            raise BadCommand("ENABLE QRESYNC first")

    def require_writable(self) -> None:
        """Raise `CommandRefused` if the mailbox was opened by EXAMINE."""
        if self.readonly:
            raise CommandRefused(b"READ-ONLY", "Mailbox is read-only")

    async def worked(self, count: int) -> None:
        """Count work (`Connection.add_work`), and let other connections run if it is enough for one turn."""
        self.io.add_work(count)
        if self.io.turn_is_over:
            await self.io.drain()

    async def rows_of(self, sequence: SequenceSet, *, uid: bool) -> Spans:
        """Return the rows of the view that `sequence` names: sequence numbers, or UIDs if `uid` is True.

        ``$`` (RFC 5182) stands for the saved UIDs. Many UIDs are looked up in several turns.
        """
        view = self.view
        if sequence.saved:
            ranges = runs(self.saved_search)
        elif uid:
            ranges = iter(sequence.resolve(view.uids[-1] if view.uids else 0))
        else:
            return view.rows_of(sequence, uid=False)
        spans: list[tuple[int, int]] = []
        while part := tuple(islice(ranges, LOOKED_AT)):
            spans += view.rows_of(SequenceSet(part), uid=True)
            await self.worked(len(part))
        return spans

    def too_many_messages(self) -> CommandRefused:
        """Return the error for a command that would exceed MESSAGELIMIT (RFC 9738)."""
        limit = self.limits.max_messages_per_command
        text = f"Too many messages: the limit is {limit}"
        return CommandRefused(b"MESSAGELIMIT %d" % limit, text)

    def within_limit(self, spans: Spans, *, whole: bool = False) -> Spans:
        """Reduce `spans` to the last rows that one command may process (RFC 9738 section 3.1).

        The tagged response then carries `limit_code`.

        Args:
            spans: rows of the view.
            whole: the command is executed for all messages or for none, so too many messages are an error.

        Raises:
            CommandRefused: there are too many rows, and `whole` is set.
        """
        limit = self.limits.max_messages_per_command
        count = sum(stop - start for start, stop in spans)
        if not limit or count <= limit:
            return spans
        if whole:
            raise self.too_many_messages()
        reduced = slice_spans(spans, count - limit, count)
        self.limit_code = b"MESSAGELIMIT %d %d" % (limit, self.view.uids[reduced[0][0]])
        return reduced

    async def pause(self, done: int | None = None, total: int | None = None) -> None:
        """Let other connections run, and send INPROGRESS if the last response was long ago (RFC 9585).

        Args:
            done: the number of messages that the command has processed, if known.
            total: the number of messages that it will process, if known.
        """
        await self.io.drain()
        if self.monotonic() - self._progress_sent_at >= PROGRESS_SECONDS:
            self.report_progress(done, total)

    def report_progress(self, done: int | None = None, total: int | None = None) -> None:
        """Send INPROGRESS, with the same arguments as for `pause`."""
        self._progress_sent_at = self.monotonic()
        # A "]" in the tag would end the response code.
        tag = strings.NIL if b"]" in self.tag else strings.quoted(self.tag)
        code = b"INPROGRESS (%b %b)" % (tag, self._progress_numbers(done, total))
        self.io.write(encode.untagged(b"OK", "Still in progress", code))

    def _progress_numbers(self, done: int | None, total: int | None) -> bytes:
        """Return the progress and the goal of an INPROGRESS response, or NIL NIL.

        The progress must grow and be less than the goal, and the goal must not change (RFC 9585 section 4).
        """
        before, goal = self._progress
        if done is None or total is None or not before < done < total or goal not in (0, total):
            return b"NIL NIL"
        self._progress = done, total
        return b"%d %d" % (done, total)

    def keywords(self) -> list[bytes]:
        """Return the keywords that are in use in the selected mailbox."""
        return sorted(self.view.columns.keywords.values())
