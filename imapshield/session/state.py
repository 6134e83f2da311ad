"""`SessionState`: the state of one client that handlers and the parts of a session read and write."""

from collections.abc import Callable, Sequence
from typing import Any

from imapshield.errors import BadCommand, CommandRefused
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.mailbox.view import View
from imapshield.session.command_spec import CommandSpec
from imapshield.session.connection import Connection
from imapshield.session.states import State
from imapshield.wire import encode, strings
from imapshield.wire.commands.base import Command
from imapshield.wire.sequence import SequenceSet

MESSAGE_NEW, MESSAGE_EXPUNGE, FLAG_CHANGE = b"MESSAGENEW", b"MESSAGEEXPUNGE", b"FLAGCHANGE"
MESSAGE_EVENTS = frozenset({MESSAGE_NEW, MESSAGE_EXPUNGE, FLAG_CHANGE})
"""The events of the selected mailbox that a client is sent until its first NOTIFY (RFC 5465 section 3.1)."""

PROGRESS_SECONDS = 10
"""Minimum seconds between INPROGRESS responses (RFC 9585 section 4)."""


class SessionState:
    """The state of one session.

    Attributes:
        io: the connection.
        state: the state of RFC 9051 section 3. `account` exists after login, `mailbox` and `view` in state SELECTED.
        enabled: what ENABLE has turned on, in upper case.
        readonly: whether the mailbox was opened by EXAMINE.
        saved_search: the UIDs that ``$`` stands for (RFC 5182).
        subscribed_events: the events of the selected mailbox that are sent to the client (RFC 5465).
        announced_keywords: how many keywords of the selected mailbox the client knows from FLAGS responses.
        tag: the tag of the running command.
        command: the running command, once it is parsed.
        command_running: whether a command is being executed.
        idling: whether that command is IDLE, which permits untagged responses at any time.
        limit_code: the response code of a command that stopped at MESSAGELIMIT (RFC 9738).
    """

    def __init__(self, io: Connection, limits: Limits, now: Callable[[], float]) -> None:
        self.io = io
        self.limits = limits
        self.now = now
        self.state = State.NOT_AUTHENTICATED
        self.enabled: set[bytes] = set()
        self.readonly = False
        self.saved_search: Sequence[int] = ()
        self.subscribed_events = MESSAGE_EVENTS
        self.announced_keywords = 0
        self.tag = b""
        self.command: Command | None = None
        self.command_running = False
        self.idling = False
        self.limit_code: bytes | None = None
        self._account: IAccount | None = None
        self._mailbox: IMailbox | None = None
        self._view: View | None = None
        self._progress_sent_at = 0.0
        self._progress = 0, 0

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
        """Reset the state that belongs to one command."""
        self.tag = tag
        self.command_running = True
        self.limit_code = None
        self._progress_sent_at = self.now()
        self._progress = 0, 0

    def end_command(self) -> None:
        """Note that no command is running."""
        self.command_running = False
        self.command = None

    def supports(self, spec: CommandSpec[Any]) -> bool:
        """Whether the account provides what a command requires."""
        return spec.requires is None or bool(spec.requires.providedBy(self._account))

    def is_selected(self, mailbox: str) -> bool:
        """Whether the selected mailbox has this name."""
        return self.state is State.SELECTED and self.mailbox.name == mailbox

    def enable_condstore(self) -> None:
        """Enable CONDSTORE because a command shows that the client knows MODSEQ (RFC 7162 section 3.1)."""
        if self.condstore:
            return
        self.enabled.add(b"CONDSTORE")
        if self.state is State.SELECTED:
            code = b"HIGHESTMODSEQ %d" % self.mailbox.columns.highestmodseq
            self.io.write(encode.untagged(b"OK", "Highest", code))

    def highestmodseq_code(self) -> bytes | None:
        """Return the response code of a command that has expunged messages (RFC 7162 sections 3.2.7 and 3.2.8)."""
        if not self.qresync:
            return None
        return b"HIGHESTMODSEQ %d" % self.mailbox.columns.highestmodseq

    def uid_required(self) -> BadCommand:
        """Return the error for a sequence number after ENABLE UIDONLY (RFC 9586 section 3)."""
        return BadCommand("Sequence numbers are not allowed after ENABLE UIDONLY", b"UIDREQUIRED")

    def require_writable(self) -> None:
        """Raise `CommandRefused` if the mailbox was opened by EXAMINE."""
        if self.readonly:
            raise CommandRefused(b"READ-ONLY", "Mailbox is read-only")

    def rows_of(self, sequence: SequenceSet, *, uid: bool) -> list[tuple[int, int]]:
        """Return the rows of the view that `sequence` names, as (start, stop).

        ``$`` (RFC 5182) stands for the saved UIDs.
        """
        if sequence.saved:
            return self.view.rows_of(SequenceSet.from_uids(self.saved_search), uid=True)
        return self.view.rows_of(sequence, uid=uid)

    def too_many_messages(self) -> CommandRefused:
        """Return the error for a command that would exceed MESSAGELIMIT (RFC 9738)."""
        limit = self.limits.max_messages_per_command
        return CommandRefused(
            b"MESSAGELIMIT %d" % limit, f"Too many messages; the limit is {limit}"
        )

    def within_limit(
        self, spans: Sequence[tuple[int, int]], *, whole: bool = False
    ) -> Sequence[tuple[int, int]]:
        """Reduce `spans` to the last rows that one command may process (RFC 9738 section 3.1).

        The tagged response then carries `limit_code`.

        Args:
            spans: rows of the view, as (start, stop), rising.
            whole: the command is done for all messages or for none, so too many are an error.
        """
        limit = self.limits.max_messages_per_command
        excess = sum(stop - start for start, stop in spans) - limit
        if not limit or excess <= 0:
            return spans
        if whole:
            raise self.too_many_messages()
        reduced = list(spans)
        while excess >= reduced[0][1] - reduced[0][0]:
            start, stop = reduced.pop(0)
            excess -= stop - start
        reduced[0] = reduced[0][0] + excess, reduced[0][1]
        self.limit_code = b"MESSAGELIMIT %d %d" % (limit, self.view.uids[reduced[0][0]])
        return reduced

    async def pause(self, done: int | None = None, total: int | None = None) -> None:
        """Let other connections run, and send INPROGRESS if the client has waited for long (RFC 9585).

        Args:
            done: how many messages the command has processed, if known.
            total: how many it will process.
        """
        await self.io.drain()
        now = self.now()
        if now - self._progress_sent_at >= PROGRESS_SECONDS:
            self._progress_sent_at = now
            # A "]" in the tag would end the response code.
            tag = strings.NIL if b"]" in self.tag else strings.quoted(self.tag)
            code = b"INPROGRESS (%b %b)" % (tag, self._progress_numbers(done, total))
            self.io.write(encode.untagged(b"OK", "Still in progress", code))

    def _progress_numbers(self, done: int | None, total: int | None) -> bytes:
        """Return progress and goal, or NIL if they do not continue those before or if all is done (section 4)."""
        before, goal = self._progress
        if done is None or total is None or not before < done < total or goal not in (0, total):
            return b"NIL NIL"
        self._progress = done, total
        return b"%d %d" % (done, total)

    def keywords(self) -> list[bytes]:
        """Return the keywords that are in use in the selected mailbox."""
        return sorted(self.view.columns.keywords.values())
