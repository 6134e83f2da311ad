"""Random commands of `benchmarks.front_answers`: valid and invalid ones, in the forms that clients may choose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

Part = bytes | None
"""What a client sends; None: it waits for a continuation request."""
COMMANDS = 40
"""Exchanges of one session."""
SIZES = (0, 1, 2, 30, 1000, 4096, 4097, 5000, 65536, 70000)
BOXES = (
    b"INBOX", b"inbox", b"box", b"box2", b"a b", b"deep/er", b"Entw&APw-rfe", "Entwürfe".encode(), b'q"q', b"b\\b",
    b"x{5}", b"x{5+}", b"", b"&bad", b"n" * 250, b"Trash", b"*", b"\xff\xfe", b"~{3}", b"NIL",
)  # fmt: skip
ITEMS = (
    b"FLAGS", b"UID", b"ALL", b"FULL", b"(FLAGS UID)", b"BODY.PEEK[]", b"BODY[]", b"BODY[TEXT]",
    b"BODY.PEEK[]<0.10>", b"BODY.PEEK[HEADER.FIELDS (Subject From)]", b"ENVELOPE",
    b"BODYSTRUCTURE", b"BINARY.PEEK[]", b"BINARY.PEEK[1]", b"BINARY.SIZE[1]", b"(INTERNALDATE FLAGS)", b"(MODSEQ)",
    b"PREVIEW", b"(PREVIEW (LAZY))", b"RFC822", b"BODY[1.2.3]", b"BODY[", b"NOSUCH", b"(FLAGS", b"()", b"RFC822.HEADER",
    b"FLAGS (CHANGEDSINCE 1)", b"(UID BODY.PEEK[HEADER.FIELDS.NOT (Subject)])",
)  # fmt: skip
SETS = (
    b"1",
    b"1:*",
    b"*",
    b"2:3",
    b"1,3",
    b"0",
    b"9999",
    b"$",
    b"1:",
    b"4294967295",
    b"99999999999",
    b"1:3,2",
)
KEYS = (
    b"ALL", b"UNSEEN", b"SEEN", b"SUBJECT x", b"NOT SEEN", b"OR SEEN FLAGGED", b"1:*", b"UID 1:*", b"(ALL)",
    b"KEYWORD $Junk", b"MODSEQ 1", b"YOUNGER 10", b"BOGUS", b"(", b"HEADER X \"\"", b"FUZZY SUBJECT a",
)  # fmt: skip
FLAGS = (
    b"\\Seen",
    b"(\\Seen \\Flagged)",
    b"()",
    b"($Junk)",
    b"(kw1 kw2)",
    b"\\Deleted",
    b"\\Recent",
    b"(\\Nosuch)",
    b"(a{3})",
)
TEXTS = (
    b"x",
    b"subject",
    "größe".encode(),
    b"gr\xf6\xdfe",
    b'a"b',
    b"a\\b",
    b"",
    b"two words",
    b"x" * 2000,
    b"{3}",
    b"\x01",
)
STATUS = (b"(MESSAGES)", b"(MESSAGES UIDNEXT UNSEEN SIZE)", b"(BAD)", b"()", b"")
SORTS = (
    b"SORT (DATE) UTF-8 ",
    b"SORT (REVERSE SUBJECT) US-ASCII ",
    b"THREAD REFERENCES UTF-8 ",
    b"SORT () X ",
)
OTHERS = (
    b"NOOP", b"CHECK", b"CLOSE", b"UNSELECT", b"EXPUNGE", b"NAMESPACE", b"CAPABILITY", b"CANCELUPDATE", b"noop",
    b"Fetch 1 flags", b"XBOGUS", b"UID", b"UID BOGUS 1", b"NO-OP", b"LOGIN a b", b"STARTTLS", b"AUTHENTICATE PLAIN",
    b"GETQUOTA", b'SETQUOTA "" ()', b"LISTRIGHTS", b"RESETKEY", b"GENURLAUTH", b'GETMETADATA INBOX "/private/comment"',
    b"ENABLE CONDSTORE", b"ENABLE QRESYNC", b"ENABLE UTF8=ACCEPT", b"ENABLE NOSUCH", b"ENABLE IMAP4rev2", b"NOTIFY BAD",
    b"NOTIFY NONE", b"NOTIFY SET (SELECTED (MessageNew MessageExpunge))", b"ID NIL", b'ID ("name" "x")', b"ID ()",
    b"NOTIFY SET STATUS (PERSONAL (MessageNew MessageExpunge))", b'ID ("name")', b"GETQUOTAROOT INBOX",
)  # fmt: skip
NO_TAG = (
    b"",
    b"* NOOP",
    b"+ NOOP",
    b"a(b NOOP",
    b'"a" NOOP',
    b"\xff\xfe NOOP",
    b"x" * 300 + b" NOOP",
)
BROKEN = (
    b"", b" NOOP", b"NO\0OP", b"NOOP\nx NOOP", b"NOOP\rx", b'SELECT "a', b'SELECT "a\\"', b'SELECT "a\0"',
    b"SELECT {5 }", b"SELECT {x}", b"SELECT {-1}", b"NOOP {3}x", b"SELECT ~{2}x", b"NOOP " + b"x" * 9000,
    b"SEARCH " + b"NOT " * 1000 + b"ALL", b'LIST "" ' + b"(" * 100, b"SEARCH " + b"(" * 40 + b"ALL" + b")" * 40,
    b"FETCH " + b"1," * 3000 + b"1 FLAGS", b"SELECT {}",
)  # fmt: skip
ENDS = (*[b""] * 12, b" ", b"  x", b" ()")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a client sends, and until when it reads.

    Attributes:
        commands: the tag of each command, and what is sent of it; None: the client waits for a continuation request.
            If the command is answered instead, the client sends the next command.
    """

    commands: list[tuple[bytes, list[Part]]]

    @property
    def tags(self) -> set[bytes]:
        """The tags of the commands."""
        return {tag for tag, _ in self.commands}

    @property
    def has_bare_line_feed(self) -> bool:
        """Whether a line has LF without CR, which is the end of a line for some servers."""
        return any(
            re.search(rb"NOOP\nx", part or b"") for _, parts in self.commands for part in parts
        )

    def __str__(self) -> str:
        text = b" ".join(
            b"<wait>" if part is None else part[:200]
            for _, parts in self.commands
            for part in parts
        )
        return repr(text)[1:]


