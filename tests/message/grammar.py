"""Parses ENVELOPE, BODY and BODYSTRUCTURE by the ABNF of RFC 9051 section 9, independently of the code under test."""

from __future__ import annotations


class NotGrammar(Exception):
    """The text does not follow the ABNF."""


class Reader:
    """Reads one value. Every method is a rule of the ABNF, or several rules that differ only in the accepted text."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.pos = 0

    def peek(self) -> bytes:
        return self.text[self.pos : self.pos + 1]

    def take(self, expected: bytes) -> None:
        if not self.text.startswith(expected, self.pos):
            raise NotGrammar(
                f"{expected!r} expected at {self.pos}: {self.text[self.pos : self.pos + 40]!r}"
            )
        self.pos += len(expected)

    def end(self) -> None:
        if self.pos != len(self.text):
            raise NotGrammar(f"unexpected: {self.text[self.pos :]!r}")

    def number(self) -> int:
        start = self.pos
        while self.peek().isdigit():
            self.pos += 1
        if start == self.pos:
            raise NotGrammar(f"number expected at {start}")
        return int(self.text[start : self.pos])

    def string(self) -> bytes:
        if self.peek() == b"{":
            self.pos += 1
            size = self.number()
            self.take(b"}\r\n")
            value = self.text[self.pos : self.pos + size]
            if len(value) != size or b"\0" in value:
                raise NotGrammar("bad literal")
            self.pos += size
            return value
        self.take(b'"')
        value = b""
        while self.peek() != b'"':
            char = self.peek()
            if char == b"\\":
                self.pos += 1
                char = self.peek()
                if char not in (b'"', b"\\"):
                    raise NotGrammar("bad quoted pair")
            if not char or char in b"\r\n\0" or char[0] > 127:
                raise NotGrammar(f"{char!r} in a quoted string")
            value += char
            self.pos += 1
        self.pos += 1
        return value

    def nil(self) -> bool:
        if self.text.startswith(b"NIL", self.pos):
            self.pos += 3
            return True
        return False

    def nstring(self) -> bytes | None:
        return None if self.nil() else self.string()

    def envelope(self) -> list[object]:
        self.take(b"(")
        found: list[object] = []
        for index in range(10):
            if index:
                self.take(b" ")
            found.append(self.addresses() if 2 <= index <= 7 else self.nstring())
        self.take(b")")
        return found

    def addresses(self) -> list[tuple[bytes | None, ...]] | None:
        if self.nil():
            return None
        self.take(b"(")
        found = []
        while self.peek() == b"(":
            self.take(b"(")
            address = []
            for index in range(4):
                if index:
                    self.take(b" ")
                address.append(self.nstring())
            self.take(b")")
            found.append(tuple(address))
        self.take(b")")
        if not found:
            raise NotGrammar("an empty address list")
        return found

    def params(self) -> dict[bytes, bytes] | None:
        if self.nil():
            return None
        self.take(b"(")
        found = {}
        while True:
            name = self.string()
            self.take(b" ")
            found[name] = self.string()
            if self.peek() == b")":
                self.pos += 1
                return found
            self.take(b" ")

    def body(self, extended: bool) -> dict[str, object]:
        self.take(b"(")
        if self.peek() == b"(":
            parts = []
            while self.peek() == b"(":
                parts.append(self.body(extended))
            self.take(b" ")
            found: dict[str, object] = {"parts": parts, "subtype": self.string()}
            if extended:
                self.take(b" ")
                found["params"] = self.params()
        else:
            found = self.single(extended)
            if extended:
                self.take(b" ")
                found["md5"] = self.nstring()
        if extended:
            self.take(b" ")
            found["disposition"] = self.disposition()
            self.take(b" ")
            found["language"] = self.language()
            self.take(b" ")
            found["location"] = self.nstring()
        self.take(b")")
        return found

    def single(self, extended: bool) -> dict[str, object]:
        media_type = self.string()
        self.take(b" ")
        subtype = self.string()
        found: dict[str, object] = {"type": media_type, "subtype": subtype}
        self.take(b" ")
        found["params"] = self.params()
        self.take(b" ")
        found["id"] = self.nstring()
        self.take(b" ")
        found["description"] = self.nstring()
        self.take(b" ")
        found["encoding"] = self.string()
        self.take(b" ")
        found["octets"] = self.number()
        kind = b"%b/%b" % (media_type, subtype)
        if kind.lower() in (b"message/rfc822", b"message/global"):
            self.take(b" ")
            found["envelope"] = self.envelope()
            self.take(b" ")
            found["body"] = self.body(extended)
            self.take(b" ")
            found["lines"] = self.number()
        elif kind.lower().startswith(b"text/"):
            self.take(b" ")
            found["lines"] = self.number()
        return found

    def disposition(self) -> tuple[bytes, dict[bytes, bytes] | None] | None:
        if self.nil():
            return None
        self.take(b"(")
        name = self.string()
        self.take(b" ")
        params = self.params()
        self.take(b")")
        return name, params

    def language(self) -> list[bytes] | None:
        if self.nil():
            return None
        if self.peek() != b"(":
            return [self.string()]
        self.take(b"(")
        found = [self.string()]
        while self.peek() == b" ":
            self.pos += 1
            found.append(self.string())
        self.take(b")")
        return found


def parse_body(text: bytes, extended: bool) -> dict[str, object]:
    reader = Reader(text)
    found = reader.body(extended)
    reader.end()
    return found


def parse_envelope(text: bytes) -> list[object]:
    reader = Reader(text)
    found = reader.envelope()
    reader.end()
    return found
