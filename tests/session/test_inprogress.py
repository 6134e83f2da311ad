"""INPROGRESS (RFC 9585) reports the progress of a long command to its client."""

import re

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
