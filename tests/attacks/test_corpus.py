"""Runs every attack of the corpus against a server in memory."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.testing import Client, Server
from tests.attacks.corpus import ATTACKS, BYE, NOT_AUTHENTICATED, OPEN, RESET, SELECTED, Attack

INTERNALS = re.compile(rb"Traceback|Error|codec|object|0x|None|b'|File \"|/home")


class CorpusTests(SynchronousTestCase):
    """One test for each row of the corpus."""

    def survive(self, attack: Attack) -> None:
        """Run `attack` and check everything that its row and the documentation of the corpus demand."""
        server = Server()
        client = self.client_in(server, attack.state)
        bytes_before = client.protocol.write_buffer.bytes_written
        response = b"".join(client.send(data) for data in attack.reads)
        outcome = (
            RESET if client.transport.aborted else BYE if client.transport.disconnecting else OPEN
        )
        self.assertEqual(outcome, attack.outcome, response[:500])
        for pattern in attack.expected:
            self.assertRegex(response, re.compile(pattern, re.MULTILINE))
        for pattern in attack.forbidden:
            self.assertNotRegex(response, re.compile(pattern, re.MULTILINE))
        self.assertEqual(server.events_of(events.CommandFailed), [])
        self.assertNotRegex(re.sub(rb"\{\d+\}\r\n[^)]*", b"", response), INTERNALS)
        sent = sum(map(len, attack.reads))
        self.assertLess(
            client.protocol.write_buffer.bytes_written - bytes_before, 100_000 + 10 * sent
        )
        commands = sum(data.count(b"\r\n") for data in attack.reads)
        self.assertLessEqual(len(server.events), 6 + commands)
        if outcome == OPEN and not attack.incomplete:
            self.assertRegex(client(b"zz NOOP").splitlines()[-1], rb"\Azz OK ")
        if outcome != OPEN:
            self.assertEqual(client.protocol._buffer, b"")
            self.assertEqual(client.send(b"zz NOOP\r\n"), b"")
        client.lose_connection()
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def client_in(self, server: Server, state: str) -> Client:
        """Return a client with a connection in `state`."""
        if state == NOT_AUTHENTICATED:
            return server.connect()
        client = server.login()
        if state == SELECTED:
            client.append()
            client(b"sel SELECT INBOX")
        return client


def _test(attack: Attack) -> Callable[[CorpusTests], None]:
    def test(self: CorpusTests) -> None:
        self.survive(attack)

    test.__doc__ = f"The server survives {attack.name}, which targets {attack.target}."
    return test


for _attack in ATTACKS:
    _name = "test_" + re.sub(r"\W+", "_", _attack.name)
    assert not hasattr(CorpusTests, _name), _name
    setattr(CorpusTests, _name, _test(_attack))
