"""TLS toward a backend, whose certificate is always verified."""

import re
from collections.abc import Iterable
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

    Raises:
        ValueError: as for `load`.
    """

    def __init__(self, address: BackendAddress) -> None:
        self._address = address
        self._options: Any = None
        self.load()

    def load(self) -> None:
        """Read the file of ``ca=``, or the authorities of the system, for the connections that come.

        Raises:
            ValueError: the file cannot be used, or the name cannot be that of a certificate. What was read before
                remains. The text says why.
        """
        path, name = self._address.authority, self._address.name
        trusted = _trust(path) if path else platformTrust()
        try:
            self._options = optionsForClientTLS(name, trustRoot=trusted)
        except ValueError:  # as those of a name with an empty label are
            raise ValueError(f"{name} cannot be the name in a certificate") from None

    def __call__(self) -> Any:
        """Return the options."""
        return self._options


def tls_options(address: BackendAddress) -> BackendTls | None:
    """Return what has the options of a TLS client for each connection; None without TLS.

    Raises:
        ValueError: as for `BackendTls`.
    """
    return BackendTls(address) if address.uses_tls else None


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


def _trust(path: str) -> Any:
    try:
        with open_regular(path) as file:
            found = _PEM.findall(file.read())
        certificates = [Certificate.loadPEM(pem) for pem in found]
    except OSError as error:
        raise ValueError(f"ca={path}: {error.strerror}; name a readable PEM file") from None
    except Exception as error:  # of OpenSSL, which raises several kinds
        raise ValueError(f"ca={path}: not a certificate ({type(error).__name__})") from None
    if not certificates:
        raise ValueError(f"ca={path}: has no certificate in PEM format")
    return trustRootFromCertificates(certificates)
