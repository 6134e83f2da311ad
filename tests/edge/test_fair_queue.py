"""The fair queue serves keys round-robin, and returns to the reactor between batches of work."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.fair_queue import FairQueue


class FairQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], object]] = []
        self.queue = FairQueue(lambda _, call: self.due.append(call), lambda: self.now, 0.005)
        self.done: list[str] = []

    def run_reactor_turn(self) -> None:
        """Run the calls that are due."""
        due, self.due = self.due, []
        for call in due:
            call()

    def add_work(self, name: str, seconds: float = 0.0) -> None:
        def work() -> None:
            self.done.append(name)
            self.now += seconds

        self.queue.add(name[0], work)

    def test_keys_are_served_round_robin(self) -> None:
        """Each round runs one item of every key, even if one key has a hundred items."""
        for i in range(100):
            self.add_work(f"a{i}")
        self.add_work("b0")
        self.add_work("c0")
        self.add_work("b1")
        self.run_reactor_turn()
        self.assertEqual(self.done[:6], ["a0", "b0", "c0", "a1", "b1", "a2"])
        self.assertEqual(len(self.done), 103)

    def test_queue_returns_to_the_reactor_after_max_seconds(self) -> None:
        """After `max_seconds` the reactor handles its sockets; work of a new key runs in the next round."""
        for i in range(100):
            self.add_work(f"a{i}", 0.004)
        self.run_reactor_turn()
        self.assertEqual(self.done, ["a0", "a1"])
        self.add_work("b0")
        self.run_reactor_turn()
        self.assertEqual(self.done, ["a0", "a1", "a2", "b0", "a3"])

    def test_work_added_by_work_waits_for_a_later_turn(self) -> None:
        """Work that is added by running work is left for a later reactor turn."""
        self.queue.add("a", lambda: self.add_work("a0"))
        self.run_reactor_turn()
        self.assertEqual(self.done, [])
        self.run_reactor_turn()
        self.run_reactor_turn()
        self.assertEqual(self.due, [])
        self.assertEqual(self.done, ["a0"])

    def test_failing_work_does_not_stop_other_work(self) -> None:
        """Work that raises does not keep other work from running."""
        self.queue.add("a", lambda: 1 // 0)
        self.add_work("b0")
        self.assertRaises(ZeroDivisionError, self.run_reactor_turn)
        self.run_reactor_turn()
        self.assertEqual(self.done, ["b0"])

    def test_long_work_makes_its_key_rest(self) -> None:
        """A key with long work rests as long as that took, if others are active; its work is then run in order."""
        delays: list[float] = []

        def call_later(seconds: float, call: Callable[[], object]) -> None:
            delays.append(seconds)
            self.due.append(call)

        self.queue.call_later = call_later
        self.add_work("b0")
        self.add_work("a0", 0.03)
        self.add_work("a1", 0.03)
        self.run_reactor_turn()
        self.assertEqual(self.done, ["b0", "a0"])
        self.assertAlmostEqual(delays[-1], 0.03)
        self.add_work("a2")
        self.add_work("b1")
        run = self.due.pop()
        run()
        self.assertEqual(self.done, ["b0", "a0", "b1"])
        self.run_reactor_turn()
        self.run_reactor_turn()
        self.assertEqual(self.done, ["b0", "a0", "b1", "a1"])

    def test_a_key_alone_does_not_rest(self) -> None:
        """Without work of other keys in the last second, a key with long work goes on."""
        for i in range(100):
            self.add_work(f"a{i}", 0.03)
        for _ in range(60):
            self.run_reactor_turn()
        self.assertEqual(len(self.done), 60)
