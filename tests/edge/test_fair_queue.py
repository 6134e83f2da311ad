"""Whose turn it is: users one after another, and the sockets in between."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.fair_queue import FairQueue


class UsersOneAfterAnother(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], object]] = []
        self.turns = FairQueue(lambda _, call: self.due.append(call), lambda: self.now, 0.005)
        self.done: list[str] = []

    def turn(self) -> None:
        """One of the reactor's."""
        due, self.due = self.due, []
        for call in due:
            call()

    def work(self, name: str, seconds: float = 0.0) -> None:
        def do() -> None:
            self.done.append(name)
            self.now += seconds

        self.turns.add(name[0], do)

    def test_users_alternate(self) -> None:
        """A user with a hundred things to do has one of them done, and then it is the next one's turn."""
        for i in range(100):
            self.work(f"a{i}")
        self.work("b0")
        self.work("c0")
        self.work("b1")
        self.turn()
        self.assertEqual(self.done[:6], ["a0", "b0", "c0", "a1", "b1", "a2"])
        self.assertEqual(len(self.done), 103)

    def test_sockets_in_between(self) -> None:
        """After its time the rest waits for the reactor, which sees to its sockets first; who came meanwhile is next."""
        for i in range(100):
            self.work(f"a{i}", 0.004)
        self.turn()
        self.assertEqual(self.done, ["a0", "a1"])
        self.work("b0")
        self.turn()
        self.assertEqual(self.done, ["a0", "a1", "a2", "b0", "a3"])

    def test_later(self) -> None:
        """What is handed over by work that is being done is for a later turn."""
        self.turns.add("a", lambda: self.work("a0"))
        self.turn()
        self.assertEqual(self.done, [])
        self.turn()
        self.turn()
        self.assertEqual(self.due, [])
        self.assertEqual(self.done, ["a0"])

    def test_failure(self) -> None:
        """Work that raises takes nobody's turn with it."""
        self.turns.add("a", lambda: 1 // 0)
        self.work("b0")
        self.assertRaises(ZeroDivisionError, self.turn)
        self.turn()
        self.assertEqual(self.done, ["b0"])
