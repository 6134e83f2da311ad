"""INPROGRESS (RFC 9585) reports the progress of a long command to its client."""

import re

from twisted.trial.unittest import SynchronousTestCase

from imapshield.session.state import PROGRESS_SECONDS
from imapshield.testing import MemoryRealm, Server, SlowWorker
from tests.session.session_case import SessionTestCase, session_of, without_text


class InProgressTests(SessionTestCase):
    def let_seconds_pass(self, seconds: float) -> None:
        """Advance the clock by `seconds` each time the session reads it."""
        clock = [0.0]

        def now() -> float:
            clock[0] += seconds
            return clock[0]

        session = session_of(self.client)
        session.monotonic = now

    def test_search_reports_progress(self) -> None:
        """A long SEARCH sends INPROGRESS every ten seconds, with the tag, the messages searched and their total."""
        client = self.select_inbox(120)
        self.let_seconds_pass(5)
        response = client(b"a001 SEARCH TEXT noon")
        self.assertIn(b'* OK [INPROGRESS ("a001" 100 120)]\r\n* SEARCH 1 2', without_text(response))

    def test_tag_with_a_bracket_is_sent_as_nil(self) -> None:
        """A tag that would end the response code is sent as NIL (RFC 9585 section 4)."""
        client = self.select_inbox(120)
        self.let_seconds_pass(5)
        self.assertIn(b"* OK [INPROGRESS (NIL 100 120)]", client(b"a]1 SEARCH TEXT noon"))

    def test_numbers_without_progress_are_nil(self) -> None:
        """If the numbers would decrease or reach the total, both are NIL (RFC 9585 section 4)."""
        client = self.select_inbox(120)
        self.let_seconds_pass(20)
        response = client(b"a SEARCH TEXT noon TEXT lunch")
        progress = re.findall(rb'INPROGRESS \("a" ([^)]*)\)', response)
        self.assertEqual(progress, [b"50 120", b"100 120", b"NIL NIL", b"NIL NIL"])
        self.assertIn(b'("b" NIL NIL)', client(b"b SORT (SUBJECT) UTF-8 ALL"))

    def test_short_command_sends_no_inprogress(self) -> None:
        """A short command sends no INPROGRESS."""
        client = self.select_inbox(120)
        self.assertNotIn(b"INPROGRESS", client(b"a001 SEARCH TEXT noon"))
        self.assertIn(b" INPROGRESS", client(b"b CAPABILITY"))


class LongCallTests(SynchronousTestCase):
    """INPROGRESS while one call of the store takes long."""

    def setUp(self) -> None:
        self.worker = SlowWorker()
        self.server = Server(realm=MemoryRealm(self.worker))
        self.client = self.server.connect()
        self.send(b"a LOGIN alice secret", finish=True)

    def send(self, line: bytes, *, finish: bool = False) -> None:
        self.client.protocol.dataReceived(line + b"\r\n")
        self.client.run_due_calls()
        if finish:
            self.finish()

    def finish(self) -> None:
        while self.worker.jobs:
            self.worker.step()
            self.client.run_due_calls()

    def test_long_select_and_copy(self) -> None:
        """SELECT, COPY and MOVE send INPROGRESS in each ten seconds, and nothing after their end."""
        self.send(b"b APPEND INBOX {5+}\r\nhello", finish=True)
        for tag, command in (
            (b"c", b"SELECT INBOX"),
            (b"d", b"COPY 1 INBOX"),
            (b"e", b"MOVE 1 INBOX"),
        ):
            self.client.read()
            self.send(tag + b" " + command)
            progress = b'* OK [INPROGRESS ("%b" NIL NIL)] Still in progress\r\n' % tag
            for _ in range(2):
                self.server.clock.advance(PROGRESS_SECONDS - 1)
                self.assertEqual(self.client.read(), b"")
                self.server.clock.advance(1)
                self.assertEqual(self.client.read(), progress)
            self.finish()
            self.assertIn(tag + b" OK", self.client.read())
            self.server.clock.advance(2 * PROGRESS_SECONDS)
            self.assertEqual(self.client.read(), b"")

    def test_client_that_leaves(self) -> None:
        """When the client has left, nothing is sent, and the end of the call ends the timer."""
        self.send(b"c SELECT INBOX")
        self.client.lose_connection()
        self.server.clock.advance(PROGRESS_SECONDS)
        self.finish()
        self.client.run_due_calls()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
