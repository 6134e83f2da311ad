"""Loads certificates and private keys from PEM files, and has the TLS policy for STARTTLS and implicit TLS.

The files are read and checked when the server starts, so that a mistake is one line of text at the start and not a
failed handshake later. `certificates` reads them again when they change.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from OpenSSL import SSL, crypto
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNSPattern
from service_identity.pyopenssl import extract_patterns
from twisted.internet.ssl import CertificateOptions

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

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL)
_WEAK = (
    "OpenSSL refuses the certificate, because its key is too short or its signature too weak;"
    " use one with an EC key or an RSA key of 2048 bits, and SHA-256"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that is ready for handshakes.

    Attributes:
        option: the option that names its file; for one of a directory also the names in the certificate.
        context: has the certificate, its chain, its key and the policy.
        names: the names of servers in it, in lower case.
        starts: from when it is valid.
        expires: when it is no longer valid.
        digest: tells it from others.
        chain: the certificate itself, and those that are sent with it.
        key: its private key.
    """

    option: str
    context: SSL.Context
    names: tuple[bytes, ...]
    starts: datetime
    expires: datetime
    digest: bytes
    chain: tuple[crypto.X509, ...]
    key: crypto.PKey


SavedCertificate = tuple[str, bytes, list[bytes]]
"""A certificate as plain values: its option, and its key and chain as PEM."""


def saved(certificate: Certificate) -> SavedCertificate:
    """Return a certificate as plain values, for another process of this server."""
    dump, pem = crypto.dump_certificate, crypto.FILETYPE_PEM
    key = crypto.dump_privatekey(pem, certificate.key)
    return certificate.option, key, [dump(pem, each) for each in certificate.chain]


def restored(values: SavedCertificate) -> Certificate:
    """Return the certificate that was `saved`."""
    option, key, chain = values
    leaf, *issuers = (crypto.load_certificate(crypto.FILETYPE_PEM, each) for each in chain)
    return _certificate(option, crypto.load_privatekey(crypto.FILETYPE_PEM, key), leaf, issuers)


def apply_policy(context: SSL.Context) -> SSL.Context:
    """Let `context` accept TLS 1.2 with `CIPHERS` and TLS 1.3, without renegotiation. Returns the context."""
    context.set_cipher_list(CIPHERS.encode("ascii"))
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    return context


@cache
def no_certificate() -> SSL.Context:
    """Return a context with which each handshake fails."""
    return apply_policy(SSL.Context(SSL.TLS_METHOD))


def no_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:  # noqa: ARG001
    """Negotiate no protocol (ALPN, RFC 7301), whichever the client offers: an endpoint has only one.

    Twisted's own callback needs the protocol of the connection, and fails the handshake if there is no common one.
    """
    return SSL.NO_OVERLAPPING_PROTOCOLS


def expiry(days: float, expires: datetime) -> str:
    """Return that a certificate expires in some days, or has expired, as text."""
    date = expires.strftime("%Y-%m-%d")
    if days <= 0:
        return f"has expired on {date}, and clients will refuse it"
    left = f"{days:.0f} days" if days >= 2 else f"{days * 24:.0f} hours"
    return f"expires in {left}, on {date}"


def load_file(
    certificate: str,
    key: str | None = None,
    chain: str | None = None,
    option: str = "",
    advice: str = "",
) -> Certificate:
    """Return the certificate of a file.

    Args:
        certificate: path of a PEM file with the server's certificate, followed by its chain.
        key: path of a PEM file with the private key, unencrypted; by default it is in the file of the certificate.
        chain: path of a PEM file with more certificates of the chain.
        option: what errors name instead of ``--certificate`` and ``--key`` with their files.
        advice: what errors say is to be done, instead of naming other files with ``--certificate`` and ``--key``.

    Raises:
        ConfigError: a file is missing, damaged or encrypted, the key is too short, or the two do not belong together.
    """
    of_certificate = option or f"--certificate {certificate}"
    of_key = option or (f"--key {key}" if key else of_certificate)
    pems = _CERTIFICATE.findall(_read(certificate, of_certificate))
    if not pems:
        raise ConfigError(
            f"{of_certificate}: no PEM certificate in it; {advice or 'name another file'}"
        )
    if chain is not None:
        pems += _CERTIFICATE.findall(_read(chain, of_certificate))
    try:
        pem = _read(key or certificate, of_key)
        private_key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b"")
    except (crypto.Error, ValueError, TypeError):
        raise ConfigError(
            f"{of_key}: contains no PEM private key without a passphrase;"
            f" {advice or 'name the file of the key with --key'}"
        ) from None
    try:
        leaf, *issuers = (crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in pems)
        return _certificate(of_certificate, private_key, leaf, issuers)
    except crypto.Error:
        raise ConfigError(
            f"{of_certificate}: damaged; {advice or 'name a valid PEM file'}"
        ) from None
    except (SSL.Error, ValueError) as error:
        if _is_weak(error):
            raise ConfigError(f"{of_certificate}: {_WEAK}") from None
        raise ConfigError(
            f"{of_key}: the private key does not match the first certificate in {certificate};"
            f" {advice or 'name the file of its key with --key'}"
        ) from None


