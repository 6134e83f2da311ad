"""The ports of ``--admin`` and ``--metrics``: which addresses are safe, and listening on them.

Rules
-----
* Passwords and cookies cross no network without TLS: an address that others can reach needs TLS.
* Without a password file, only who can ask the control socket learns the token with which to log in.
* A UNIX socket has the mode 0600 unless the endpoint names another one.
"""

import re
from contextlib import suppress
from socket import gethostname
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from imapshield.admin.metrics import is_available as has_metrics
from imapshield.admin.monitor import Monitor
from imapshield.admin.web_login import FileLogin, LoginReports, TokenLogin
from imapshield.admin.web_pages import StatusPages, is_for_programs, open_pages
from imapshield.auth_option import readable
from imapshield.certificates import Certificates
from imapshield.config import ConfigError, Settings
from imapshield.control.request_lines import ControlError, Request
from imapshield.endpoints import listen_now, port_text, server_endpoint
from imapshield.extras import install_command
from imapshield.web_site import BoundedSite

EXAMPLE = "tcp:8143:interface=127.0.0.1"

_EVERY = ("", "::", "0.0.0.0")  # noqa: S104  the addresses of "all interfaces"

_LOCAL = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1", re.ASCII)

_log = Logger(namespace="imapshield")


def admin_endpoint(settings: Settings, certificates: Certificates, reactor: Any) -> Any:
    """Return the endpoint of ``--admin``; None without the option.

    Raises:
        ConfigError: it is not one, or others could read passwords there.
    """
    if settings.admin is None:
        return None
    endpoint = _endpoint(reactor, "admin", settings.admin, certificates)
    if not _is_safe(settings.admin):
        raise ConfigError(
            f"--admin {settings.admin}: passwords would cross the network without TLS; use https:PORT with"
            f" --certificate, or {EXAMPLE}"
        )
    return endpoint


def metrics_endpoint(settings: Settings, certificates: Certificates, reactor: Any) -> Any:
    """Return the endpoint of ``--metrics``; None without the option.

    Raises:
        ConfigError: it is not one, or a package is missing.
    """
    if settings.metrics is None:
        return None
    if not has_metrics:
        raise ConfigError(f"--metrics needs a package: {install_command('metrics')}")
    return _endpoint(reactor, "metrics", settings.metrics, certificates)


class WebPorts:
    """The web sites of one server.

    Args:
        settings: the configuration.
        monitor: looks at the server.
        reports: remembers logins.
        certificates: for endpoints with TLS.
        reactor: the reactor.

    Raises:
        ConfigError: an option cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        monitor: Monitor,
        reports: LoginReports,
        certificates: Certificates,
        reactor: Any,
    ) -> None:
        self.monitor, self._reactor = monitor, reactor
        self._sites: list[tuple[str, Any, BoundedSite]] = []
        self._ports: list[Any] = []
        self._login: FileLogin | TokenLogin = TokenLogin()
        self._url = ""
        endpoint = admin_endpoint(settings, certificates, reactor)
        if endpoint is not None:
            path = check_admin_auth(settings)
            self._login = FileLogin(path, reactor) if path else TokenLogin()
            pages = StatusPages(monitor, self._login, reports, reactor.seconds)
            site = BoundedSite(pages.handlers(), reactor, "the status page", pages.has_no_rate)
            self._sites.append((f"--admin {settings.admin}", endpoint, site))
        endpoint = metrics_endpoint(settings, certificates, reactor)
        if endpoint is not None:
            site = BoundedSite(open_pages(monitor), reactor, "the metrics", is_for_programs)
            self._sites.append((f"--metrics {settings.metrics}", endpoint, site))

    def open(self) -> None:
        """Listen.

        Raises:
            ConfigError: that is not possible.
        """
        for text, endpoint, site in self._sites:
            try:
                port = listen_now(endpoint, site)
            except Exception as error:
                reason = str(error).rstrip(".")
                raise ConfigError(
                    f"{text}: cannot listen: {reason}; choose another address"
                ) from None
            self._ports.append(port)
            if hasattr(port, "socket"):  # endpoints of plugins may have other ports
                site.bound(port)
            where = port_text(port.getHost())
            if text.startswith("--admin "):
                self._url = _url(text, port.getHost())
            _log.info("web: {option} at {where}", option=text, where=where)

    def start(self) -> None:
        """Begin to sample what the pages show, and say that the server stops when it does."""
        if self._sites:
            self.monitor.start()
            self._reactor.addSystemEventTrigger("before", "shutdown", self.monitor.stop)

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        self._login.close()
        self.monitor.stop()
        ports, self._ports = self._ports, []
        for port in ports:
            with suppress(OSError):  # a server that has given up root cannot remove a UNIX socket
                await maybeDeferred(port.stopListening)
        for _, _, site in self._sites:
            site.close()

    async def admin(self, request: Request) -> dict[str, str]:  # noqa: ARG002
        """Return where the status page is, and the token with which to log in if there is no password file."""
        if not self._url:
            raise ControlError(f"there is no status page; start the server with --admin {EXAMPLE}")
        token = self._login.token if isinstance(self._login, TokenLogin) else ""
        return {"url": self._url, "token": token}


def check_admin_auth(settings: Settings) -> str:
    """Return the path of the password file of ``--admin-auth``; "" if there is none.

    Raises:
        ConfigError: the process cannot read it, or there is no way to log in.
    """
    if settings.admin_auth is None:
        if settings.admin is not None and settings.control == "none":
            raise ConfigError(
                "--admin needs --admin-auth file:PATH with --control none, which hides the token"
            )
        return ""
    kind, _, path = settings.admin_auth.partition(":")
    if kind != "file":
        raise ConfigError(
            f"--admin-auth {settings.admin_auth}: use file:PATH; `imapshield passwd PATH USER` writes it"
        )
    return readable(path, "--admin-auth")


def _endpoint(reactor: Any, option: str, text: str, certificates: Certificates) -> Any:
    """Return the endpoint of an option: those of ``--listen``, and ``https:PORT``."""
    kind, _, rest = text.partition(":")
    description = text
    if kind == "https":
        if certificates.main is None:
            raise ConfigError(f"--{option} {text} needs --certificate: add --certificate PEM")
        if not rest:
            raise ConfigError(f"--{option} {text}: has no port; write https:8143")
        description = f"imaps:{rest}"
    elif kind == "unix" and "mode=" not in text:
        description = f"{text}:mode=600"
    try:
        return server_endpoint(reactor, description, certificates)
    except ConfigError:
        raise
    except Exception as error:  # endpoint parsers are plugins and may raise anything
        raise ConfigError(
            f"--{option} {text}: not a Twisted endpoint ({error}); use for example {EXAMPLE}"
        ) from None


def _is_safe(text: str) -> bool:
    """Return whether nobody else can read what clients of an endpoint send."""
    kind, *arguments = re.findall(r"(?:\\.|[^:\\])+", text)
    interface = [a.removeprefix("interface=") for a in arguments if a.startswith("interface=")]
    is_local = bool(interface) and bool(_LOCAL.fullmatch(interface[0].replace("\\", "")))
    return kind in ("https", "tls", "ssl", "unix") or is_local


def _url(option: str, address: Any) -> str:
    if not hasattr(address, "port"):
        return f"unix:{port_text(address)}"
    scheme = "http" if option.startswith(("--admin tcp", "--admin systemd")) else "https"
    where = f"{gethostname()}:{address.port}" if address.host in _EVERY else port_text(address)
    return f"{scheme}://{where}/"
