"""TLS toward a backend, whose certificate is always verified."""

import re
from collections.abc import Callable
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


def tls_options(address: BackendAddress) -> Callable[[], Any] | None:
    """Return what makes Twisted's options of a TLS client for each connection; None without TLS.

    Raises:
        ValueError: the file of ``ca=`` or the name cannot be used. The text says why.
    """
    if not address.uses_tls:
        return None
    trust = _trust(address.authority) if address.authority else platformTrust()
    try:
        optionsForClientTLS(address.name, trustRoot=trust)
    except ValueError:  # as those of a name with an empty label are
        raise ValueError(f"{address.name} cannot be the name in a certificate") from None
    return lambda: optionsForClientTLS(address.name, trustRoot=trust)


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
