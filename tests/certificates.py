"""Makes certificates for tests."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import TestCase

CURVE = ec.SECP256R1()
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def self_signed(
    host: str = "localhost", *, rsa_key: bool = False, bits: int = 2048, days: int = 90
) -> tuple[bytes, bytes]:
    """Return a new self-signed certificate for `host` and its private key, both as PEM. The key is an EC key or RSA.

    Args:
        bits: the size of an RSA key.
        days: for how long the certificate is valid, from two days ago.
    """
    key = rsa.generate_private_key(65537, bits) if rsa_key else ec.generate_private_key(CURVE)
    return _certificate(host, key, host, key, days), _pem(key)


def issued(host: str = "localhost", issuer_days: int = 90) -> tuple[tuple[bytes, bytes], bytes]:
    """Return a new certificate for `host` with its private key, and the certificate of its issuer, all as PEM.

    Args:
        issuer_days: for how long the certificate of the issuer is valid, from two days ago.
    """
    key, issuer_key = ec.generate_private_key(CURVE), ec.generate_private_key(CURVE)
    leaf = _certificate(host, key, "Issuer", issuer_key), _pem(key)
    return leaf, _certificate("Issuer", issuer_key, "Root", issuer_key, issuer_days)


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate(host: str, key: Key, issuer: str, issuer_key: Key, days: int = 90) -> bytes:
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def write_authority(path: str, content: bytes | None = None) -> str:
    """Write a new certificate, or `content`, to the file of an authority, and return its path."""
    with open(path, "wb") as file:
        file.write(self_signed("h")[0] if content is None else content)
    return path


async def reload_authority(
    case: TestCase,
    path: str,
    options: Callable[[], object],
    reload: Callable[[], Awaitable[Sequence[str]]],
) -> str:
    """Check that a reload applies a changed file of an authority, and keeps what was read of one that is unusable.

    Args:
        case: the test.
        path: the file.
        options: returns the options of TLS.
        reload: reloads, and returns the problems.

    Returns:
        the problem of the unusable file.
    """
    first = options()
    case.assertIs(options(), first)  # to make one takes milliseconds
    write_authority(path, b"")
    (problem,) = await reload()
    case.assertIs(options(), first)
    write_authority(path)
    case.assertEqual(await reload(), [])
    case.assertIsNot(options(), first)
    return problem
