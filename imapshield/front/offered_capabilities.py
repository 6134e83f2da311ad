"""Decides which capabilities of a backend clients see: all but those that cannot pass through the shield."""

import re
from collections.abc import Iterable

MECHANISMS = {
    b"PLAIN": True,
    b"XOAUTH2": True,
    b"OAUTHBEARER": True,
    b"SCRAM-SHA-1": False,
    b"SCRAM-SHA-256": False,
    b"SCRAM-SHA-512": False,
}
"""The SASL mechanisms that are passed on, and whether the client sends a secret as it is.

In each of them the client speaks first and names its user, so the guard knows whose login it is. Others either do not
name the user (GSSAPI, EXTERNAL) or are obsolete (CRAM-MD5, NTLM, LOGIN). The variants -PLUS bind the login to the TLS
connection, and that of the client ends here.
"""

WITHOUT_CHECK = (b"IMAP4rev1", b"AUTH=PLAIN")
"""What is offered until the backend has answered for the first time; every server has these or refuses the login.

Without SASL-IR: a server that lacks it answers BAD to a correct password, which would count as a wrong one.
"""

_OURS = frozenset(
    b"STARTTLS LOGINDISABLED UNAUTHENTICATE LOGIN-REFERRALS MAILBOX-REFERRALS".split()
)
"""TLS ends here, UNAUTHENTICATE would change the user behind the guard, and a referral leads around it."""

_COMPRESS = b"COMPRESS=DEFLATE"
_APPEND_LIMIT = b"APPENDLIMIT"
# A text is none of both: Courier ends its answer with "OK CAPABILITY completed".
_CAPABILITIES = re.compile(
    rb"((?:\* |(?:[^ ]+ (?:OK|NO|BAD|BYE|PREAUTH) )?\[)CAPABILITY )([^\]\r\n]*)", re.IGNORECASE
)


def capability_names(line: bytes) -> tuple[bytes, ...]:
    """Return the capabilities in a CAPABILITY response or response code; empty if there are none.

    Args:
        line: a line of a backend, or its part after the tag and the condition.
    """
    found = _CAPABILITIES.match(line)
    return () if found is None else tuple(found[2].split())


def before_login(names: Iterable[bytes], *, secure: bool, can_start_tls: bool) -> list[bytes]:
    """Return the capabilities for a client that has not logged in.

    Args:
        names: those of the backend.
        secure: whether the client may send a password as it is.
        can_start_tls: whether the client can start TLS.
    """
    kept, mechanisms = [], []
    for name in names:
        upper = name.upper()
        if upper.startswith(b"AUTH="):
            mechanism = upper.removeprefix(b"AUTH=")
            if mechanism in MECHANISMS and (secure or not MECHANISMS[mechanism]):
                mechanisms.append(name)
        elif _passes(upper):
            kept.append(name)
    kept += [b"STARTTLS"] if can_start_tls else []
    return kept + mechanisms + ([] if secure else [b"LOGINDISABLED"])


def after_login(
    names: Iterable[bytes], *, can_compress: bool, max_message_size: int
) -> list[bytes]:
    """Return the capabilities for a user.

    Args:
        names: those of the backend.
        can_compress: whether the connection of the client can be compressed, which ends here.
        max_message_size: the largest message that the shield accepts, in bytes.
    """
    kept = []
    for name in names:
        upper = name.upper()
        if upper.startswith(_APPEND_LIMIT):
            of_backend = upper.partition(b"=")[2]
            limit = (
                min(int(of_backend), max_message_size) if of_backend.isdigit() else max_message_size
            )
            kept.append(b"APPENDLIMIT=%d" % limit)
        elif not upper.startswith(b"AUTH=") and _passes(upper):
            kept.append(name)
    return [*kept, _COMPRESS] if can_compress else kept


def replace_capabilities(line: bytes, names: Iterable[bytes]) -> bytes:
    """Return the line of a backend with other capabilities."""
    return _CAPABILITIES.sub(lambda found: found[1] + b" ".join(names), line, count=1)


def _passes(upper: bytes) -> bool:
    return upper not in _OURS and not upper.startswith((b"COMPRESS=", b"AUTH="))
