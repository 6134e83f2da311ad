"""Sessions leave nothing behind in front mode, however they end."""

from __future__ import annotations

import gc
from collections import Counter

from tests.front.front_case import FrontCase

ROUNDS = 5


class ManySessionsTests(FrontCase):
    def whole(self) -> None:
        """Log in, fetch, idle and log out."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {3}\r\nabc)\r\na OK done\r\n")
        client(b"b IDLE")
        self.link.send(b"+ idling\r\n* 2 EXISTS\r\n")
        client(b"DONE")
        self.link.send(b"b OK done\r\n")
        client(b"c LOGOUT")
        self.link.send(b"* BYE\r\nc OK done\r\n")
        client.lose_connection()

    def within_login(self) -> None:
        """Leave before the answer to the login, which is then right or wrong."""
        for answer in (b"s1 OK in\r\n", b"s1 NO no\r\n"):
            client = self.server.connect()
            client(b"a LOGIN alice secret")
            client.lose_connection()
            self.link.send(answer)

    def within_literal(self) -> None:
        """Leave within a literal."""
        client = self.log_in()
        client(b"a APPEND INBOX {100000}")
        client.send(b"x" * 70000)
        client.lose_connection()

    def within_idle(self) -> None:
        """Leave within IDLE."""
        client = self.log_in()
        client(b"a IDLE")
        self.link.send(b"+ idling\r\n")
        client.lose_connection()

    def within_response(self) -> None:
        """Leave within a response."""
        client = self.log_in()
        client(b"a FETCH 1 BODY[]")
        self.link.send(b"* 1 FETCH (BODY[] {3000}\r\nabc")
        client.lose_connection()

    def backend_closes(self) -> None:
        """The backend closes: during the login, while a command runs, within a response, and within IDLE."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.link.lose()
        client.lose_connection()
        for command, answer in (
            (b"a NOOP", b""),
            (b"a FETCH 1 BODY[]", b"* 1 FETCH (BODY[] {3000}\r\nabc"),
            (b"a IDLE", b"+ idling\r\n"),
        ):
            client = self.log_in()
            client(command)
            self.link.send(answer)
            self.link.lose()
            client.lose_connection()

    def run_all(self) -> Counter[str]:
        """Run a session of each kind, and count the objects of imapshield that are left, by their type."""
        self.whole()
        self.within_login()
        self.within_literal()
        self.within_idle()
        self.within_response()
        self.backend_closes()
        self.clock.advance(100)  # the longest of all timers of a connection that ends
        self.server.events.clear()
        self.links.clear()
        gc.collect()
        kinds = (type(each) for each in gc.get_objects())
        return Counter(f"{k.__module__}.{k.__name__}" for k in kinds if "imapshield" in str(k))

    def test_no_object_is_left(self) -> None:
        """After many sessions there are as many objects of each type as after the first ones."""
        gc.collect()
        gc.freeze()  # objects of earlier tests may go in the meantime, and do not count
        self.addCleanup(gc.unfreeze)
        before = self.run_all()
        for _ in range(ROUNDS):
            after = self.run_all()
        self.assertEqual(after, before)
        self.assertEqual((self.backend.connections, self.nodes.exchanges.running), (0, []))
        self.assertEqual(self.nodes.sessions._of, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
