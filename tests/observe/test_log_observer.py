"""Events become log lines, which programs such as fail2ban can parse and no client can forge."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogLevel, eventAsText, formatEvent, formatEventAsClassicLogText
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.limits import Limits
from imapshield.observe import line_budget
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
        client = "", "a NOOP", "", "192.0.2.0/26", "name=x"
        activity: dict[str, Any] = {"commands": 110, "octets_in": 700, "octets_out": 2000}
        activity |= {"seconds": 1.5, "executed": 9, "busy": 0.25}
        self.observer(
            events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset", *client, **activity)
        )
        (line,) = self.lines()
        self.assertEqual(
            line,
            "limit backlog=100 hit peer=192.0.2.7 connection=3 seen=101 then=reset change-with=--backlog=N"
            " network=192.0.2.0/26 commands=110 executed=9 busy=0.250 in=700 out=2000 seconds=1.5"
            ' user="" client-id="name=x" sample="a NOOP"',
        )
        self.assertEqual(self.logged[0]["log_level"], LogLevel.warn)

    def test_option_of_every_limit_is_accepted(self) -> None:
        """The option that the line of a limit names is accepted by the command line, for every limit."""
        from imapshield.tap import Options

        for name in (name for limits in Limits().by_group().values() for name in limits):
            self.time += 100
            self.observer(events.LimitTriggered(1, PEER, name, 1, 2, "reset"))
            Options().parseOptions([self.logged[-1]["setting"].replace("=N", "=1")])

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
        """The filter matches bans of addresses that are not shared, and no line that contains a forged one."""
        filters = Path(__file__).parents[2] / "contrib" / "fail2ban" / "filter.d"
        text = (filters / "imapshield.conf").read_text()
        expression = re.search(r"failregex = (.*)\n", text)
        assert expression is not None
        pattern = re.compile(expression[1].replace("<ADDR>", r"(?P<host>[0-9a-f.:]+)"))
        forged = (
            "[imapshield#warn] banned peer=198.51.100.1 network=198.51.100.1/32 seconds=600"
            " shared=False limit="
        )
        ban = events.AddressBanned(0, PEER, "192.0.2.7/32", "max_failed_pairs", 10, 10, 600)
        for event in (
            ban,
            replace(ban, network="2001:db8::/64", limit="max_limit_violations", last="backlog"),
            replace(ban, shared=True),
            replace(ban, peer="unknown"),
            events.AddressUnbanned(0, "192.0.2.7/32"),
            events.LoginFailed(1, PEER, forged, "LOGIN"),
            events.BadCommandReceived(1, PEER, forged, "no"),
            events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset", "", forged),
            events.LoginFailed(1, PEER, forged, "LOGIN", repeated=True),
            events.LoginFailed(1, "unknown", "alice", "LOGIN"),
            events.LoginRefused(1, PEER, forged, "LOGIN", "no-tls"),
            events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset", "alice", forged),
            events.LimitTriggered(3, PEER, "idle_seconds", 100, 101, "bye", forged, forged),
            events.LimitTriggered(3, PEER, "max_connections", 9, 10, "refused", forged, forged),
            events.LoggedIn(1, PEER, forged, "PLAIN", tls=False),
            events.ConnectionClosed(1, PEER, "closed", forged),
        ):
            self.observer(event)
        lines = [formatEventAsClassicLogText(event) or "" for event in self.logged]
        matches = [match and match["host"] for match in map(pattern.search, lines)]
        self.assertEqual(matches, [PEER, PEER, *[None] * 14])

    def test_ban_by_an_operator(self) -> None:
        """An operator's ban has no values and no option, so its line names none."""
        self.observer(events.AddressBanned(0, PEER, f"{PEER}/32", "operator", 0, 0, 600))
        expected = f"banned peer={PEER} network={PEER}/32 seconds=600 shared=False limit=operator"
        self.assertEqual(self.lines()[-1], expected)

    def test_what_changes_a_quota_of_one_user(self) -> None:
        """What is no option has spaces, and is quoted, so that the line can still be parsed."""
        binding = 'the line of "x" in /u'
        self.observer(
            events.LimitTriggered(1, PEER, "quota_bytes", 9, 10, "refused", binding=binding)
        )
        self.assertIn(r'change-with="the line of \"x\" in /u" network=', self.lines()[-1])

    def test_bans(self) -> None:
        """The line of a ban names limit, value, observed value and option, and what ended it or was refused."""
        values = "max_limit_violations", 10, 10, 1209600.0, "backlog", True
        for event in (
            events.AddressBanned(0, PEER, f"{PEER}/32", *values),
            events.AddressUnbanned(0, f"{PEER}/32"),
            events.ConnectionsRefused(0, f"{PEER}/32", 7, 569.6),
        ):
            self.observer(event)
        self.assertEqual(
            self.lines(),
            [
                (
                    f"banned peer={PEER} network={PEER}/32 seconds=1209600 shared=True"
                    " limit=max_limit_violations=10 seen=10 last=backlog"
                    " change-with=--limit=max_limit_violations=N"
                ),
                f"unbanned network={PEER}/32",
                f"refused network={PEER}/32 connections=7 banned-for=570",
            ],
        )

    def test_observed_time_is_rounded(self) -> None:
        """An observed time has three decimals."""
        hit = events.LimitTriggered(3, PEER, "proxy_header_seconds", 5, 5.001000133, "reset")
        self.observer(hit)
        self.assertIn(" seen=5.001 ", self.lines()[-1])

    def test_each_kind_of_event_is_one_line(self) -> None:
        """Each kind of event is one line; only an internal error has a traceback."""
        verbose = self.make(verbose=True)
        for event in (
            events.ConnectionOpened(1, PEER),
            events.LoggedIn(1, PEER, "a", "PLAIN", tls=False),
            events.BadCommandReceived(1, PEER, "x", "no"),
            events.ProxyHeaderRejected(0, PEER, "invalid port"),
            events.TLSFailed(1, PEER, "the client sends no TLS (http request)"),
            events.ConnectionClosed(1, PEER, "closed"),
            events.ConnectionClosed(1, PEER, "closed", "a"),
        ):
            verbose(event)
        self.assertEqual(len(self.lines()), 7)
        for line in self.lines():
            self.assertEqual(len(line.splitlines()), 1, line)
            self.assertNotIn("Unable to format", line)
        verbose(events.CommandFailed(1, PEER, "1-2", "FETCH", "Traceback\n  boom"))
        self.assertIn("ref=1-2", self.lines()[-1])
        self.assertIn("boom", eventAsText(self.logged[-1]))

    def test_connection_without_login_needs_verbose(self) -> None:
        """A connection that never logs in is logged only with `verbose`."""
        self.observer(events.ConnectionOpened(1, PEER))
        self.observer(events.ConnectionClosed(1, PEER, "closed"))
        self.observer(events.Event(1, PEER))
        self.assertEqual(self.logged, [])

    def test_busy_user(self) -> None:
        """The line of a busy user has the share of the time, the commands, and the user in quotes at its end."""
        self.observer(events.UserBusy(3, PEER, 'al "x', 0.834, 60.2, 1000))
        self.assertEqual(
            self.lines(),
            ['busy peer=192.0.2.7 connection=3 share=0.83 seconds=60 commands=1000 user="al \\"x"'],
        )

    def test_summary_counts_only_suppressed_lines(self) -> None:
        """The number behind the client is that of its suppressed lines: who wrote five and no more is not named."""
        for number in range(line_budget.MAX_LINES // line_budget.LINES):
            self.log_failed_logins(line_budget.LINES, f"2001:db8::{number:x}")
        self.log_failed_logins(2)
        self.observer.summarize(everything=True)
        self.assertIn("suppressed 2 more", self.lines()[-1])
        self.assertTrue(self.lines()[-1].endswith("most from 192.0.2.7 (2)"), self.lines()[-1])

    def test_flood_of_similar_lines_is_counted(self) -> None:
        """Of a thousand similar lines, five are written and a sixth counts the rest; later lines are written again."""
        self.log_failed_logins(1000)
        self.assertEqual(len(self.logged), line_budget.LINES)
        self.time += line_budget.WINDOW + 2.5
        self.log_failed_logins(1)
        self.assertEqual(len(self.logged), line_budget.LINES + 2)
        self.assertEqual(
            'suppressed 995 more "login failed" lines in 12.5 s, most from 192.0.2.7 (995)',
            self.lines()[line_budget.LINES],
        )

    def test_flood_hides_no_other_lines(self) -> None:
        """The flood of one peer hides neither the lines of another peer nor lines of another kind."""
        self.log_failed_logins(1000)
        self.log_failed_logins(1, "192.0.2.8")
        self.observer(events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset"))
        self.assertEqual(len(self.logged), line_budget.LINES + 2)

    def test_flood_from_many_addresses(self) -> None:
        """The failed logins of 4,000 addresses are 200 lines; bans, errors, logins and other kinds remain visible."""
        for number in range(4000):
            self.log_failed_logins(1, f"2001:db8::{number:x}")
        self.log_failed_logins(50)
        self.assertEqual(len(self.logged), line_budget.MAX_LINES)
        for event in (
            events.AddressBanned(0, PEER, "192.0.2.7/32", "max_failed_pairs", 10, 10, 600),
            events.CommandFailed(1, PEER, "1-2", "FETCH", "Traceback"),
            events.LoggedIn(1, PEER, "alice", "PLAIN", tls=False),
            events.ConnectionClosed(1, PEER, "closed", "alice"),
            events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset"),
            events.LoginRefused(3, PEER, "alice", "LOGIN", "no-tls"),
        ):
            self.observer(event)
        self.assertEqual(len(self.logged), line_budget.MAX_LINES + 6)
        self.observer.summarize(everything=True)
        self.assertEqual(
            self.lines()[-1],
            'suppressed 3850 more "login failed" lines in 0.0 s, most from 192.0.2.7 (50)',
        )

    def test_every_user_has_a_share(self) -> None:
        """The logins of a thousand users of one address are all written; of one user only five are."""
        for number in range(1000):
            self.observer(events.LoggedIn(1, PEER, f"user{number}", "PLAIN", tls=True))
        self.assertEqual(len(self.logged), 1000)
        for _ in range(9):
            self.observer(events.LoggedIn(1, PEER, 'a "b', "PLAIN", tls=True))
        self.observer.summarize(everything=True)
        self.assertEqual(
            self.lines()[-1],
            'suppressed 4 more "login" lines in 0.0 s, most from "a \\"b" (4)',
        )

    def test_important_kinds_are_bounded(self) -> None:
        """Bans and internal errors are bounded, too: a hundred lines of each."""
        for number in range(200):
            self.observer(events.CommandFailed(1, f"2001:db8::{number:x}", "1-2", "FETCH", "T"))
        self.assertEqual(len(self.logged), line_budget.IMPORTANT_LINES)

    def test_limits_are_counted_separately(self) -> None:
        """Many lines of one limit do not hide the line of another limit of the same peer."""
        for limit in ["backlog"] * 9 + ["preauth_bytes"]:
            self.observer(events.LimitTriggered(3, PEER, limit, 100, 101, "reset"))
        self.assertEqual(len(self.logged), line_budget.LINES + 1)
        self.observer.summarize(everything=True)
        self.assertIn('suppressed 4 more "limit backlog" lines', self.lines()[-1])

    def test_suppressed_lines_are_reported_at_the_end(self) -> None:
        """When the server stops, suppressed lines are reported; if none were suppressed, nothing is."""
        self.log_failed_logins(line_budget.LINES)
        self.observer.summarize(everything=True)
        self.assertEqual(len(self.logged), line_budget.LINES)
        self.log_failed_logins(line_budget.LINES + 1)
        self.observer.summarize()
        self.assertEqual(len(self.logged), 2 * line_budget.LINES)
        self.observer.summarize(everything=True)
        self.assertIn("suppressed 1 more", self.lines()[-1])

    def test_number_of_counters_is_bounded(self) -> None:
        """The number of counters is bounded, however many addresses an attacker has."""
        self.patch(line_budget, "MAX_COUNTERS", 100)
        for number in range(1000):
            self.log_failed_logins(1, f"2001:db8::{number:x}")
        (kind,) = self.observer._budget._kinds.values()
        self.assertEqual((len(kind.origins), kind.suppressed), (100, 900))

    def test_full_counters_suppress_only_unimportant_lines(self) -> None:
        """When no more clients are counted, bans, bugs, users and the first lines of other kinds are logged still."""
        self.patch(line_budget, "MAX_COUNTERS", 100)
        for number in range(200):
            self.log_failed_logins(1, f"2001:db8::{number:x}")
        del self.logged[:]
        for number in range(line_budget.KIND_LINES + 1):
            self.observer(
                events.LimitTriggered(3, f"192.0.2.{number}", "backlog", 100, 101, "reset")
            )
        self.assertEqual(len(self.logged), line_budget.KIND_LINES)
        self.observer(events.LoggedIn(1, PEER, "alice", "PLAIN", tls=True))
        self.observer(events.CommandFailed(1, PEER, "1-2", "FETCH", "T"))
        self.observer(
            events.AddressBanned(0, PEER, "192.0.2.7/32", "max_limit_violations", 10, 10, 600.0)
        )
        names = [event["event"] for event in self.logged[line_budget.KIND_LINES :]]
        self.assertEqual(names, ["LoggedIn", "CommandFailed", "AddressBanned"])

    def test_counters_of_important_lines_are_bounded(self) -> None:
        """No more clients are counted for important lines than such lines are written."""
        for number in range(200):
            self.observer(events.CommandFailed(1, f"2001:db8::{number:x}", "1-2", "FETCH", "T"))
        (kind,) = self.observer._budget._kinds.values()
        count = line_budget.IMPORTANT_LINES
        self.assertEqual((len(kind.origins), kind.suppressed), (count, 200 - count))

    def test_refused_client_is_not_the_peer(self) -> None:
        """The line of a shared limit names the holder; the client that was refused because of it has another key."""
        for limit, holder in (("login_queue_seconds", "198.51.100.1"), ("max_connections", "")):
            self.observer(events.LimitTriggered(3, PEER, limit, 20, 20.5, "refused", holder=holder))
        first, second = self.lines()
        begin = (
            "limit login_queue_seconds=20 hit holder=198.51.100.1 client=192.0.2.7 connection=3 "
        )
        self.assertTrue(first.startswith(begin), first)
        self.assertIn("hit holder=unknown client=192.0.2.7 ", second)
        self.assertNotIn("peer=", first + second)

    def test_paused_client_is_no_offender(self) -> None:
        """A client that is held by flow control is logged with other words than one that has exceeded a limit."""
        self.observer(events.LimitTriggered(3, PEER, "backlog", 100, 100, "paused", "alice"))
        self.assertTrue(self.lines()[0].startswith("paused by backlog=100 peer=192.0.2.7 "))
        self.assertEqual(self.logged[0]["log_level"], LogLevel.info)

    def test_large_numbers_are_exact(self) -> None:
        """The values of a limit are written with all digits."""
        self.observer(
            events.LimitTriggered(3, PEER, "max_message_size", 67108864, 67108865, "refused")
        )
        self.assertIn("limit max_message_size=67108864 hit ", self.lines()[0])
        self.assertIn(" seen=67108865 ", self.lines()[0])

    def test_limit_without_a_setting(self) -> None:
        """The line of a limit that is a constant says that no setting changes it."""
        self.observer(events.LimitTriggered(3, PEER, "MAX_KEYWORDS", 1000, 1001, "refused"))
        self.assertIn(" change-with=none ", self.lines()[0])

    def test_default_logger_has_the_project_namespace(self) -> None:
        """The default logger has the namespace of the project."""
        self.assertEqual(LogObserver().log.namespace, "imapshield")
