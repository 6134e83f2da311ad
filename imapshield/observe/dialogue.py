"""`Dialogue`: the dialogue of a connection as lines for an operator, without secrets and without mail. Pure.

Rules
-----
* What a literal contains is never shown, in neither direction, only its size.
* Of LOGIN only the user is shown, and nothing that follows a literal of it. Of AUTHENTICATE only the mechanism.
* A line that is no known command is hidden: it may be ``LOGIN alice secret`` without a tag, or a SASL response that
  comes too late. So is its tag in the answer. Before login, the arguments of all other commands but ID are
  hidden.
* Of a line that a running command waits for, only ``DONE`` and ``*`` are shown.
* The connection knows which lines continue a command, and which of them a command waits for. Nothing is guessed here,
  and a trace that begins in the middle of a login hides its rest.
* Quoted strings are shown: search keys, names of mailboxes, and the header fields of ENVELOPE.
"""

import re
from collections import deque

from imapshield.wire.traits import log_sample

MAX_SHOWN = 300
"""Characters of a line that are shown."""

MAX_TAGS = 300
"""Tags of known commands whose answers are still shown: more than commands can be pending."""

_LITERAL = re.compile(rb"~?\{(\d{1,20})\+?\}\Z")
_TAGGED = re.compile(rb"([^ ]+) (?:OK|NO|BAD)\b")
_ATOM = re.compile(rb"[\w.@+=/$!#&'^`|~-]{1,100}")
_MECHANISM = re.compile(
    rb"PLAIN|LOGIN|EXTERNAL|ANONYMOUS|OAUTHBEARER|XOAUTH2|SCRAM-SHA-\d{1,3}(-PLUS)?|CRAM-MD5|DIGEST-MD5|GSSAPI|NTLM",
    re.IGNORECASE,
)
_LOGINS = (b"LOGIN", b"AUTHENTICATE")
_ID = re.compile(rb"\(.*|NIL\Z", re.IGNORECASE | re.DOTALL)
"""What may follow ID: the only arguments that are shown before login, because all others may be a password."""

_EXPECTED = (b"DONE", b"*")

_HIDDEN = "(hidden)"


class Dialogue:
    """Turns what both sides send into lines: ``C:`` for the client, ``S:`` for the server."""

    def __init__(self) -> None:
        self._secret = True  # whether the rest of the present command is hidden
        self._tags: deque[bytes] = deque(maxlen=MAX_TAGS)
        self._authenticated = False
        self._output = b""
        self._skip = 0  # bytes of a literal of the server

    def line(
        self, line: bytes, *, continues: bool = False, expected: bool = False, user: bool = False
    ) -> str:
        """Return what is shown of a line of the client.

        Args:
            line: the line.
            continues: whether it continues a command, after a literal.
            expected: whether a running command waits for it: SASL, or the end of IDLE.
            user: whether a user is logged in.
        """
        self._authenticated = user
        if expected:
            hides = line.upper() not in _EXPECTED
        else:
            if not continues:
                return f"C: {self._command(line)}"
            hides = self._secret
        return f"C: {_HIDDEN} {len(line)} octets" if hides else f"C: {printable(line)}"

    def _command(self, line: bytes) -> str:
        tag, _, rest = line.partition(b" ")
        name, _, arguments = rest.partition(b" ")
        upper = name.upper()
        if upper == b"UID":
            upper += b" " + arguments.partition(b" ")[0].upper()
        is_known = bool(log_sample(tag, upper)) and tag.upper() not in _LOGINS
        is_open = self._authenticated or (upper == b"ID" and bool(_ID.match(arguments)))
        self._secret = not (is_known and is_open)
        if upper not in _LOGINS and not is_known:
            return f"{_HIDDEN} {len(line)} octets, no known command"
        self._tags.append(tag)
        if not self._secret:
            return printable(line)
        shown = tag + b" " + name
        if upper in _LOGINS:
            first = _shown_argument(arguments, is_mechanism=upper == b"AUTHENTICATE")
            shown += b" " + first if first else b""
            arguments = arguments[len(first) :]
        return printable(shown) + (f" {_HIDDEN}" if arguments else "")

    def literal(self, size: int) -> str:
        """Return what is shown of `size` bytes of a literal of the client."""
        return f"C: ({size} octets of a literal)"

    def output(self, data: bytes) -> list[str]:
        """Return what is shown of bytes that the server has written: the lines that are complete now."""
        lines = []
        data = self._output + data
        while data:
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
                continue
            line, end, rest = data.partition(b"\r\n")
            if not end:
                break
            data = rest
            match = _LITERAL.search(line)
            if match is not None:
                self._skip = int(match[1])
            lines.append(f"S: {self._response(line)}")
        self._output = data[: MAX_SHOWN * 4]
        return lines

    def _response(self, line: bytes) -> str:
        match = _TAGGED.match(line)
        if match is not None and match[1] != b"*" and match[1] not in self._tags:
            return printable(_HIDDEN.encode() + line[match.end(1) :])
        if line.startswith(b"+ ") and not self._authenticated and line != b"+ Go ahead":
            return f"+ {_HIDDEN}"  # a challenge of SASL
        return printable(line)


def _shown_argument(arguments: bytes, *, is_mechanism: bool) -> bytes:
    """Return the first argument of a login if it is certainly a user or a mechanism, and not a password; else b""."""
    first, space, _ = arguments.partition(b" ")
    if is_mechanism:
        return first if _MECHANISM.fullmatch(first) else b""
    if _LITERAL.fullmatch(first):
        return first
    if arguments.startswith(b'"'):
        match = re.match(rb'"(?:[^"\\]|\\.)*"(?= )', arguments)
        return match[0] if match is not None else b""
    return first if space and _ATOM.fullmatch(first) else b""


def printable(line: bytes) -> str:
    """Return a line as text that cannot control a terminal, at most `MAX_SHOWN` characters."""
    text = line[: MAX_SHOWN + 1].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(line) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(line)} octets)"