class Maker:
    """Makes the commands of one session."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._number = 0

    def tag(self) -> bytes:
        """Return a new tag."""
        self._number += 1
        return b"%b%d" % (self.random.choice((b"a", b"A", b"x.", b"1-", b"")), self._number)

    def pick(self, values: tuple[bytes, ...]) -> bytes:
        """Return one of the values."""
        return self.random.choice(values)

    def literal(self, text: bytes, binary: bool = False) -> list[Part]:
        """Return a literal: the client waits before it or not."""
        mark = b"~" if binary else b""
        if self.random.random() < 0.5:
            return [mark + b"{%d}\r\n" % len(text), None, text]
        return [mark + b"{%d+}\r\n" % len(text) + text]

    def string(self, text: bytes) -> list[Part]:
        """Return a text as an atom, a quoted string or a literal, also where that is not allowed."""
        match self.random.randrange(8):
            case 0 | 1 if text and not text.endswith(b"}"):
                return [text]
            case 2 | 3 | 4:
                return [b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"']
            case 5:
                return [b'"' + text + b'"']
            case _:
                return self.literal(text, self.random.random() < 0.1)

    def box(self) -> list[Part]:
        """Return the name of a mailbox."""
        return self.string(
            self.random.choice(BOXES) if self.random.random() < 0.4 else self.pick(BOXES[:4])
        )

    def message(self, size: int) -> bytes:
        """Return a message of about a size."""
        if self.random.random() < 0.3:
            return self.random.randbytes(min(size, 5000))
        return (b"Subject: x\r\nFrom: a@b\r\n\r\n" + b"0123456789abcde\r\n" * (size // 17 + 1))[
            :size
        ]

    def appended(self) -> list[Part]:
        """Return the messages of an APPEND."""
        random = self.random
        parts: list[Part] = []
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            parts.append(b" ")
            if random.random() < 0.4:
                parts += [self.pick(FLAGS[1:5]), b" "]
            if random.random() < 0.4:
                parts += [
                    self.pick(
                        (
                            b'"01-Jan-2020 10:00:00 +0000" ',
                            b'" 1-Jan-2020 10:00:00 +0100" ',
                            b'"bad" ',
                        )
                    )
                ]
            data = self.message(random.choice(SIZES))
            match random.randrange(8):
                case 0:
                    parts += [
                        b"CATENATE (TEXT ",
                        *self.literal(data),
                        b" TEXT ",
                        *self.literal(b"more"),
                        b")",
                    ]
                case 1:
                    parts += [
                        b"CATENATE (URL ",
                        *self.string(b"/INBOX/;UID=1"),
                        b" TEXT ",
                        *self.literal(data),
                        b")",
                    ]
                case 2:
                    parts += self.literal(data, binary=True)
                case _:
                    parts += self.literal(data)
        return parts

    def arguments(self) -> list[Part]:
        """Return a command after its tag, with an end that may be wrong."""
        kinds = (self.mailbox_command, self.append, self.message_command, self.search, self.other)
        uid: list[Part] = [b"UID "] if self.random.random() < 0.2 else []
        return [*uid, *self.random.choice(kinds)(), self.pick(ENDS)]

    def mailbox_command(self) -> list[Part]:
        """Return a command with the name of a mailbox."""
        pick, box = self.pick, self.box
        match self.random.randrange(7):
            case 0 | 1 | 2:
                name = pick((b"SELECT ", b"SELECT ", b"EXAMINE "))
                return [name, *box(), pick((b"", b" (CONDSTORE)", b" (QRESYNC (1 1))"))]
            case 3:
                return [b"STATUS ", *box(), b" ", pick(STATUS)]
            case 4:
                return [pick((b"CREATE ", b"SUBSCRIBE ", b"UNSUBSCRIBE ", b"DELETE ")), *box()]
            case 5:
                return [b"RENAME ", *box(), b" ", *box()]
            case _:
                pattern = self.string(pick((b"*", b"%", *BOXES)))
                if self.random.random() < 0.3:
                    return [b'LIST (SUBSCRIBED) "" (', *pattern, b" box) RETURN (CHILDREN)"]
                return [pick((b"LIST ", b"LSUB ")), *self.string(b"deep"), b" ", *pattern]

    def append(self) -> list[Part]:
        """Return an APPEND."""
        return [b"APPEND ", *self.box(), *self.appended()]

    def message_command(self) -> list[Part]:
        """Return a command with a set of messages."""
        pick = self.pick
        match self.random.randrange(5):
            case 0 | 1:
                return [b"FETCH ", pick(SETS), b" ", pick(ITEMS)]
            case 2:
                item = pick((b"", b"+", b"-")) + b"FLAGS" + pick((b"", b".SILENT"))
                return [
                    b"STORE ",
                    pick(SETS),
                    pick((b" ", b" (UNCHANGEDSINCE 1) ")),
                    item,
                    b" ",
                    pick(FLAGS),
                ]
            case 3:
                return [pick((b"COPY ", b"MOVE ")), pick(SETS), b" ", *self.box()]
            case _:
                return [b"EXPUNGE", pick((b"", b" 1:*", b" 1"))]

    def search(self) -> list[Part]:
        """Return a SEARCH, SORT or THREAD."""
        pick = self.pick
        if self.random.random() < 0.3:
            return [pick(SORTS), pick(KEYS)]
        back = pick((b"", b"", b"RETURN (MIN MAX COUNT) ", b"RETURN () ", b"RETURN (SAVE) "))
        charset = pick((b"", b"", b"CHARSET UTF-8 ", b"CHARSET X-BAD "))
        where = pick((b" SUBJECT ", b" BODY ", b" HEADER Subject "))
        return [b"SEARCH ", back, charset, pick(KEYS), where, *self.string(pick(TEXTS))]

    def other(self) -> list[Part]:
        """Return a command without literals."""
        return [self.pick(OTHERS)]

    def broken(self) -> list[Part]:
        """Return bytes that are no command."""
        tag = self.tag()
        with_tag = [tag + b" " + text for text in BROKEN]
        return [
            self.pick((tag, b" " + tag + b" NOOP", tag + b"\tNOOP", *with_tag, *NO_TAG)) + b"\r\n"
        ]

    def exchange(self) -> Exchange:
        """Return the next exchange. It ends with a command by which both servers are in step."""
        r = self.random
        commands: list[tuple[bytes, list[Part]]] = []
        kind = r.random()
        if kind < 0.1:
            commands.append((b"", self.broken()))
        elif kind < 0.15:
            tag, done = self.tag(), self.pick((b"DONE", b"done", b"DONE ", b"x", b""))
            commands.append((tag, [tag + b" IDLE\r\n", None, done + b"\r\n"]))
        else:
            for _ in range(r.choice((1, 1, 1, 1, 2, 5))):
                tag = self.tag()
                commands.append((tag, [tag, b" ", *self.arguments(), b"\r\n"]))
        sync = b"sync%d" % self._number
        return Exchange([*commands, (sync, [sync + b" NOOP\r\n"])])


def exchanges(random: Random) -> Iterator[Exchange]:
    """Yield the exchanges of one session."""
    maker = Maker(random)
    for _ in range(COMMANDS):
        yield maker.exchange()
