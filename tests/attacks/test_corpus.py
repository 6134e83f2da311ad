"""Every attack of the corpus, against a server in memory."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.testing import Client, Server
from tests.attacks.corpus import ATTACKS, BYE, OPEN, RESET, SELECTED, STRANGER, Attack

LEAKS = re.compile(rb"Traceback|Error|codec|object|0x|None|b'|File \"|/home")


class Corpus(SynchronousTestCase):
    """One test for each row of the corpus."""

    def survive(self, attack: Attack) -> None:
        server = Server()
        client = self.client(server, attack.who)
        before = client.protocol._outbox.octets
        answer = b"".join(client.send(data) for data in attack.send)
        ended = (
            RESET if client.transport.aborted else BYE if client.transport.disconnecting else OPEN
        )
        self.assertEqual(ended, attack.ends, answer[:500])
        for pattern in attack.says:
            self.assertRegex(answer, re.compile(pattern, re.MULTILINE))
        for pattern in attack.never:
            self.assertNotRegex(answer, re.compile(pattern, re.MULTILINE))
        self.assertEqual(server.events_of(events.CommandFailed), [])
        self.assertNotRegex(re.sub(rb"\{\d+\}\r\n[^)]*", b"", answer), LEAKS)
        sent = sum(map(len, attack.send))
        self.assertLess(client.protocol._outbox.octets - before, 100_000 + 10 * sent)
        commands = sum(data.count(b"\r\n") for data in attack.send)
        self.assertLessEqual(len(server.events), 6 + commands)
        if ended == OPEN and not attack.hold:
            self.assertRegex(client(b"zz NOOP").splitlines()[-1], rb"\Azz OK ")
        if ended != OPEN:
            self.assertEqual(client.protocol._buffer, b"")
            self.assertEqual(client.send(b"zz NOOP\r\n"), b"")
        client.lose_connection()
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def client(self, server: Server, who: str) -> Client:
        if who == STRANGER:
            return server.connect()
        client = server.login()
        if who == SELECTED:
            client.append()
            client(b"sel SELECT INBOX")
        return client


def _test(attack: Attack) -> Callable[[Corpus], None]:
    def test(self: Corpus) -> None:
        self.survive(attack)

    test.__doc__ = f"{attack.name} aims at {attack.aims_at}."
    return test


for _attack in ATTACKS:
    _name = "test_" + re.sub(r"\W+", "_", _attack.name)
    assert not hasattr(Corpus, _name), _name
    setattr(Corpus, _name, _test(_attack))
