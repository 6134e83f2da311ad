"""Users who keep the server busy, below all limits, are found once for each minute."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.busy_users import BUSY_SHARE, WINDOW, BusyUser, BusyUsers


class BusyUsersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.users = BusyUsers(100)

    def test_sum_of_all_connections(self) -> None:
        """What the connections of a user take is one sum, which begins again in the next window."""
        share = BUSY_SHARE * WINDOW
        self.users.add("alice", share / 2, 3, "192.0.2.7", 1, 100)
        self.users.add("bob", share - 0.01, 9, "192.0.2.9", 2, 100)
        self.users.add("alice", share / 2, 4, "192.0.2.8", 3, 100)
        self.assertEqual(self.users.end_window(100 + WINDOW - 0.1), [])
        (busy,) = self.users.end_window(100 + WINDOW)
        self.assertEqual(busy, BusyUser("alice", BUSY_SHARE, WINDOW, 7, "192.0.2.8", 3))
        self.users.add("alice", 1, 4, "192.0.2.8", 3, 100)
        self.assertEqual(self.users.end_window(100 + 2 * WINDOW - 0.1), [])
        self.users.add("alice", share, 4, "192.0.2.8", 3, 100)
        (busy,) = self.users.end_window(100 + 2 * WINDOW)
        self.assertEqual((busy.seconds, busy.commands), (WINDOW, 8))

    def test_busiest_user_is_first(self) -> None:
        """Several busy users are named in the order of their shares of a window that lasted longer."""
        self.users.add("alice", 40, 1, "192.0.2.7", 1, 100)
        self.users.add("bob", 50, 1, "192.0.2.7", 1, 100)
        busy = self.users.end_window(200)
        self.assertEqual([(each.user, each.share) for each in busy], [("bob", 0.5), ("alice", 0.4)])

    def test_window_that_is_over_ends_when_somebody_is_active(self) -> None:
        """Without a call of `end_window`, a user who is active ends the window, and is counted in the next one."""
        for number in range(50):
            now = 100 + number * WINDOW
            busy = self.users.add(f"user{number}", WINDOW / 2, 1, "192.0.2.7", number, now)
            self.assertEqual([each.user for each in busy], [f"user{number - 1}"] * (number > 0))
            self.assertEqual(list(self.users._users), [f"user{number}"])
