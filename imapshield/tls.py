"""Loads certificates and private keys from PEM files, and has the TLS policy for STARTTLS and implicit TLS.

The files are read and checked when the server starts, so that a mistake is one line of text at the start and not a
failed handshake later.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from OpenSSL import SSL, crypto
from service_identity.hazmat import DNSPattern
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer

from imapshield.config import ConfigError

CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
"""The suites of TLS 1.2: forward secrecy and AEAD, as all suites of TLS 1.3 have them.

Clients without them date from before 2014. DHE has forward secrecy too, but each handshake of a stranger would cost the
server ten times as much, and no client needs it.
"""

RELOAD_SECONDS = 60.0
"""Seconds between two looks at the files of a `CertificateDirectory`."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL)
_WEAK = (
    "OpenSSL refuses the certificate, because its key is too short or its signature too weak;"
    " use one with an EC key or an RSA key of 2048 bits, and SHA-256"
)
_log = Logger(namespace="imapshield")


def apply_policy(context: SSL.Context) -> SSL.Context:
    """Let `context` accept TLS 1.2 with `CIPHERS` and TLS 1.3, without renegotiation. Returns the context."""
    context.set_cipher_list(CIPHERS.encode("ascii"))
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    return context


def load_context(certificate: str, key: str | None = None) -> CertificateOptions:
    """Return the context factory for STARTTLS.

    Args:
        certificate: path of a PEM file with the server's certificate, followed by its chain.
        key: path of a PEM file with the private key, unencrypted; by default it is in the file of the certificate.

    Raises:
        ConfigError: a file is missing, damaged or encrypted, the key is too short, or the two do not belong together.
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
        apply_policy(context.getContext())
    except crypto.Error:
        raise ConfigError(f"--certificate {certificate}: damaged; name a valid PEM file") from None
    except (SSL.Error, ValueError) as error:
        if _is_weak(error):
            raise ConfigError(f"--certificate {certificate}: {_WEAK}") from None
        raise ConfigError(
            f"{option}: the private key does not match the first certificate in {certificate};"
            " name the file of its key with --key"
        ) from None
    warn_if_expired(leaf, f"--certificate {certificate}")
    return context


@implementer(IOpenSSLServerConnectionCreator)
class CertificateDirectory:
    """The certificates of a directory. Each client gets the one for the name that it asks for (SNI).

    They are in the files ``*.pem`` of the directory and the directories below it, as in the ``live`` directory of
    certbot: private keys, their certificates, and the certificates that issued those, in any order and in any files. A
    client that asks for another name, or for none, gets the certificate of the first file in alphabetical order.

    Changed files are noticed within `RELOAD_SECONDS`, whatever names clients ask for: a stranger must not be able to
    make the server read its disk.

    Args:
        directory: the path of the directory.
        now: returns seconds of a monotonic clock.

    Raises:
        ConfigError: there is no certificate with its key, or a file cannot be read or is damaged.
    """

    def __init__(self, directory: str, now: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._now = now
        self._stamps: object = None
        self._load()

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: ARG002
        """Return a connection with the default certificate, which is replaced when the client has named the server."""
        if self._now() >= self._next_look:
            try:
                self._load()
            except ConfigError as error:
                _log.warn("{error}; the earlier certificates stay in use", error=str(error))
        return SSL.Connection(self._default, None)

    def _load(self) -> None:
        """Read the files if they have changed."""
        self._next_look = self._now() + RELOAD_SECONDS
        files = sorted(_pem_files(self._directory))
        if files == self._stamps:
            return
        self._stamps = files
        contexts = _load_contexts(self._directory, [path for path, *_ in files])
        for context, _ in contexts:
            context.set_tlsext_servername_callback(self._select)
        self._default = contexts[0][0]
        self._by_name = {name: context for context, names in contexts for name in names}

    def _select(self, connection: SSL.Connection) -> None:
        """Use the certificate for the name that the client asks for. OpenSSL calls this during the handshake."""
        name = (connection.get_servername() or b"").lower()
        wildcard = b"*." + name.partition(b".")[2]
        context = self._by_name.get(name) or self._by_name.get(wildcard)
        if context is not None:
            connection.set_context(context)


def _pem_files(directory: str) -> Iterator[tuple[str, int, int]]:
    """Yield the path, time and size of each PEM file. certbot replaces symbolic links, which are followed."""
    for folder, _, names in os.walk(directory, followlinks=True):
        for name in names:
            if name.endswith(".pem"):
                path = os.path.join(folder, name)
                with suppress(OSError):
                    status = os.stat(path)
                    yield path, status.st_mtime_ns, status.st_size


def _load_contexts(directory: str, paths: list[str]) -> list[tuple[SSL.Context, list[bytes]]]:
    """Return a context for each certificate with a key, and the names in the certificate."""
    option = f"--listen tls:{directory}"
    keys: dict[bytes, crypto.PKey] = {}
    certificates: list[crypto.X509] = []
    for path in paths:
        pem = _read(path, option)
        try:
            for match in _KEY.finditer(pem):
                key = crypto.load_privatekey(crypto.FILETYPE_PEM, match[0], b"")
                keys[_public(key)] = key
            certificates += [
                crypto.load_certificate(crypto.FILETYPE_PEM, each)
                for each in _CERTIFICATE.findall(pem)
            ]
        except (crypto.Error, ValueError, TypeError):
            raise ConfigError(f"{option}: {path} is damaged or encrypted") from None
    issuers = {each.get_subject().der(): each for each in certificates}
    contexts = []
    # A renewed certificate may have the key of an old one: the newest is used. fullchain.pem repeats cert.pem.
    newest: dict[bytes, crypto.X509] = {}
    for each in sorted(certificates, key=lambda each: each.get_notBefore() or b""):
        newest[_public(each.get_pubkey())] = each
    for public in dict.fromkeys(_public(each.get_pubkey()) for each in certificates):
        if public in keys:
            leaf = newest[public]
            options = CertificateOptions(keys[public], leaf, extraCertChain=_chain(leaf, issuers))
            try:
                contexts.append((apply_policy(options.getContext()), _names(leaf)))
            except SSL.Error as error:
                if not _is_weak(error):
                    raise
                raise ConfigError(f"{_named(option, leaf)}: {_WEAK}") from None
            warn_if_expired(leaf, _named(option, leaf))
    if not contexts:
        raise ConfigError(
            f"{option}: no certificate with its private key in files *.pem there; name their directory, such as"
            " tls:/etc/letsencrypt/live:993"
        )
    return contexts


def _is_weak(error: Exception) -> bool:
    """Return whether OpenSSL has refused a key or a signature because of its security level."""
    return any(text in str(error) for text in ("key too small", "md too weak"))


def _named(option: str, leaf: crypto.X509) -> str:
    """Return the option with the names in the certificate, which tell it from the others of the directory."""
    return f"{option} ({b' '.join(_names(leaf)).decode('ascii', 'replace')})"


def warn_if_expired(leaf: crypto.X509, option: str) -> None:
    """Log that the certificate `leaf`, which is that of an option, has expired, if it has."""
    if leaf.has_expired():
        text = "{option}: the certificate has expired, and clients will refuse it; renew it"
        _log.warn(text, option=option)


def _public(key: crypto.PKey) -> bytes:
    return crypto.dump_publickey(crypto.FILETYPE_ASN1, key)


def _chain(leaf: crypto.X509, issuers: dict[bytes, crypto.X509]) -> list[crypto.X509]:
    """Return the certificates from the issuer of `leaf` up to the last one that is known."""
    chain: list[crypto.X509] = []
    known = dict(issuers)
    known.pop(leaf.get_subject().der(), None)
    while (issuer := known.pop((chain or [leaf])[-1].get_issuer().der(), None)) is not None:
        chain.append(issuer)
    return chain


def _names(certificate: crypto.X509) -> list[bytes]:
    return [each.pattern for each in extract_patterns(certificate) if isinstance(each, DNSPattern)]


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}; name a readable PEM file") from None
