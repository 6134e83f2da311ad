"""Connections that must make room, bans, and the gate in front of a port."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from imapshield import events
from imapshield.cred.sasl import IBearerToken, challengers
from imapshield.edge.gate import Gate
from imapshield.guard import login_failures
from imapshield.guard.networks import describe, networks_of
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard.shared_guard import SharedGuard
from imapshield.testing.in_process import Client, Server, Transport
from tests.edge.fake_port import FakePort, FakeSocket

ATTACKER, VICTIM = "192.0.2.1", "198.51.100.1"


def limits_hit(server: Server) -> list[tuple[str, str, str]]:
    return [(e.peer, e.limit, e.action) for e in server.events_of(events.LimitTriggered)]


class ShareTests(SynchronousTestCase):
    def test_the_holder_is_reset_and_named(self) -> None:
        """An address above its share loses its oldest connection, and the event names that address."""
        server = Server(max_preauth_per_address=2)
        first, *_ = [server.connect(ATTACKER) for _ in range(3)]
        self.assertTrue(first.transport.aborted)
        self.assertEqual(limits_hit(server), [(ATTACKER, "max_preauth_per_address", "reset")])
        self.assertIn(b"a OK", server.connect(VICTIM)(b"a NOOP"))

    def test_a_connection_with_a_login_stays(self) -> None:
        """A connection that has logged in is not counted, until UNAUTHENTICATE, which makes room for it."""
        server = Server(max_preauth_per_address=2)
        users = [server.login() for _ in range(5)]
        self.assertFalse(any(client.transport.aborted for client in users))
        for client in users[:3]:
            client(b"a UNAUTHENTICATE")
        server.connect("127.0.0.1")
        self.assertEqual([c.transport.aborted for c in users], [True, True, False, False, False])

    def test_a_closing_connection_is_evicted_too(self) -> None:
        """A client that does not read its BYE makes room at once."""
        server = Server(max_preauth_per_address=1)
        client = server.connect(ATTACKER)
        client(b"a LOGOUT")
        server.connect(ATTACKER)
        self.assertTrue(client.transport.aborted)

    def test_too_many_connections_of_a_user(self) -> None:
        """A login above `max_connections_per_user` is NO [LIMIT], the client stays connected, and the log says why."""
        server = Server(max_connections_per_user=2)
        server.login(), server.login()
        third = server.connect()
        self.assertIn(b"a NO [LIMIT] ", third(b"a LOGIN alice secret"))
        self.assertIn(b"b OK", third(b"b LOGIN bob word"))
        self.assertEqual(limits_hit(server), [("127.0.0.1", "max_connections_per_user", "refused")])
        self.assertEqual(server.realm.account().sessions, 2)

    def test_report_only(self) -> None:
        """In report-only mode a share is reported once, and nobody is reset."""
        server = Server(max_preauth_per_address=2, report_only=True)
        clients = [server.connect(ATTACKER) for _ in range(5)]
        self.assertFalse(any(client.transport.aborted for client in clients))
        self.assertEqual(limits_hit(server), [(ATTACKER, "max_preauth_per_address", "none")])


class BanTests(SynchronousTestCase):
    def flood(self, server: Server, times: int = 10) -> Client:
        for _ in range(times):
            client = server.connect(ATTACKER)
            client.send(b"a NOOP\r\n" * 300)
        return client

    def test_floods_ban_their_address(self) -> None:
        """The tenth reset bans: other connections without a login are reset, users stay, new connections are refused."""
        server = Server()
        stranger, user = server.connect(ATTACKER), server.connect(ATTACKER)
        user.protocol.startedTLS = True
        user(b"a LOGIN alice secret")
        self.flood(server)
        (banned,) = server.events_of(events.AddressBanned)
        values = "max_limit_violations", 10, 10, 600.0, "backlog", False
        expected = events.AddressBanned(0, ATTACKER, f"{ATTACKER}/32", *values)
        self.assertEqual(banned, expected)
        self.assertTrue(stranger.transport.aborted)
        hits = [(e.connection, e.limit) for e in server.events_of(events.LimitTriggered)]
        self.assertEqual(len(hits), len({connection for connection, _ in hits}))
        self.assertEqual([limit for _, limit in hits].count("ban"), 1)
        self.assertIn(b"b OK", user(b"b NOOP"))
        before = len(server.events)
        transport, protocol = (
            Transport(ATTACKER),
            server.factory.buildProtocol(IPv4Address("TCP", ATTACKER, 1)),
        )
        protocol.makeConnection(transport)
        self.assertEqual((transport.value(), len(server.events)), (b"", before))
        self.assertIn(b"a OK", server.connect(VICTIM)(b"a NOOP"))

    def test_refused_connections_are_reported(self) -> None:
        """Connections that a ban refuses cause no event each, but one when somebody asks; so does the end by hand."""
        server = Server(ban_seconds=600)
        self.flood(server)
        server.clock.advance(30)
        before = len(server.events)
        for _ in range(5):
            server.factory.buildProtocol(IPv4Address("TCP", ATTACKER, 1))
        admission = server.factory.shared.admission
        self.assertEqual(len(server.events), before)
        admission.report_refused()
        admission.report_refused()
        admission.unbanned(f"{ATTACKER}/32")
        self.assertEqual(
            server.events[before:],
            [
                events.ConnectionsRefused(0, f"{ATTACKER}/32", 5, 570.0),
                events.AddressUnbanned(0, f"{ATTACKER}/32"),
            ],
        )

    def test_floods_in_report_only_mode(self) -> None:
        """Ten floods of an address are reported as what would ban it; each connection counts once."""
        server = Server(report_only=True, preauth_commands=150)
        self.flood(server, 9)
        self.assertNotIn((ATTACKER, "max_limit_violations", "none"), limits_hit(server))
        self.flood(server, 1)
        hits = [hit for hit in limits_hit(server) if hit[1] == "max_limit_violations"]
        self.assertEqual(hits, [(ATTACKER, "max_limit_violations", "none")])
        self.assertEqual(server.events_of(events.AddressBanned), [])

    def test_ban_of_a_shared_address(self) -> None:
        """A banned address that users share gets a greeting. Strangers are refused whatever their password."""
        self.patch(login_failures, "SHARED_USERS", 1)
        server = Server()
        server.factory.shared.admission.guard.failures.succeeded(ATTACKER, b"alice", 0.0)
        stranger = server.connect(ATTACKER)
        self.flood(server)
        self.assertEqual(len(server.events_of(events.AddressBanned)), 1)
        self.assertFalse(stranger.transport.aborted)
        user = server.connect(ATTACKER)
        stranger.protocol.startedTLS = user.protocol.startedTLS = True
        self.assertIn(
            b"a NO [UNAVAILABLE] Your network is banned for some time",
            stranger(b"a LOGIN bob word"),
        )
        self.assertIn(
            b"b NO [UNAVAILABLE] ", stranger(b"b AUTHENTICATE PLAIN " + b64encode(b"\0bob\0word"))
        )
        self.assertIn((ATTACKER, "ban", "refused"), limits_hit(server))
        self.assertIn(b"a OK", user(b"a LOGIN alice secret"))

    def test_a_user_is_known_by_the_name_that_the_client_gives(self) -> None:
        """If a checker changes names, the user is known by the typed name, by which failed logins are counted too."""

        @implementer(ICredentialsChecker)
        class Lower:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Any:
                return succeed(credentials.username.lower())

        server = Server(checker=Lower())
        client = server.connect(VICTIM)
        client.protocol.startedTLS = True
        self.assertIn(b"a OK", client(b"a LOGIN ALICE x"))
        failures = server.factory.shared.admission.guard.failures
        known = [failures.is_known(VICTIM, user) for user in (b"ALICE", b"alice")]
        self.assertEqual(known, [True, False])

    def test_the_name_beside_a_token_makes_nobody_known(self) -> None:
        """The name that a client gives beside a token is not proved, so only the user of the token is known."""

        @implementer(ICredentialsChecker)
        class Tokens:
            credentialInterfaces = (IBearerToken,)

            def requestAvatarId(self, credentials: Any) -> Any:
                return succeed(b"mallory")

        server = Server(checker=Tokens())
        server.factory.challengers = challengers([Tokens()])
        client = server.connect(VICTIM)
        client.protocol.startedTLS = True
        message = b64encode(b"n,a=bob,\1auth=Bearer t\1\1")
        self.assertIn(b"a OK", client(b"a AUTHENTICATE OAUTHBEARER " + message))
        failures = server.factory.shared.admission.guard.failures
        known = [failures.is_known(VICTIM, user) for user in (b"bob", b"mallory")]
        self.assertEqual(known, [False, True])

    def test_a_ban_expires(self) -> None:
        """A ban ends after `ban_seconds`."""
        server = Server(ban_seconds=100)
        self.flood(server)
        server.clock.advance(101)
        self.assertIn(b"a OK", server.connect(ATTACKER)(b"a NOOP"))

    def test_what_another_process_tells(self) -> None:
        """A ban of another process ends the connections here and reaches `on_ban`; so does its end."""
        server = Server(max_failed_pairs=2)
        admission = server.factory.shared.admission
        seen: list[str] = []
        admission.on_ban = lambda ban: seen.append(describe(ban.network))
        admission.on_unban = seen.append
        here = SharedGuard(admission.guard, "here")
        guard = ProcessGuard(admission.guard.limits)
        there = SharedGuard(guard, "there")

        def tell() -> None:
            report = there.take_report(server.clock.seconds())
            assert report is not None
            admission.merge_report(here, "there", report)

        client = server.connect(ATTACKER)
        guard.bans.ban(ATTACKER, "test", server.clock.seconds())
        tell()
        self.assertTrue(client.transport.aborted)
        guard.bans.unban(ATTACKER)
        tell()
        self.assertEqual(seen, ["192.0.2.1/32", "192.0.2.1/32"])
        self.assertEqual(server.events_of(events.AddressBanned), [])
        for failures, secret in ((admission.guard.failures, b"1"), (guard.failures, b"2")):
            failures.failed(VICTIM, b"u", secret, 0.0)
        tell()
        self.assertEqual([e.peer for e in server.events_of(events.AddressBanned)], [VICTIM])

    def test_this_machine_is_trusted(self) -> None:
        """The default trusts this machine: it is reset, but not banned."""
        server = Server()
        for _ in range(30):
            server.connect("127.0.0.9").send(b"a NOOP\r\n" * 300)
        self.assertEqual(server.events_of(events.AddressBanned), [])


class GateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.port: Any = FakePort(self.server.factory)
        self.admission = self.server.factory.shared.admission
        Gate.close_off(self.port, self.admission, self.server.factory.shared.fair_queue)

    def accept(self, address: str, ending: str = "") -> FakeSocket:
        skt: FakeSocket = self.port.accept(address, ending)
        return skt

    def test_a_connection_waits_for_its_turn(self) -> None:
        """An accepted connection gets its greeting when it is the turn of its address. It counts as accepted before."""
        self.port.factory.on_accept = lambda: accepted.append(self.port.numberAccepts)
        accepted: list[int] = []
        skt = self.accept(VICTIM)
        self.assertEqual(len(accepted), 1)
        self.assertEqual(self.port.made, [])
        self.server.clock.advance(0)
        (transport,) = self.port.made
        self.server.clock.advance(0)
        self.assertIn(b"* OK", transport.value())
        self.assertFalse(skt.closed)
        self.assertEqual(self.admission.guard.shares.strangers, 1)

    def test_addresses_take_turns(self) -> None:
        """A client behind a thousand connections of another address waits for one of them."""
        for _ in range(400):
            self.accept(ATTACKER)
        self.accept(VICTIM)
        self.server.clock.advance(0)
        hosts = [transport.getPeer().host for transport in self.port.made]
        self.assertLess(hosts.index(VICTIM), 4)

    def test_a_ban_closes_waiting_connections_once(self) -> None:
        """Connections that wait when their address is banned are closed and counted once."""
        self.server.connect(ATTACKER).send(b"a NOOP\r\n" * 300)  # from now on the address is paced
        sockets = [self.accept(ATTACKER) for _ in range(20)]
        for _ in range(9):
            self.server.connect(ATTACKER).send(b"a NOOP\r\n" * 300)
        self.assertTrue(all(skt.closed for skt in sockets[1:]))
        for _ in range(30):
            self.server.clock.advance(0.02)
        shares = self.admission.guard.shares
        for protocol in list(self.server.factory.connections):
            protocol.connectionLost()
        self.assertEqual((len(self.port.made), shares.strangers, shares._open), (1, 0, 0))

    def test_connections_that_wait_at_the_end_are_closed(self) -> None:
        """A connection that waits when the port stops listening is closed, not greeted."""
        skt = self.accept(VICTIM)
        self.port.factory.doStop()
        self.server.clock.advance(0)
        self.assertTrue(skt.closed)
        self.assertEqual(self.port.made, [])

    def test_a_64_has_one_pace(self) -> None:
        """All addresses of an IPv6 /64 share one pace."""
        self.server.connect("2001:db8::1").send(b"a NOOP\r\n" * 300)
        for i in range(5):
            self.accept(f"2001:db8::{i + 2}")
        self.server.clock.advance(0)
        self.assertEqual(len(self.port.made), 1)

    def test_an_address_on_probation_is_paced(self) -> None:
        """After a flood, the connections of an address are begun 20 ms apart, also of a trusted one; others at once."""
        trusted = "127.0.0.9"
        client = self.server.connect(trusted)
        client.send(b"a NOOP\r\n" * 300)
        for _ in range(10):
            self.accept(trusted)
        self.accept(VICTIM)
        self.server.clock.advance(0)
        hosts = [transport.getPeer().host for transport in self.port.made]
        self.assertEqual(sorted(hosts), [trusted, VICTIM])
        for _ in range(5):
            self.server.clock.advance(0.02)
        self.assertEqual(len(self.port.made), 7)
        self.server.clock.advance(10)
        self.server.clock.advance(0)
        self.assertEqual(len(self.port.made), 11)
        self.assertEqual(self.port.factory._paced, {})

    def test_waiting_connections_of_a_paced_address_are_bounded(self) -> None:
        """An address that is paced and goes on connecting has no more than its share of waiting connections."""
        client = self.server.connect(ATTACKER)
        client.send(b"a NOOP\r\n" * 300)
        share = self.server.factory.limits.max_preauth_per_address
        self.patch(self.admission.guard, "_take_rate", lambda *_: None)
        for _ in range(3 * share):
            self.accept(ATTACKER)
        self.assertLessEqual(len(self.port.factory._paced[networks_of(ATTACKER)[0]]), share)

    def test_a_client_that_has_left_costs_nothing_more(self) -> None:
        """For a client that has closed or reset its connection before its turn, nothing is made."""
        sockets = [self.accept(ATTACKER, "reset"), self.accept(ATTACKER, "closed")]
        self.server.clock.advance(0)
        self.assertEqual([skt.closed for skt in sockets], [True, True])
        self.assertEqual((self.port.made, self.admission.guard.shares.strangers), ([], 0))

    def test_a_waiting_connection_makes_room(self) -> None:
        """A connection that waits for its turn can be evicted, and is then not served."""
        server = self.server = Server(max_preauth_per_address=1)
        self.port = FakePort(server.factory)
        Gate.close_off(self.port, server.factory.shared.admission, server.factory.shared.fair_queue)
        first, _ = self.accept(ATTACKER), self.accept(ATTACKER)
        self.assertTrue(first.closed)
        server.clock.advance(0)
        self.assertEqual(len(self.port.made), 1)
        self.assertEqual(limits_hit(server), [(ATTACKER, "max_preauth_per_address", "reset")])

    def test_a_banned_address_is_closed_at_once(self) -> None:
        """A connection from a banned address is closed before anything is made for it."""
        self.admission.guard.bans.ban(ATTACKER, "test", 0.0)
        self.assertTrue(self.accept(ATTACKER).closed)
        self.assertFalse(self.accept(VICTIM).closed)

    def test_a_refused_client_is_answered(self) -> None:
        """A client that is refused because all connections have a login gets BYE."""
        server = self.server = Server(max_connections=1)
        server.login()
        self.port = FakePort(server.factory)
        Gate.close_off(self.port, server.factory.shared.admission, server.factory.shared.fair_queue)
        self.accept(VICTIM)
        self.assertIn(b"* BYE [UNAVAILABLE]", self.port.made[0].value())
        (event,) = server.events_of(events.LimitTriggered)
        self.assertEqual((event.limit, event.holder), ("max_connections", "127.0.0.1"))

    def test_the_accept_queue_is_long(self) -> None:
        """The gate makes the accept queue of its port longer than Twisted's default of 50."""
        self.assertEqual(self.port.backlog, 4096)

    def test_the_inner_factory_is_stopped(self) -> None:
        """When the port stops, the inner factory is told."""
        stopped: list[int] = []
        self.patch(self.server.factory, "doStop", lambda: stopped.append(1))
        self.port.factory.doStart()
        self.port.factory.doStop()
        self.assertEqual(stopped, [1])
