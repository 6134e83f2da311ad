"""Workers that have more connections than others leave new ones to these."""

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.edge.event_reporter import publish
from imapshield.workers.accepting import LOOK_SECONDS, Accepting, ahead
from tests.workers.cluster import ClusterTestCase


class FakePort:
    connected = True

    def __init__(self) -> None:
        self.is_reading, self.looks = True, 0

    def stopReading(self) -> None:
        self.is_reading = False

    def startReading(self) -> None:
        self.is_reading = True

    def doRead(self) -> None:
        self.looks += 1


class AcceptingTests(SynchronousTestCase):
    def test_who_is_ahead(self) -> None:
        """A worker is ahead with more than eight connections, and more than a tenth, above the one with fewest."""
        self.assertEqual(ahead({1: 8, 2: 0}), set())
        self.assertEqual(ahead({1: 9, 2: 0, 3: 20}), {1, 3})
        self.assertEqual(ahead({1: 1109, 2: 1000}), {1})
        self.assertEqual(ahead({1: 1108, 2: 1000}), set())
        self.assertEqual(ahead({}), set())

    def test_worker_that_is_ahead(self) -> None:
        """It does not wait for connections, but looks now and then, until it is no longer ahead."""
        clock, port = Clock(), FakePort()
        accepting = Accepting(clock)
        accepting.add(port)
        for _ in range(2):
            accepting.set_ahead(is_ahead=True)
        clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual((port.is_reading, port.looks), (False, 3))
        accepting.set_ahead(is_ahead=False)
        clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual((port.is_reading, port.looks), (True, 3))

    def test_port_that_is_closed(self) -> None:
        """A port that is closed when the server stops is not looked at again."""
        clock, port = Clock(), FakePort()
        accepting = Accepting(clock)
        accepting.add(port)
        accepting.set_ahead(is_ahead=True)
        port.connected = False
        clock.advance(LOOK_SECONDS)
        accepting.set_ahead(is_ahead=False)
        self.assertEqual((port.is_reading, port.looks), (False, 0))
        accepting.stop()


class BalanceTests(ClusterTestCase):
    def test_connections_are_balanced(self) -> None:
        """The supervising process counts the connections of each worker, and tells the one that is ahead."""
        port: Any = FakePort()
        self.worker(1).accepting.add(port)
        observers = self.worker(1).parts.factory.observers
        for number in range(9):
            publish(events.ConnectionOpened(2 * number + 1, "192.0.2.1"), observers)
        self.pump(0.2)
        self.assertFalse(port.is_reading)
        publish(events.ConnectionClosed(1, "192.0.2.1", "logged out"), observers)
        self.pump(0.2)
        self.assertTrue(port.is_reading)

    def test_worker_that_ends(self) -> None:
        """A worker that is ahead of one that ends is no longer ahead; a beat corrects what was counted."""
        self.supervisor.workers[0].connections = 100
        self.supervisor.balance()
        self.assertTrue(self.supervisor.workers[0].is_ahead)
        self.kill(2)
        self.assertFalse(self.supervisor.workers[0].is_ahead)
        self.pump(1.1)
        self.assertEqual(self.supervisor.workers[0].connections, 0)
