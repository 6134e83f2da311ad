"""One client's session: a command at a time, each answered by one tagged line.

Rules
-----
* Whatever goes wrong, the answer is a line of ours: BAD for the grammar, NO for a refusal of ours or of the store,
  and for a bug of ours NO [SERVERBUG] with a reference whose traceback is in the log.
* What others did to the mailbox is told before the tagged line; numbers that went only when the command permits.
"""

from __future__ import annotations

import time
import traceback
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from imapshield.errors import BadCommand, CommandRefused, StoreError
from imapshield.limits import Limits
from imapshield.mailbox.account_api import IAccount, IMailbox, INotify
from imapshield.mailbox.columns import Change
from imapshield.mailbox.view import View
from imapshield.session import capabilities, table
from imapshield.session.connection import Connection
from imapshield.session.handlers import search
from imapshield.session.handlers.notify import EVERYTHING, FLAGS, NotifySubscription
from imapshield.session.new_messages import NewMessages
from imapshield.session.search_contexts import SearchContexts
from imapshield.session.states import State, wrong_state_text
from imapshield.wire import encode, flags
from imapshield.wire.commands.base import Command
from imapshield.wire.dates import encode_internaldate
from imapshield.wire.framing import RawCommand
from imapshield.wire.grammar import parse
from imapshield.wire.grammar.search import SaveRefused
from imapshield.wire.responses import Tagged, bad, no
from imapshield.wire.sequence import SequenceSet

PROGRESS_SECONDS = 10
"""Between two tidings of a long command: RFC 9585 section 4 has it so."""


