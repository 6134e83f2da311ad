"""Messages between processes, and how settings are divided."""

import os
import pickle
import socket
import struct
from dataclasses import fields
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield import events
from imapshield.config import load_settings
from imapshield.guard.bans import SavedBan
from imapshield.limits import Limits
from imapshield.workers.division import DIVIDED, divided_limits, worker_settings
from imapshield.workers.link import (
    FAILED,
    FINISH_SECONDS,
    MAX_UNSENT,
    WAIT_SECONDS,
    Link,
    LinkFactory,
)
from imapshield.workers.link_messages import (
    HEADER,
    MARK,
    MAX_MESSAGE,
    Answer,
    BadMessage,
    Counted,
    Happened,
    Logged,
    Message,
    MessageBuffer,
    Shared,
    Start,
    Stop,
    decode,
    encode,
)
from tests.workers.cluster import MemoryTransport


class MessagesTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """Messages arrive as they are, however the bytes are divided."""
        ban = SavedBan("192.0.2.7", "backlog", 5.0, 600.0, 1, False)
        settings = load_settings({"workers": "3"})
        counted = Counted(7.0, [("scram", b"k", 1.5)], {"free": [((4, 32, 1), b"records")]})
        messages: list[Message] = [
            Start(
                *(1, 2, "worker 1 1", settings, counted, 1, b"k", None, 7.5),
                *([ban], [(b"u", b"a")], [], [2]),
                *({"files": [("--listen x", b"key", [b"chain"])]}, {"/ca.pem": b"pem"}),
            ),
            counted,
            Happened([events.LoggedIn(7, "192.0.2.1", "alice", "PLAIN", True)]),
            Shared("worker 1 1", b"{}"),
            Stop(),
        ]
        data, buffer = b"".join([encode(each) for each in messages]), MessageBuffer()
        found = [each for n in range(len(data)) for each in buffer.add(data[n : n + 1])]
        self.assertEqual(found, messages)

    def test_other_classes(self) -> None:
        """A message makes no object but those of messages, whatever a worker sends."""
        for value in (os.system, os, SynchronousTestCase):
            with self.assertRaises(BadMessage):
                decode(pickle.dumps(value) if value is not os else b"cos\nsystem\n.")
        for rows in ([(999,)], [(0, "too few values")], [(-1, "too", "many")], 7):
            with self.assertRaises(BadMessage):
                decode(pickle.dumps(rows))
        with self.assertRaises(BadMessage):
            decode(b"nonsense")

    def test_too_long(self) -> None:
        """A length above MAX_MESSAGE is an error, before anything is kept."""
        with self.assertRaises(BadMessage):
            list(MessageBuffer().add(HEADER.pack(MARK, MAX_MESSAGE + 1)))

    def test_garbage(self) -> None:
        """Bytes in the middle of a message are an error at once, and not the length of one that is waited for."""
        with self.assertRaises(BadMessage):
            list(MessageBuffer().add(struct.pack("!II", 100_000_000, 1)))

    def test_link_leaves_out(self) -> None:
        """What is not urgent waits for other messages, and is left out and counted while the other side does not read."""
        clock = Clock()
        link, transport = Link(clock), MemoryTransport()
        link.send(Stop())
        link.transport = transport
        link.connectionMade()
        link.send_soon(Stop())
        link.send_soon(Stop())
        self.assertEqual(transport.written, [])
        clock.advance(WAIT_SECONDS)
        self.assertEqual(transport.written, [encode(Stop(), Stop())])
        transport.dataBuffer = bytes(MAX_UNSENT + 1)
        link.send_soon(Stop())
        link.send(Stop())
        self.assertEqual((len(transport.written), link.left_out), (2, 1))
        transport.dataBuffer = b""
        with capturedLogs() as lines:
            link.send_soon(Happened([]))
        ((level, number),) = [(line["log_level"], line["number"]) for line in lines]
        self.assertEqual((level, number, link.left_out), (LogLevel.warn, 1, 0))
        link.send(Stop())
        self.assertEqual(transport.written[-1], encode(Happened([]), Stop()))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_events_together(self) -> None:
        """Events that happen one after the other are one message, and messages keep their order."""
        clock = Clock()
        link, transport = Link(clock), MemoryTransport()
        link.transport = transport
        link.connectionMade()
        one, two, three = (events.ConnectionOpened(n, "192.0.2.1") for n in (1, 2, 3))
        link.happened(one)
        link.happened(two)
        link.send_soon(Shared("worker 1 1", b""))
        link.happened(three)
        clock.advance(WAIT_SECONDS)
        together = Happened([one, two]), Shared("worker 1 1", b""), Happened([three])
        self.assertEqual(transport.written, [encode(*together)])
        link.happened(one)
        link.send(Stop())
        link.happened(two)
        clock.advance(WAIT_SECONDS)
        then = [encode(Happened([one]), Stop()), encode(Happened([two]))]
        self.assertEqual(transport.written[1:], then)
        transport.dataBuffer = bytes(MAX_UNSENT + 1)
        link.happened(one)
        self.assertEqual((len(transport.written), link.left_out), (3, 1))

    def test_internal_error_at_once(self) -> None:
        """An internal error is sent at once, as a line with an error is: the process may end."""
        link, transport = Link(Clock()), MemoryTransport()
        link.transport = transport
        link.connectionMade()
        failed = events.CommandFailed(1, "192.0.2.1", "0abc", "FETCH", "Traceback")
        link.happened(failed)
        self.assertEqual(transport.written, [encode(Happened([failed]))])

    def test_large_messages(self) -> None:
        """A large message, which takes a while also if the other side reads, is no sign that it does not."""
        link, transport = Link(Clock()), MemoryTransport()
        link.transport = transport
        link.connectionMade()
        link.send(Shared("worker 1 1", bytes(2 * MAX_UNSENT)))
        for unsent, is_full in ((3 * MAX_UNSENT, False), (3 * MAX_UNSENT + 1000, True)):
            transport.dataBuffer = bytes(unsent)
            self.assertEqual(link.is_full, is_full)
        for unsent in (2 * MAX_UNSENT, 0):
            transport.dataBuffer = bytes(unsent)
            link.send(Stop())
            transport.dataBuffer = bytes(MAX_UNSENT + 1)
            self.assertEqual(link.is_full, unsent == 0)

    def test_several_large_messages(self) -> None:
        """Large messages that wait together count as one: a side that reads none of them is full."""
        link, transport = Link(Clock()), MemoryTransport()
        link.transport = transport
        link.connectionMade()
        for size in (2 * MAX_UNSENT, MAX_UNSENT):
            transport.dataBuffer = bytes(MAX_UNSENT)
            link.send(Shared("worker 1 1", bytes(size)))
        transport.dataBuffer = bytes(4 * MAX_UNSENT)
        self.assertTrue(link.is_full)

    def test_message_that_cannot_be_sent(self) -> None:
        """Only that one is not sent, and is in the log. Who waits for its answer gets an error."""
        link, transport = Link(Clock()), MemoryTransport()
        link.transport = transport
        link.connectionMade()
        link.send_soon(Happened([]))
        link.send_soon(Logged("info", "x", "a line", {"field": lambda: None}))
        link.send(Answer(7, {"function": lambda: None}))
        bad: Any = lambda: None  # noqa: E731
        good = events.PageLoggedIn(0, "192.0.2.1", "ops")
        for event in (good, events.PageLoggedIn(0, "192.0.2.1", bad), good):
            link.happened(event)
        link.send(Stop())
        received = [each for data in transport.written for each in MessageBuffer().add(data)]
        self.assertEqual(
            received, [Happened([]), Answer(7, error=FAILED), *[Happened([good])] * 2, Stop()]
        )
        self.assertEqual(len(self.flushLoggedErrors()), 3)

    def test_message_that_cannot_be_used(self) -> None:
        """An error in one message is in the log; the next one is read."""
        link, found = Link(Clock()), list[Message]()
        link.transport = MemoryTransport()
        link.connectionMade()

        def on_message(message: Message) -> None:
            found.append(message)
            if message != Stop():
                raise ValueError("no such level")

        link.on_message = on_message
        link.dataReceived(encode(Happened([])) + encode(Stop()))
        self.assertEqual(found, [Happened([]), Stop()])
        self.assertFalse(link.transport.is_closed)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_link_ends(self) -> None:
        """What is no message ends the link; nothing is sent after its end."""
        link, transport, ended = Link(Clock()), MemoryTransport(), list[bool]()
        link.transport = transport
        link.connectionMade()
        link.on_end = lambda: ended.append(True)
        link.dataReceived(HEADER.pack(MARK, 3) + b"bad")
        self.assertTrue(transport.is_closed)
        link.send_soon(Stop())
        link.connectionLost()
        link.send(Stop())
        link.send_soon(Stop())
        link.close()
        self.assertEqual((ended, transport.written), ([True], []))

    def test_finish(self) -> None:
        """A worker that ends sends what waits, and does not wait for long if nobody reads it."""
        for reads in (True, False):
            clock = Clock()
            link, transport = Link(clock), MemoryTransport()
            self.successResultOf(link.finish())
            link.transport = transport
            link.connectionMade()
            link.send_soon(Stop())
            finished = link.finish()
            self.assertEqual((transport.written, transport.is_closed), ([encode(Stop())], True))
            self.assertNoResult(finished)
            if reads:
                link.connectionLost()
            else:
                clock.advance(FINISH_SECONDS)
            self.successResultOf(finished)
            link.connectionLost()

    def test_division(self) -> None:
        """All workers together hold as much as is configured; all other limits are those of each worker."""
        limits, part = Limits(), divided_limits(Limits(), 3)
        for field in fields(Limits):
            whole, own = getattr(limits, field.name), getattr(part, field.name)
            if field.name in DIVIDED:
                self.assertEqual(own, -(-whole // 3), field.name)
            else:
                self.assertEqual(own, whole, field.name)

    def test_division_by_many(self) -> None:
        """Nothing becomes 0, and no worker has a single place for logins that one client could hold."""
        for count in (2, 8, 9, 64, 100_000):
            part = divided_limits(Limits(), count)
            self.assertTrue(all(getattr(part, name) >= 1 for name in DIVIDED))
            self.assertGreaterEqual(min(part.max_login_checks, part.max_backend_exchanges), 2)
        few = divided_limits(Limits(max_login_checks=1, max_backend_exchanges=1), 4)
        self.assertEqual((few.max_login_checks, few.max_backend_exchanges), (1, 1))

    def test_worker_settings(self) -> None:
        """A worker has no ports for operators, and keeps no state."""
        given = {"admin": "tcp:1:interface=127.0.0.1", "metrics": "tcp:2", "ban-command": "/x"}
        settings = worker_settings(load_settings({**given, "workers": "2"}))
        self.assertEqual((settings.control, settings.state), ("none", "none"))
        self.assertEqual((settings.admin, settings.metrics, settings.ban_command), (None,) * 3)


class LastMessagesTests(TestCase):
    """The last messages of a worker, over real sockets."""

    async def test_the_last_messages_are_read(self) -> None:
        """A worker ends when the other side has read all that it has sent; the rest would be lost with the process."""
        reactor: Any = global_reactor
        reader, writer, read = Link(reactor), Link(reactor), list[Message]()
        reader.on_message = read.append
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for each, link in ((ours, reader), (theirs, writer)):
                each.setblocking(False)
                reactor.adoptStreamConnection(each.fileno(), socket.AF_UNIX, LinkFactory(link))
        last = Shared("worker 1 1", bytes(300_000))
        writer.send_soon(last)
        await writer.finish()
        self.assertEqual(read, [last])
