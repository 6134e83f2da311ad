"""`ChallengePort`: answers the authority, which asks at port 80 (HTTP-01, RFC 8555 section 8.3).

The challenge TLS-ALPN-01 would need no port besides those for TLS, but authorities ask for it at port 443 only (RFC
8737 section 3), where no mail client connects and a web server usually is. A web server at port 80 can pass
``/.well-known/acme-challenge/`` on to another port.

The port is opened at the start, because only root may open it, and stays so. It accepts connections only while an order
needs it: in the weeks between, connections cost nothing.
"""

from typing import Any

from twisted.internet.defer import maybeDeferred

from imapshield.config import ConfigError
from imapshield.endpoints import listen_now, plain_endpoint
from imapshield.service import CannotServe, listen_advice
from imapshield.web_site import Answer, BoundedSite, Handler, WebRequest


class ChallengePort:
    """The endpoint of ``--acme-http``.

    Args:
        description: the value of the option.
        reactor: the reactor.

    Raises:
        ConfigError: it is not the description of an endpoint.
    """

    def __init__(self, description: str, reactor: Any) -> None:
        self._option = f"--acme-http {description}"
        self._endpoint = challenge_endpoint(description, reactor)
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._site = BoundedSite(self._handlers, reactor, "--acme-http")
        self._port: Any = None

    def open(self) -> None:
        """Listen, without accepting connections.

        Raises:
            CannotServe: that is not possible.
        """
        try:
            self._port = listen_now(self._endpoint, self._site)
        except Exception as error:
            reason = listen_advice(error, "--acme-http")
            raise CannotServe(f"cannot listen on {self._option}: {reason}") from None
        self._port.stopReading()

    def publish(self, path: str, content: str) -> None:
        """Answer requests for a path from now on. May be called in any thread."""

        async def answer(_: WebRequest) -> Answer:
            return Answer(body=content.encode("ascii"), content_type="application/octet-stream")

        self._handlers["GET", path] = answer

    def begin(self) -> None:
        """Accept connections."""
        if self._port is not None:
            self._port.startReading()

    def end(self) -> None:
        """Stop accepting connections, and close the open ones."""
        self._handlers.clear()
        if self._port is not None:
            self._port.stopReading()
            self._site.close()

    async def close(self) -> None:
        """Stop listening."""
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._site.close()


def challenge_endpoint(description: str, reactor: Any) -> Any:
    """Return the endpoint of ``--acme-http``: a port on all addresses, or the description of a Twisted endpoint.

    Raises:
        ConfigError: the description is invalid, or has TLS, which authorities do not use for this.
    """
    example = "use for example 80, or tcp:8080:interface=127.0.0.1 behind a web server"
    kind = description.partition(":")[0]
    if kind in ("imaps", "https", "tls", "ssl", "haproxy"):
        raise ConfigError(f"--acme-http {description}: must be without TLS and PROXY; {example}")
    try:
        return plain_endpoint(reactor, description)
    except Exception as error:  # endpoint parsers are plugins and may raise anything
        raise ConfigError(
            f"--acme-http {description}: not a Twisted endpoint ({error}); {example}"
        ) from None
