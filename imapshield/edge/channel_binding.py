"""What identifies a TLS connection to both of its ends, so that a login can be bound to it (RFC 5929, RFC 9266)."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from OpenSSL import SSL, crypto


def channel_bindings(transport: Any) -> dict[bytes, bytes]:
    """Return the data of each channel binding type that `transport` has; nothing without TLS.

    Before the handshake, when the greeting of implicit TLS is written, the certificate is all there is.
    """
    for one in (transport, getattr(transport, "protocol", None)):  # after STARTTLS it is the second
        handle = getattr(one, "getHandle", lambda: None)()
        if isinstance(handle, SSL.Connection):
            return _of(handle)
    return {}


def _of(connection: SSL.Connection) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    if connection.get_protocol_version_name() == "TLSv1.3":
        with contextlib.suppress(SSL.Error):
            label = b"EXPORTER-Channel-Binding"
            found[b"tls-exporter"] = connection.export_keying_material(label, 32)
    own = connection.get_certificate()
    if own is not None:
        algorithm = own.to_cryptography().signature_hash_algorithm
        if algorithm is not None:  # there is none for Ed25519, and RFC 5929 has no rule for that
            name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, own)
            found[b"tls-server-end-point"] = hashlib.new(name, der).digest()
    return found
