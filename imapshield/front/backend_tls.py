"""TLS toward a backend, whose certificate is always verified."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.internet.threads import deferToThread

from imapshield.front.backend_address import BackendAddress
from imapshield.regular_file import open_regular

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class BackendTls:
    """Has Twisted's options of a TLS client for the connections to a backend.

    All connections share them: to make them takes milliseconds, because all authorities of the system are read.

    Args:
        address: the backend.
        earlier: the `authorities` of another process, for a file that cannot be used now.

    Attributes:
        path: the file of ``ca=``; "" for none.
        authorities: the certificates of the file of ``ca=`` that are in use, as PEM; empty without one.
        problem: why the file cannot be used, so that `earlier` is; "" if it can.

    Raises:
        ValueError: as for `load`, without `earlier`.
    """

    def __init__(self, address: BackendAddress, earlier: bytes = b"") -> None:
        self._address, self.path = address, address.authority
        self._options: Any = None
        self.authorities, self.problem = b"", ""
        try:
            self.load()
        except ValueError as error:
            if not earlier:
                raise
            self.problem = str(error)
            self._use(earlier)

    def load(self) -> None:
        """Read the file of ``ca=``, or the authorities of the system, for the connections that come.

        Raises:
            ValueError: the file cannot be used, or the name cannot be that of a certificate. What was read before
                remains. The text says why.
        """
        self._use(_read(self.path) if self.path else b"")
        self.problem = ""

    def _use(self, authorities: bytes) -> None:
        name = self._address.name
        trusted = _trust(self.path, authorities) if self.path else platformTrust()
        try:
            self._options = optionsForClientTLS(name, trustRoot=trusted)
        except ValueError:  # as those of a name with an empty label are
            raise ValueError(f"{name} cannot be the name in a certificate") from None
        self.authorities = authorities

    def __call__(self) -> Any:
        """Return the options."""
        return self._options


def tls_options(
    address: BackendAddress, earlier: Mapping[str, bytes] = MappingProxyType({})
) -> BackendTls | None:
    """Return what has the options of a TLS client for each connection; None without TLS.

    Args:
        address: the server.
        earlier: by the path of ``ca=``, the authorities of another process, for a file that cannot be used now.

    Raises:
        ValueError: as for `BackendTls`.
    """
    return BackendTls(address, earlier.get(address.authority, b"")) if address.uses_tls else None


async def reload_tls(option: str, of_option: Iterable[BackendTls | None]) -> list[str]:
    """Read the files of ``ca=`` of an option again, and return one line for each that cannot be used."""
    problems = []
    for each in of_option:
        try:
            if each is not None:
                await deferToThread(each.load)
        except ValueError as error:
            problems.append(f"{option}: {error}; the certificates that were read before remain")
    return problems


def _read(path: str) -> bytes:
    try:
        with open_regular(path) as file:
            return b"\n".join(_PEM.findall(file.read()))
    except OSError as error:
        raise ValueError(f"ca={path}: {error.strerror}; name a readable PEM file") from None


def _trust(path: str, authorities: bytes) -> Any:
    try:
        certificates = [Certificate.loadPEM(pem) for pem in _PEM.findall(authorities)]
    except Exception as error:  # of OpenSSL, which raises several kinds
        raise ValueError(f"ca={path}: not a certificate ({type(error).__name__})") from None
    if not certificates:
        raise ValueError(f"ca={path}: has no certificate in PEM format")
    return trustRootFromCertificates(certificates)
