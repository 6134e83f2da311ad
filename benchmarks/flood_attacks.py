"""What the attackers of a flood do: a table of attacks, each a generator of steps on one connection.

A generator knows no sockets. It yields steps, and `benchmarks.flood_attackers` carries them out; `Receive` and
`Answers` return the data that has arrived last. When a generator ends, or the server ends its connection, the
attacker connects again.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass

TAG = b"a"
NOOP = TAG + b" NOOP\r\n"
FRAME = NOOP * 187
"""1,496 bytes: what the attackers of Exchange (KB Q230285) packed into one TCP segment."""
WINDOW = 90
"""Commands of one pipeline that stays below the 100 pending commands of KB Q230285."""
HOSTILE, THREADS = "hostile", "threads"
"""The mailboxes of `benchmarks.flood_mail`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send all of `data`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for data."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Wait for `count` more tagged responses."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """Wait until the attack begins: what is before is preparation, such as LOGIN."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection: with a RST, or with a FIN."""

    reset: bool


Step = Send | Receive | Answers | Sleep | Ready | Close
Behaviour = Generator[Step, bytes, None]


@dataclass(slots=True)
class Bot:
    """One attacking connection at a time.

    Attributes:
        number: from 0.
        user: its account, for attacks that log in.
        password: the password of the account.
        visits: how many connections it has made before.
        random: its source of random numbers.
    """

    number: int
    user: str
    password: str
    visits: int
    random: random.Random


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the table.

    Attributes:
        name: for the command line.
        title: for the table.
        behave: the steps of one connection; None for attackers that only keep their processor busy.
        reads: whether everything is read as it arrives. Otherwise only `Receive` and `Answers` read.
        needs: a capability without which the attack is impossible.
        logs_in: whether the attackers have accounts.
        hashes: whether the server stores the passwords as argon2id hashes. Dovecot and pymap compute a hash at
            each login of a victim, too, which would hide everything else in the other rows.
        sends_per_second: the limit of `Send` steps of all attackers together.
        connects_per_second: the limit of connections of all attackers together.
    """

    name: str
    title: str
    behave: Callable[[Bot], Behaviour] | None
    reads: bool = True
    needs: str = ""
    logs_in: bool = False
    hashes: bool = False
    sends_per_second: float = 6000
    connects_per_second: float = 1000


def _noops(_: Bot) -> Behaviour:
    yield Receive()
    while True:
        yield Send(FRAME)


def _reconnect(bot: Bot) -> Behaviour:
    """Four visits: connect only; a command without waiting; the greeting; the greeting and an answer."""
    kind = (bot.number + bot.visits) % 4
    if kind >= 2:
        yield Receive()
    if kind % 2:
        yield Send(TAG + b" CAPABILITY\r\n")
    if kind == 3:
        yield Answers()
    yield Close(reset=kind < 2)


def _tiny_segments(_: Bot) -> Behaviour:
    yield Receive()
    while True:
        for value in NOOP:
            yield Send(bytes((value,)))


def _windows(_: Bot) -> Behaviour:
    yield Receive()
    while True:
        yield Send(NOOP * WINDOW)
        yield Answers(WINDOW)


def _partial_commands(bot: Bot) -> Behaviour:
    """Half a line, or half a literal, nearly as long as servers permit before login; then nothing more."""
    yield Receive()
    if bot.number % 2:
        yield Send(TAG + b" LOGIN {4000}\r\n")
        yield Receive()
        yield Send(b"x" * 3990)
    else:
        yield Send(TAG + b" LOGIN " + b"x" * 8000)
    yield from _hold()


def _drip(bot: Bot) -> Behaviour:
    """A command of which one byte arrives every second; not all connections at the same moment."""
    yield Receive()
    yield Sleep(bot.random.random())
    for value in TAG + b" LOGIN " + b"x" * 4000:
        yield Send(bytes((value,)))
        yield Sleep(1)


def _hold() -> Behaviour:
    while True:
        yield Receive()


def _idle(_: Bot) -> Behaviour:
    yield from _hold()


def _tls() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(incoming, outgoing), incoming, outgoing


def _starttls() -> Behaviour:
    yield Receive()
    yield Send(TAG + b" STARTTLS\r\n")
    yield Answers()


def client_hello() -> bytes:
    """Return the first message of a TLS handshake."""
    connection, _, outgoing = _tls()
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def _half_handshake(_: Bot) -> Behaviour:
    yield from _starttls()
    hello = client_hello()
    yield Send(hello[: len(hello) // 2])
    yield from _hold()


def _handshakes(_: Bot) -> Behaviour:
    yield from _starttls()
    connection, incoming, outgoing = _tls()
    done = False
    while not done:
        try:
            connection.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        if data := outgoing.read():
            yield Send(data)
        if not done:
            incoming.write((yield Receive()))
    yield Close(reset=True)


def _passwords(bot: Bot) -> Behaviour:
    yield Receive()
    while True:
        user, password = bot.random.randrange(10**6), bot.random.randrange(10**6)
        yield Send(TAG + b" LOGIN user%d password%d\r\n" % (user, password))
        yield Answers()


def _login(bot: Bot, mailbox: str) -> Behaviour:
    """Log in and select a mailbox; after a refusal, wait a second and close."""
    yield Receive()
    for command in (f'LOGIN "{bot.user}" "{bot.password}"', f"SELECT {mailbox}"):
        yield Send(f"{TAG.decode()} {command}\r\n".encode())
        if (TAG + b" OK") not in (yield Answers()):
            yield Sleep(1)
            yield Close(reset=True)
    yield Ready()


def _unread(command: str, mailbox: str = "INBOX", count: int = 20) -> Callable[[Bot], Behaviour]:
    """Return a behaviour that sends a command for ever, and reads nothing after its login."""

    def behave(bot: Bot) -> Behaviour:
        yield from _login(bot, mailbox)
        while True:
            yield Send(f"{TAG.decode()} {command}\r\n".encode() * count)

    return behave


def _answered(commands: list[str], mailbox: str, count: int) -> Callable[[Bot], Behaviour]:
    """Return a behaviour that sends `count` of the commands in turn, reads all answers, and repeats."""
    text = "".join(f"{TAG.decode()} {commands[n % len(commands)]}\r\n" for n in range(count))

    def behave(bot: Bot) -> Behaviour:
        yield from _login(bot, mailbox)
        while True:
            yield Send(text.encode())
            yield Answers(count)

    return behave


_MIXED = [
    "NOOP",
    "STATUS INBOX (MESSAGES UNSEEN)",
    "UID SEARCH UNSEEN",
    "FETCH 1:10 (FLAGS ENVELOPE)",
    'LIST "" "%"',
]


def _logged_in(
    name: str,
    title: str,
    behave: Callable[[Bot], Behaviour],
    *,
    reads: bool = True,
    needs: str = "",
) -> Attack:
    return Attack(name, title, behave, reads=reads, needs=needs, logs_in=True)


_TABLE = (
    Attack("busy", "no attack (only a busy processor)", None),
    Attack("noop-unread", "NOOP frames, answers not read", _noops, reads=False),
    Attack("noop-read", "NOOP frames, answers read", _noops),
    Attack("reconnect", "reconnecting", _reconnect, connects_per_second=5000),
    Attack("tiny", "one byte per segment", _tiny_segments, sends_per_second=50_000),
    Attack("window", f"windows of {WINDOW} NOOPs", _windows),
    Attack("partial", "half a command, then silence", _partial_commands),
    Attack("drip", "one byte per second", _drip),
    Attack("idle", "silence from the start", _idle),
    Attack("tls-half", "half a TLS handshake", _half_handshake, needs="STARTTLS"),
    Attack("tls-full", "TLS handshakes", _handshakes, needs="STARTTLS"),
    Attack("password", "wrong passwords", _passwords, hashes=True),
    _logged_in("user-noop", "logged in: NOOP, not read", _unread("NOOP", count=187), reads=False),
    _logged_in("user-fetch", "logged in: FETCH, not read", _unread("FETCH 1:* BODY.PEEK[]"), reads=False),
    _logged_in("user-list", "logged in: LIST, not read", _unread('LIST "" "*"'), reads=False),
    _logged_in("user-search", "logged in: SEARCH, not read", _unread("UID SEARCH ALL"), reads=False),
    _logged_in("user-read", "logged in: commands, read", _answered(_MIXED, "INBOX", WINDOW)),
    _logged_in(
        "structure", "hostile mail: BODYSTRUCTURE",
        _answered(["FETCH 1:* (BODYSTRUCTURE ENVELOPE)"], HOSTILE, 1),
    ),
    _logged_in(
        "thread", "hostile mail: THREAD", _answered(["THREAD REFERENCES UTF-8 ALL"], THREADS, 1),
        needs="THREAD=REFERENCES",
    ),
    _logged_in(
        "text", "hostile mail: SEARCH TEXT", _answered(['SEARCH TEXT "unwritten"'], HOSTILE, 1)
    ),
)  # fmt: skip
ATTACKS = {attack.name: attack for attack in _TABLE}
