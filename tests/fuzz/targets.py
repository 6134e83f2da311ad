"""What is fuzzed. A target takes any bytes, and raises if imapshield does something wrong with them.

The targets need no fuzzer: `test_corpus` runs them on the corpus, and ``python -m tests.fuzz`` with atheris.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from imapshield import events
from imapshield.errors import BadCommand, CommandRefused
from imapshield.mailbox.message_items import MessageItems
from imapshield.testing import Client, Server
from imapshield.wire.commands.fetch import (
    Attribute,
    Binary,
    BodySection,
    FetchItem,
    Preview,
    Section,
)
from imapshield.wire.commands.search import EnvelopeKey, HeaderKey, TextKey
from imapshield.wire.framing import Framer, LiteralAnnounced, MemorySink, RawCommand
from imapshield.wire.grammar import PARSERS, parse
from imapshield.wire.proxy_header import MalformedHeader, ProxyHeader, ProxyHeaderReader
from tests.fuzz.responses import check_responses
from tests.message.grammar import parse_body, parse_envelope


class Wrong(Exception):
    """imapshield has done something wrong."""


def require(condition: object, text: object) -> None:
    """Raise `Wrong` unless `condition` is true."""
    if not condition:
        raise Wrong(text)


# Framing


def framed(data: bytes) -> Iterator[RawCommand]:
    """Yield the commands in `data`. Even literals are accepted and odd ones rejected."""
    framer = Framer()
    while b"\r\n" in data:
        line, _, data = data.partition(b"\r\n")
        event = framer.receive_line(line)
        if isinstance(event, LiteralAnnounced):
            if event.size % 2:
                rejected = framer.reject_literal(BadCommand("odd"), event.synchronizing)
                if rejected is not None:
                    yield rejected
                    continue
            else:
                framer.accept_literal(MemorySink())
            while framer.literal_bytes_due and data:
                rest = framer.receive_literal(data[:7])
                data = (rest or b"") + data[7:]
        else:
            yield event
    framer.discard()


def framing(data: bytes) -> None:
    """No input takes the framer out of step: a command after any complete one is found."""
    for command in framed(data):
        require(command.rejection is not None or command.tag is not None, command)
        require(command.rejection is None or command.parts == (), command)
    ends = data.endswith(b"\r\n") or not data
    commands = list(framed(data + b"\r\n" * 3 + b"z NOOP\r\n"))
    if ends and b"{" not in data:
        require(commands[-1] == (b"z", b"NOOP", (b"NOOP",), 8, None), commands[-1:])


# Grammar

NAMES = sorted(PARSERS)


def grammar(data: bytes) -> None:
    """Every command is parsed or refused with a text of ours, which quotes no input."""
    texts = [data]
    if data:
        texts.append(NAMES[data[0] % len(NAMES)] + b" " + data[1:])
    for text in texts:
        for command in framed(b"a " + text + b"\r\n"):
            if command.rejection is None:
                with suppress(BadCommand, CommandRefused):
                    parse(command.parts)


# MIME

ITEMS: tuple[FetchItem, ...] = (
    Preview(),
    *(
        BodySection(Section(path, text))
        for path in ((1,), (2, 1), (1, 1, 1))
        for text in (b"", b"MIME", b"HEADER")
    ),
    BodySection(Section((), b"TEXT")),
    BodySection(Section((), b"HEADER.FIELDS", (b"SUBJECT", b"CONTENT-TYPE"))),
    BodySection(Section((2,), b"HEADER.FIELDS.NOT", (b"SUBJECT",))),
)


def mime(data: bytes) -> None:
    """No message makes parsing fail, and what FETCH says about it follows the ABNF of RFC 9051."""
    message = MessageItems(data)
    parse_body(message.value(Attribute(b"BODY")), extended=False)
    parse_body(message.value(Attribute(b"BODYSTRUCTURE")), extended=True)
    parse_envelope(message.value(Attribute(b"ENVELOPE")))
    for item in ITEMS:
        message.value(item)
    for path in ((), (1,), (2,)):
        with suppress(CommandRefused):
            message.value(Binary(path))
    message.matches(TextKey("x", headers=True))
    message.matches(HeaderKey(b"SUBJECT", "x"))
    for field in (b"FROM", b"SUBJECT"):
        message.matches(EnvelopeKey(field, "x"))


# The whole edge

MODES = 8


def edge(data: bytes) -> None:
    """No input of a client causes an internal error, a malformed response, or a session out of step.

    The first byte of `data` selects whether the client logs in, selects a mailbox, and compresses. In the rest the
    byte 0xFF ends a read.
    """
    mode, reads = (data[0] % MODES if data else 0), data[1:].split(b"\xff")
    server = Server()
    client, transcript = connected(server, mode)
    deflate: Callable[[bytes], bytes] = bytes
    if mode & 4:
        answer = client(b"s COMPRESS DEFLATE")
        if answer.startswith(b"s OK"):
            stream = zlib.compressobj(wbits=-15)
            inflater = zlib.decompressobj(wbits=-15)

            def deflate(plain: bytes) -> bytes:
                return stream.compress(plain) + stream.flush(zlib.Z_SYNC_FLUSH)

    compressed = deflate is not bytes
    answers = b"".join(client.send(deflate(read)) for read in reads) + settle(client)
    restarted = not compressed and client.protocol.write_buffer.compress is not None
    if not restarted and not (compressed and b"UNAUTHENTICATE" in b"".join(reads).upper()):
        answers += resynchronize(client, deflate)
        transcript += inflater.decompress(answers) if compressed else answers
        check_responses(transcript)
        require(
            client.transport.disconnecting or b"zz OK NOOP" in transcript, ("no answer", transcript)
        )
    check_server(server, client, len(data))


def connected(server: Server, mode: int) -> tuple[Client, bytes]:
    """Return a client in the state of `mode`, and what the server has sent to it."""
    client = server.connect()
    transcript = client.greeting
    if mode & 1:
        transcript += client(b"s LOGIN alice secret")
    if mode & 2:
        transcript += client.append() + client(b"s SELECT INBOX")
    return client, transcript


def segments(data: bytes) -> None:
    """The answers do not depend on how TCP cuts the input, unless the connection is reset.

    STARTTLS and COMPRESS are left out: what follows them in the same segment is dropped, or is compressed.
    """
    mode, sent = (data[0] if data else 0), data[1:]
    if b"COMPRESS" in sent.upper() or b"STARTTLS" in sent.upper():
        return
    transcripts = set()
    for size in (len(sent) + 1, 1, 5):
        client, transcript = connected(Server(), mode)
        for begin in range(0, len(sent), size):
            transcript += client.send(sent[begin : begin + size])
        transcript += settle(client)
        if client.transport.aborted:
            return
        transcripts.add(transcript)
    require(len(transcripts) == 1, transcripts)


def settle(client: Client) -> bytes:
    """Let a second pass, in which input is processed that waits because it came in small segments."""
    answers = b""
    for _ in range(20):
        client.server.clock.advance(0.05)
        answers += client.read()
    return answers


def resynchronize(client: Client, deflate: Callable[[bytes], bytes]) -> bytes:
    """Complete what is incomplete, and send NOOP until it is answered."""
    answers = b""
    for _ in range(4):
        due = client.protocol.framer.literal_bytes_due
        if due > 1 << 20:  # the client is disconnected for sending nothing
            client.server.clock.advance(client.protocol.limits.idle_seconds)
            client.server.clock.advance(client.protocol.limits.closing_seconds)
            return answers + client.read()
        answers += client.send(deflate(b"x" * due + b"\r\nzz NOOP\r\n")) + settle(client)
    return answers


def check_server(server: Server, client: Client, sent: int) -> None:
    """Check that nothing failed, that memory is bounded, and that the connection leaves nothing behind."""
    require(not server.events_of(events.CommandFailed), server.events)
    protocol = client.protocol
    held = len(protocol._buffer) + protocol.framer.memory + protocol.guard.memory
    require(held <= 4096 + 1100 * (sent + 256), ("memory", held, sent))
    if not client.transport.disconnected:
        client.lose_connection()
    require(not protocol.framer.memory or not protocol.framer.inside, "memory after the end")


# PROXY headers


def proxy_header(data: bytes) -> None:
    """Any input is a header, malformed, or incomplete, and the same however it is cut into segments."""
    whole = ProxyHeaderReader()
    result = whole.feed(data)
    require(result is None or isinstance(result, ProxyHeader | MalformedHeader), result)
    pieces = ProxyHeaderReader()
    for n in range(len(data)):
        found = pieces.feed(data[n : n + 1])
        if found is not None:
            require(found == result or isinstance(found, MalformedHeader), (found, result))
            if isinstance(found, ProxyHeader):
                require(pieces.rest + data[n + 1 :] == whole.rest, "rest")
            return
    require(result is None or not data, (result, "in one segment only"))


def corpus(name: str) -> Path:
    """Return the folder of the inputs of a target."""
    return Path(__file__).with_name("corpus") / ("edge" if name == "segments" else name)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "framing": framing,
    "grammar": grammar,
    "mime": mime,
    "edge": edge,
    "segments": segments,
    "proxy_header": proxy_header,
}
