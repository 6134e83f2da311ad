"""Connections that end while a command waits for the store."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield.events import CommandFailed
from imapshield.mailbox.values import NewMessage
from imapshield.session.state import State
from imapshield.testing import MAIL, Client, MemoryRealm, Server, SlowWorker
from imapshield.wire.commands.base import MemoryLiteral
from tests.session.session_case import session_of


class DisconnectTests(SynchronousTestCase):
    def test_disconnect_during_select_selects_nothing(self) -> None:
        """A client that disconnects during SELECT selects no mailbox."""
        worker = SlowWorker()
        client = Server(realm=MemoryRealm(worker)).connect()
        client.protocol.dataReceived(b"a LOGIN alice secret\r\n")
        self.finish(worker, client)
        client.protocol.dataReceived(b"b SELECT INBOX\r\n")
        client.run_due_calls()
        self.assertTrue(worker.jobs)
        client.lose_connection()
        self.finish(worker, client)
        session = session_of(client)
        self.assertIs(session.state, State.LOGOUT)
        self.assertIsNone(session._mailbox)

    def test_search_of_a_client_that_has_left_reads_nothing(self) -> None:
        """A FETCH or SEARCH that waits when its client leaves reads no message; a STORE that waits is done."""
        worker = SlowWorker()
        realm = MemoryRealm(worker)
        server = Server(realm=realm)
        first = server.connect()
        first.protocol.dataReceived(b"a LOGIN alice secret\r\n")
        self.finish(worker, first)
        account: Any = realm.account()
        message = NewMessage((), None, MemoryLiteral(MAIL))
        appended = Deferred.fromCoroutine(account.append("INBOX", [message]))
        self.finish(worker, first)
        self.successResultOf(appended)
        calls: list[str] = []
        for name in ("fetch", "search", "store_flags"):
            original = getattr(account._store, name)
            self.patch(account._store, name, self.noting(calls, name, original))
        for command in (b"FETCH 1 BODY.PEEK[]", b"SEARCH BODY x", b"STORE 1 +FLAGS (x)"):
            client = server.connect()
            client.protocol.dataReceived(b"a LOGIN alice secret\r\nb SELECT INBOX\r\n")
            self.finish(worker, client)
            client.protocol.dataReceived(b"c " + command + b"\r\n")
            client.run_due_calls()
            self.assertTrue(worker.jobs)
            client.lose_connection()
            self.finish(worker, client)
        self.assertEqual(calls, ["store_flags"])

    def noting(
        self, calls: list[str], name: str, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        def noted(*args: object) -> Any:
            calls.append(name)
            return function(*args)

        return noted

    def test_updates_of_others_when_the_cause_leaves(self) -> None:
        """A client gets the updates that another one causes, even if that one leaves before they are read."""
        commands: dict[bytes, list[bytes]] = {
            b"* STATUS foo (MESSAGES 1 ": [b"n NOTIFY SET (personal (MessageNew MessageExpunge))"],
            b'* ESEARCH (TAG "s") ADDTO (0 1)': [
                b"n SELECT foo",
                b"i NOTIFY SET (selected (MessageNew MessageExpunge))",
                b"s SEARCH RETURN (UPDATE) SUBJECT lunch",
            ],
            b"* 1 FETCH (UID 1 BODY[HEADER.FIELDS (SUBJECT)] ": [
                b"n SELECT foo",
                b"i NOTIFY SET (selected (MessageExpunge MessageNew (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])))",
            ],
        }
        for update, lines in commands.items():
            worker = SlowWorker()
            server = Server(realm=MemoryRealm(worker))
            client, cause = server.connect(), server.connect()
            for each in (client, cause):
                each.protocol.dataReceived(b"a LOGIN alice secret\r\n")
                self.finish(worker, each)
            for line in (b"c CREATE foo", *lines):
                client.protocol.dataReceived(line + b"\r\n")
                self.finish(worker, client)
            cause.protocol.dataReceived(b"d APPEND foo {%d+}\r\n%b\r\n" % (len(MAIL), MAIL))
            cause.run_due_calls()
            while b"d OK" not in cause.transport.value():
                worker.step()
                cause.run_due_calls()
            cause.lose_connection()
            self.finish(worker, client)
            self.assertIn(update, client.read())

    def test_updates_for_a_client_that_has_left(self) -> None:
        """Work for the updates of a client stops when this client leaves, and not its cause."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client, cause = server.connect(), server.connect()
        for each in (client, cause):
            each.protocol.dataReceived(b"a LOGIN alice secret\r\n")
            self.finish(worker, each)
        client.protocol.dataReceived(b"n NOTIFY SET (personal (MessageNew MessageExpunge))\r\n")
        self.finish(worker, client)
        account: Any = session_of(client).account
        calls: list[str] = []
        self.patch(account._store, "status", self.noting(calls, "status", account._store.status))
        cause.protocol.dataReceived(b"d APPEND INBOX {%d+}\r\n%b\r\n" % (len(MAIL), MAIL))
        cause.run_due_calls()
        while b"d OK" not in cause.transport.value():
            worker.step()
            cause.run_due_calls()
        client.lose_connection()
        self.finish(worker, cause)
        self.assertEqual((calls, server.events_of(CommandFailed)), ([], []))

    def finish(self, worker: SlowWorker, client: Client) -> None:
        """Run the store and the server until neither has anything to do."""
        client.run_due_calls()
        while worker.jobs:
            worker.step()
            client.run_due_calls()
