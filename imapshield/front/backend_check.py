"""Asks backends for their greeting, for ``imapshield check-config``. Blocking, without the reactor."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from threading import Thread
from time import monotonic

from imapshield.check_findings import ERROR, OK, WARNING, Finding
from imapshield.events import printable
from imapshield.front.backend_address import BackendAddress
from imapshield.front.proxy_v2 import proxy_header

SECONDS = 5.0
"""Seconds until a backend must have answered."""

AT_ONCE = 32
"""Backends that are asked at the same time."""

_MAX_LINE = 8192
_CERTIFICATE_ADVICE = (
    "append :ca=FILE if a private authority or the backend itself has signed it, or :name=NAME if it is for another"
    " name"
)


class _Wrong(Exception):
    """The backend cannot be used with these options, whether it is up or not. The text says why."""


def ask_backends(addresses: Sequence[BackendAddress], *, proxy: bool) -> Iterator[Finding]:
    """Yield what each backend answers.

    Args:
        addresses: the backends.
        proxy: whether each connection begins with a PROXY header.
    """
    for first in range(0, len(addresses), AT_ONCE):
        asked = addresses[first : first + AT_ONCE]
        findings: dict[BackendAddress, Finding] = {}

        def ask(address: BackendAddress, found: dict[BackendAddress, Finding] = findings) -> None:
            found[address] = _finding(address, proxy=proxy)

        # Daemons, because the look-up of a name has no time limit.
        threads = [Thread(target=ask, args=(each,), daemon=True) for each in asked]
        for thread in threads:
            thread.start()
        end = monotonic() + 2 * SECONDS
        for thread, address in zip(threads, asked, strict=True):
            thread.join(max(0.0, end - monotonic()))
            silent = WARNING, f"--backend {address.text}: no answer within {2 * SECONDS:g} s"
            yield findings.get(address, silent)


def _finding(address: BackendAddress, *, proxy: bool) -> Finding:
    option = f"--backend {address.text}"
    try:
        return OK, f"{option}: answers with the greeting {_greeting(address, proxy=proxy)}"
    except _Wrong as error:
        return ERROR, f"{option}: {error}"
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message or "verification failed"
        return ERROR, f"{option}: its certificate is refused: {reason}; {_CERTIFICATE_ADVICE}"
    except TimeoutError:
        advice = "see whether it runs, and whether its port begins with TLS"
        return WARNING, f"{option}: no answer within {SECONDS:g} s; {advice}"
    except ssl.SSLError as error:
        reason = (error.reason or "an error").replace("_", " ").lower()
        advice = "see whether its port begins with TLS (tls:) or not (starttls:)"
        return ERROR, f"{option}: TLS fails: {reason}; {advice}"
    except OSError as error:
        advice = "until it answers, nobody can log in there"
        return WARNING, f"{option}: does not answer now: {error.strerror or error}; {advice}"
    except ValueError:  # such as a UnicodeError, for an empty label
        return ERROR, f"{option}: {address.host} or {address.name} cannot be the name of a host"


def _greeting(address: BackendAddress, *, proxy: bool) -> str:
    """Return the greeting, over TLS if that is asked for.

    Raises:
        _Wrong: it is no IMAP server, or has no STARTTLS.
        OSError: it cannot be reached, or TLS fails.
    """
    with _connected(address) as connection:
        if proxy:
            connection.sendall(proxy_header(None, None))
        if address.kind == "tls":
            with _encrypted(connection, address) as encrypted:
                return _read_greeting(encrypted)
        greeting = _read_greeting(connection)
        if address.kind == "starttls":
            connection.sendall(b"a STARTTLS\r\n")
            while (line := _line(connection)).startswith(b"*"):
                pass
            if not line.upper().startswith(b"A OK"):
                raise _Wrong(f"it refuses STARTTLS: {printable(line, 80)}")
            _encrypted(connection, address).close()
        return greeting


def _connected(address: BackendAddress) -> socket.socket:
    if address.kind != "unix":
        return socket.create_connection((address.host, address.port), SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    connection.connect(address.host)
    return connection


def _encrypted(connection: socket.socket, address: BackendAddress) -> ssl.SSLSocket:
    # As Twisted verifies: without the strictness of `ssl.create_default_context`, and without the name of a subject.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    if address.authority:
        context.load_verify_locations(address.authority)
    else:
        context.load_default_certs()
    return context.wrap_socket(connection, server_hostname=address.name)


def _read_greeting(connection: socket.socket) -> str:
    line = _line(connection)
    if not line.upper().startswith(b"* OK"):
        raise _Wrong(
            f"its greeting is {printable(line, 80)!r}, which is not that of an IMAP server"
        )
    return printable(line, 80)


def _line(connection: socket.socket) -> bytes:
    """Return a line, and read nothing that follows it."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _MAX_LINE:
        byte = connection.recv(1)
        if not byte:
            raise _Wrong("it ends the connection instead of an answer")
        line += byte
    return bytes(line).rstrip(b"\r\n")
