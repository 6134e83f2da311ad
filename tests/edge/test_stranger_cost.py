"""What a client takes that has not logged in, counted by Python in each state of `benchmarks.stranger_clients`."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.stranger_clients import STATES
from imapshield.guard.memory_budget import CONNECTION_BYTES, GRANULE
from imapshield.limits import Limits
from imapshield.testing.in_process import Client, Server

CONNECTIONS = 20


def cost_of_each(case: SynchronousTestCase, act: Callable[[Client], object]) -> float:
    """Return the bytes that Python allocates for one connection after `act`; `case` fails if one is reset.

    The least of three measurements counts: a thread that another test has left allocates at the same time.
    """
    return min(_measured(case, act) for _ in range(3))


def _measured(case: SynchronousTestCase, act: Callable[[Client], object]) -> float:
    server = Server()
    clients = [server.connect()]
    act(clients[0])  # what is allocated once, for all connections
    server.events.clear()
    gc.collect()
    tracemalloc.start()
    case.addCleanup(tracemalloc.stop)
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(CONNECTIONS):
        clients.append(server.connect())
        act(clients[-1])
    server.events.clear()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    case.assertFalse(any(client.transport.aborted for client in clients))
    return (after - before) / CONNECTIONS


class StrangerCostTests(SynchronousTestCase):
    def cost(self, act: Callable[[Client], object]) -> float:
        """Return the bytes that Python allocates for one connection after `act`, as `cost_of_each` does."""
        return cost_of_each(self, act)

    def test_each_state_is_within_its_limits(self) -> None:
        """In each state a connection takes at most its own objects and `preauth_held_bytes`."""
        limit = CONNECTION_BYTES + Limits().preauth_held_bytes + GRANULE
        for state in STATES:
            with self.subTest(state=state.name):
                cost = self.cost(lambda client, data=state.data: client.send(data))  # type: ignore[misc]
                self.assertLess(cost, state.limit or limit)

    def test_unread_commands_are_within_the_limits(self) -> None:
        """A hundred pending commands of a client that reads nothing are within the limits, tags and names included."""

        def act(client: Client) -> None:
            client.protocol.write_buffer.pauseProducing()
            for number in range(100):
                client.send(b"tag%d LIST%d %b\r\n" % (number, number, b"x" * 60))

        limit = CONNECTION_BYTES + Limits().preauth_held_bytes + GRANULE
        self.assertLess(self.cost(act), limit)

    def test_lines_behind_a_login_are_within_the_limits(self) -> None:
        """Lines that arrive while a login is checked are within the limits, and too many reset the connection."""

        def act(client: Client) -> None:
            client.protocol.guard._suspending = True  # type: ignore[assignment]
            client.protocol.pauseProducing()
            client.send(b"a NOOP\r\n" * 5000)

        limit = CONNECTION_BYTES + Limits().preauth_held_bytes + GRANULE
        self.assertLess(self.cost(act), limit)
        client = Server().connect()
        client.protocol.pauseProducing()
        client.send(b"a NOOP\r\n" * 6000)
        self.assertTrue(client.transport.aborted)

    def test_held_bytes_are_about_what_is_taken(self) -> None:
        """What is counted for pending commands and for literals is what Python takes, to a quarter."""

        def literals(client: Client) -> None:
            client.send(b"a ID (" + b"{20+}\r\n" + b"name%16d" % 1 + b" {0+}\r\n " * 60)

        empty = self.cost(lambda _: None)
        server = Server()
        client = server.connect()
        literals(client)
        counted = client.protocol.framer.memory
        self.assertLess(self.cost(literals) - empty, counted * 1.25)


class UserCostTests(SynchronousTestCase):
    def cost(self, *commands: bytes) -> float:
        """Return the bytes that Python allocates for the connection of a user that has sent `commands`."""

        def act(client: Client) -> None:
            for command in (b"LOGIN alice secret", b"SELECT INBOX", *commands):
                client(b"a " + command)

        return cost_of_each(self, act)

    def test_a_selected_mailbox_costs_a_kilobyte(self) -> None:
        """A login and a selected mailbox take less than a kilobyte more than a connection without a login."""
        greeted = cost_of_each(self, lambda _: None)
        self.assertLess(self.cost(b"NOOP", b"FETCH 1:* FLAGS") - greeted, 1 << 10)

    def test_waiting_commands_take_little_more_than_their_lines(self) -> None:
        """A user with a full backlog, who reads nothing, takes less than 120 bytes for each command and its line."""

        def act(client: Client) -> None:
            client(b"a LOGIN alice secret")
            client.protocol.write_buffer.pauseProducing()
            for number in range(99):
                client.send(b"a%d NOOP\r\n" % number)

        greeted = cost_of_each(self, lambda _: None)
        self.assertLess(cost_of_each(self, act) - greeted, 120 * 99)
