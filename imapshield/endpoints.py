"""Makes Twisted endpoints from the descriptions of ``--listen``, with one TLS policy for all of them."""

import re
from typing import Any

from twisted.internet.endpoints import serverFromString, wrapServerTLS
from zope.interface import directlyProvides, providedBy

from imapshield.config import DEFAULT_LISTEN, ConfigError
from imapshield.tls import CertificateDirectory, apply_policy, warn_if_expired

_DEFAULT_TLS_PORT = "993"


class _ListeningReactor:
    """The reactor of one endpoint. It applies the TLS policy if that listens with `listenSSL`, such as ``ssl:``.

    Other methods are those of `reactor`. `description` is that of the endpoint.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        self._reactor = reactor
        self._description = description
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **options: Any) -> Any:
        apply_policy(contextFactory.getContext())
        certificate = getattr(
            contextFactory, "certificate", None
        )  # of Twisted's `CertificateOptions`
        if certificate is not None:
            warn_if_expired(certificate, f"--listen {self._description}")
        return self._reactor.listenSSL(port, factory, contextFactory, **options)


def listen_endpoint(reactor: Any, text: str) -> Any:
    """Return the endpoint of one ``--listen``.

    Raises:
        ConfigError: there is none.
    """
    try:
        return server_endpoint(reactor, text)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        reason = f"file {error.filename} not found"
    except Exception as error:  # endpoint parsers are plugins and may raise anything
        without_port = re.search(r"(^|:)(tcp[46]?|ssl)(:?$|::)", text)
        wrong_port = "the port is not a number" if "invalid literal" in str(error) else ""
        reason = wrong_port or f"not a Twisted endpoint ({error})"
        reason = "has no port" if without_port else reason
        if text.isdecimal():
            raise ConfigError(f"--listen {text}: did you mean tcp:{text}?") from None
    raise ConfigError(f"--listen {text}: {reason}; use for example tcp:143 or {DEFAULT_LISTEN}")


def server_endpoint(reactor: Any, description: str) -> Any:
    """Return the `IStreamServerEndpoint` of a description.

    A description may begin with ``haproxy:`` (see `is_proxied`). ``tls:DIRECTORY:PORT`` has the arguments of Twisted's,
    and the certificates of a `CertificateDirectory`.

    Raises:
        Exception: the description is invalid; parsers are plugins and may raise anything.
    """
    description = description.removeprefix("haproxy:")
    if not description.startswith("tls:"):
        return serverFromString(_ListeningReactor(reactor, description), description)
    directory, tcp = _split_tls(description)
    return wrapServerTLS(CertificateDirectory(directory), serverFromString(reactor, tcp), reactor)


def is_proxied(description: str) -> bool:
    """Return whether every peer of the endpoint is a proxy, so that each connection begins with a PROXY header."""
    return description.startswith("haproxy:")


def _split_tls(description: str) -> tuple[str, str]:
    """Return the directory of a description ``tls:``, and the description of its TCP endpoint."""
    _, *arguments = re.findall(r"(?:\\.|[^:\\])+", description)
    named = next((text for text in arguments if text.startswith("path=")), None)
    unnamed = next((text for text in arguments if "=" not in text), None)
    path = named or unnamed
    if path is None:
        raise ValueError("no directory of certificates")
    arguments.remove(path)
    if not any("=" not in text or text.startswith("port=") for text in arguments):
        arguments.insert(0, _DEFAULT_TLS_PORT)
    return re.sub(r"\\(.)", r"\1", path.removeprefix("path=")), ":".join(["tcp6", *arguments])
