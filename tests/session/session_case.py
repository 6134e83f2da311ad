"""The base class and helpers of the tests that send commands to a server as a client does."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing import Client, Server

_TEXT = re.compile(rb"^(\+|\S+ (?:OK|NO|BAD|BYE)(?: \[[^]\r\n]*\])?) [^\r\n]*", re.MULTILINE)


def lines(response: bytes) -> list[bytes]:
    """Return the lines of `response` without their CRLF."""
    return response.split(b"\r\n")[:-1]


def without_text(response: bytes) -> bytes:
    """Return `response` without the human-readable text of continuation requests, OK, NO, BAD and BYE responses."""
    return _TEXT.sub(rb"\1", response)


def highest_modseq(response: bytes) -> int:
    """Return the last HIGHESTMODSEQ in `response`."""
    found = re.findall(rb"HIGHESTMODSEQ (\d+)", response)
    assert found, response
    return int(found[-1])


def session_of(client: Client) -> Any:
    """Return the server's `Session` for `client`. It is untyped, because tests replace parts of it."""
    dispatcher: Any = client.protocol._session
    return dispatcher.session


class SessionTestCase(SynchronousTestCase):
    """A server in memory with one client, `self.client`, logged in as alice."""

    server: Server
    client: Client

    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()

    def select_inbox(self, messages: int = 3) -> Client:
        """Append `messages` copies of `MAIL` to INBOX, select INBOX with `self.client` and return that client."""
        for _ in range(messages):
            self.client.append()
        self.client(b"sel SELECT INBOX")
        return self.client

    def second_client(self) -> Client:
        """Return another client of the same user that has INBOX selected."""
        client = self.server.login()
        client(b"sel SELECT INBOX")
        return client
