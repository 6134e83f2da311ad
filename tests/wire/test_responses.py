"""The values of answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.responses import Tagged, ThreadNode, bad, no, ok


class ResponseTests(SynchronousTestCase):
    def test_conditions(self) -> None:
        """The three ends of a command."""
        self.assertEqual(ok("Done"), Tagged(b"OK", "Done", None))
        self.assertEqual(no("Full", b"OVERQUOTA"), Tagged(b"NO", "Full", b"OVERQUOTA"))
        self.assertEqual(bad("What?"), Tagged(b"BAD", "What?", None))

    def test_thread(self) -> None:
        """A message alone has no answers."""
        self.assertEqual(ThreadNode(1), (1, ()))
