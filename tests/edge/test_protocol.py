"""The connection, on an in-memory transport and a clock that is turned by hand."""

import base64
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.mail.imap4 import IMAP4Server
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.testing.in_process import MAIL, MemoryRealm, Server, SlowWorker


class Rule(SynchronousTestCase):
    """The 101st pending command."""

    def test_subclass(self) -> None:
        """It is an IMAP4Server of Twisted's."""
        self.assertTrue(issubclass(ShieldedIMAP4Server, IMAP4Server))

    def test_hundred(self) -> None:
        """A hundred NOOPs in one read get a hundred answers."""
        client = Server().connect()
        answer = client.send(b"a NOOP\r\n" * 100)
        self.assertEqual(answer.count(b"a OK"), 100)
        self.assertFalse(client.transport.aborted)

    def test_hundred_and_one(self) -> None:
        """A hundred and one get a reset, no answer, and nothing after them is delivered."""
        server = Server()
        client = server.connect()
        answer = client.send(b"a NOOP\r\n" * 4000)
        self.assertEqual(answer, b"")
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.protocol._buffer, b"")
        (hit,) = server.events_of(events.LimitTriggered)
        self.assertEqual(
            (hit.limit, hit.value, hit.observed, hit.action), ("backlog", 100, 101, "reset")
        )

    def test_nothing_in_line_received(self) -> None:
        """Nothing is executed, and nothing written, inside lineReceived."""
        client = Server().connect()
        for _ in range(100):
            client.protocol.lineReceived(b"a NOOP")
        self.assertEqual(client.transport.value(), b"")
        self.assertEqual(client.protocol.commands, 0)

    def test_after_the_end(self) -> None:
        """What arrives after the reset costs nothing."""
        client = Server().connect()
        client.send(b"a NOOP\r\n" * 101)
        octets = client.protocol.octets_in
        client.send(b"a NOOP\r\n" * 50)
        client.protocol.lineReceived(b"a NOOP")
        self.assertEqual(client.protocol.octets_in, octets)
        self.assertEqual(client.transport.value(), b"")

    def test_turns_of_ninety(self) -> None:
        """A stranger who sends NOOPs in turns and reads every answer has a hundred of them."""
        server = Server()
        client = server.connect()
        self.assertEqual(client.send(b"a NOOP\r\n" * 90).count(b"OK"), 90)
        client.send(b"a NOOP\r\n" * 90)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "preauth_commands")

    def test_coalesced(self) -> None:
        """The answers of one turn are one write."""
        client = Server().connect()
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        client.send(b"a NOOP\r\n" * 16)
        self.assertEqual(len(writes), 1)

    def test_peer_does_not_read(self) -> None:
        """While the peer does not read, nothing is taken off the backlog, so the rule ends that too."""
        client = Server().connect()
        client.protocol._outbox.pauseProducing()
        self.assertEqual(client.send(b"a NOOP\r\n" * 60), b"")
        client.send(b"a NOOP\r\n" * 41)
        self.assertTrue(client.transport.aborted)

    def test_user_flow_control(self) -> None:
        """A user who pipelines 5,000 commands is slowed down and gets every answer, in order."""
        client = Server().login()
        data = b"".join(b"t%d NOOP\r\n" % i for i in range(5000))
        client.protocol.dataReceived(data)
        self.assertTrue(client.transport.paused_reading)
        self.assertLessEqual(client.protocol._guard.pending, 100)
        answer = client.read()
        self.assertEqual(
            [line.split()[0] for line in answer.splitlines()], [b"t%d" % i for i in range(5000)]
        )
        self.assertFalse(client.transport.paused_reading)

    def test_large_answers(self) -> None:
        """A turn ends when its answers are as much as the transport may hold; the rest follows."""
        client = Server(max_unsent_bytes=1000).login()
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        client.send(b"c CAPABILITY\r\n" * 16)
        self.assertLess(max(map(len, writes)), 3000)
        self.assertEqual(b"".join(writes).count(b"c OK"), 16)

    def test_strict(self) -> None:
        """With strict_backlog the 101st pending command resets a user too."""
        client = Server(strict_backlog=True).login()
        client.send(b"a NOOP\r\n" * 101)
        self.assertTrue(client.transport.aborted)

    def test_report_only(self) -> None:
        """In report-only mode it is told once, and every command is answered."""
        server = Server(report_only=True)
        client = server.connect()
        self.assertEqual(client.send(b"a NOOP\r\n" * 500).count(b"a OK"), 500)
        self.assertEqual(
            {(hit.limit, hit.action) for hit in server.events_of(events.LimitTriggered)},
            {("backlog", "none")},
        )
        self.assertEqual(len(server.events_of(events.LimitTriggered)), 1)

    def test_fair_turns(self) -> None:
        """One client's backlog does not keep another waiting for more than a turn."""
        server = Server()
        greedy, modest = server.login(), server.login()
        writes: list[bytes] = []
        greedy.transport.write = modest.transport.write = writes.append  # type: ignore[method-assign]
        greedy.protocol.dataReceived(b"g NOOP\r\n" * 100)
        modest.protocol.dataReceived(b"m NOOP\r\n")
        greedy.run_due_calls()
        self.assertEqual(writes[0].count(b"g OK"), server.factory.limits.commands_per_turn)
        self.assertIn(b"m OK", writes[1])


