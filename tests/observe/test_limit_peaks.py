"""The values of honest clients are kept, in little memory, and values for the limits follow from them."""

import json

from twisted.trial.unittest import SynchronousTestCase

from imapshield.limits import REPORTABLE, Limits
from imapshield.observe import limit_peaks
from imapshield.observe.limit_advice import Advice, advise, as_option
from imapshield.observe.limit_peaks import LimitPeaks

DAY = 86400.0


class PeaksCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.peaks = LimitPeaks(lambda name: f"<{len(name)}{name[-1:]}>", 1000.0)
        self.peaks.logins = 1000

    def advice(self, name: str, seconds: float = DAY, **limits: object) -> Advice:
        settings = Limits(**limits)  # type: ignore[arg-type]
        found = {each.limit: each for each in advise(settings, self.peaks, seconds)}
        return found[name]


class LimitPeaksTests(PeaksCase):
    def test_highest_values_are_kept(self) -> None:
        """Of many clients those with the highest values are kept, and the highest value of all."""
        for number in range(1000):
            self.peaks.note("backlog", number, f"user{number * 7}", "192.0.2.7", 5.0)
        backlog = self.peaks.limits["backlog"]
        self.assertEqual((backlog.value, backlog.measured), (999, 1000))
        self.assertLessEqual(len(backlog.clients), limit_peaks.MAX_CLIENTS)
        self.assertEqual(backlog.largest()[0].value, 999)

    def test_strangers_are_counted_apart(self) -> None:
        """What strangers reach changes no value, and their addresses take bounded memory."""
        for number in range(1000):
            self.peaks.reach_as_stranger("backlog", f"198.51.100.{number % 250}")
        backlog = self.peaks.limits["backlog"]
        self.assertEqual((backlog.value, backlog.reached, backlog.strangers), (0, 0, 1000))
        self.assertLessEqual(len(backlog.addresses), limit_peaks.MAX_STRANGERS)

    def test_restart(self) -> None:
        """A later run goes on with the values; names come back when their clients do."""
        self.peaks.reach("backlog", 412, "alice", "192.0.2.7", 5.0)
        text = self.peaks.dump(600.0)
        self.assertNotIn("alice", text)
        self.assertNotIn("192.0.2.7", text)
        later = LimitPeaks(lambda name: f"<{len(name)}{name[-1:]}>", 2000.0)
        later.load(text)
        backlog = later.limits["backlog"]
        self.assertEqual((backlog.value, backlog.reached, later.begun), (412, 1, 1000.0))
        self.assertEqual((later.seconds, later.logins), (600.0, 1000))
        self.assertEqual([client.name for client in backlog.largest()], [""])
        later.reach("backlog", 101, "alice", "192.0.2.9", 9.0)
        (client,) = backlog.largest()
        self.assertEqual((client.name, client.value, client.reached), ("alice", 412, 2))

    def test_damaged_text(self) -> None:
        """A text of another kind changes nothing."""
        for text in ("", "{", "[]", "{}", json.dumps({"begun": 0, "seconds": 1, "logins": 2})):
            self.peaks.load(text)
        text = json.dumps({"begun": 0, "seconds": 1, "logins": 2, "limits": {"backlog": [1]}})
        self.peaks.load(text)
        self.assertEqual((self.peaks.limits, self.peaks.logins), ({}, 1000))

    def test_merged_clients_are_bounded(self) -> None:
        """The clients of two runs take no more room than those of one."""
        for number in range(limit_peaks.MAX_CLIENTS):
            self.peaks.note("backlog", number, "u" * number, "", 5.0)
        text = self.peaks.dump(1.0)
        later = LimitPeaks(lambda name: name, 0.0)
        later.note("backlog", 5000, "x", "", 6.0)
        later.load(text.replace("<", "("))
        clients = later.limits["backlog"].clients
        self.assertEqual((len(clients), "x" in clients), (limit_peaks.MAX_CLIENTS, True))


class AdviceTests(PeaksCase):
    def test_reached_limit_gets_the_maximum_and_a_quarter(self) -> None:
        """A limit that an honest client has reached is raised, whatever the time of observation."""
        self.peaks.reach("backlog", 412, "alice", "", 5.0)
        for seconds in (1.0, DAY):
            advice = self.advice("backlog", seconds)
            self.assertEqual((advice.suggested, advice.option), (520, "--backlog=520"))
        self.peaks.reach("preauth_bytes", 70_000, "alice", "", 5.0)
        self.assertEqual(self.advice("preauth_bytes").option, "--limit=preauth_bytes=86K")

    def test_value_without_a_report(self) -> None:
        """A value above the limit raises it, too: of two limits at once only one is reported."""
        self.peaks.note("preauth_commands", 151, "alice", "", 5.0)
        self.assertEqual(self.advice("preauth_commands", 1.0).suggested, 190)

    def test_limit_that_is_nearly_reached(self) -> None:
        """Above four fifths a count is raised after a day; a time is not, because clients wait as long as they may."""
        self.peaks.note("backlog", 95, "alice", "", 5.0)
        self.assertEqual(self.advice("backlog").suggested, 120)
        self.assertEqual(self.advice("backlog", 3600.0).option, "")
        self.peaks.note("idle_seconds", 1795, "alice", "", 5.0)
        self.assertEqual(self.advice("idle_seconds").option, "")
        self.peaks.reach("idle_seconds", 1800, "alice", "", 5.0)
        self.assertEqual(self.advice("idle_seconds").suggested, 2300)

    def test_limit_that_is_higher_than_anybody_needs(self) -> None:
        """It is lowered after a day, but not below its default, and never when nothing was measured."""
        self.peaks.note("backlog", 7, "alice", "", 5.0)
        self.assertEqual(self.advice("backlog", backlog=5000).suggested, 100)
        self.assertEqual(self.advice("backlog", 60.0, backlog=5000).option, "")
        self.assertEqual(self.advice("backlog", backlog=50).option, "")
        self.assertEqual(self.advice("literal_seconds", literal_seconds=600).option, "")
        self.peaks.logins = 3
        self.assertEqual(self.advice("backlog", backlog=5000).option, "")

    def test_which_limits_are_listed(self) -> None:
        """All that can be report-only are listed, and others that an honest client has reached."""
        self.assertEqual({each.limit for each in advise(Limits(), self.peaks, 0)}, REPORTABLE)
        self.peaks.reach("max_message_size", 65 << 20, "alice", "", 5.0)
        self.assertEqual(self.advice("max_message_size").option, "--limit=max_message_size=82M")

    def test_enforced_limits_are_named(self) -> None:
        """`report_only` leaves limits that end in BYE or NO enforced; their names leave them out."""
        for name, enforced in (("backlog", False), ("preauth_seconds", True)):
            self.assertEqual(self.advice(name, report_only=True).enforced, enforced)
            self.assertTrue(self.advice(name).enforced)
            named = self.advice(name, report_only_limits=frozenset({name}))
            self.assertFalse(named.enforced)

    def test_options_can_be_typed(self) -> None:
        """Sizes have the units that the options accept."""
        for name, value, text in (
            *(("preauth_bytes", 65536, "64K"), ("preauth_bytes", 1000, "1000")),
            *(("max_memory_bytes", 3 << 30, "3G"), ("idle_seconds", 2300.0, "2300")),
        ):
            self.assertEqual(as_option(name, value), text)
