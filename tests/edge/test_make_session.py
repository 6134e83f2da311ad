"""`make_session` replaces the session of the server with a custom one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.session_io import SessionIO
from imapshield.testing.in_process import Client, Server
from imapshield.wire.framing import RawCommand


class EchoSession:
    """A session that answers every command with its name, and IDLE with the line that follows it."""

    def __init__(self, io: SessionIO) -> None:
        self.io = io
        self.disconnections = 0

    def greeting(self) -> bytes:
        return b"* OK echo\r\n"

    def capabilities(self) -> list[bytes]:
        return [b"IMAP4rev1", b"X-ECHO"]

    async def run(self, command: RawCommand) -> None:
        if command.name == b"LOGOUT":
            self.io.close()
        if command.name == b"XBUG":
            raise RuntimeError("bug")
        text = command.name
        if command.name == b"IDLE":
            self.io.write(b"+ \r\n")
            text = await self.io.read_line()
        self.io.write(b"%b OK %b\r\n" % (command.tag or b"*", text))

    def disconnected(self) -> None:
        self.disconnections += 1


class MakeSessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.sessions: list[EchoSession] = []
        self.server.factory = ShieldedIMAP4Factory(
            self.server.factory.portal,
            observers=[self.server.events.append],
            reactor=self.server.clock,
            make_session=self.make_session,
        )

    def make_session(self, io: SessionIO) -> EchoSession:
        self.sessions.append(EchoSession(io))
        return self.sessions[-1]

    def connect(self) -> Client:
        return self.server.connect()

    def test_custom_session_executes_the_commands(self) -> None:
        """A custom session sends the greeting, lists the capabilities, and executes the commands."""
        client = self.connect()
        self.assertEqual(client.greeting, b"* OK echo\r\n")
        self.assertEqual(client.protocol.listCapabilities(), [b"IMAP4rev1", b"X-ECHO"])
        self.assertEqual(client.send(b"a NOOP\r\nb XYZZY\r\n"), b"a OK NOOP\r\nb OK XYZZY\r\n")
        self.assertEqual(client(b"c IDLE"), b"+ \r\n")
        self.assertEqual(client.send(b"DONE\r\nd NOOP\r\n"), b"c OK DONE\r\nd OK NOOP\r\n")

    def test_pending_command_rule_applies_to_any_session(self) -> None:
        """The rule about pending commands applies to any session."""
        client = self.connect()
        self.assertEqual(client.send(b"a NOOP\r\n" * 101), b"")
        self.assertTrue(client.transport.aborted)
        self.assertEqual(self.sessions[0].disconnections, 1)

    def test_unhandled_exception_resets_the_connection(self) -> None:
        """An exception of the session is reported, and resets the connection."""
        client = self.connect()
        client(b"a XBUG")
        self.assertTrue(client.transport.aborted)
        (event,) = self.server.events_of(events.CommandFailed)
        self.assertIn("RuntimeError: bug", event.traceback)

    def test_disconnected_is_called_once(self) -> None:
        """`disconnected` is called once, whichever side ends the connection."""
        client = self.connect()
        client(b"a LOGOUT")
        client.lose_connection()
        self.assertEqual(self.sessions[0].disconnections, 1)
        self.connect().lose_connection()
        self.assertEqual(self.sessions[1].disconnections, 1)
