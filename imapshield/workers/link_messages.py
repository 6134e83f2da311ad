"""What the supervising process and its workers send to each other, as values and as bytes. Pure.

Messages that are sent together are one pickle, with a row of plain values for each message and event: to pickle each
object by itself takes longer than what it is about. Settings and bans are in few messages, and pickled as they are.
Both sides are the same program, but a worker reads what strangers send. So `decode` makes no object but those of
`_ROWS` and `_CLASSES`.

Times are those of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import io
import pickle
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any

from imapshield import events
from imapshield.config import Settings
from imapshield.guard.bans import SavedBan
from imapshield.limits import Limits

LINK = 3
"""The file descriptor of the socket to the supervising process, in a worker."""

COUNTS = 4
"""The file descriptor of the `ConnectionCounts`, in a worker."""

MAX_MESSAGE = 256 << 20
"""Bytes of messages that are sent together. The largest is `Start`, with all bans, known users and failed logins: 20 MB
if the tables are full."""

MARK = b"IMsh"
"""What messages that were sent together begin with, so that other bytes are not taken for the length of large ones."""

HEADER = struct.Struct("!4sI")
"""What is before messages that were sent together: `MARK`, and their length in bytes."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker: what it is.

    Attributes:
        number: the number of the worker, from 1 to `count`.
        count: how many workers there are.
        member: its name among the processes that share a guard, which no other process has or had.
        settings: those of the worker.
        counted: what all processes have counted.
        first_connection: the number of its first connection; each further one has a number that is `count` higher.
        failures_key: the key of the hashes in failed logins and known users, which all processes have in common.
        decoys_key: that of the salts of unknown users; None if it will be another after a restart.
        time: when the message was made, from which the bans remain.
        bans: all bans.
        known: hashes of each known user and of the user's addresses.
        node_commands: commands about nodes and users who are held, with their arguments, that others have carried out.
        inherited: the address family of each listening socket, in the order of ``settings.listen``.
        certificates: those in use, and
        authorities: those of ``ca=``, for files that cannot be used now (`EarlierFiles`).
    """

    number: int
    count: int
    member: str
    settings: Settings
    counted: "Counted"
    first_connection: int
    failures_key: bytes
    decoys_key: bytes | None
    time: float
    bans: Sequence[SavedBan]
    known: Sequence[tuple[bytes, bytes]]
    node_commands: Sequence[tuple[str, Mapping[str, Any]]]
    inherited: Sequence[int]
    certificates: Mapping[str, Sequence[tuple[str, bytes, list[bytes]]]]
    authorities: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker serves clients."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker answers, which it says at least once per second.

    Attributes:
        connections: how many connections it has.
        memory_of_users: the bytes that it holds for connections with a login.
        largest_user: the user for whom it holds most, and how much that is.
        delays: how late its reactor was since the last beat, as `observe.reactor_delay.ReactorDelay` counts it.
        total_delay: the sum of these delays.
        highest_delay: the largest of them.
    """

    connections: int
    memory_of_users: int
    largest_user: tuple[str, int]
    delays: Sequence[int]
    total_delay: float
    highest_delay: float


@dataclass(frozen=True, slots=True)
class Happened:
    """Events of a worker, in their order. Further ones are added until the message is sent."""

    events: list[events.Event]


@dataclass(frozen=True, slots=True)
class Worked:
    """What the connections of a worker have done: rows of (connection, address, network, user) and their work."""

    rows: Sequence[tuple[tuple[str, str, str, str], tuple[float, float, float, float]]]


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the log of a worker: the fields of an event of `twisted.logger` that are plain values."""

    level: str
    namespace: str
    text: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the guard of a process has counted: the name of the process, and a `GuardReport` as bytes."""

    member: str
    report: bytes


