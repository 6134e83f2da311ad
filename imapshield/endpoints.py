"""Makes Twisted endpoints from the descriptions of ``--listen``, with one TLS policy for all of them."""

import os
import re
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString, wrapServerTLS
from twisted.python.failure import Failure

from imapshield.certificates import Certificates, DirectoryFiles, PairFiles
from imapshield.config import DEFAULT_LISTEN, ConfigError

DEFAULT_TLS_PORT = "993"

_SSL_ARGUMENTS = ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog")
"""The arguments of ``ssl:`` that may be without a name, in their order."""

_NO_SOCKET = (
    "systemd has passed no such socket; start the unit imapshield.socket, whose service this must be,"
    " or use for example tcp:143"
)


def listen_endpoint(reactor: Any, text: str, certificates: Certificates) -> Any:
    """Return the endpoint of one ``--listen``.

    Args:
        reactor: the reactor.
        text: the value of the option.
        certificates: gets those that the endpoint uses.

    Raises:
        ConfigError: there is none.
    """
    try:
        return server_endpoint(reactor, text, certificates)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        reason = f"file {error.filename} not found"
    except Exception as error:  # endpoint parsers are plugins and may raise anything
        if "systemd:" in text and isinstance(error, LookupError):
            raise ConfigError(f"--listen {text}: {_NO_SOCKET}") from None
        without_port = re.search(r"(^|:)(tcp[46]?|ssl)(:?$|::)", text)
        wrong_port = "the port is not a number" if "invalid literal" in str(error) else ""
        reason = wrong_port or f"not a Twisted endpoint ({error})"
        reason = "has no port" if without_port else reason
        if text.isdecimal():
            raise ConfigError(f"--listen {text}: did you mean tcp:{text}?") from None
    raise ConfigError(f"--listen {text}: {reason}; use for example tcp:143 or {DEFAULT_LISTEN}")


def server_endpoint(
    reactor: Any,
    description: str,
    certificates: Certificates,
    make: Callable[[Any, str], Any] = serverFromString,
) -> Any:
    """Return the `IStreamServerEndpoint` of a description.

    `make` makes one without TLS, of the reactor and a description.

    A description may begin with ``haproxy:`` (see `is_proxied`). These use TLS from the first byte:

    * ``imaps:``, ``imaps:PORT`` or ``imaps:DESCRIPTION``, with the certificate of ``--certificate``;
    * ``tls:DIRECTORY:PORT`` with the arguments of Twisted's, and all certificates of the directory;
    * ``ssl:PORT`` with the arguments of Twisted's. The chain may be in the file of the certificate, too.

    Raises:
        ConfigError: a certificate cannot be used.
        Exception: the description is invalid; parsers are plugins and may raise anything.
    """
    description = description.removeprefix("haproxy:")
    kind, *arguments = re.findall(r"(?:\\.|[^:\\])+", description)
    if kind == "imaps":
        assert certificates.main is not None  # `config` has checked it
        source, plain = certificates.main, _split_imaps(arguments)
    elif kind == "tls":
        directory, plain = _split_tls(arguments)
        source = certificates.add(DirectoryFiles(directory))
    elif kind == "ssl":
        files, plain = _split_ssl(arguments, f"--listen {description}")
        source = certificates.add(files)
    else:
        return make(reactor, description)
    return wrapServerTLS(source, make(reactor, plain), reactor)


def plain_endpoint(reactor: Any, description: str) -> Any:
    """Return the endpoint without TLS of a port, on all addresses, or of the description of a Twisted endpoint.

    Raises:
        Exception: the description is invalid; parsers are plugins and may raise anything.
    """
    if description.isdecimal():
        description = _tcp([description])
    return serverFromString(reactor, description)


def listen_now(endpoint: Any, factory: Any) -> Any:
    """Return the port on which an endpoint listens.

    Raises:
        Exception: whatever the endpoint says; plugins may raise anything. `ConfigError` if it does not listen at once:
            the start could not say that it has failed, and the port would be open before it is guarded.
    """
    found: list[Any] = []
    listening = maybeDeferred(endpoint.listen, factory).addBoth(found.append)
    if not found:
        listening.addCallback(lambda _: getattr(found[0], "stopListening", lambda: None)())
        raise ConfigError("this kind of endpoint does not listen at once, so it cannot be used")
    port = found[0]
    if isinstance(port, Failure):
        error: Any = port.value
        raise error
    return port


def uses_tls(description: str) -> bool:
    """Return whether clients of the endpoint use TLS from the first byte."""
    return description.removeprefix("haproxy:").partition(":")[0] in ("imaps", "tls", "ssl")


def is_proxied(description: str) -> bool:
    """Return whether every peer of the endpoint is a proxy, so that each connection begins with a PROXY header."""
    return description.startswith("haproxy:")


def _split_imaps(arguments: list[str]) -> str:
    """Return the description of the endpoint below TLS."""
    if arguments and not arguments[0].isdecimal() and "=" not in arguments[0]:
        return ":".join(arguments)
    return _tcp(arguments)


def _split_tls(arguments: list[str]) -> tuple[str, str]:
    """Return the directory of a description ``tls:``, and the description of its TCP endpoint."""
    named = next((text for text in arguments if text.startswith("path=")), None)
    unnamed = next((text for text in arguments if "=" not in text), None)
    path = named or unnamed
    if path is None:
        raise ValueError("no directory of certificates")
    arguments.remove(path)
    return _path(path.removeprefix("path=")), _tcp(arguments)


def _split_ssl(arguments: list[str], option: str) -> tuple[PairFiles, str]:
    """Return the files of a description ``ssl:``, and the description of its TCP endpoint.

    The policy leaves no choice to ``sslmethod`` and ``dhParameters``.
    """
    known, given, position = {*_SSL_ARGUMENTS, "extraCertChain", "dhParameters"}, {}, 0
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator and position < len(_SSL_ARGUMENTS):
            name, value = _SSL_ARGUMENTS[position], name
            position += 1
        if name not in known:
            raise ValueError(f"unknown argument {name}")
        given[name] = value
    if not given.get("port"):
        raise ValueError("no port")
    key = _path(given.get("privateKey", "server.pem"))
    certificate = _path(given["certKey"]) if "certKey" in given else key
    chain = _path(given["extraCertChain"]) if "extraCertChain" in given else None
    tcp = ":".join(
        ["tcp", given["port"], *(f"{n}={given[n]}" for n in ("interface", "backlog") if n in given)]
    )
    advice = "name other files with privateKey= and certKey="
    return PairFiles(certificate, key, chain, option, advice=advice), tcp


def _tcp(arguments: list[str]) -> str:
    """Return the description of a TCP endpoint for all addresses, IPv4 and IPv6, unless there is an ``interface=``."""
    if not any("=" not in text or text.startswith("port=") for text in arguments):
        arguments = [DEFAULT_TLS_PORT, *arguments]
    return ":".join(["tcp6" if _has_ipv6() else "tcp", *arguments])


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _path(argument: str) -> str:
    """Return the path in an argument. It is absolute, because twistd may change its directory later (``--rundir``)."""
    return os.path.abspath(re.sub(r"\\(.)", r"\1", argument))


def port_text(address: Any) -> str:
    """Return the address of a port that listens as text, such as ``[::1]:143``."""
    if hasattr(address, "port"):
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"
    name = getattr(address, "name", None)
    return os.fsdecode(name) if name else str(address)
