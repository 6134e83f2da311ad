"""Events become log lines, which programs such as fail2ban can parse and no client can forge."""

import re
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogLevel, eventAsText, formatEvent, formatEventAsClassicLogText
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.limits import Limits
from imapshield.observe import log_observer
from imapshield.observe.log_observer import LogObserver

PEER = "192.0.2.7"


class LogObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.time = 0.0
        self.observer = self.make()

    def make(self, *, verbose: bool = False) -> LogObserver:
        collect: Any = self.logged.append
        log = Logger(namespace="imapshield", observer=collect)
        return LogObserver(log, lambda: self.time, verbose=verbose)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.logged]

    def peer(self, line: str) -> str:
        """Return the peer that fail2ban reads from the line of a failed login."""
        match = re.match(r"login failed peer=(\S+) ", line)
        assert match is not None, line
        return match[1]

    def log_failed_logins(self, count: int, peer: str = PEER) -> None:
        for _ in range(count):
            self.observer(events.LoginFailed(1, peer, "alice", "LOGIN"))

    def test_limit_line_names_the_limit_the_peer_and_the_option(self) -> None:
        """The line of a limit has its name, its value, the observed value, the peer, the action and the option."""
        self.observer(events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset", "", "a NOOP"))
        (line,) = self.lines()
        self.assertEqual(
            line,
            'limit backlog=100 hit peer=192.0.2.7 connection=3 seen=101 then=reset change-with=--backlog=N user="" sample="a NOOP"',
        )
        self.assertEqual(self.logged[0]["log_level"], LogLevel.warn)

    def test_option_of_every_limit_is_accepted(self) -> None:
        """The option that the line of a limit names is accepted by the command line, for every limit."""
        from imapshield.tap import Options

        for name in (name for limits in Limits().by_group().values() for name in limits):
            self.time += 100
            self.observer(events.LimitTriggered(1, PEER, name, 1, 2, "reset"))
            Options().parseOptions([self.logged[-1]["option"].replace("=N", "=1")])

    def test_logged_event_carries_its_fields(self) -> None:
        """Each logged event carries the fields of the event and the name of its class."""
        self.observer(events.LoggedIn(5, PEER, "alice", "PLAIN", tls=True))
        event = self.logged[0]
        self.assertEqual(
            (event["event"], event["user"], event["tls"], event["peer"], event["connection"]),
            ("LoggedIn", "alice", True, PEER, 5),
        )

    def test_failed_login_has_the_form_that_fail2ban_reads(self) -> None:
        """A failed login is logged at once, in the form that fail2ban reads."""
        self.log_failed_logins(1)
        self.assertEqual(self.peer(self.lines()[0]), PEER)

    def test_user_name_cannot_forge_a_line(self) -> None:
        """A user name cannot forge another peer, another line or a format string."""
        for user in (
            "x peer=198.51.100.1",
            'x" peer=198.51.100.1 "',
            "a\nlogin failed peer=198.51.100.1",
            "{peer}",
            "\u2028",
            "%s",
        ):
            self.time += 100
            self.observer(events.LoginFailed(1, PEER, user, "LOGIN"))
            line = self.lines()[-1]
            self.assertEqual(self.peer(line), PEER)
            self.assertEqual(len(line.splitlines()), 1)
            self.assertTrue(line.isascii())

    def test_fail2ban(self) -> None:
        """The expression in docs/running.rst matches failed logins, and no line that contains a forged one."""
        page = (Path(__file__).parents[2] / "docs" / "running.rst").read_text()
        expression = page.partition("failregex = ")[2].partition("\n")[0]
        pattern = re.compile(expression.replace("<HOST>", r"(?P<host>\S+)"))
        forged = f"[imapshield#warn] {'login failed peer=198.51.100.1 connection='}"
        for event in (
            events.LoginFailed(1, PEER, forged, "LOGIN"),
            events.BadCommandReceived(1, PEER, forged, "no"),
            events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset", forged, forged),
            events.LoggedIn(1, PEER, forged, "PLAIN", tls=False),
            events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4, forged),
        ):
            self.observer(event)
        lines = [formatEventAsClassicLogText(event) or "" for event in self.logged]
        hosts = [match and match["host"] for match in map(pattern.search, lines)]
        self.assertEqual(hosts, [PEER, None, None, None, None])

    def test_each_kind_of_event_is_one_line(self) -> None:
        """Each kind of event is one line; only an internal error has a traceback."""
        verbose = self.make(verbose=True)
        for event in (
            events.ConnectionOpened(1, PEER),
            events.LoggedIn(1, PEER, "a", "PLAIN", tls=False),
            events.BadCommandReceived(1, PEER, "x", "no"),
            events.ProxyHeaderRejected(0, PEER, "invalid port"),
            events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4),
            events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4, "a"),
        ):
            verbose(event)
        self.assertEqual(len(self.lines()), 6)
        for line in self.lines():
            self.assertEqual(len(line.splitlines()), 1, line)
            self.assertNotIn("Unable to format", line)
        verbose(events.CommandFailed(1, PEER, "1-2", "FETCH", "Traceback\n  boom"))
        self.assertIn("ref=1-2", self.lines()[-1])
        self.assertIn("boom", eventAsText(self.logged[-1]))

    def test_connection_without_login_needs_verbose(self) -> None:
        """A connection that never logs in is logged only with `verbose`."""
        self.observer(events.ConnectionOpened(1, PEER))
        self.observer(events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4))
        self.observer(events.Event(1, PEER))
        self.assertEqual(self.logged, [])

    def test_flood_of_similar_lines_is_counted(self) -> None:
        """Of a thousand similar lines, five are written and a sixth counts the rest; later lines are written again."""
        self.log_failed_logins(1000)
        self.assertEqual(len(self.logged), log_observer.LINES)
        self.time += log_observer.WINDOW + 2.5
        self.log_failed_logins(1)
        self.assertEqual(len(self.logged), log_observer.LINES + 2)
        self.assertEqual(
            'suppressed 995 more "login failed" lines peer=192.0.2.7 in 12.5 s',
            self.lines()[log_observer.LINES],
        )

    def test_flood_hides_no_other_lines(self) -> None:
        """The flood of one peer hides neither the lines of another peer nor lines of another kind."""
        self.log_failed_logins(1000)
        self.log_failed_logins(1, "192.0.2.8")
        self.observer(events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset"))
        self.assertEqual(len(self.logged), log_observer.LINES + 2)

    def test_limits_are_counted_separately(self) -> None:
        """Many lines of one limit do not hide the line of another limit of the same peer."""
        for limit in ["backlog"] * 9 + ["preauth_bytes"]:
            self.observer(events.LimitTriggered(3, PEER, limit, 100, 101, "reset"))
        self.assertEqual(len(self.logged), log_observer.LINES + 1)
        self.observer.summarize(everything=True)
        self.assertIn('suppressed 4 more "limit backlog" lines peer=192.0.2.7', self.lines()[-1])

    def test_suppressed_lines_are_reported_at_the_end(self) -> None:
        """When the server stops, suppressed lines are reported; if none were suppressed, nothing is."""
        self.log_failed_logins(log_observer.LINES)
        self.observer.summarize(everything=True)
        self.assertEqual(len(self.logged), log_observer.LINES)
        self.log_failed_logins(log_observer.LINES + 1)
        self.observer.summarize()
        self.assertEqual(len(self.logged), 2 * log_observer.LINES)
        self.observer.summarize(everything=True)
        self.assertIn("suppressed 1 more", self.lines()[-1])

    def test_number_of_counters_is_bounded(self) -> None:
        """The number of counters is bounded, however many addresses an attacker has."""
        self.patch(log_observer, "MAX_COUNTERS", 100)
        for number in range(1000):
            self.log_failed_logins(1, f"2001:db8::{number:x}")
        self.assertLessEqual(len(self.observer._counters), 101)

    def test_default_logger_has_the_project_namespace(self) -> None:
        """The default logger has the namespace of the project."""
        self.assertEqual(LogObserver().log.namespace, "imapshield")
