"""How the commands print durations, numbers and networks."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.command_output import age, counted, plain


class CommandOutputTests(SynchronousTestCase):
    def test_durations_are_exact_to_their_second_unit(self) -> None:
        """A duration has two units, and is rounded to the smaller one."""
        for seconds, text in (
            *((0, "0s"), (119.4, "119s"), (120, "2m"), (150, "2m30s"), (3599, "59m59s")),
            *((3600, "1h"), (5398, "1h30m"), (86399, "1d"), (86400, "1d"), (93600, "1d2h")),
        ):
            self.assertEqual(age(seconds), text)

    def test_numbers_and_networks(self) -> None:
        """One is singular, and a single host has no prefix."""
        self.assertEqual((counted(1, "login"), counted(2, "login")), ("1 login", "2 logins"))
        for network, text in (
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1/128", "2001:db8::1"),
        ):
            self.assertEqual(plain(network), text)
