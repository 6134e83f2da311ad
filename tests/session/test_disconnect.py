"""Connections that end while a command waits for the store."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.session.state import State
from imapshield.testing import Client, MemoryRealm, Server, SlowWorker
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

    def finish(self, worker: SlowWorker, client: Client) -> None:
        """Run the store and the server until neither has anything to do."""
        client.run_due_calls()
        while worker.jobs:
            worker.step()
            client.run_due_calls()
