"""`ResponseStream`: finds the ends of commands in what a backend sends, and passes the rest on as it is.

Rules
-----
* Literals are data: nothing inside them is taken for a response, whatever it contains.
* Bytes are passed on as they arrive. What is held back is the beginning of a line until its kind is known, the end of
  a line that may announce a literal, a line with capabilities, which is rewritten, and a continuation request, which
  is dropped.
* A tagged response that nobody waits for is a `ProtocolViolation`: client and backend are no longer in step.
"""

import re
from collections.abc import Callable

from imapshield.wire.abnf import TAG

MAX_HELD_LINE = 8 << 10
"""Bytes of a line that is held until it is complete: one with capabilities, of which Dovecot's longest has 700, or a
continuation request that the client does not get."""

MAX_UNASKED_CONTINUATIONS = 100
"""Continuation requests that belong to no literal and no IDLE, and are dropped. Servers send none."""

_KIND_BYTES = 24
"""Bytes after the tag that show the kind of a line: ``* OK [CAPABILITY `` has 17."""

_ANNOUNCEMENT_BYTES = len("~{1234567890123456789+}\r\n")
_ANNOUNCEMENT = re.compile(rb"\{([0-9]{1,19})\+?\}\r\n\Z")
_STATUS = re.compile(rb"(?:OK|NO|BAD|BYE|PREAUTH)(?: |\r\n|\Z)", re.IGNORECASE)
_CAPABILITY = re.compile(rb"(?:OK |NO |BAD |BYE |PREAUTH )\[CAPABILITY |CAPABILITY ", re.IGNORECASE)
_PLAIN_END = re.compile(rb"\r\n(?!\* [0-9])|\}\r\n")
"""The end of a line after which a line begins that is not ``* NUMBER …``, or of one that may announce a literal."""


class ProtocolViolation(Exception):
    """The backend has sent what no IMAP server sends. The text is for the log.

    Attributes:
        passed: the bytes for the client before it.
    """

    passed = b""


class Awaited:
    """A command whose tagged response is awaited.

    Attributes:
        tag: its tag. Another command may have the same one.
        condition: OK, NO or BAD when its tagged response is complete, until then empty.
    """

    __slots__ = ("condition", "tag")

    def __init__(self, tag: bytes) -> None:
        self.tag, self.condition = tag, b""


