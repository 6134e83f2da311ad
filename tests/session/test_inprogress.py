"""INPROGRESS (RFC 9585): a client that waits for long is told that we are at it."""

from tests.session.test_commands import Case


class InProgress(Case):
    def test_search(self) -> None:
        """Every ten seconds, with the tag, how many messages are done and of how many."""
        client = self.filled(120)
        session = client.protocol._session
        clock = [0.0]

        def now() -> float:
            clock[0] += 4
            return clock[0]

        session.now = now
        answer = client(b"a001 SEARCH TEXT noon")
        self.assertIn(b'* OK [INPROGRESS ("a001" 100 120)] Still at it\r\n* SEARCH 1 2', answer)

    def test_short(self) -> None:
        """What is done at once tells nothing."""
        client = self.filled(120)
        self.assertNotIn(b"INPROGRESS", client(b"a001 SEARCH TEXT noon"))
        self.assertIn(b" INPROGRESS", client(b"b CAPABILITY"))
