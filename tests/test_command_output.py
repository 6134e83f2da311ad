"""How the commands print durations, numbers and networks, and say that they are busy."""

import sys
import threading
from io import StringIO
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.command_output import age, counted, note_if_slow, plain


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


class SlowTests(SynchronousTestCase):
    def test_note_is_printed_only_by_a_slow_block(self) -> None:
        """After two seconds a line on standard error says what the command waits for; a fast one prints nothing."""
        timers: list[Any] = []

        def make_timer(*arguments: Any) -> Any:
            timers.append(mock.Mock(arguments=arguments))
            return timers[-1]

        self.patch(threading, "Timer", make_timer)
        with note_if_slow("waiting for the server"):
            (timer,) = timers
            seconds, function, arguments, options = timer.arguments
            self.assertEqual(seconds, 2)
            timer.start.assert_called_once_with()
            timer.cancel.assert_not_called()
        timer.cancel.assert_called_once_with()
        output = StringIO()
        function(*arguments, **(options | {"file": output}))
        self.assertEqual(
            (output.getvalue(), options["file"]),
            ("imapshield: waiting for the server\n", sys.stderr),
        )