class Deadlines(SynchronousTestCase):
    def test_stranger(self) -> None:
        """A stranger has sixty seconds, whatever it sends in them."""
        server = Server()
        client = server.connect()
        for _ in range(59):
            server.clock.advance(1)
            client.send(b"a")
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())
        self.assertTrue(client.transport.disconnecting)

    def test_bye_not_read(self) -> None:
        """Who does not read the BYE is reset."""
        server = Server()
        client = server.connect()
        server.clock.advance(60)
        client.read()
        self.assertFalse(client.transport.aborted)
        server.clock.advance(server.factory.limits.closing_seconds)
        self.assertTrue(client.transport.aborted)

    def test_idle_user(self) -> None:
        """A user may be silent for half an hour, from the last command on."""
        server = Server()
        client = server.login()
        server.clock.advance(1799)
        client(b"a NOOP")
        server.clock.advance(1799)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_idle_command(self) -> None:
        """IDLE does not make a silent user immortal (RFC 2177)."""
        server = Server()
        client = server.login()
        client(b"a IDLE")
        server.clock.advance(1800)
        self.assertIn(b"* BYE", client.read())

    def test_slow_store(self) -> None:
        """A user who waits for us is not timed out."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client = server.login()
        client(b"a SELECT INBOX")
        server.clock.advance(3600)
        self.assertEqual(client.read(), b"")
        worker.step()
        self.assertIn(b"a OK", client.read())

    def test_literal_drip(self) -> None:
        """A literal that stops coming ends the connection."""
        server = Server()
        client = server.login()
        client.send(b"a APPEND INBOX {100+}\r\nabc")
        server.clock.advance(59)
        client.send(b"d")
        server.clock.advance(59)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())

    def test_stalled(self) -> None:
        """A user with a full backlog who reads nothing for thirty seconds is reset."""
        server = Server()
        client = server.login()
        client.protocol._outbox.pauseProducing()
        client.send(b"a NOOP\r\n" * 200)
        server.clock.advance(29)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "stalled_seconds")

    def test_slow_reader(self) -> None:
        """One who reads something, however little, is not."""
        server = Server()
        client = server.login()
        progress = iter(range(100))
        client.protocol._outbox.acked_bytes = lambda: (next(progress),)  # type: ignore[method-assign]
        client.protocol._outbox.pauseProducing()
        client.send(b"a NOOP\r\n" * 200)
        for _ in range(20):
            server.clock.advance(30)
        self.assertFalse(client.transport.aborted)

    def test_unread(self) -> None:
        """Without a backlog it takes five minutes."""
        server = Server()
        client = server.login()
        client.protocol._outbox.pauseProducing()
        for _ in range(9):
            server.clock.advance(30)
        self.assertFalse(client.transport.aborted)
        server.clock.advance(30)
        self.assertTrue(client.transport.aborted)


class Bad(SynchronousTestCase):
    """Bad input: an answer of ours, the session in step."""

    def test_three(self) -> None:
        """A stranger's third malformed command is answered, and is the last."""
        client = Server().connect()
        self.assertIn(b"a BAD", client(b"a XYZZY"))
        self.assertIn(b"b BAD", client(b"b LOGIN onlyone"))
        answer = client(b"c (((")
        self.assertIn(b"c BAD", answer)
        self.assertIn(b"* BYE", answer)
        self.assertTrue(client.transport.disconnecting)

    def test_long_line_stranger(self) -> None:
        """A stranger's line of more than 8 KiB ends the connection."""
        client = Server().connect()
        answer = client.send(b"a NOOP " + b"x" * 8200)
        self.assertIn(b"* BYE", answer)

    def test_long_id(self) -> None:
        """A stranger's ID may have thirty fields of a kilobyte (RFC 2971); the line after it is short again."""
        field = b'"n" "' + b"v" * 1024 + b'"'
        line = b"a ID (" + b" ".join([field] * 30) + b")\r\n"
        for cut in (1, 10_000, 30_000, len(line) - 1):
            client = Server().connect()
            answer = client.send(line[:cut]) + client.send(line[cut:])
            self.assertIn(b"a OK", answer)
            self.assertIn(b"* BYE", client.send(b"b NOOP " + b"x" * 8200))
        client = Server().connect()
        self.assertIn(b"* BYE", client.send(b"a ID (" + b"x" * 40_000))

    def test_long_line_user(self) -> None:
        """A user's overlong line is answered BAD when it ends, and the session stays in step."""
        for cut in (1, 70_000, 80_011, 90_000):
            client = Server().login()
            data = b"long NOOP " + b"x" * 80_000 + b"\r\nnext NOOP\r\n"
            answer = client.send(data[:cut]) + client.send(data[cut:])
            self.assertIn(b"long BAD", answer)
            self.assertIn(b"next OK", answer)

    def test_long_line_literal(self) -> None:
        """A literal that an overlong line announces is skipped with it, and its text is not run as commands (RFC 7888)."""
        text = b"x LOGOUT\r\n" * 20
        for cut in (1, 70_000, 80_014, 80_016, 80_020, 80_100):
            client = Server().login()
            data = b"long NOOP " + b"x" * 80_000 + b" {200+}\r\n" + text + b" y\r\nnext NOOP\r\n"
            answer = client.send(data[:cut]) + client.send(data[cut:])
            self.assertEqual(answer.count(b"long BAD"), 1)
            self.assertIn(b"next OK", answer)
            self.assertNotIn(b"BYE", answer)
        client = Server().login()
        answer = client.send(b"long NOOP " + b"x" * 80_000 + b" {200}\r\nnext NOOP\r\n")
        self.assertIn(b"long BAD", answer)
        self.assertIn(b"next OK", answer)

    def test_refused_literal(self) -> None:
        """A refused LITERAL+ is skipped; its text is not run as a command."""
        client = Server(max_message_size=100).login()
        answer = client.send(
            b"a APPEND INBOX {200+}\r\n" + b"x LOGOUT\r\n" * 20 + b"\r\nb NOOP\r\n"
        )
        self.assertIn(b"a NO [TOOBIG]", answer)
        self.assertIn(b"b OK", answer)
        self.assertNotIn(b"BYE", answer)

    def test_other_protocol(self) -> None:
        """A browser that was made to talk to us is sent away at its first line."""
        client = Server().connect()
        answer = client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: a LOGIN alice secret\r\n\r\n")
        self.assertIn(b"* BYE", answer)
        self.assertTrue(client.transport.disconnecting)
        self.assertNotIn(b" OK", answer)

    def test_broken_store(self) -> None:
        """A bug of ours is answered with a reference, and nothing of its text; the log has the traceback."""
        server = Server()
        client = server.login()

        def broken(name: str) -> Any:
            raise RuntimeError("/var/mail/secret")

        server.realm.account().status = broken
        answer = client(b"a STATUS INBOX (MESSAGES)")
        self.assertIn(b"a NO [SERVERBUG]", answer)
        self.assertNotIn(b"secret", answer)
        (failed,) = server.events_of(events.CommandFailed)
        self.assertIn("/var/mail/secret", failed.traceback)
        self.assertIn(b"b OK", client(b"b NOOP"))


