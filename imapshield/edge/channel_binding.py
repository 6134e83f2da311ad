"""Computes TLS channel binding data, which SASL mechanisms such as SCRAM-SHA-256-PLUS use (RFC 5929, RFC 9266)."""

import contextlib
import hashlib
from typing import Any

from OpenSSL import SSL, crypto


def channel_bindings(transport: Any) -> dict[bytes, bytes]:
    """Return the data of each channel binding type that `transport` supports, by type name; empty without TLS.

    Before the handshake is complete, as when the greeting of implicit TLS is written, only tls-server-end-point is
    known.
    """
    # After STARTTLS the TLS connection is the transport's protocol.
    for layer in (transport, getattr(transport, "protocol", None)):
        handle = getattr(layer, "getHandle", lambda: None)()
        if isinstance(handle, SSL.Connection):
            return _bindings_of(handle)
    return {}


def _bindings_of(connection: SSL.Connection) -> dict[bytes, bytes]:
    bindings: dict[bytes, bytes] = {}
    if connection.get_protocol_version_name() == "TLSv1.3":
        with contextlib.suppress(SSL.Error):
            label = b"EXPORTER-Channel-Binding"
            bindings[b"tls-exporter"] = connection.export_keying_material(label, 32)
    certificate = connection.get_certificate()
    if certificate is not None:
        algorithm = certificate.to_cryptography().signature_hash_algorithm
        if algorithm is not None:  # Ed25519 has none, and RFC 5929 has no rule for that
            name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            bindings[b"tls-server-end-point"] = hashlib.new(name, der).digest()
    return bindings