def load_directory(directory: str, paths: list[str]) -> list[Certificate]:
    """Return each certificate of the files `paths` in `directory` that has its key there.

    Raises:
        ConfigError: there is none, or a file cannot be read or is damaged.
    """
    option = f"--listen tls:{directory}"
    keys, certificates = _read_all(option, paths)
    issuers = {each.get_subject().der(): each for each in certificates}
    found = []
    # A renewed certificate may have the key of an old one: the newest is used. fullchain.pem repeats cert.pem.
    newest: dict[bytes, crypto.X509] = {}
    for each in sorted(certificates, key=lambda each: each.get_notBefore() or b""):
        newest[_public(each.get_pubkey())] = each
    for public in dict.fromkeys(_public(each.get_pubkey()) for each in certificates):
        if public in keys:
            leaf = newest[public]
            named = f"{option} ({b' '.join(_names(leaf)).decode('ascii', 'replace')})"
            chain = _chain(leaf, issuers)
            try:
                found.append(_certificate(named, keys[public], leaf, chain))
            except SSL.Error as error:
                reason = _WEAK if _is_weak(error) else f"OpenSSL refuses the certificate ({error})"
                raise ConfigError(f"{named}: {reason}") from None
    if not found:
        raise ConfigError(
            f"{option}: no certificate with its private key in files *.pem there; name their directory, such as"
            " tls:/etc/letsencrypt/live:993"
        )
    return found


def unmatched(directory: str, paths: list[str]) -> list[str]:
    """Return a line for each private key of a directory without its certificate, and the reverse.

    Raises:
        ConfigError: a file cannot be read or is damaged.
    """
    lines, option = [], f"--listen tls:{directory}"
    keys, certificates = _read_all(option, paths)
    issued = {_public(each.get_pubkey()) for each in certificates}
    issuers = {
        each.get_issuer().der() for each in certificates if each.get_issuer() != each.get_subject()
    }
    for path in paths:
        own_keys, own = _read_all(option, [path])
        if own_keys.keys() - issued:
            lines.append(f"{path} has a private key that fits no certificate there")
        for each in own:
            is_issuer = each.get_subject().der() in issuers
            if _names(each) and not is_issuer and _public(each.get_pubkey()) not in keys:
                names = b" ".join(_names(each)).decode("ascii", "replace")
                lines.append(f"{path}: no private key there fits the certificate for {names}")
    return lines


def _read_all(option: str, paths: list[str]) -> tuple[dict[bytes, crypto.PKey], list[crypto.X509]]:
    """Return the private keys of files by their public keys, and the certificates.

    Raises:
        ConfigError: a file cannot be read or is damaged.
    """
    keys: dict[bytes, crypto.PKey] = {}
    certificates: list[crypto.X509] = []
    for path in paths:
        pem = _read(path, f"{option}: {path}")
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
    return keys, certificates


def pem_files(directory: str) -> Iterator[str]:
    """Yield the path of each PEM file. certbot replaces symbolic links, which are followed.

    Raises:
        ConfigError: the directory cannot be read.
    """

    def fail(error: OSError) -> None:
        if error.filename == directory:
            advice = _advice(error, "name a directory with files *.pem")
            raise ConfigError(f"--listen tls:{directory}: {advice}")

    for folder, _, names in os.walk(directory, onerror=fail, followlinks=True):
        for name in names:
            if name.endswith(".pem"):
                yield os.path.join(folder, name)


def _certificate(
    option: str, key: crypto.PKey, leaf: crypto.X509, issuers: list[crypto.X509]
) -> Certificate:
    context = CertificateOptions(key, leaf, extraCertChain=issuers).getContext()
    starts = certificate_time(leaf.get_notBefore(), datetime.min)
    expires = certificate_time(leaf.get_notAfter(), datetime.max)
    names, digest = tuple(_names(leaf)), leaf.digest("sha256")
    return Certificate(
        option, apply_policy(context), names, starts, expires, digest, (leaf, *issuers), key
    )


def certificate_time(text: bytes | None, default: datetime) -> datetime:
    """Return a time of a certificate; `default` for one with an offset, which RFC 5280 forbids."""
    with suppress(ValueError):
        return datetime.strptime((text or b"").decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return default.replace(tzinfo=UTC)


def _is_weak(error: Exception) -> bool:
    """Return whether OpenSSL has refused a key or a signature because of its security level."""
    return any(text in str(error) for text in ("key too small", "md too weak"))


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
    try:
        patterns = extract_patterns(certificate)
    except (CertificateError, ValueError):  # such as *.*.example.org
        return []
    return [each.pattern for each in patterns if isinstance(each, DNSPattern)]


def _read(path: str, option: str) -> bytes:
    try:
        # To open a FIFO could take for ever, and so would the end of the server, which waits for its threads.
        with open(
            path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        ) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return file.read()
    except OSError as error:
        where = option if option.endswith(path) else f"{option} ({path})"
        raise ConfigError(f"{where}: {_advice(error)}") from None


def _advice(error: OSError, advice: str = "name a readable PEM file") -> str:
    if isinstance(error, PermissionError):
        advice = "make it readable for the user of the server"
    return f"{error.strerror}; {advice}"
