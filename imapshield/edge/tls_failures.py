"""Says why TLS failed, and what to do about it, in our own words."""

from OpenSSL import SSL

TLS_HANDSHAKE = b"\x16\x03"
"""The first bytes of a client that begins TLS: a handshake record of SSL 3.0 or later (RFC 8446 section 5.1)."""

TLS_UNEXPECTED = "the client begins TLS where IMAP is expected; set STARTTLS in the client, or give it a port for TLS"

# The first row whose word is in the reason code applies. OpenSSL 4 says "tls alert" for "sslv3 alert".
_ADVICE = (
    (
        ("protocol version", "unsupported protocol", "version too low"),
        "the client supports neither TLS 1.2 nor 1.3; update it",
    ),
    (
        ("no shared cipher", "no suitable", "handshake failure", "insufficient security"),
        (
            "the client and the server have no cipher suite or signature in common; update the client. With --acme, see"
            " whether there is a certificate already"
        ),
    ),
    (
        ("http request", "https proxy request", "wrong version number"),
        "the client sends no TLS; set TLS in the client, or give it a port with STARTTLS (--certificate)",
    ),
    (
        ("alert unknown ca", "certificate"),
        (
            "the client refuses the certificate; check that it has the name that the client connects to, has not"
            " expired, and is followed by its chain (fullchain.pem)"
        ),
    ),
    (("alert",), "the client has given up; look for the reason in its log"),
)
_OTHER = "the client sends no valid TLS; if it is a mail program, update it"


def describe_tls_failure(error: BaseException | None) -> str | None:
    """Return why TLS failed, as text for the log; None if `error` is no error of TLS.

    Args:
        error: the reason for which a connection has ended. A client that just leaves during a handshake is no error.
    """
    if not isinstance(error, SSL.Error):
        return None
    queue = error.args[0] if error.args else ()
    # An entry is (library, function, reason code). The codes are constants of OpenSSL, never input.
    codes = [str(entry[-1]) for entry in queue] if isinstance(queue, list) else []
    code = codes[0] if codes else "unknown"
    advice = next((text for words, text in _ADVICE if any(w in code for w in words)), _OTHER)
    return f"{advice} ({code})"
