"""Why a connection to another server could not be made, in words for operators."""

import os

from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError


def connection_error(error: BaseException | None) -> str:
    """Return the reason in one line; "" for an error that is none of a connection that is being made."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (does the server run, and listen there?)"
    if isinstance(error, DNSLookupError):
        return "no name service knows its host"
    if isinstance(error, ConnectError) and error.osError:
        return os.strerror(error.osError)
    return ""