@dataclass(frozen=True, slots=True)
class Counted:
    """What all processes have counted, also those of other servers.

    Attributes:
        time: when the message was made.
        rates: how much was taken of rates: the values of `RateTaken`.
        tables: failed logins and violations, as `ProcessGuard.counted` returns them.
    """

    time: float
    rates: Sequence[tuple[str, bytes, float]]
    tables: Mapping[str, Sequence[tuple[Hashable, bytes]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BannedElsewhere:
    """The operator of another server has banned a network, so that its connections without a login must end."""

    network: str


@dataclass(frozen=True, slots=True)
class Forget:
    """A process with this name has ended."""

    member: str


@dataclass(frozen=True, slots=True)
class TellAll:
    """A new process must learn all counts."""


@dataclass(frozen=True, slots=True)
class NewKeys:
    """The state file could be loaded after the start: other keys, and the known users, as in `Start`."""

    failures_key: bytes
    decoys_key: bytes | None
    known: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to a worker: a command of the control socket, or one that only workers have."""

    request: int
    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for the answer of a request any more."""

    request: int


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an answer that goes on."""

    request: int
    item: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of an answer. `error` is a text for the operator; "" if there is none."""

    request: int
    result: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """Use other settings, and read files again. The answer has the problems."""

    request: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Stop:
    """End all connections, and then the process."""


Message = (
    Start | Ready | Beat | Happened | Worked | Logged | Shared | Counted | BannedElsewhere | Forget | TellAll
    | NewKeys | Ask | Cancel | Item | Answer | Reload | Stop
)  # fmt: skip

_ROWS: Sequence[type[Any]] = (
    *(Start, Ready, Beat, Happened, Worked, Logged, Shared, Counted, BannedElsewhere),
    *(Forget, TellAll, NewKeys, Ask, Cancel, Item, Answer, Reload, Stop),
    *(each for each in vars(events).values() if isinstance(each, type) and is_dataclass(each)),
)
"""What is sent as a row: the number of its class here, and the values of its fields."""

_NUMBERS = {each: number for number, each in enumerate(_ROWS)}
_FIELDS = [[each.name for each in fields(row)] for row in _ROWS]
_CLASSES: Mapping[tuple[str, str], type] = {
    (each.__module__, each.__qualname__): each
    for each in (Settings, Limits, SavedBan, Counted, frozenset)
}


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values of the fields with these names."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple([getattr(value, name) for name in names])


def _maker(row: type[Any], names: Sequence[str]) -> Callable[..., Any]:
    """Return a function that makes a row of the values of the fields with these names."""
    if any(each.kw_only for each in fields(row)):
        return lambda *values: row(**dict(zip(names, values, strict=True)))
    return row


_VALUES = {row: _getter(names) for row, names in zip(_ROWS, _FIELDS, strict=True)}
_MAKERS = [_maker(row, names) for row, names in zip(_ROWS, _FIELDS, strict=True)]


class BadMessage(Exception):
    """Bytes are no message of this program."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) in _CLASSES:
            return _CLASSES[module, name]
        raise BadMessage(f"{module}.{name} is not part of a message")


def encode(*messages: Message) -> bytes:
    """Return messages that are sent together, with a `HEADER` before them."""
    data = pickle.dumps(list(map(_row, messages)), pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(MARK, len(data)) + data


def _row(value: Any) -> tuple[Any, ...]:
    kind = type(value)
    if kind is Happened:
        rows = [(_NUMBERS[type(each)], *_VALUES[type(each)](each)) for each in value.events]
        return _NUMBERS[kind], rows
    return (_NUMBERS[kind], *_VALUES[kind](value))


def _value(row: Sequence[Any]) -> Any:
    number, *values = row
    if _ROWS[number] is Happened:
        return Happened([_MAKERS[n](*each) for n, *each in values[0]])
    return _MAKERS[number](*values)


def length_of(header: bytes | bytearray) -> int:
    """Return the length of messages, from what is before them.

    Raises:
        BadMessage: the bytes are not what is before messages.
    """
    mark, length = HEADER.unpack_from(header)
    if mark != MARK:
        raise BadMessage("no message begins here")
    if length > MAX_MESSAGE:
        raise BadMessage(f"messages of {length} bytes")
    return int(length)


def decode(data: bytes | bytearray) -> list[Message]:
    """Return the messages in `data`, which has no `HEADER` before it.

    Raises:
        BadMessage: there are none.
    """
    try:
        return list(map(_value, _Unpickler(io.BytesIO(data)).load()))
    except BadMessage:
        raise
    except Exception as error:  # pickle may raise anything
        raise BadMessage(str(error)) from None


class MessageBuffer:
    """Divides a stream of bytes into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that are complete with these bytes.

        Raises:
            BadMessage: the bytes are no messages.
        """
        buffer = self._data
        buffer += data
        while len(buffer) >= HEADER.size:
            end = HEADER.size + length_of(buffer)
            if len(buffer) < end:
                return
            together = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            yield from decode(together)
