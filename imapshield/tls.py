"""Loads the server's certificate and private key from PEM files.

The files are read and checked when the server starts, so that a mistake is one line of text at the start and not a
failed handshake later.
"""

import re

from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions

from imapshield.config import ConfigError

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def load_context(certificate: str, key: str | None = None) -> CertificateOptions:
    """Return the context factory for STARTTLS.

    Args:
        certificate: path of a PEM file with the server's certificate, followed by its chain.
        key: path of a PEM file with the private key, unencrypted; by default it is in the file of the certificate.

    Raises:
        ConfigError: a file is missing, damaged or encrypted, or the two do not belong together.
    """
    chain = _CERTIFICATE.findall(_read(certificate, "--certificate"))
    if not chain:
        raise ConfigError(
            f"--certificate {certificate}: no PEM certificate in it; name another file"
        )
    option = f"--key {key}" if key else f"--certificate {certificate}"
    try:
        pem = _read(key or certificate, "--key")
        private_key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b"")
    except (crypto.Error, ValueError, TypeError):
        raise ConfigError(
            f"{option}: contains no PEM private key without a passphrase; name the file of the "
            "key with --key"
        ) from None
    try:
        leaf, *issuers = (crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in chain)
        context = CertificateOptions(private_key, leaf, extraCertChain=issuers)
        context.getContext()
    except crypto.Error:
        raise ConfigError(f"--certificate {certificate}: damaged; name a valid PEM file") from None
    except (SSL.Error, ValueError):
        raise ConfigError(
            f"{option}: the private key does not match the first certificate in {certificate};"
            " name the file of its key with --key"
        ) from None
    return context


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}; name a readable PEM file") from None
