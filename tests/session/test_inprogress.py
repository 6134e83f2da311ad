"""INPROGRESS (RFC 9585): a client that waits for long is told that we are at it."""

from tests.session.session_case import SessionTestCase, lines


class InProgress(SessionTestCase):
    def slow(self, seconds: float) -> None:
        """Whenever the clock is looked at, so many seconds are gone."""
        clock = [0.0]

        def now() -> float:
            clock[0] += seconds
            return clock[0]

        self.client.protocol._session.now = now

    def test_search(self) -> None:
        """Every ten seconds, with the tag, how many messages are done and of how many."""
        client = self.select_inbox(120)
        self.slow(4)
        answer = client(b"a001 SEARCH TEXT noon")
        self.assertIn(b'* OK [INPROGRESS ("a001" 100 120)] Still at it\r\n* SEARCH 1 2', answer)

    def test_tag(self) -> None:
        """A tag that would end the code is NIL (RFC 9585 section 4)."""
        client = self.select_inbox(120)
        self.slow(4)
        self.assertIn(b"* OK [INPROGRESS (NIL 100 120)]", client(b"a]1 SEARCH TEXT noon"))

    def test_numbers(self) -> None:
        """What goes back, or is all of it, is no progress: both numbers are NIL then (RFC 9585 section 4)."""
        client = self.select_inbox(120)
        self.slow(20)
        answer = client(b"a SEARCH TEXT noon TEXT lunch")
        told = [one[22:-14] for one in lines(answer) if b"INPROGRESS" in one]
        self.assertEqual(told, [b"50 120", b"100 120", b"NIL NIL", b"NIL NIL"])
        self.assertIn(b'("b" NIL NIL)', client(b"b SORT (SUBJECT) UTF-8 ALL"))

    def test_short(self) -> None:
        """What is done at once tells nothing."""
        client = self.select_inbox(120)
        self.assertNotIn(b"INPROGRESS", client(b"a001 SEARCH TEXT noon"))
        self.assertIn(b" INPROGRESS", client(b"b CAPABILITY"))
