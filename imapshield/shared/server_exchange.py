"""`ServerExchange`: exchanges the reports of `SharedGuard` with other servers, over a link that may fail.

Rules
-----
* Nobody waits for the link. While it is lost or slow, what happens is collected in tables with a maximum size, and is
  told when it is back.
* A server that says nothing for `SILENT_SECONDS` is forgotten, with the connections that it has told of.
* One report is on its way at a time. After an error it is repeated, which counts once.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from imapshield.edge.admission import Admission
from imapshield.guard.bans import Ban
from imapshield.guard.guard_report import GuardReport, MalformedReport, RateTaken, TalkerWork
from imapshield.guard.networks import describe
from imapshield.guard.shared_guard import SharedGuard
from imapshield.observe.talkers import Talkers
from imapshield.shared.signed_messages import Message, Request, SignedMessages

REPORT_SECONDS = 0.25
"""Seconds between two reports. A ban is told at once."""

ALIVE_SECONDS = 1.0
"""Seconds after which a server with nothing to tell says that it is alive."""

SILENT_SECONDS = 5.0
"""Seconds after which a silent server is forgotten."""

ASK_SECONDS = 5.0
"""Seconds between two requests to one server to tell all again, and between two such answers."""

STALE_SECONDS = 60.0
"""Seconds by which the time of a report may differ from that of Redis. Older ones are repeated by somebody."""

MAX_MESSAGES = 2000
"""Messages of all servers in a second. More are not read: a thousand servers send as many when nothing happens."""

COMPLAINT_SECONDS = 60.0
"""Seconds between two lines of the log about malformed messages, and for which `status` warns of one."""

FORGET_RATES_SECONDS = 10.0
"""Seconds of a failure after which what was taken of rates in it is not told: most of it is used up."""

_log = Logger(namespace="imapshield")


class Link(Protocol):
    """What `ServerExchange` needs of a connection to other servers.

    Attributes:
        is_ready: whether messages can be sent.
        clock_offset: the seconds by which the clock of the link is ahead of that of the process.
    """

    is_ready: bool
    clock_offset: float

    def send(self, data: bytes, rates: tuple[RateTaken, ...]) -> Deferred[list[float] | None]:
        """Send a message, and add up rates; fires with what all have taken of them, or None if that fails."""


class ServerExchange:
    """Exchanges the reports of one server.

    Args:
        shared: the guard.
        admission: does what follows from reports.
        messages: signs and verifies.
        name: the name of this server.
        link: sends messages.
        talkers: gets the work of clients at other servers, and tells that of clients here.
        reactor: an `IReactorTime`.

    Attributes:
        received: the number of reports that have arrived.
        malformed: the number of messages that were refused.
        on_totals: called with how much all servers have taken of rates.
        on_bans: called with the bans of other servers that apply now.
    """

    def __init__(
        self,
        shared: SharedGuard,
        admission: Admission,
        messages: SignedMessages,
        name: str,
        link: Link,
        talkers: Talkers | None,
        reactor: Any,
    ) -> None:
        self.received = self.malformed = 0
        self.on_totals: Callable[[Sequence[RateTaken]], object] = lambda _: None
        self.on_bans: Callable[[Sequence[Ban]], object] = lambda _: None
        self._shared, self._admission, self._messages = shared, admission, messages
        self._name, self._link, self._talkers, self._reactor = name, link, talkers, reactor
        self._heard: dict[str, float] = {}  # server → when it has last said something
        self._asked: dict[str, float] = {}
        self._requests: list[Request] = []
        self._told_all = float("-inf")
        self._unsent: GuardReport | None = None
        self._is_sending = False
        self._sent_at = self._complained_at = float("-inf")
        self._window, self._in_window = 0.0, 0
        self._refusal, self._refused_at = "", float("-inf")
        self._loop = LoopingCall(self.tick)
        self._loop.clock = reactor
        if talkers is not None:
            talkers.collect_news()

    def start(self) -> None:
        """Begin to exchange."""
        self._loop.start(REPORT_SECONDS, now=False)

    def stop(self) -> None:
        """Stop exchanging."""
        if self._loop.running:
            self._loop.stop()

    def tell_bans(
        self, on_ban: Callable[[Ban], object], on_unban: Callable[[str], object]
    ) -> tuple[Callable[[Ban], object], Callable[[str], object]]:
        """Return what does the same as two functions that learn of bans and their ends, and tells others at once."""

        def ban(new: Ban) -> None:
            on_ban(new)
            self._reactor.callLater(0, self.tick)

        def unban(network: str) -> None:
            on_unban(network)
            self._reactor.callLater(0, self.tick)

        return ban, unban

    @property
    def members(self) -> list[str]:
        """The other servers that are heard of."""
        return sorted(self._heard)

    @property
    def last_refusal(self) -> str:
        """Why a message was refused in the last `COMPLAINT_SECONDS`; "" if none was."""
        is_recent = self._reactor.seconds() - self._refused_at < COMPLAINT_SECONDS
        return self._refusal if is_recent else ""

    def connected(self) -> None:
        """Begin to tell when the link is back. Others may have missed anything, and this server, too."""
        now = self._reactor.seconds()
        if now - self._sent_at > FORGET_RATES_SECONDS:
            self._shared.forget_rate_news()
        if self._unsent is not None:
            # Others ignore what they have heard. What was taken may have been added up already.
            is_old = now + self._link.clock_offset - self._unsent.time > STALE_SECONDS / 2
            self._unsent = None if is_old else self._unsent._replace(rates=())
        self._shared.tell_all()
        self.tick()

    def tick(self) -> None:
        """Forget who is silent, and send what there is to tell, unless the link is slow."""
        now = self._reactor.seconds()
        self._shared.clock_offset = self._link.clock_offset
        for member, heard in list(self._heard.items()):
            if now - heard > SILENT_SECONDS:
                self._forget(member)
        if not self._link.is_ready or self._is_sending:
            return
        if self._requests:
            self._send(self._messages.encode(Message(self._name, self._requests.pop(0))), ())
            return
        report = self._unsent or self._next_report(now)
        if report is not None:
            self._unsent, self._sent_at = report, now
            data = self._messages.encode(Message(self._name, report._replace(rates=())))
            self._send(data, report.rates)

    def _next_report(self, now: float) -> GuardReport | None:
        report = self._shared.take_report(now, always=False)
        talkers = () if self._talkers is None else self._talkers.take_news()
        if report is None and (talkers or now - self._sent_at >= ALIVE_SECONDS):
            report = self._shared.take_report(now)
        return report and report._replace(talkers=tuple(TalkerWork(*each) for each in talkers))

    def _send(self, data: bytes, rates: tuple[RateTaken, ...]) -> None:
        self._is_sending = True
        sent = self._link.send(data, rates)
        sent.addCallbacks(self._sent, self._failed, callbackArgs=(rates,))

    def _sent(self, totals: list[float] | None, rates: tuple[RateTaken, ...]) -> None:
        self._is_sending, self._unsent = False, None
        now = self._reactor.seconds()
        if totals:
            found = zip(rates, totals, strict=False)
            self.on_totals([self._shared.set_taken(t._replace(amount=n), now) for t, n in found])

    def _failed(self, _: Failure) -> None:
        self._is_sending = False  # the link says why

    def message(self, data: bytes) -> None:
        """Count what a message tells, or answer it."""
        now = self._reactor.seconds()
        if now - self._window >= 1:
            self._window, self._in_window = now, 0
        self._in_window += 1
        if self._in_window > MAX_MESSAGES:
            self._complain(f"more than {MAX_MESSAGES} messages a second", now)
            return
        try:
            sender, content = self._messages.decode(data)
        except MalformedReport as error:
            self._complain(str(error), now)
            return
        if sender == self._name:
            return
        if isinstance(content, Request):
            self._requested(content, now)
        elif abs(content.time - now - self._link.clock_offset) > STALE_SECONDS:
            self._complain(
                "a report that is older than a minute, or of the future: are the clocks right?", now
            )
        else:
            self._merge(sender, content, now)

    def _requested(self, request: Request, now: float) -> None:
        if request.name == self._name and now - self._told_all >= ASK_SECONDS:
            self._told_all = now
            self._shared.tell_all(now if request.logins else None)

    def _merge(self, sender: str, report: GuardReport, now: float) -> None:
        self.received += 1
        is_first = not self._heard
        merged = self._admission.merge_report(self._shared, sender, report)
        if merged.is_repeated or sender not in self._shared.members:
            return  # somebody repeats it, or there are too many servers
        if sender not in self._heard:
            _log.info("guard-redis: shares bans and limits with {sender}", sender=sender)
        self._heard[sender] = now
        self.on_bans(merged.bans)
        if self._talkers is not None:
            self._talkers.add_remote(report.talkers)
        if not merged.is_complete and now - self._asked.get(sender, -ASK_SECONDS) >= ASK_SECONDS:
            # One server is enough to learn which users are known.
            self._asked[sender] = now
            self._requests.append(Request(sender, is_first))
        for what, networks in (
            ("has banned", [describe(ban.network) for ban in merged.bans]),
            ("has ended the bans of", merged.unbans),
        ):
            if networks:
                more = f" and {len(networks) - 3} more" if len(networks) > 3 else ""
                _log.info(
                    "guard-redis: {sender} {what} {networks}{more}",
                    sender=sender,
                    what=what,
                    networks=", ".join(networks[:3]),
                    more=more,
                )

    def _forget(self, member: str) -> None:
        del self._heard[member]
        self._asked.pop(member, None)
        self._shared.forget_member(member)
        _log.info(
            "guard-redis: {member} is silent; its connections do not count any more", member=member
        )

    def _complain(self, reason: str, now: float) -> None:
        self.malformed += 1
        self._refusal, self._refused_at = reason, now
        if now - self._complained_at >= COMPLAINT_SECONDS:
            self._complained_at = now
            _log.warn(
                "guard-redis: a message was refused: {reason}; {number} until now",
                reason=reason,
                number=self.malformed,
            )
