"""The client's side of IMAP up to the login: greeting, STARTTLS, CAPABILITY, ID, and the login itself."""

import re
from base64 import b64encode
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from imapshield.events import printable
from imapshield.front.backend_connection import (
    BackendConnection,
    BackendUnavailable,
    ClientSilent,
    LoginUndecided,
)
from imapshield.front.offered_capabilities import capability_names
from imapshield.wire.strings import quoted

MAX_LINES = 100
"""Lines in the response to one command of a login, with the challenges. Servers send one or two."""

MAX_RESPONSE_BYTES = 64 << 10
"""Bytes of these lines, which are held until the command has ended."""

_INITIAL_RESPONSE_SIZE = 4096
"""Bytes of an initial response on the command line; a longer one is sent after a continuation request."""

_TAGGED = re.compile(rb"(OK|NO|BAD)(?: (.*))?\Z", re.IGNORECASE | re.DOTALL)
_GREETING = re.compile(rb"\* OK(?: (?:\[[^\]]*\] ?)?(.*))?\Z", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(rb"\[([A-Za-z\-]+)")
_UNQUOTABLE = re.compile(rb"[^\x01-\x09\x0b\x0c\x0e-\x7f]")

Challenge = Callable[[bytes], Coroutine[Any, Any, bytes]]
"""Returns the response to a challenge, both in base64."""


class Answer(NamedTuple):
    """The response of a backend to one command.

    Attributes:
        condition: OK, NO or BAD.
        text: the rest of the tagged line.
        untagged: the lines before it, without CRLF.
    """

    condition: bytes
    text: bytes
    untagged: list[bytes]

    @property
    def code(self) -> bytes:
        """The response code in upper case; empty if there is none."""
        found = _CODE.match(self.text)
        return b"" if found is None else found[1].upper()

    @property
    def capabilities(self) -> tuple[bytes, ...]:
        """The capabilities that the response names; empty if it names none."""
        found = map(capability_names, (self.text, *self.untagged))
        return next(filter(None, found), ())


class _ContinuationRequested(Exception):
    pass


async def _note_request(_: bytes) -> bytes:
    raise _ContinuationRequested


class BackendClient:
    """Speaks IMAP with a backend on a connection that has just been made.

    Each method raises `BackendUnavailable` if the connection ends or the server does not behave as one.

    Attributes:
        greeting_text: the text of the greeting, without a response code.
    """

    def __init__(self, connection: BackendConnection) -> None:
        self.connection = connection
        self.greeting_text = b""
        self._number = 0

    async def greeting(self) -> None:
        """Read the greeting."""
        line = await self.connection.read_line()
        found = _GREETING.match(line)
        if found is None:
            raise BackendUnavailable(f"its greeting is {printable(line, 80)}")
        self.greeting_text = found[1] or b"ready"

    async def command(self, text: bytes) -> Answer:
        """Run a command, which has no continuation."""
        self._send(text)
        return await self._answer(None)

    async def capabilities(self) -> tuple[bytes, ...]:
        """Ask for the capabilities."""
        names = (await self.command(b"CAPABILITY")).capabilities
        if not names:
            raise BackendUnavailable("it answers CAPABILITY without capabilities")
        return names

    def log_out(self) -> None:
        """Say LOGOUT and close, without waiting for an answer."""
        self._send(b"LOGOUT")
        self.connection.close()

    async def log_in(self, user: bytes, password: bytes, capabilities: tuple[bytes, ...]) -> Answer:
        """Log in with LOGIN; with AUTHENTICATE PLAIN if the backend does not permit LOGIN.

        Raises:
            LoginUndecided: the backend has not answered.
        """
        if b"LOGINDISABLED" in capabilities:
            return await self.authenticate(b"PLAIN", b"\0%b\0%b" % (user, password), capabilities)
        texts = [b"LOGIN "]
        for value, end in ((user, b" "), (password, b"")):
            if _UNQUOTABLE.search(value):
                texts[-1] += b"{%d}" % len(value)
                texts.append(value + end)
            else:
                texts[-1] += quoted(value) + end
        self._send(texts[0])
        for text in texts[1:]:
            answer = await self._continuation()
            if answer is not None:
                return answer
            self.connection.write(text + b"\r\n")
        return await self._login_answer(None)

    async def authenticate(
        self,
        mechanism: bytes,
        initial: bytes,
        capabilities: tuple[bytes, ...],
        challenge: Challenge | None = None,
    ) -> Answer:
        """Log in with a SASL mechanism whose first message is `initial`; `challenge` answers what the backend asks.

        Raises:
            LoginUndecided: as for `log_in`.
            ClientSilent: `challenge` has not returned in time.
        """
        encoded = b64encode(initial) or b"="
        if b"SASL-IR" in capabilities and len(encoded) <= _INITIAL_RESPONSE_SIZE:
            self._send(b"AUTHENTICATE %b %b" % (mechanism, encoded))
        else:
            self._send(b"AUTHENTICATE " + mechanism)
            answer = await self._continuation()
            if answer is not None:
                return answer
            self.connection.write(b64encode(initial) + b"\r\n")
        return await self._login_answer(challenge)

    def _send(self, text: bytes) -> None:
        self._number += 1
        self.connection.write(b"s%d %b\r\n" % (self._number, text))

    async def _continuation(self) -> Answer | None:
        """Wait for a continuation request; return the answer if the command ends instead."""
        try:
            return await self._answer(_note_request)
        except _ContinuationRequested:
            return None

    async def _login_answer(self, challenge: Challenge | None) -> Answer:
        """Wait for the answer to a login whose password was sent."""
        try:
            return await self._answer(challenge)
        except ClientSilent:
            raise
        except BackendUnavailable as error:
            raise LoginUndecided(*error.args) from None

    async def _answer(self, challenge: Challenge | None) -> Answer:
        tag = b"s%d" % self._number
        untagged: list[bytes] = []
        lines = held = 0
        while True:
            line = await self.connection.read_line()
            lines, held = lines + 1, held + len(line)
            if lines > MAX_LINES or held > MAX_RESPONSE_BYTES:
                raise BackendUnavailable("it sends more than a login needs")
            word, _, rest = line.partition(b" ")
            if word == tag:
                tagged = _TAGGED.match(rest)
                if tagged is None:
                    raise BackendUnavailable("its response is neither OK, NO nor BAD")
                return Answer(tagged[1].upper(), tagged[2] or b"", untagged)
            if word == b"+":
                if challenge is None:
                    raise BackendUnavailable("it asks for more than the login needs")
                response = await self.connection.unless_lost(challenge(rest))
                self.connection.write(response + b"\r\n")
                continue
            if word != b"*":
                raise BackendUnavailable("its response has another tag")
            if rest[:4].upper() == b"BYE ":
                raise BackendUnavailable(f"it said BYE {printable(rest[4:84], 80)}")
            untagged.append(line)