class Login(SynchronousTestCase):
    def test_pipelined(self) -> None:
        """Commands pipelined behind LOGIN are answered in its light, in order."""
        client = Server().connect()
        answer = client.send(b"a LOGIN alice secret\r\nb SELECT INBOX\r\nc UID FETCH 1:* FLAGS\r\n")
        self.assertLess(answer.index(b"a OK"), answer.index(b"b OK"))
        self.assertIn(b"c OK", answer)

    def test_did_not_wait(self) -> None:
        """Who does not wait for ``+`` gets it all the same, before the answer and after those to the commands before."""
        answer = (
            Server().connect().send(b"a NOOP\r\nb LOGIN {5}\r\nalice {6}\r\nsecret\r\nc NOOP\r\n")
        )
        self.assertRegex(
            answer,
            rb"^a OK NOOP completed\r\n\+ Go ahead\r\n\+ Go ahead\r\nb OK [^\r]*\r\nc OK NOOP completed\r\n$",
        )

    def test_wrong(self) -> None:
        """A wrong password is NO [AUTHENTICATIONFAILED], told at once; after three the connection ends."""
        server = Server()
        client = server.connect()
        for _ in range(3):
            answer = client(b"a LOGIN alice wrong")
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", answer)
        self.assertIn(b"* BYE", answer)
        self.assertEqual([f.user for f in server.events_of(events.LoginFailed)], ["alice"] * 3)

    def test_quoted(self) -> None:
        """Passwords with quotes and backslashes can be used."""
        from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

        server = Server(checker=InMemoryUsernamePasswordDatabaseDontUse(alice=b'a"b\\c'))
        self.assertIn(b"a OK", server.connect()(b'a LOGIN "alice" "a\\"b\\\\c"'))

    def test_plain(self) -> None:
        """AUTHENTICATE PLAIN, asked for its response or with it (SASL-IR)."""
        response = base64.b64encode(b"\0alice\0secret")
        client = Server().connect()
        self.assertEqual(client(b"a AUTHENTICATE PLAIN"), b"+ \r\n")
        self.assertIn(b"a OK", client(response))
        client = Server().connect()
        self.assertIn(b"a OK", client(b"a AUTHENTICATE PLAIN " + response))

    def test_plain_called_off(self) -> None:
        """``*`` calls it off, with BAD; the next line is a command again."""
        client = Server().connect()
        client(b"a AUTHENTICATE PLAIN")
        self.assertIn(b"a BAD", client(b"*"))
        self.assertIn(b"b OK", client(b"b NOOP"))

    def test_plain_nonsense(self) -> None:
        """What is not base64, or not PLAIN, is BAD and never an exception's text."""
        for line in (
            b"!!!!",
            b"AAA",
            b"AAAA",
            base64.b64encode(b"a\0b"),
            base64.b64encode(b"\0\0"),
            b"\xff",
        ):
            client = Server().connect()
            client(b"a AUTHENTICATE PLAIN")
            self.assertIn(b"a BAD", client(line), line)

    def test_empty_password(self) -> None:
        """An empty password, as Thunderbird sends it after OK in its empty prompt, is wrong; no checker hears it."""
        from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

        server = Server(checker=InMemoryUsernamePasswordDatabaseDontUse(alice=b""))
        client = server.connect()
        plain = b"a AUTHENTICATE PLAIN " + base64.b64encode(b"\0alice\0")
        for command in (plain, b'a LOGIN alice ""'):
            self.assertIn(b"a NO [AUTHENTICATIONFAILED]", client(command))
        self.assertEqual(
            [fact.user for fact in server.events_of(events.LoginFailed)], ["alice", "alice"]
        )

    def test_far_away(self) -> None:
        """Off this machine, without TLS, no password is taken and the capabilities say so."""
        client = Server().connect("192.0.2.1")
        self.assertIn(b"LOGINDISABLED", client.greeting)
        self.assertNotIn(b"AUTH=PLAIN", client.greeting)
        self.assertIn(b"a NO [PRIVACYREQUIRED]", client(b"a LOGIN alice secret"))
        self.assertIn(
            b"b NO [PRIVACYREQUIRED]",
            client(b"b AUTHENTICATE PLAIN " + base64.b64encode(b"\0alice\0secret")),
        )

    def test_lost_during_login(self) -> None:
        """Who goes away while the password is checked leaves no session behind."""
        from twisted.cred.checkers import ICredentialsChecker
        from twisted.cred.credentials import IUsernamePassword
        from twisted.internet.defer import Deferred
        from zope.interface import implementer

        waiting: Deferred[bytes] = Deferred()

        @implementer(ICredentialsChecker)
        class Slow:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                return waiting

        server = Server(checker=Slow())
        client = server.connect()
        client(b"a LOGIN alice secret")
        client.lose_connection()
        waiting.callback(b"alice")
        client.run_due_calls()
        self.assertEqual(server.realm.account().sessions, 0)
        self.assertEqual(server.events_of(events.CommandFailed), [])


