"""Workers that have more connections than others leave new ones to these."""

import os
import select
import socket
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield.workers.accepting import (
    HUNG_SECONDS,
    LOOK_SECONDS,
    MORE_ACCEPTED,
    Accepting,
    ConnectionCounts,
)
from tests.workers.cluster import ClusterTestCase


class FakePort:
    connected = True
    reactor = None

    def __init__(self) -> None:
        self.factory: Any = SimpleNamespace()
        self.is_reading, self.looks = True, 0

    def stopReading(self) -> None:
        self.is_reading = False

    def startReading(self) -> None:
        self.is_reading = True

    def doRead(self) -> None:
        self.looks += 1


class AcceptingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        descriptor = ConnectionCounts.make(3)
        self.addCleanup(os.close, descriptor)
        # Two processes, each with its own view of the same memory.
        self.counts, self.others = (ConnectionCounts(descriptor, 3) for _ in range(2))


class CountsTests(AcceptingTestCase):
    def test_who_is_ahead(self) -> None:
        """A worker is ahead with more than one connection, and more than a tenth, above the one with fewest."""
        for connections, ahead in (
            ((1, 0, 1), []),
            ((2, 0, 20), [1, 3]),
            ((1102, 1000, 1101), [1]),
        ):
            for worker, number in enumerate(connections, 1):
                self.others.set(worker, number)
            self.assertEqual([each for each in (1, 2, 3) if self.counts.is_ahead(each)], ahead)

    def test_workers_that_do_not_serve(self) -> None:
        """A worker leaves no connections to one that starts or has ended."""
        self.others.set(1, 100)
        self.assertFalse(self.counts.is_ahead(1))
        self.others.set(2, 0)
        self.assertTrue(self.counts.is_ahead(1))
        self.others.set(2)
        self.assertFalse(self.counts.is_ahead(1))

    def test_who_has_accepted_more(self) -> None:
        """Those connections count that were accepted in the same second, beside workers that wait for others."""
        for worker in (1, 2, 3):
            self.others.set(worker, 0)
            self.others.set_leaves(worker, False)
        self.others.set_accepted(1, 7, MORE_ACCEPTED + 16)
        self.others.set_accepted(2, 7, 10)
        self.others.set_accepted(3, 6, 1000)
        self.assertTrue(self.counts.has_accepted_more(1, 7))
        self.others.set_accepted(3, 7, 12)
        self.assertFalse(self.counts.has_accepted_more(2, 7))
        self.others.set_leaves(3, True)
        self.assertTrue(self.counts.has_accepted_more(1, 7))
        self.others.set_accepted(2, 7, 11)
        self.assertFalse(self.counts.has_accepted_more(1, 7))
        self.assertFalse(self.counts.has_accepted_more(1, 8))
        self.others.set(2)
        self.assertFalse(self.counts.has_accepted_more(1, 7))

    def test_other_systems(self) -> None:
        """Where no memory has a descriptor, a file without a name is shared."""
        with mock.patch.object(os, "memfd_create"):
            del os.memfd_create
            descriptor = ConnectionCounts.make(2)
        self.addCleanup(os.close, descriptor)
        one, two = (ConnectionCounts(descriptor, 2) for _ in range(2))
        one.set(1, 2)
        self.assertFalse(two.is_ahead(1))
        one.set(2, 0)
        self.assertTrue(two.is_ahead(1))


