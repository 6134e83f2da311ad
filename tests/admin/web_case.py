"""A status page in memory, and a client that sends it requests."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from imapshield.admin.monitor import Monitor
from imapshield.admin.web_login import Unavailable
from imapshield.admin.web_pages import StatusPages, is_for_programs, open_pages
from imapshield.control.commands import BanCommands, ConnectionCommands
from imapshield.control.page_logins import PageLogins
from imapshield.control.work_meter import WorkMeter
from imapshield.observe.counters import Counters
from imapshield.observe.reactor_delay import ReactorDelay
from imapshield.testing.in_process import Server
from imapshield.web_site import BoundedSite


class FakeLogin:
    """Accepts the password "secret", and knows it without a check if `cached` is that."""

    by_token = False
    checks = 0
    is_available = True
    cached = ""

    def __init__(self) -> None:
        self.removed: set[str] = set()

    def may_stay(self, user: str) -> bool:
        return user not in self.removed

    async def check(self, user: str, password: str) -> bool:
        self.checks += 1
        if not self.is_available:
            raise Unavailable
        return password == "secret"

    def is_cached(self, user: str, password: str) -> bool:
        return password == self.cached


class Transport(StringTransport):
    """A connection of a browser."""

    aborted = False
    server: Any = None

    def abortConnection(self) -> None:
        self.aborted = True


class Reply:
    """An HTTP response: its status, its headers by lower-case name, and its body."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        pairs = [line.split(": ", 1) for line in lines]
        self.headers = {name.lower(): value for name, value in pairs}


class WebCase(SynchronousTestCase):
    """Has an IMAP server with a status page, and `request` for the page."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.meter, self.counters = WorkMeter(self.clock), Counters()
        self.server = Server(
            clock=self.clock,
            observers=[self.meter, self.counters],
            backlog=5,
            max_limit_violations=50,
        )
        now = self.clock.seconds
        connections = ConnectionCommands(self.server.factory, now)
        bans = BanCommands(self.server.factory, now)
        handlers: dict[str, Any] = {
            **{name: getattr(connections, name) for name in ("status", "who", "kick")},
            **{name: getattr(bans, name) for name in ("bans", "ban", "unban")},
            "talkers": self.meter.talkers,
        }
        delay = ReactorDelay(self.clock)
        self.monitor = Monitor(
            *(handlers, self.counters, delay, lambda: self.meter.total, self.meter.history),
            *(self.clock, lambda: 1e9, lambda: 2 << 20),
        )
        self.meter.start(self.server.factory)
        self.monitor.start()
        self.login = FakeLogin()
        logins = PageLogins(self.server.factory, now)
        pages = StatusPages(self.monitor, self.login, logins, now)
        self.site = BoundedSite(pages.handlers(), self.clock, "the status page", pages.has_no_rate)
        self.open_site = BoundedSite(
            open_pages(self.monitor), self.clock, "the metrics", is_for_programs
        )
        self.cookie = ""

    def connect(
        self, peer: str = "192.0.2.1", *, site: BoundedSite | None = None, port: Any = None
    ) -> Any:
        """Return the server's side of a new connection, with its transport."""
        protocol: Any = (site or self.site).buildProtocol(IPv4Address("TCP", peer, 4))
        transport = Transport(peerAddress=IPv4Address("TCP", peer, 4))
        transport.server = port
        protocol.makeConnection(transport)
        return protocol

    def send(
        self, raw: bytes, peer: str = "192.0.2.1", *, site: BoundedSite | None = None
    ) -> Reply:
        """Send a request as bytes, and return the response."""
        protocol = self.connect(peer, site=site)
        protocol.dataReceived(raw)
        for _ in range(10):
            self.clock.advance(0)
        return Reply(protocol.transport.value())

    def request(
        self,
        method: str,
        path: str,
        fields: str = "",
        peer: str = "192.0.2.1",
        site: BoundedSite | None = None,
        **headers: str,
    ) -> Reply:
        """Send a request with the cookie that the last response has set, and return the response."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: page.example",
            f"Content-Length: {len(fields)}",
        ]
        if fields:
            lines.append("Content-Type: application/x-www-form-urlencoded")
        if self.cookie:
            lines.append(f"Cookie: {self.cookie}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        reply = self.send(("\r\n".join(lines) + f"\r\n\r\n{fields}").encode(), peer, site=site)
        if "set-cookie" in reply.headers:
            self.cookie = reply.headers["set-cookie"].partition(";")[0]
        return reply

    def form_token(self, path: str = "/login") -> str:
        """Return the token in the form of a page."""
        text = self.request("GET", path).body.decode()
        return text.partition('name="form_token" value="')[2].partition('"')[0]

    def log_in(self, password: str = "secret", **more: Any) -> Reply:
        """Log in by the form."""
        fields = f"user=ops&password={password}&form_token={self.form_token()}"
        return self.request("POST", "/login", fields, **more)
