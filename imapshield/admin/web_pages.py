"""The pages: login, the status page with its scripts, what these ask, and ``/metrics`` and ``/health``."""

import html
import json
import re
import secrets
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from imapshield.admin.metrics import Metrics
from imapshield.admin.metrics import is_available as has_metrics
from imapshield.admin.monitor import Monitor
from imapshield.admin.web_login import Attempts, LoginReports, Refusal, WebLogin
from imapshield.admin.web_sessions import MAX_SECONDS, Session, WebSessions
from imapshield.control.request_lines import ControlError
from imapshield.extras import install_command
from imapshield.observe.chart_history import RANGES
from imapshield.observe.talker_history import MEASURES, SUBJECTS
from imapshield.web_site import Answer, Handler, WebRequest

_JSON = "application/json"
_HTML = "text/html; charset=utf-8"
_STATIC = {
    "app.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "login.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_COOKIE = "imapshield"
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NO_METRICS = f"install the package: {install_command('metrics')}\n".encode()


def open_pages(monitor: Monitor) -> dict[tuple[str, str], Handler]:
    """Return the pages without a login for ``--metrics``: ``/metrics`` and ``/health``."""
    return {("GET", "/metrics"): _metrics(monitor), ("GET", "/health"): _health(monitor)}


def is_for_programs(request: WebRequest) -> bool:
    """Return whether a request is for one of these pages, which Prometheus and the like ask for."""
    return request.path in (b"/metrics", b"/health")


def _metrics(monitor: Monitor) -> Handler:
    metrics = Metrics(monitor) if has_metrics else None

    async def answer(request: WebRequest) -> Answer:  # noqa: ARG001
        if metrics is None:
            return Answer(501, _NO_METRICS)
        return Answer(200, *await metrics.text())

    return answer


def _health(monitor: Monitor) -> Handler:
    async def answer(request: WebRequest) -> Answer:  # noqa: ARG001
        problem = monitor.problem()
        return Answer(503 if problem else 200, f"{problem or 'ok'}\n".encode())

    return answer


class StatusPages:
    """The pages of ``--admin``.

    Args:
        monitor: what they show.
        login: who may see them.
        reports: remembers logins.
        now: returns seconds of a monotonic clock.
    """

    def __init__(
        self, monitor: Monitor, login: WebLogin, reports: LoginReports, now: Callable[[], float]
    ) -> None:
        self._monitor, self._login, self._reports, self._now = monitor, login, reports, now
        self._sessions, self._attempts = WebSessions(), Attempts(login, reports, now)
        folder = files("imapshield.admin") / "static"
        self._pages = {
            name: (folder / name).read_text("utf-8") for name in ("login.html", "index.html")
        }
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}
        self._metrics = _metrics(monitor)

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return the handler of each method and path."""
        return {
            ("GET", "/"): self._index,
            ("GET", "/login"): self._login_page,
            ("POST", "/login"): self._log_in,
            ("POST", "/logout"): self._log_out,
            ("GET", "/api/state"): self._state,
            ("GET", "/api/history"): self._history,
            ("GET", "/api/talkers"): self._talkers,
            **{("POST", f"/api/{name}"): self._action(name) for name in ("ban", "unban", "kick")},
            ("GET", "/metrics"): self._metrics_page,
            ("GET", "/health"): _health(self._monitor),
            **{("GET", f"/{name}"): self._file(name) for name in _STATIC},
        }

    def has_no_rate(self, request: WebRequest) -> bool:
        """Return whether a request is always answered: of somebody who has logged in, or of a program that watches.

        Those cost little, and ``/metrics`` has a rate of passwords.
        """
        return is_for_programs(request) or self._session(request) is not None

    def _file(self, name: str) -> Handler:
        answer = Answer(200, self._static[name], _STATIC[name])

        async def send(request: WebRequest) -> Answer:  # noqa: ARG001
            return answer

        return send

    def _session(self, request: WebRequest) -> Session | None:
        session = self._sessions.find(_cookie(request), self._now())
        if session is not None and not self._login.may_stay(session.user):
            self._sessions.end(_cookie(request))
            return None
        return session

    async def _index(self, request: WebRequest) -> Answer:
        session = self._session(request)
        if session is None:
            return _redirect("/login")
        return self._page("index.html", _cookie(request), user=session.user or "token")

    def _page(self, name: str, cookie: str, **values: str) -> Answer:
        values = {"form_token": self._sessions.form_token(cookie), **values}
        text = self._pages[name]
        for key, value in values.items():
            text = text.replace(f"{{{key}}}", html.escape(value, quote=True))
        return Answer(200, text.encode(), _HTML)

    async def _login_page(self, request: WebRequest) -> Answer:
        if self._session(request) is not None:
            return _redirect("/")
        return self._login_form(request)

    def _login_form(self, request: WebRequest, refusal: Refusal = Refusal(200, "")) -> Answer:  # noqa: B008
        # A cookie without a session, so that the form has a token, too.
        cookie = _cookie(request) or secrets.token_urlsafe(32)
        kind = "by-token" if self._login.by_token else "by-name"
        if not _is_same_origin(request):
            kind += " by-link"
        user = request.argument("user")[:64]
        # 401 would make the browser ask for a password itself.
        status = 403 if refusal.status == 401 else refusal.status
        page = self._page("login.html", cookie, kind=kind, user=user, problem=refusal.text)
        cookies = (_set_cookie(request, cookie, MAX_SECONDS),)
        return Answer(status, page.body, _HTML, _retry_after(refusal), cookies)

    def _is_own_form(self, request: WebRequest) -> bool:
        """Whether a form was sent by one of our own pages."""
        return _is_same_origin(request) and self._sessions.is_form_token(
            _cookie(request), request.argument("form_token") or request.header("x-form-token")
        )

    async def _log_in(self, request: WebRequest) -> Answer:
        if not _is_same_origin(request):
            text = (
                "The address in your browser is not that of this server. A proxy must pass on Host."
            )
            return self._login_form(request, Refusal(403, text))
        if not self._is_own_form(request):
            return self._login_form(request, Refusal(403, "The form has expired. Try again."))
        user, password = request.argument("user").strip(), request.argument("password")
        refusal = await self._attempts.refusal(request.client_host(), user, password)
        if refusal is not None:
            return self._login_form(request, refusal)
        self._reports.succeeded(request.client_host(), user)
        self._sessions.end(_cookie(request))
        # A new cookie: nobody else can know it.
        cookie = self._sessions.begin(user, self._now())
        answer = _redirect("/")
        return Answer(
            answer.status, answer.body, headers=answer.headers,
            cookies=(_set_cookie(request, cookie, MAX_SECONDS),),
        )  # fmt: skip

    async def _log_out(self, request: WebRequest) -> Answer:
        if not self._is_own_form(request):
            return Answer(403, b"not sent by the status page\n")
        self._sessions.end(_cookie(request))
        answer = _redirect("/login")
        return Answer(303, headers=answer.headers, cookies=(_set_cookie(request, "", 0),))

    async def _state(self, request: WebRequest) -> Answer:
        if self._session(request) is None:
            return _LOGGED_OUT
        return Answer(200, await self._monitor.state(), _JSON)

    async def _history(self, request: WebRequest) -> Answer:
        if self._session(request) is None:
            return _LOGGED_OUT
        name = request.argument("range")
        if name not in RANGES:
            return _problem(400, f"range must be one of {', '.join(RANGES)}")
        return Answer(200, await self._monitor.history(name), _JSON)

    async def _talkers(self, request: WebRequest) -> Answer:
        if self._session(request) is None:
            return _LOGGED_OUT
        subject, measure = request.argument("subject"), request.argument("measure")
        if subject not in SUBJECTS or measure not in MEASURES:
            choices = f"{', '.join(SUBJECTS)}; measure one of {', '.join(MEASURES)}"
            return _problem(400, f"subject must be one of {choices}")
        return Answer(200, await self._monitor.talkers(subject, measure), _JSON)

    def _action(self, name: str) -> Handler:
        """Return the handler of a command that changes something."""

        async def act(request: WebRequest) -> Answer:
            if self._session(request) is None:
                return _LOGGED_OUT
            if not self._is_own_form(request):
                return _problem(403, "not sent by the status page; load it again")
            arguments: dict[str, Any] = {}
            for argument in ("network", "who"):
                if value := request.argument(argument).strip():
                    arguments[argument] = value
            seconds = request.argument("seconds")
            if seconds:
                if not (seconds.isascii() and seconds.isdecimal() and len(seconds) < 10):
                    return _problem(400, "seconds must be a whole number")
                arguments["seconds"] = int(seconds)
            try:
                result = await self._monitor.ask(name, **arguments)
            except ControlError as error:
                return _problem(400, str(error))
            self._monitor.forget_answers()
            return Answer(200, json.dumps({"result": result}).encode(), _JSON)

        return act

    async def _metrics_page(self, request: WebRequest) -> Answer:
        if self._session(request) is None:
            refused = await self._basic_refusal(request)
            if refused is not None:
                return refused
        return await self._metrics(request)

    async def _basic_refusal(self, request: WebRequest) -> Answer | None:
        """Return why a request is not authenticated by HTTP Basic; None if it is."""
        user, password = (
            raw.decode("utf-8", "replace") for raw in (request.getUser(), request.getPassword())
        )
        headers = {"WWW-Authenticate": 'Basic realm="imapshield", charset="UTF-8"'}
        if not password:
            return Answer(401, b"log in\n", headers=headers)
        if not _is_same_origin(request):
            # A link to https://name:password@… on another site must not count for the address of the browser.
            return Answer(403, b"not from another site\n")
        refusal = await self._attempts.refusal(request.client_host(), user, password)
        if refusal is None:
            return None
        if refusal.status != 401:
            headers = _retry_after(refusal)
        return Answer(refusal.status, f"{refusal.text}\n".encode(), headers=headers)


def _cookie(request: WebRequest) -> str:
    cookie = (request.getCookie(_COOKIE.encode()) or b"").decode("ascii", "replace")
    return cookie if _COOKIE_VALUE.fullmatch(cookie) else ""


def _set_cookie(request: WebRequest, value: str, seconds: float) -> str:
    """Return the header that sets the cookie. A proxy in front says whether the browser uses TLS."""
    is_secure = request.isSecure() or request.header("x-forwarded-proto") == "https"
    secure = "; Secure" if is_secure else ""
    return f"{_COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds:.0f}{secure}"


def _is_same_origin(request: WebRequest) -> bool:
    """Whether a browser says that the request comes from our own page; other programs say nothing.

    Only the host is compared: behind a proxy with TLS, the scheme differs. Other sites cannot set these headers.
    """
    if request.header("sec-fetch-site") not in ("", "same-origin", "none"):
        return False
    origin = request.header("origin")
    hosts = {request.header("host"), request.header("x-forwarded-host")} - {""}
    try:
        return not origin or urlsplit(origin).netloc in hosts
    except ValueError:  # such as "http://["
        return False


def _retry_after(refusal: Refusal) -> dict[str, str]:
    return {"Retry-After": str(refusal.seconds)} if refusal.seconds else {}


def _redirect(path: str) -> Answer:
    return Answer(303, headers={"Location": path})


def _problem(status: int, text: str) -> Answer:
    return Answer(status, json.dumps({"error": text}).encode(), _JSON)


_LOGGED_OUT = _problem(403, "log in")
