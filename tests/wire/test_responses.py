"""Responses are values with default fields."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.wire.responses import Tagged, ThreadNode, bad, no, ok


class ResponseTests(SynchronousTestCase):
    def test_command_ends_with_ok_no_or_bad(self) -> None:
        """A command ends with OK, NO or BAD, and a response code if there is one."""
        self.assertEqual(ok("Done"), Tagged(b"OK", "Done", None))
        self.assertEqual(no("Full", b"OVERQUOTA"), Tagged(b"NO", "Full", b"OVERQUOTA"))
        self.assertEqual(bad("What?"), Tagged(b"BAD", "What?", None))

    def test_thread_of_one_message_has_no_replies(self) -> None:
        """A thread of one message has no replies."""
        self.assertEqual(ThreadNode(1), (1, ()))