class Life(SynchronousTestCase):
    def test_logout(self) -> None:
        """LOGOUT says BYE, then OK, then closes."""
        answer_client = Server().login()
        answer = answer_client(b"a LOGOUT")
        self.assertLess(answer.index(b"* BYE"), answer.index(b"a OK"))
        self.assertTrue(answer_client.transport.disconnecting)

    def test_lost(self) -> None:
        """A lost connection lets go of its account, its mailbox and its timers."""
        server = Server()
        client = server.login()
        client(b"a SELECT INBOX")
        client.lose_connection()
        self.assertEqual(server.realm.account().sessions, 0)
        self.assertFalse(any(m.watched for m in server.realm.account()._open.values()))
        self.assertEqual(server.clock.getDelayedCalls(), [])
        self.assertEqual(server.factory.connections, set())
        (gone,) = server.events_of(events.ConnectionClosed)
        self.assertEqual((gone.user, gone.commands), ("alice", 2))

    def test_lost_in_the_middle(self) -> None:
        """A connection lost while the store works, or while it does not read, leaves nothing behind."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker))
        client = server.login()
        client(b"a SELECT INBOX")
        client.lose_connection()
        worker.step()
        client.run_due_calls()
        self.assertEqual(server.events_of(events.CommandFailed), [])
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_lost_while_full(self) -> None:
        """A connection lost in the middle of a FETCH that waits for it to read ends that FETCH."""
        server = Server()
        client = server.login()
        client.append(MAIL)
        client(b"a SELECT INBOX")
        client.protocol._outbox.pauseProducing()
        client.protocol._outbox.full = False
        client.protocol.dataReceived(b"b FETCH 1:* (FLAGS)\r\n")
        server.clock.advance(0)
        client.protocol._outbox.full = True
        client.lose_connection()
        client.run_due_calls()
        self.assertEqual(server.events_of(events.CommandFailed), [])

    def test_idle_then_lost(self) -> None:
        """A connection lost in IDLE is no error."""
        server = Server()
        client = server.login()
        client(b"a SELECT INBOX")
        client(b"a IDLE")
        client.lose_connection()
        self.assertEqual(server.events_of(events.CommandFailed), [])

    def test_shutdown(self) -> None:
        """Going down, everybody is told, and it is over when all are gone."""
        server = Server()
        clients = [server.connect(), server.login()]
        done = server.factory.shutdown()
        for client in clients:
            self.assertIn(b"* BYE", client.read())
        self.assertNoResult(done)
        for client in clients:
            client.lose_connection()
        self.assertIsNone(self.successResultOf(done))

    def test_too_many(self) -> None:
        """Connections are bounded in number."""
        server = Server(max_connections=2)
        server.connect()
        server.connect()
        self.assertIsNone(server.factory.buildProtocol(None))
        self.assertEqual(server.events_of(events.LimitTriggered)[0].limit, "max_connections")

    def test_clock_is_one(self) -> None:
        """The reactor given to the factory is the only clock."""
        self.assertTrue(IReactorTime.providedBy(Server().clock))
