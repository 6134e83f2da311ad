"""TLS toward a backend, whose certificate is always verified."""

import re
from typing import Any

from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

from imapshield.front.backend_address import BackendAddress
from imapshield.regular_file import open_regular

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class BackendTls:
    """Makes Twisted's options of a TLS client for each connection to a backend.

    Args:
        address: the backend.

    Raises:
        ValueError: as for `load`; or the name cannot be that of a certificate.
    """

    def __init__(self, address: BackendAddress) -> None:
        self._address = address
        self._trusted: Any = None
        self.load()
        try:
            self()
        except ValueError:  # as those of a name with an empty label are
            raise ValueError(f"{address.name} cannot be the name in a certificate") from None

    def load(self) -> None:
        """Read the file of ``ca=``, for the connections that come.

        Raises:
            ValueError: it cannot be used, and what was read before remains. The text says why.
        """
        path = self._address.authority
        self._trusted = _trust(path) if path else platformTrust()

    def __call__(self) -> Any:
        """Return new options."""
        return optionsForClientTLS(self._address.name, trustRoot=self._trusted)


def tls_options(address: BackendAddress) -> BackendTls | None:
    """Return what makes the options of a TLS client for each connection; None without TLS.

    Raises:
        ValueError: as for `BackendTls`.
    """
    return BackendTls(address) if address.uses_tls else None


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