class AcceptingTests(AcceptingTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock, self.port, self.connections = Clock(), FakePort(), list[object]()
        self.accepting = Accepting(self.clock, self.counts, 1)
        self.accepting.add(self.port)
        self.accepting.connections = self.connections
        self.others.set(2, 0)

    def become_ahead(self) -> None:
        self.connections += [object(), object()]
        self.accepting.update()

    def test_worker_that_is_ahead(self) -> None:
        """It does not wait for connections, but looks now and then, until others have as many."""
        self.become_ahead()
        self.assertFalse(self.port.is_reading)
        self.clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual((self.port.is_reading, self.port.looks), (False, 3))
        self.others.set(2, 1)
        self.clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual((self.port.is_reading, self.port.looks), (True, 4))

    def test_connections_that_are_reset(self) -> None:
        """Two workers share a flood of connections that do not begin: one of them accepts, and never none."""
        ports, workers = [self.port, FakePort()], [self.accepting]
        workers.append(Accepting(self.clock, self.others, 2))
        workers[1].add(ports[1])
        for each in workers:
            each.begin()
        numbers = [0, 0]
        for _ in range(10):
            for _ in range(100):
                # The first one in the list of the kernel that waits.
                first = [each.is_reading for each in ports].index(True)
                numbers[first] += 1
                ports[first].factory.on_accept()
            self.clock.advance(LOOK_SECONDS)
        self.assertGreater(min(numbers), 300)
        self.clock.advance(1)
        self.clock.advance(LOOK_SECONDS)
        self.assertTrue(ports[0].is_reading and ports[1].is_reading)

    def test_worker_that_hangs(self) -> None:
        """All look at times, because the kernel wakes one worker, which may hang; who is ahead waits for the others."""
        self.accepting.begin()
        self.clock.advance(HUNG_SECONDS)
        self.assertEqual(self.port.looks, 1)
        self.accepting.look()
        self.assertEqual(self.port.looks, 2)
        self.become_ahead()
        self.accepting.look()
        self.assertEqual(self.port.looks, 2)
        self.accepting.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_is_woken(self) -> None:
        """A connection wakes one of the processes that wait for it."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        pollers = [select.epoll() for _ in range(3)]
        for poller in pollers:
            self.addCleanup(poller.close)
            poller.register(listening.fileno(), select.EPOLLIN)
            port: Any = FakePort()
            port.reactor, port.fileno = SimpleNamespace(_poller=poller), listening.fileno
            Accepting(self.clock, self.counts, 1).add(port)
        with socket.create_connection(listening.getsockname()):
            listening.accept()[0].close()
            self.assertEqual([poller.poll(0) for poller in pollers], [[]] * 3)
        with self.assertRaises(OSError):  # the kernel does not change an exclusive entry
            pollers[0].modify(listening.fileno(), select.EPOLLIN)
        with mock.patch.object(select, "epoll"):  # another system wakes all
            del select.epoll
            Accepting(self.clock, self.counts, 1).add(port)

    def test_port_that_is_closed(self) -> None:
        """A port that is closed when the server stops is not looked at again."""
        self.become_ahead()
        self.port.connected = False
        self.clock.advance(LOOK_SECONDS)
        self.connections.clear()
        self.accepting.update()
        self.assertEqual((self.port.is_reading, self.port.looks), (False, 0))
        self.accepting.stop()

    def test_worker_that_stops(self) -> None:
        """The others leave no connections to a worker whose ports are closed while it waits for its last clients."""
        self.others.set(2, 100)
        self.accepting.update()
        self.assertTrue(self.others.is_ahead(2))
        self.port.connected = False
        self.accepting.update()
        self.assertFalse(self.others.is_ahead(2))


class BalanceTests(ClusterTestCase):
    def test_connections_are_balanced(self) -> None:
        """A worker counts its connections, and knows at once that it has more than the other one."""
        port: Any = FakePort()
        self.worker(1).accepting.add(port)
        servers = [self.connect(1) for _ in range(2)]
        self.assertFalse(port.is_reading)
        servers[0].transport.abortConnection()
        self.assertTrue(port.is_reading)

    def test_worker_that_ends(self) -> None:
        """A worker that is ahead of one that ends is ahead no more, and again when the next one serves."""
        for _ in range(2):
            self.connect(1)
        accepting = self.worker(1).accepting
        self.assertTrue(accepting.is_ahead)
        self.kill(2)
        self.reactor.advance(LOOK_SECONDS)
        self.assertFalse(accepting.is_ahead)
        self.pump(1.1)
        self.connect(1)
        self.assertTrue(accepting.is_ahead)
