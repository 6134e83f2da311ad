import re

from twisted.logger import Logger, LogLevel, eventAsText, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.limits import Limits
from imapshield.observe import log_observer
from imapshield.observe.log_observer import LogObserver

PEER = "192.0.2.7"


class LogFactsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = []
        self.time = 0.0
        self.tell = self.make()

    def make(self, **options):
        log = Logger(namespace="imapshield", observer=self.events.append)
        return LogObserver(log, lambda: self.time, **options)

    def lines(self):
        return [formatEvent(event) for event in self.events]

    def test_limit_hit(self) -> None:
        """The line of a limit names it, its value, what was seen, by whom, what followed and the option to change it."""
        self.tell(events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset", "", "a NOOP"))
        (line,) = self.lines()
        self.assertEqual(
            line,
            'limit backlog=100 hit peer=192.0.2.7 connection=3 seen=101 then=reset change-with=--backlog=N user="" sample="a NOOP"',
        )
        self.assertEqual(self.events[0]["log_level"], LogLevel.warn)

    def test_every_limit_has_its_option(self) -> None:
        """Whatever limit fires, the line tells an option that there is."""
        from imapshield.tap import Options

        for name in Limits().reasons():
            self.time += 100
            self.tell(events.LimitTriggered(1, PEER, name, 1, 2, "reset"))
            Options().parseOptions([self.events[-1]["option"].replace("=N", "=1")])

    def test_fields(self) -> None:
        """Each event carries the fact's fields, for observers that want no text."""
        self.tell(events.LoggedIn(5, PEER, "alice", "PLAIN", tls=True))
        event = self.events[0]
        self.assertEqual(
            (event["fact"], event["user"], event["tls"], event["peer"], event["connection"]),
            ("LoggedIn", "alice", True, PEER, 5),
        )

    def test_login_failed_at_the_event(self) -> None:
        """A wrong login is a line when it happens, in a form that fail2ban can read."""
        self.tell(events.LoginFailed(1, PEER, "alice", "LOGIN"))
        found = re.match(r"login failed peer=(\S+) ", self.lines()[0])
        self.assertEqual(found.group(1), PEER)

    def test_nobody_bans_another(self) -> None:
        """What a client types cannot look like another peer, another line or a format."""
        for user in (
            "x peer=198.51.100.1",
            'x" peer=198.51.100.1 "',
            "a\nlogin failed peer=198.51.100.1",
            "{peer}",
            "\u2028",
            "%s",
        ):
            self.time += 100
            self.tell(events.LoginFailed(1, PEER, user, "LOGIN"))
            line = self.lines()[-1]
            self.assertEqual(re.match(r"login failed peer=(\S+) ", line).group(1), PEER)
            self.assertEqual(len(line.splitlines()), 1)
            self.assertTrue(line.isascii())

    def test_every_kind(self) -> None:
        """Each kind of fact is one line, and a traceback belongs to our own failures alone."""
        verbose = self.make(verbose=True)
        for fact in (
            events.ConnectionOpened(1, PEER), events.LoggedIn(1, PEER, "a", "PLAIN", tls=False), events.BadCommandReceived(1, PEER, "x", "no"),
            events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4), events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4, "a"),
        ):  # fmt: skip
            verbose(fact)
        for line in self.lines():
            self.assertEqual(len(line.splitlines()), 1, line)
            self.assertNotIn("Unable to format", line)
        verbose(events.CommandFailed(1, PEER, "1-2", "FETCH", "Traceback\n  boom"))
        self.assertIn("ref=1-2", self.lines()[-1])
        self.assertIn("boom", eventAsText(self.events[-1]))

    def test_strangers_come_and_go_unseen(self) -> None:
        """A connection without a login is not logged, unless asked for."""
        self.tell(events.ConnectionOpened(1, PEER))
        self.tell(events.ConnectionClosed(1, PEER, "closed", 1.5, 2, 3, 4))
        self.tell(events.Event(1, PEER))
        self.assertEqual(self.events, [])

    def flood(self, tell, count, peer=PEER) -> None:
        for _ in range(count):
            tell(events.LoginFailed(1, peer, "alice", "LOGIN"))

    def test_floods_become_one_line(self) -> None:
        """Of a thousand like lines a few are written, then one that counts the rest; then lines come again."""
        self.flood(self.tell, 1000)
        self.assertEqual(len(self.events), log_observer.LINES)
        self.time += log_observer.WINDOW
        self.flood(self.tell, 1)
        self.assertEqual(len(self.events), log_observer.LINES + 2)
        self.assertIn(
            "left out 995 more lines of the kind LoginFailed peer=192.0.2.7",
            self.lines()[log_observer.LINES],
        )

    def test_others_are_not_silenced(self) -> None:
        """One peer's flood hides neither another peer's lines nor another kind of line."""
        self.flood(self.tell, 1000)
        self.flood(self.tell, 1, "192.0.2.8")
        self.tell(events.LimitTriggered(3, PEER, "backlog", 100, 101, "reset"))
        self.assertEqual(len(self.events), log_observer.LINES + 2)

    def test_the_last_flood_is_told(self) -> None:
        """When the server ends, what was left out is told; with nothing left out there is nothing to tell."""
        self.flood(self.tell, log_observer.LINES)
        self.tell.summarise(everything=True)
        self.assertEqual(len(self.events), log_observer.LINES)
        self.flood(self.tell, log_observer.LINES + 1)
        self.tell.summarise()
        self.assertEqual(len(self.events), 2 * log_observer.LINES)
        self.tell.summarise(everything=True)
        self.assertIn("left out 1 more", self.lines()[-1])

    def test_memory_is_bounded(self) -> None:
        """However many addresses an attacker has, no more than so many are counted."""
        self.patch(log_observer, "PEERS", 100)
        for number in range(1000):
            self.flood(self.tell, 1, f"2001:db8::{number:x}")
        self.assertLessEqual(len(self.tell._seen), 101)

    def test_default_logger(self) -> None:
        """Without a logger of one's own the namespace is the project's."""
        self.assertEqual(LogObserver()._log.namespace, "imapshield")
