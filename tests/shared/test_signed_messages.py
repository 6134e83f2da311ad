"""Messages between servers are signed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.guard_report import GuardReport, MalformedReport, RateTaken
from imapshield.shared.rate_script import key_names, script_arguments, taken_by_all
from imapshield.shared.signed_messages import MAX_MESSAGE_BYTES, Message, Request, SignedMessages


class SignedMessagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.messages = SignedMessages(b"secret")

    def test_messages_survive_the_journey(self) -> None:
        """A report and both kinds of requests arrive as they were sent."""
        for content in (GuardReport(1, 2.0), Request("b_1", True), Request("b_1", False)):
            message = Message("a_1", content)
            self.assertEqual(self.messages.decode(self.messages.encode(message)), message)

    def test_others_cannot_forge(self) -> None:
        """Another secret, a changed byte, and bytes that are too long or too short are refused."""
        data = self.messages.encode(Message("a_1", GuardReport(1, 2.0)))
        changed = data[:-1] + bytes([data[-1] ^ 1])
        for wrong in (changed, b"", data[:20], data + b" " * MAX_MESSAGE_BYTES):
            self.assertRaises(MalformedReport, self.messages.decode, wrong)
        self.assertRaises(MalformedReport, SignedMessages(b"other").decode, data)

    def test_signed_nonsense_is_refused(self) -> None:
        """What is signed, but neither a report nor a request, is refused."""
        for body in (
            b"",
            b"a_1",
            b"a_1 report x",
            b"a_1 hello x",
            b"\xff report []",
            b"a_1 request b nologins",
        ):
            self.assertRaises(
                MalformedReport, self.messages.decode, self.messages._sign(body) + body
            )


class RateScriptTests(SynchronousTestCase):
    rates = (RateTaken("scram", b"1" * 16, 1.0), RateTaken("scram", b"2" * 16, -0.25))

    def test_keys_do_not_show_addresses(self) -> None:
        """The names of keys are hashes with a key, different for each kind."""
        one, other = key_names(self.rates, "p", b"k"), key_names(self.rates, "p", b"l")
        self.assertEqual(len({*one, *other}), 4)
        self.assertTrue(all(name.startswith("p:rate:") and len(name) == 39 for name in one))

    def test_arguments(self) -> None:
        """Each key has what was taken, the seconds of one, and the burst."""
        arguments = script_arguments(self.rates, [(0.5, 10.0), (2.0, 3.0)])
        self.assertEqual(arguments, ["1.0", "2.0", "10.0", "-0.25", "0.5", "3.0"])

    def test_answers(self) -> None:
        """Anything but as many numbers as keys is refused."""
        self.assertEqual(taken_by_all([b"1.5", "0.000000"], self.rates), [1.5, 0.0])
        for wrong in (None, b"1", [b"1"], [b"1", 2], [b"1", b"x"], [b"1", b"nan"], [b"1", b"-1"]):
            self.assertRaises(ValueError, taken_by_all, wrong, self.rates)
