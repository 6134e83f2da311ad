"""TLS handshakes in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL


def handshake(
    peer: SSL.Connection,
    ciphers: bytes = b"DEFAULT",
    version: int = SSL.TLS1_2_VERSION,
    name: bytes = b"",
    protocols: Sequence[bytes] = (),
) -> SSL.Connection:
    """Do a TLS handshake in memory. Returns the client's connection; raises `SSL.Error` if it fails.

    Args:
        peer: the server's connection.
        ciphers: the suites of TLS 1.2 that the client offers.
        version: the only version that the client speaks.
        name: the name of the server that the client asks for.
        protocols: what the client offers with ALPN.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(ciphers + b":@SECLEVEL=0")
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    client = SSL.Connection(context, None)
    if name:
        client.set_tlsext_host_name(name)
    if protocols:
        client.set_alpn_protos([*protocols])
    client.set_connect_state()
    peer.set_accept_state()
    done: set[SSL.Connection] = set()
    for _ in range(4):
        for one, other in ((client, peer), (peer, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
                done.add(one)
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(1 << 16))
    assert done == {client, peer}
    return client


def sent_certificates(client: SSL.Connection) -> list[bytes]:
    """Return the certificate of the server and its chain as PEM."""
    chain = client.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    return [each.public_bytes(Encoding.PEM) for each in chain]
