"""NOOP and IDLE."""

from tests.session.session_case import SessionTestCase


class Watching(SessionTestCase):
    def test_noop(self) -> None:
        """NOOP tells what others did."""
        client = self.select_inbox(2)
        other = self.second_client()
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.server.login().append()
        answer = client(b"c NOOP")
        self.assertIn(b"* 1 EXPUNGE\r\n* 2 EXISTS\r\n", answer)

    def test_idle(self) -> None:
        """IDLE tells at once, and ends with DONE."""
        client = self.select_inbox(1)
        self.assertEqual(client(b"a IDLE"), b"+ Idling\r\n")
        other = self.second_client()
        other.append()
        self.assertIn(b"* 2 EXISTS", client.read())
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        self.assertIn(b"* 1 FETCH", client.read())
        other(b"b EXPUNGE")
        self.assertIn(b"* 1 EXPUNGE", client.read())
        self.assertEqual(client(b"DONE"), b"a OK Done idling\r\n")
        other.append()
        self.assertEqual(client.read(), b"")

    def test_idle_other_line(self) -> None:
        """Any other line ends it with BAD, and is not run."""
        client = self.select_inbox(1)
        client(b"a IDLE")
        self.assertEqual(client(b"b LOGOUT"), b"a BAD IDLE ends with DONE\r\n")
        self.assertEqual(client(b"c NOOP"), b"c OK Done\r\n")

    def test_idle_pipelined(self) -> None:
        """What is sent behind IDLE in one packet is its DONE, and then commands again."""
        client = self.select_inbox(1)
        self.assertEqual(
            client.send(b"a IDLE\r\nDONE\r\nb NOOP\r\n"),
            b"+ Idling\r\na OK Done idling\r\nb OK Done\r\n",
        )
