"""The beginning and the end of connections."""

from twisted.internet.interfaces import IReactorTime, ISSLTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from imapshield import events
from imapshield.testing.in_process import MAIL, MemoryRealm, Server, SlowWorker, Transport


class ConnectionTests(SynchronousTestCase):
    def test_logout_sends_bye_and_ok_and_closes(self) -> None:
        """LOGOUT sends BYE, then OK, then closes."""
        client = Server().login()
        answer = client(b"a LOGOUT")
        self.assertLess(answer.index(b"* BYE"), answer.index(b"a OK"))
        self.assertTrue(client.transport.disconnecting)

    def test_reason_of_an_end_after_logout(self) -> None:
        """The end after LOGOUT is not one that the server has wanted; what the server ends for other reasons is."""
        server = Server()
        for line in (b"a LOGOUT", b"GET / HTTP/1.1"):
            client = server.connect()
            client(line)
            client.lose_connection()
        reasons = [event.reason for event in server.events_of(events.ConnectionClosed)]
        self.assertEqual(reasons, ["logged out", "closed by the server"])

    def test_bytes_behind_a_literal_are_counted_once(self) -> None:
        """Bytes that arrive in one read with the literal before them are counted once."""
        data = b"a LOGIN {5+}\r\nalice {6+}\r\nsecret\r\nb NOOP\r\n"
        server = Server(preauth_bytes=len(data))
        client = server.connect()
        self.assertIn(b"b OK", client.send(data))
        client.lose_connection()
        (closed,) = server.events_of(events.ConnectionClosed)
        self.assertEqual(closed.octets_in, len(data))

    def test_lost_connection_releases_account_and_timers(self) -> None:
        """A lost connection releases its account, its mailbox and its timers."""
        server = Server()
        client = server.login()
        client(b"a SELECT INBOX")
        client.lose_connection()
        self.assertEqual(server.realm.account().sessions, 0)
        self.assertFalse(any(m.is_selected for m in server.realm.account()._open.values()))
        self.assertEqual(server.clock.getDelayedCalls(), [])
        self.assertEqual(server.factory.connections, set())
        (closed,) = server.events_of(events.ConnectionClosed)
        self.assertEqual((closed.user, closed.commands), ("alice", 2))
        self.assertEqual(closed.reason, "connection lost")

    def test_loss_during_a_command_leaves_nothing_behind(self) -> None:
        """A connection lost while the store works leaves nothing behind."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client = server.login()
        client(b"a SELECT INBOX")
        client.lose_connection()
        worker.step()
        client.run_due_calls()
        self.assertEqual(server.events_of(events.CommandFailed), [])
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_loss_with_a_full_buffer_ends_the_fetch(self) -> None:
        """A connection lost during a FETCH that waits for the peer to read ends the FETCH."""
        server = Server()
        client = server.login()
        client.append(MAIL)
        client(b"a SELECT INBOX")
        client.protocol.write_buffer.pauseProducing()
        client.protocol.write_buffer.full = False
        client.protocol.dataReceived(b"b FETCH 1:* (FLAGS)\r\n")
        server.clock.advance(0)
        client.protocol.write_buffer.full = True
        client.lose_connection()
        client.run_due_calls()
        self.assertEqual(server.events_of(events.CommandFailed), [])

    def test_loss_during_idle_is_no_failure(self) -> None:
        """A connection lost in IDLE is not a failure."""
        server = Server()
        client = server.login()
        client(b"a SELECT INBOX")
        client(b"a IDLE")
        client.lose_connection()
        self.assertEqual(server.events_of(events.CommandFailed), [])

    def test_shutdown_sends_bye_to_every_client(self) -> None:
        """`shutdown` sends BYE to every client, and fires when all connections are closed."""
        server = Server()
        clients = [server.connect(), server.login()]
        done = server.factory.shutdown()
        for client in clients:
            self.assertIn(b"* BYE", client.read())
        self.assertNoResult(done)
        for client in clients:
            client.lose_connection()
        self.assertIsNone(self.successResultOf(done))

    def test_max_connections_limits_connections(self) -> None:
        """A client is refused when all connections that are permitted have a login."""
        server = Server(max_connections=2)
        server.login()
        server.login(b"bob", b"word")
        transport, protocol = Transport(), server.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        self.assertEqual(
            transport.value(),
            b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
        )
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(server.factory.connections), 2)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "max_connections")

    def test_max_connections_with_tls(self) -> None:
        """With implicit TLS, a connection above the limit is closed without a handshake."""
        server = Server(max_connections=1)
        server.login()
        transport, protocol = Transport(), server.factory.buildProtocol(None)
        alsoProvides(transport, ISSLTransport)
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), b"")
        self.assertTrue(transport.disconnecting)

    def test_factory_reactor_is_the_only_clock(self) -> None:
        """The reactor given to the factory is the only clock."""
        self.assertTrue(IReactorTime.providedBy(Server().clock))