class Session:
    """The state of one client; the handlers of `table` work on it.

    `view` is there exactly in the state SELECTED. `enabled` holds what ENABLE turned on. `told` are the events of the
    selected mailbox that the client hears of, all of them until a NOTIFY. `command` is the one being done, `limited`
    the code that says that it did not all it was to do.
    """

    def __init__(
        self, io: Connection, limits: Limits, now: Callable[[], float] = time.time
    ) -> None:
        self.io = io
        self.limits = limits
        self.now = now
        self.state = State.NOT_AUTHENTICATED
        self.enabled: set[bytes] = set()
        self.tag = b""
        self.client: dict[str, str] = {}
        self.saved_search: Sequence[int] = ()
        self.closing = False
        self.tls_due = False
        self.logout_due = False
        self.compression_due = False
        self.readonly = False
        self.idling = False
        self.notify_subscription: NotifySubscription | None = None
        self.subscribed_events = EVERYTHING
        self.command: Command | None = None
        self.limit_code: bytes | None = None
        self.search_contexts = SearchContexts(self)
        self.new_messages = NewMessages(self)
        self._running = self._telling = False
        self._account: IAccount | None = None
        self._mailbox: IMailbox | None = None
        self._view: View | None = None
        self._keywords_seen = 0
        self._told_at = 0.0
        self._progress = 0, 0
        self._numbered = False
        self._stirred = False
        self._brought: set[int] = set()

    @property
    def account(self) -> IAccount:
        """The account, after login."""
        assert self._account is not None
        return self._account

    @property
    def mailbox(self) -> IMailbox:
        """The selected mailbox."""
        assert self._mailbox is not None
        return self._mailbox

    @property
    def view(self) -> View:
        """What the client knows of the selected mailbox."""
        assert self._view is not None
        return self._view

    @property
    def utf8(self) -> bool:
        """Whether names go out as UTF-8 (RFC 6855, RFC 9051)."""
        return bool(self.enabled & {b"UTF8=ACCEPT", b"IMAP4REV2"})

    @property
    def rev2(self) -> bool:
        """Whether the client wants what IMAP4rev2 changed (RFC 9051 appendix E)."""
        return b"IMAP4REV2" in self.enabled

    @property
    def condstore(self) -> bool:
        """Whether the client wants MODSEQ with every FETCH response (RFC 7162)."""
        return bool(self.enabled & {b"CONDSTORE", b"QRESYNC"})

    @property
    def qresync(self) -> bool:
        """Whether the client hears of what is gone by UID, and of HIGHESTMODSEQ after it (RFC 7162)."""
        return b"QRESYNC" in self.enabled

    @property
    def uid_only(self) -> bool:
        """Whether message numbers are used no more (RFC 9586)."""
        return b"UIDONLY" in self.enabled

    def enable_condstore(self) -> None:
        """A command came that says the client knows of MODSEQ (RFC 7162 section 3.1)."""
        if self.condstore:
            return
        self.enabled.add(b"CONDSTORE")
        if self.state is State.SELECTED:
            highest = b"HIGHESTMODSEQ %d" % self.mailbox.columns.highestmodseq
            self.io.write(encode.untagged(b"OK", "Highest", highest))

    def highestmodseq_code(self) -> bytes | None:
        """The HIGHESTMODSEQ code that ends what expunged messages (RFC 7162 sections 3.2.7 and 3.2.8)."""
        if not self.qresync:
            return None
        return b"HIGHESTMODSEQ %d" % self.mailbox.columns.highestmodseq

    def uid_required(self) -> BadCommand:
        """What a message number is answered with after ENABLE UIDONLY (RFC 9586 section 3)."""
        return BadCommand("Message numbers are not used in this session", b"UIDREQUIRED")

    def rows_of(self, sequence: SequenceSet, *, uid: bool) -> list[tuple[int, int]]:
        """Return the rows of the view that a command names, ``$`` (RFC 5182) being the UIDs saved."""
        if sequence.saved:
            return self.view.rows_of(SequenceSet.from_uids(self.saved_search), uid=True)
        return self.view.rows_of(sequence, uid=uid)

    def within_limit(
        self, spans: Sequence[tuple[int, int]], *, whole: bool = False
    ) -> Sequence[tuple[int, int]]:
        """Leave of `spans` of the view the last rows that one command may touch (RFC 9738 section 3.1).

        The end of the command says so. `whole`: Refused instead, for what is done to all or to none.
        """
        most = self.limits.max_messages_per_command
        excess = sum(stop - start for start, stop in spans) - most
        if not most or excess <= 0:
            return spans
        if whole:
            raise CommandRefused(b"MESSAGELIMIT %d" % most, "Those are too many at once")
        kept = list(spans)
        while excess >= kept[0][1] - kept[0][0]:
            start, stop = kept.pop(0)
            excess -= stop - start
        kept[0] = kept[0][0] + excess, kept[0][1]
        self.limit_code = b"MESSAGELIMIT %d %d" % (most, self.view.uids[kept[0][0]])
        return kept

    async def pause(self, done: int | None = None, total: int | None = None) -> None:
        """Let others have their turn; a client that has waited for long is told how far we are (RFC 9585)."""
        await self.io.drain()
        now = self.now()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            code = b"INPROGRESS (%b %b)" % (self._quoted_tag(), self._how_far(done, total))
            self.io.write(encode.untagged(b"OK", "Still at it", code))

    def _quoted_tag(self) -> bytes:
        return encode.NIL if b"]" in self.tag else encode.quoted(self.tag)  # which ends a code

    def _how_far(self, done: int | None, total: int | None) -> bytes:
        """Return progress and goal if they go on from what was said before, and do not say that all is done."""
        before, goal = self._progress
        if done is None or total is None or not before < done < total or goal not in (0, total):
            return b"NIL NIL"
        self._progress = done, total
        return b"%d %d" % (done, total)

    def greeting(self) -> bytes:
        """What the client reads first."""
        return encode.untagged(
            b"OK", "imapshield ready", encode.capability_code(self.capabilities())
        )

    def capabilities(self) -> list[bytes]:
        """What this session can do now."""
        return capabilities.of(self)

    @property
    def busy(self) -> bool:
        """Whether a command is being answered, and what nobody asked for may not be written."""
        return self._running and not self.idling

    async def run(self, frame: RawCommand) -> None:
        """Answer one command."""
        self._running = True
        try:
            await self._run(frame)
        finally:
            self._running = False
            self.command = None
        if self.state is not State.LOGOUT:
            if self._view is not None:
                self._tell_at_once()
            if self.notify_subscription is not None:
                self.notify_subscription.settle()
            self.new_messages.settle()

    async def _run(self, frame: RawCommand) -> None:
        entry = table.TABLE.get(frame.name)
        self.tag = frame.tag or b""
        self._told_at = self.now()
        self._numbered = self._stirred = False
        self.limit_code = None
        self._progress = 0, 0
        try:
            answer = await self._answer(frame, entry)
        except BadCommand as error:
            answer = bad(error.text, error.code)
            self._was_malformed(frame, error.text)
        except (CommandRefused, StoreError) as error:
            answer = no(error.text, error.code)
        except Exception as error:
            if self.state is State.LOGOUT:
                return  # the peer went while we worked, and what we worked on went with it
            reference = self.io.command_failed(
                frame.name.decode("ascii", "replace"),
                "".join(traceback.format_exception(error)),
            )
            answer = no(f"Internal error, see reference {reference} in the log", b"SERVERBUG")
        if self.state is State.LOGOUT:
            return
        if self.limit_code is not None:
            if answer.code is None:
                answer = answer._replace(code=self.limit_code)
            else:  # two codes do not go into one line
                self.io.write(encode.untagged(b"NO", "Not all was done", self.limit_code))
        if frame.tag is None:
            self.io.write(encode.untagged(*answer))
        else:
            uid = frame.parts[:1] and frame.parts[0][:4].upper() == b"UID "  # type: ignore[index]
            if self._view is not None and entry is not None and entry.tells:
                expunge = entry.expunge or (uid and not self._numbered)
                mine = entry.changes and self._stirred
                self.send_pending_updates(expunge=bool(expunge), uid=bool(uid), mine=mine)
                await self.search_contexts.refresh()
                await self.new_messages.tell()
            self.io.write(encode.tagged(frame.tag, answer))
        if self.logout_due:
            self.logout_due = False
            self.log_out()
            self.io.logged_out()
        if self.tls_due:
            self.tls_due = False
            self.io.start_tls()
        if self.compression_due:
            self.compression_due = False
            self.io.start_compression()
        if self.closing:
            self.io.close()

    async def _answer(self, frame: RawCommand, entry: table.CommandSpec | None) -> Tagged:
        if frame.rejection is not None:
            raise frame.rejection
        if entry is None:
            if (
                self.state is State.NOT_AUTHENTICATED
                and frame.tag
                and frame.tag.upper() in _OTHER_PROTOCOLS
            ):
                # a browser or mail sender made to talk to us (ALPACA): what follows is not for us either
                self.io.write(encode.untagged(b"BYE", "This is an IMAP server"))
                self.closing = True
            raise BadCommand("Unknown command")
        if entry.needs is not None and self._account is not None and not self.can(entry):
            raise BadCommand("There is no such command here")
        if self.state not in entry.states:
            raise BadCommand(wrong_state_text(self.state, entry.states))
        try:
            self.command = command = parse(frame.parts, utf8=self.utf8)
            self.io.command_parsed()
            self._numbered = search.by_number(command)
            if self.uid_only and getattr(command, "uid", True) is False:
                raise self.uid_required()
            return await entry.handler(self, command)
        except BadCommand:
            raise
        except Exception as error:
            saves = b"SAVE" in (getattr(self.command, "returns", None) or ())
            if saves or isinstance(error, SaveRefused):
                self.saved_search = ()  # a NO empties what was saved, a BAD does not (RFC 5182 section 2.1)
            raise
        finally:
            for part in frame.parts:
                if not isinstance(part, bytes):
                    part.close()

    def _was_malformed(self, frame: RawCommand, text: str) -> None:
        # a line of one word is no tag for the log: it may be SASL that came too late
        self.io.bad_command((frame.tag or b"") + b" " + frame.name if frame.name else b"", text)

    def can(self, entry: table.CommandSpec) -> bool:
        """Whether the account has what a command needs."""
        return entry.needs is None or bool(entry.needs.providedBy(self._account))

    def log_in(self, account: IAccount) -> None:
        """The client is this account's user from now on."""
        self._account = account
        self.state = State.AUTHENTICATED

    def log_out(self) -> None:
        """The client is nobody any more, and nothing that it enabled counts (RFC 8437)."""
        self.stop_notices()
        self.subscribed_events = EVERYTHING
        self.leave()
        self.enabled.clear()
        self._account = None
        self.state = State.NOT_AUTHENTICATED

    def enter(self, mailbox: IMailbox, view: View, readonly: bool) -> None:
        """Have `mailbox` selected; the caller has left the one before."""
        self._mailbox, self._view, self.readonly = mailbox, view, readonly
        self._keywords_seen = len(mailbox.columns.keywords)
        self.saved_search = ()
        self.state = State.SELECTED

    def leave(self) -> None:
        """Have no mailbox selected."""
        if self._mailbox is not None:
            self._mailbox.unsubscribe(self._heard)
        self._mailbox = self._view = None
        self.search_contexts.clear()
        self.new_messages.clear()
        self._brought.clear()
        self.saved_search = ()
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    def watch(self, mailbox: IMailbox, view: View, claim_recent: bool) -> None:
        """Hear of the changes of a mailbox that is about to be entered."""
        self._view = view
        self._mailbox = mailbox
        mailbox.subscribe(self._heard, claim_recent)

    def note_own_uids(self, mailbox: str, uids: Iterable[int]) -> None:
        """This client has put messages into `mailbox` itself; if that is selected, it need not be sent them."""
        if self.state is State.SELECTED and self.mailbox.name == mailbox:
            self._brought.update(uids)

    def _heard(self, change: Change) -> None:
        if self._view is not None:
            self._view.on_change(change)
            self.search_contexts.heard(change)
            self._stirred = True
            if (
                not self.busy
                and not self._telling
                and (self.idling or self.notify_subscription is not None)
            ):
                self._telling = True
                self.io.run_in_background(self._tell_soon())

    async def _tell_soon(self) -> None:
        """Tell unasked, when it is our turn: of a STORE of thousands hundreds who idle may have to be told."""
        try:
            await self.io.drain()
        finally:
            self._telling = False
        if self._view is None:
            return
        if self.idling:
            self.send_pending_updates(expunge=True)
        elif not self.busy:
            self._tell_at_once()

    def _tell_at_once(self) -> None:
        """Tell what others did if NOTIFY said to; what is new with the items that it named."""
        notices = self.notify_subscription
        if notices is not None and notices.selected is not None:
            self.send_pending_updates(expunge=not notices.delayed)

    def stop_notices(self) -> None:
        """Tell nothing unasked any more, and of the selected mailbox nothing that others do (NOTIFY NONE)."""
        self.subscribed_events = frozenset()
        if self.notify_subscription is not None:
            INotify(self.account).remove_listener(self.notify_subscription.happened)
            self.notify_subscription = None

    def disconnected(self) -> None:
        """The peer is gone: let go of everything."""
        self.stop_notices()
        self.leave()
        self.state = State.LOGOUT
        self._account = None

    def send_pending_updates(self, *, expunge: bool, uid: bool = False, mine: bool = False) -> None:
        """Write what the client has not been told of its mailbox and wants to hear; all, if it is its own doing.

        What NOTIFY left out waits for the next NOTIFY SET (RFC 5465 section 5: "can be used as a snapshot facility").
        """
        view = self.view
        if not (mine or self.subscribed_events):
            if self.qresync and view.has_pending_updates:
                self.send_synced_modseq()
            self.search_contexts.settle()
            return
        last = view.uids[-1] if view.uids else 0
        updates = view.take_updates(expunge=expunge, flags=mine or FLAGS in self.subscribed_events)
        if updates is None:
            return
        if updates.vanished:
            self.search_contexts.expunged(updates.vanished, updates.expunged[::-1])
        if updates.vanished and (self.qresync or self.uid_only):
            self.io.write(encode.vanished(SequenceSet.from_uids(updates.vanished)))
        elif updates.expunged:
            self.io.write(encode.expunge(updates.expunged))
        if updates.exists is not None:
            self.io.write(encode.exists(updates.exists))
        if updates.recent is not None and not self.rev2:
            self.io.write(encode.recent(updates.recent))
        if updates.exists is not None:
            fresh = list(view.uids[bisect_right(view.uids, last) :])
            others = [one for one in fresh if one not in self._brought]
            self._brought.clear()
            self.search_contexts.arrived(fresh, others)
            if (
                self.notify_subscription is not None
                and self.notify_subscription.selected is not None
            ):
                self.new_messages.want(others, self.notify_subscription.selected.items)
        if updates.flags:
            uid = uid or self.notify_subscription is not None  # RFC 5465 section 5.1
            self.send_flags([one for _, one in updates.flags], uid=uid)
        if self.qresync and view.has_pending_updates:
            self.send_synced_modseq()
        self.search_contexts.settle()
        self.new_messages.settle()

    def send_synced_modseq(self) -> None:
        """Say up to where a client of QRESYNC has heard everything: else one that heard a higher MODSEQ and is cut off
        now would never hear of what is still to be told (RFC 7162 section 6)."""
        settled = b"HIGHESTMODSEQ %d" % self.view.synced_modseq
        self.io.write(encode.untagged(b"OK", "Something is still to be told", settled))

    def send_flags(self, uids: list[int], *, uid: bool) -> None:
        """Write FETCH responses with the flags of `uids` (known to the client), MODSEQ and UID where wanted."""
        view, columns = self.view, self.view.columns
        same, recent, number_of = (
            view.uids is columns.uids,
            view.recent,
            view.number_lookup(len(uids)),
        )
        known = [
            (number, one, text, columns.modseqs[row])
            for one in uids
            if (number := number_of(one)) is not None
            and (row := number - 1 if same else columns.row(one)) is not None
            and (
                text := self.flag_text(one)
                if one in recent
                else columns.flag_lists[columns.flags[row]]
            )
            is not None
        ]
        if not known:
            return
        self.send_new_keywords()
        numbers, ids, texts, modseqs = zip(*known, strict=True)
        labels, shown = [b"FLAGS"], [texts]
        # RFC 9051 section 7.5.2: unsolicited FETCH responses "MUST include UID FETCH item"
        if (uid or self.condstore or self.rev2) and not self.uid_only:
            labels, shown = [b"UID", *labels], [ids, *shown]
        if self.condstore:
            labels, shown = [*labels, b"MODSEQ"], [*shown, modseqs]
        self.io.write(self.fetch_lines(numbers, ids, labels, shown))

    def fetch_lines(
        self,
        numbers: Sequence[int],
        uids: Sequence[int],
        labels: Sequence[bytes],
        columns: Sequence[Sequence[bytes | int]],
    ) -> bytes:
        """Return FETCH responses, or the UIDFETCH responses of RFC 9586."""
        if self.uid_only:
            return encode.fetch_lines(uids, labels, columns, kind=b"UIDFETCH")
        return encode.fetch_lines(numbers, labels, columns)

    def send_modseqs(self, uids: list[int]) -> None:
        """Write FETCH responses with only the new MODSEQ of `uids` (RFC 7162 section 3.1.3, after .SILENT)."""
        view = self.view
        known = [
            (number, one, view.columns.modseqs[row])
            for one in uids
            if (number := view.number(one)) is not None
            and (row := view.columns.row(one)) is not None
        ]
        if known:
            numbers, ids, modseqs = zip(*known, strict=True)
            labels, columns = [b"MODSEQ"], [modseqs]
            if not self.uid_only:  # as always after CONDSTORE (RFC 7162 section 3.2.4)
                labels, columns = [b"UID", *labels], [ids, *columns]
            self.io.write(self.fetch_lines(numbers, ids, labels, columns))

    def known_value(self, name: bytes, uid: int, row: int) -> bytes | int:
        """One value of `fetching.KNOWN`, of the message in `row` of the columns."""
        columns = self.view.columns
        match name:
            case b"UID":
                return uid
            case b"FLAGS":
                return self.flag_text(uid) or b""
            case b"INTERNALDATE":
                return encode_internaldate(columns.dates[row])
            case b"RFC822.SIZE":
                return columns.sizes[row]
            case _:
                return columns.modseqs[row]

    def flag_text(self, uid: int) -> bytes | None:
        r"""Return the flags of `uid` as they are sent: \Recent is IMAP4rev1's alone."""
        text = self.view.flags(uid)
        if text and self.rev2 and uid in self.view.recent:
            return text.removeprefix(b"\\Recent").lstrip()
        return text

    def send_new_keywords(self) -> None:
        """Announce keywords that have come up since SELECT, before a FETCH response shows them."""
        seen, self._keywords_seen = self._keywords_seen, len(self.view.columns.keywords)
        if seen != self._keywords_seen:
            self.io.write(encode.flags([*flags.SYSTEM_FLAGS, *self.keywords()]))

    def keywords(self) -> list[bytes]:
        """The keywords in use in the selected mailbox."""
        return sorted(self.view.columns.keywords.values())


_OTHER_PROTOCOLS = frozenset(
    b"GET POST PUT HEAD OPTIONS DELETE CONNECT TRACE PATCH PRI EHLO HELO LHLO MAIL USER".split()
)

Handler = Callable[[Session, Any], Awaitable[Tagged]]
