"""The chart of talkers is bounded, and right about those who have most."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.observe.talker_history import LARGEST, POINT_SECONDS, POINTS, TalkerHistory

KIND = ("address", "commands")


class TalkerHistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.history, self.now = TalkerHistory(0.0), 0.0

    def seconds(self, number: int, batch: dict[str, float]) -> None:
        """Let the keys of a batch have these amounts in each of some seconds."""
        for _ in range(number):
            self.now += 1
            self.history.add({KIND: batch}, self.now)

    def test_those_with_most_are_found_in_a_flood(self) -> None:
        """Three hosts stand out from thousands of addresses, whose work is the rest of the total."""
        few = {"a": 30.0, "b": 20.0, "c": 10.0}
        self.seconds(int(POINT_SECONDS), few | {f"x{n}": 0.01 for n in range(4000)})
        chart = self.history.chart(*KIND, self.now)
        self.assertEqual([*chart["series"]], ["a", "b", "c"])
        self.assertEqual(list(chart["series"].values()), [[30], [20], [10]])
        self.assertAlmostEqual(chart["others"][0], 40)

    def test_number_of_points_and_keys_is_bounded(self) -> None:
        """Whatever addresses come, a chart has a fixed number of points and keys; who has most in all points is in it."""
        for point in range(2 * POINTS):
            self.seconds(int(POINT_SECONDS), {f"{point}-{n}": 1.0 for n in range(9)} | {"a": 2.0})
        chart = self.history.chart(*KIND, self.now)
        self.assertEqual(len(chart["others"]), POINTS)
        self.assertEqual((len(chart["series"]), chart["series"]["a"]), (LARGEST, [2.0] * POINTS))

    def test_quiet_time_is_in_the_chart(self) -> None:
        """A time without commands is a point, too, and a late second belongs to a longer point."""
        self.seconds(int(POINT_SECONDS), {"a": 4.0})
        self.seconds(int(POINT_SECONDS), {})
        self.seconds(int(POINT_SECONDS) - 1, {"a": 1.0})
        self.now += 30
        self.seconds(1, {"a": 31.0})
        chart = self.history.chart(*KIND, self.now + 3)
        self.assertEqual((chart["series"]["a"], chart["others"]), ([4, 0, 1], [0, 0, 0]))
        self.assertEqual((chart["age"], chart["step"]), (3, POINT_SECONDS))