class ResponseStream:
    """The responses of one backend after the login.

    Args:
        rewrite: returns the line with other capabilities, for a complete line that has some, with its CRLF.

    Attributes:
        awaited: the commands whose tagged response is awaited, in the order in which they were sent.
        ended: how many commands have ended.
        lines: how many lines have begun whose kind had to be found out.
        continuations: how many continuation requests (``+``) have arrived while a command was awaited.
        asked: for how many of them the backend was asked, less those that have arrived while none was.
        passes_continuation: whether the next continuation request is passed on: that of IDLE, which belongs between
            the responses that the backend sends before and after it.
        said_bye: whether BYE has arrived.
        at_line_start: whether what was passed on ends with a whole response.
    """

    def __init__(self, rewrite: Callable[[bytes], bytes]) -> None:
        self.awaited: list[Awaited] = []
        self.ended = self.lines = self.continuations = self.asked = 0
        self.passes_continuation = False
        self.said_bye = False
        self._rewrite = rewrite
        self._held = b""
        self._ending: tuple[Awaited, bytes] | None = None  # by the tagged response that has begun
        self._literal = 0  # bytes of a literal that are still to come
        # The rest of the current line: "" at its start, else data, text, tagged, capability or continuation. The last
        # two may have a word before them.
        self._kind = ""
        self._in_response = False  # a literal has ended, so the line continues a response

    @property
    def at_line_start(self) -> bool:
        """Whether what was passed on ends with a whole response."""
        within = self._kind in ("data", "text", "tagged", "passed continuation")
        return not (within or self._literal or self._in_response)

    def expect(self, tag: bytes) -> Awaited:
        """Note that a command was sent, and return what shows when it has ended."""
        awaited = Awaited(tag)
        self.awaited.append(awaited)
        return awaited

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the backend, and return those for the client.

        Raises:
            ProtocolViolation: the responses cannot be understood.
        """
        if self._held:
            data, self._held = self._held + data, b""
        passed: list[bytes] = []
        try:
            self._feed(data, passed)
        except ProtocolViolation as error:
            error.passed = b"".join(passed)
            raise
        return b"".join(passed)

    def _feed(self, data: bytes, passed: list[bytes]) -> None:
        position, size = 0, len(data)
        while position < size:
            if self._literal:
                end = min(size, position + self._literal)
                self._literal -= end - position
                passed.append(data[position:end])
            elif not self._kind:
                self.lines += 1
                end = self._begin_line(data, position)
                if end < 0:
                    self._held = data[position:]
                    break
            else:
                end = self._continue_line(data, position, passed)
                if end < 0:
                    break
            position = end

    def _begin_line(self, data: bytes, position: int) -> int:
        """Find out the kind of the line at `position`, and return `position`; -1 if more of it must arrive."""
        if self._in_response:
            self._in_response = False
            self._kind = "data"
            return position
        star = data[position : position + 3]
        if star[:2] == b"* " and star[2:].isdigit():  # most lines, such as those of FETCH
            self._kind = "data"
            return position
        longest = _KIND_BYTES + max((len(each.tag) for each in self.awaited), default=0)
        start = data[position : position + longest]
        line_end = start.find(b"\r\n")
        if line_end < 0 and len(start) < longest:
            return -1
        word, space, rest = (start if line_end < 0 else start[: line_end + 2]).partition(b" ")
        if word == b"*" and space:
            self._kind = self._untagged_kind(rest)
        elif word in (b"+", b"+\r\n"):
            self._kind = "passed continuation" if self.passes_continuation else "continuation"
        else:
            self._kind = self._tagged_kind(word, rest)
        return position

    def _untagged_kind(self, rest: bytes) -> str:
        self.said_bye = self.said_bye or rest[:4].upper() in (b"BYE ", b"BYE\r")
        if _CAPABILITY.match(rest):
            return "capability"
        return "text" if _STATUS.match(rest) else "data"

    def _tagged_kind(self, word: bytes, rest: bytes) -> str:
        condition = _STATUS.match(rest)
        # Nearly all servers answer in order, but they need not (RFC 9051 section 5.5).
        awaited = next((each for each in self.awaited if each.tag == word), None)
        if awaited is None or condition is None:
            known = "a tagged response that belongs to no command"
            raise ProtocolViolation(known if TAG.fullmatch(word) else "a line that is no response")
        self._ending = awaited, condition[0].strip().upper()
        return "tagged capability" if _CAPABILITY.match(rest) else "tagged"

    def _continue_line(self, data: bytes, position: int, passed: list[bytes]) -> int:
        """Process the line whose kind is known, and return where it ends; -1 if its end has not arrived."""
        kind = self._kind
        if kind == "data":
            return self._continue_data(data, position, passed)
        found = data.find(b"\r\n", position)
        end = found + 2 if found >= 0 else len(data)
        if kind == "continuation" or kind.endswith("capability"):
            if found < 0 or end - position > MAX_HELD_LINE:
                if len(data) - position > MAX_HELD_LINE:
                    what = "capabilities" if kind != "continuation" else "a continuation request"
                    raise ProtocolViolation(f"a line of {what} without an end")
                self._held = data[position:]
                return -1
            if kind != "continuation":
                passed.append(self._rewrite(data[position:end]))
        elif found < 0:
            end -= data.endswith(b"\r")  # which may be the half of a CRLF
            passed.append(data[position:end])
            self._held = data[end:]
            return -1
        else:
            passed.append(data[position:end])
        if kind.startswith("tagged"):
            self._command_ended()
        elif kind.endswith("continuation"):
            self._continuation_ended()
        self._kind = ""
        return end

    def _continuation_ended(self) -> None:
        if self.awaited:
            self.continuations += 1
        else:
            # It follows the answer to a command, and is no request for its next literal: it may be text of the client
            # that the backend has repeated.
            self.asked -= 1
        self.passes_continuation = False
        if self.continuations - self.asked > MAX_UNASKED_CONTINUATIONS:
            raise ProtocolViolation("continuation requests without an end")

    def _command_ended(self) -> None:
        assert self._ending is not None
        awaited, condition = self._ending
        awaited.condition = condition
        self.awaited.remove(awaited)
        self._ending = None
        self.ended += 1

    def _continue_data(self, data: bytes, position: int, passed: list[bytes]) -> int:
        """Pass lines of data on, up to a literal or to a line of another kind."""
        search = position
        while (found := _PLAIN_END.search(data, search)) is not None:
            end = found.end()
            if data[found.start()] != 0x7D:  # not a brace
                if end == len(data):
                    break  # the next line decides, but this one is complete
                passed.append(data[position:end])
                self._kind = ""
                return end
            literal = _ANNOUNCEMENT.search(data, max(position, end - _ANNOUNCEMENT_BYTES), end)
            if literal is not None:
                passed.append(data[position:end])
                self._literal, self._kind, self._in_response = int(literal[1]), "", True
                return end
            # An ordinary brace; its CRLF is found again, as the end of a line.
            search = end - 2
        if data.endswith(b"\r\n"):
            passed.append(data[position:])
            self._kind = ""
            return len(data)
        # The end of the chunk may be a part of an announcement, and is passed on with the rest of it.
        keep = max(position, len(data) - _ANNOUNCEMENT_BYTES)
        passed.append(data[position:keep])
        self._held = data[keep:]
        return -1
