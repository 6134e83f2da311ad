"""Several nodes look like one server, and one that is down affects its users only."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed

from imapshield import events
from imapshield.control.request_lines import ControlError, Request
from imapshield.front.sasl_user import replace_secret, wrong_proof, wrong_secret
from imapshield.front.user_holds import Held
from imapshield.front.user_map import Answer, LookUpFailed
from tests.front.node_case import NodeCase
from tests.front.test_login import UNAVAILABLE

MAINTENANCE = b"NO [UNAVAILABLE] The mail server is in maintenance; try again later\r\n"

FAILED = b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n"


class RoutingTests(NodeCase):
    def test_each_user_has_a_node(self) -> None:
        """A login goes to the node that the map names, in any case of letters."""
        self.log_in("alice", "mail1")
        self.log_in("bob", "mail2")
        self.log_in("ALICE", "mail1")
        self.assertEqual([query.user for query, _ in self.service.queries], ["alice", "bob"])
        self.assertEqual({name: len(each) for name, each in self.links.items()}, {"mail1": 2, "mail2": 1, "mail3": 0})  # fmt: skip

    def test_node_that_is_down(self) -> None:
        """Users of a node that is down get an answer at once, and the others log in."""
        self.down.add("mail2")
        client = self.server.connect()
        client(b"a LOGIN bob secret")
        self.service.answer("mail2")
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)
        self.log_in("alice", "mail1")

    def test_node_that_does_not_answer_logins(self) -> None:
        """Logins that hang at one node take no turn of the others, however many they are."""
        for number in range(20):
            client = self.server.connect(f"127.0.{number}.1")
            client(f"a LOGIN slow{number} secret".encode())
            self.service.answer("mail2")
        self.assertEqual(len(self.links["mail2"]), self.get_limits().max_login_checks)
        self.log_in("alice", "mail1")

    def test_own_maximum_of_a_node(self) -> None:
        """A node has the number of connections of its option."""
        self.log_in("carol", "mail3")
        client = self.server.connect()
        self.assertEqual(client(b"a LOGIN carol secret"), b"a " + UNAVAILABLE)
        self.assertIn("connections= of the backend", self.nodes.by_name["mail3"]._logged)

    def test_map_that_fails(self) -> None:
        """A user whose node is not known cannot log in now, which is no wrong password."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.service.fail(LookUpFailed("down"))
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)

    def test_problem_of_the_map(self) -> None:
        """Operators see that the service fails, from its failure to its next answer."""
        self.assertEqual(self.ask("user-map"), {"user_map": "fake:", "problem": ""})
        self.server.connect()(b"a LOGIN alice secret")
        self.service.fail(LookUpFailed("status 500."))
        problem = self.ask("user-map")["problem"]
        self.assertTrue(problem.startswith("fake:: status 500; users whose node"), problem)
        self.log_in("alice", "mail1")
        self.assertEqual(self.ask("user-map")["problem"], "")
        self.nodes.source = None
        self.assertEqual(self.ask("user-map"), {"user_map": "", "problem": ""})

    def test_entry_that_is_wrong(self) -> None:
        """So does a user whose node does not exist."""
        client = self.server.connect()
        client(b"a LOGIN alice secret")
        self.service.answer("", problem="no such node")
        self.assertEqual(client.read(), b"a " + UNAVAILABLE)


class UnknownUserTests(NodeCase):
    def test_unknown_user_is_a_wrong_password(self) -> None:
        """An unknown user gets the answer of a node, always of the same one, which does not learn the password."""
        nodes: list[str] = []
        for _ in range(2):
            client = self.server.connect()
            client(b"a LOGIN nobody secret99")
            if len(self.service.queries) == 1 and not nodes:
                self.service.answer("")
            (name,) = (name for name, links in self.links.items() if links and links[-1].received())
            nodes.append(name)
            self.assertEqual(client.read(), b"")
            self.links[name][-1].send(b"s1 NO no\r\n")
            self.assertEqual(client.read(), FAILED)
        self.assertEqual(len(set(nodes)), 1)
        self.assertEqual(len(self.service.queries), 1)

    def test_node_gets_another_password(self) -> None:
        """What the node gets has the length of the password; if it accepts it, the login fails all the same."""
        client = self.server.connect()
        client(b"a LOGIN nobody secret99")
        self.service.answer("")
        ((name, links),) = ((name, links) for name, links in self.links.items() if links)
        sent = links[-1].received()
        self.assertNotIn(b"secret99", sent)
        self.assertRegex(sent, rb'^s1 LOGIN "nobody" "[0-9a-f]{8}"\r\n$')
        links[-1].send(b"s1 OK come in\r\n")
        self.assertEqual(client.read(), FAILED)
        self.assertEqual(self.nodes.by_name[name].connections, 0)

    def test_sasl(self) -> None:
        """PLAIN and tokens are replaced in the message; a proof of SCRAM is replaced in the exchange."""
        client = self.server.connect()
        message = b"\0nobody\0secret99"
        client(b"a AUTHENTICATE PLAIN " + b64encode(message))
        self.service.answer("")
        ((_, links),) = ((name, links) for name, links in self.links.items() if links)
        sent = b64decode(links[-1].received().split()[-1])
        self.assertEqual((sent[:8], len(sent), sent == message), (message[:8], len(message), False))
        links[-1].send(b"s1 NO no\r\n")
        client = self.server.connect()
        client(b"a AUTHENTICATE SCRAM-SHA-256 " + b64encode(b"n,,n=nobody,r=abc"))
        links[-1].received()
        links[-1].send(b"+ %b\r\n" % b64encode(b"r=abcdef,s=QUFB,i=4096"))
        client.read()
        final = b64encode(b"c=biws,r=abcdef,p=" + b64encode(b"x" * 32))
        client(final)
        sent = links[-1].received().strip()
        self.assertNotEqual(sent, final)
        self.assertEqual(len(sent), len(final))

    def test_wrong_secrets(self) -> None:
        """The scheme of a token stays, and only the secret of a message changes."""
        self.assertRegex(wrong_secret(b"Bearer abc"), rb"^Bearer [0-9a-f]{3}$")
        self.assertRegex(wrong_secret(b"two words"), rb"^[0-9a-f]{9}$")
        for secret in (
            "\u00fc".encode(),
            b"\xfc",
            "p\u00e4ssword".encode(),
        ):  # also sent as a literal
            wrong = wrong_secret(secret)
            self.assertEqual((len(wrong), wrong.isascii()), (len(secret), False))
        self.assertEqual(replace_secret(b"\0a\0a", b"b"), b"\0a\0b")
        for message, other in (
            (b"n,a=u,\x01auth=a\x01host=a\x01\x01", b"n,a=u,\x01auth=b\x01host=a\x01\x01"),
            (
                b"n,a=u,\x01host=auth=a\x01auth=a\x01\x01",
                b"n,a=u,\x01host=auth=a\x01auth=b\x01\x01",
            ),
            (b"user=a\x01Auth=a\x01\x01", b"user=a\x01Auth=b\x01\x01"),
        ):
            self.assertEqual(replace_secret(message, b"b"), other)

    def test_wrong_proofs(self) -> None:
        """Each proof of a response is replaced, also one that is malformed or empty; the rest stays."""
        self.assertEqual(wrong_proof(b64encode(b"no proof")), b64encode(b"no proof"))
        for proof, size in ((b"abc", 32), (b"", 32), (b"?", 32), (b64encode(b"x" * 20), 20)):
            final = b"c=biws,r=abc,p=" + proof
            sent = b64decode(wrong_proof(b64encode(final + b",p=" + proof)))
            first, second = sent.removeprefix(b"c=biws,r=abc,p=").split(b",p=")
            for each in (first, second):
                self.assertNotEqual(each, proof)
                self.assertEqual(len(b64decode(each, validate=True)), size)

    def test_malformed_proof_of_anybody_is_a_failed_login(self) -> None:
        """Users who exist and users who do not have the same answer to a malformed proof, and it counts."""
        for user, node in ((b"alice", "mail1"), (b"nobody", "")):
            before = [link for each in self.links.values() for link in each]
            client = self.server.connect()
            client(b"a AUTHENTICATE SCRAM-SHA-256 " + b64encode(b"n,,n=%b,r=abc" % user))
            self.service.answer(node)
            links = [link for each in self.links.values() for link in each]
            (link,) = [link for link in links if link not in before]
            link.received()
            link.send(b"+ %b\r\n" % b64encode(b"r=abcdef,s=QUFB,i=4096"))
            client.read()
            client(b64encode(b"c=biws,r=abcdef,p=abc"))
            self.assertTrue(link.received())
            link.send(b"s1 BAD malformed\r\n" if node else b"s1 NO wrong\r\n")
            self.assertEqual(client.read(), FAILED)
        self.assertEqual(len(self.server.events_of(events.LoginFailed)), 2)

    def test_name_that_is_not_utf8(self) -> None:
        """A name that no map can have is unknown, and nobody is asked."""
        client = self.server.connect()
        client(b"a LOGIN {3+}\r\n\xff\xfe\xfd secret")
        self.assertEqual(self.service.queries, [])
        self.assertEqual(sum(map(len, self.links.values())), 1)


class OneServerTests(NodeCase):
    def test_capabilities_are_those_of_all(self) -> None:
        """Clients see what all nodes offer, of those that have answered, and the greeting of the first one."""
        first, second, third = self.nodes.by_name.values()
        first.capabilities = (b"IMAP4rev1", b"IDLE", b"XLIST", b"AUTH=PLAIN")
        second.capabilities = (b"IMAP4rev1", b"auth=plain", b"idle")
        third.capabilities = type(third)(third.address, None, self.clock, self.get_limits).capabilities  # fmt: skip
        first.greeting = b"Mail ready"
        greeting = self.server.connect().greeting
        self.assertEqual(greeting, b"* OK [CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN] Mail ready\r\n")
        second.capabilities = (b"NOTHING",)
        self.assertIn(b"[CAPABILITY IMAP4rev1 AUTH=PLAIN]", self.server.connect().greeting)

    def test_checks(self) -> None:
        """Each node is checked by itself, and the operator sees when and how long it took."""
        self.down.add("mail2")
        self.nodes.start()
        self.clock.advance(0.25)
        for name in ("mail1", "mail3"):
            self.links[name][-1].send(b"* CAPABILITY IMAP4rev1\r\ns1 OK done\r\n")
        self.assertEqual([row["state"] for row in self.ask("nodes")], ["up", "failing", "up"])
        for _ in range(3):
            self.clock.advance(10)
        rows = {row["node"]: row for row in self.ask("nodes")}
        self.assertEqual(rows["mail2"]["state"], "down")
        self.assertIn("refused", rows["mail2"]["reason"])
        # The later checks of this one have no answer.
        self.assertEqual((rows["mail1"]["state"], rows["mail1"]["latency"]), ("failing", 0.25))
        self.assertEqual(rows["mail1"]["checked"], 30)
        self.nodes.stop()
        self.assertTrue(self.service.stopped)


class DrainTests(NodeCase):
    def test_drained_node(self) -> None:
        """A drained node has no further logins; its sessions go on, and those of other nodes."""
        client = self.log_in("alice", "mail1")
        row = self.ask("drain", node="mail1")
        self.assertFalse(row["unchanged"])
        self.assertTrue(self.ask("drain", node="mail1")["unchanged"])
        self.assertEqual((row["state"], row["users"], row["sessions"]), ("draining", 1, 1))
        other = self.server.connect()
        self.assertEqual(other(b"a LOGIN alice secret"), b"a " + MAINTENANCE)
        breaker = self.nodes.by_name["mail1"].breaker
        while not breaker.is_open:
            breaker.failed("Connection refused")
        self.assertEqual(other(b"b LOGIN alice secret"), b"b " + MAINTENANCE)
        breaker.succeeded()
        refused = self.server.events_of(events.LoginRefused)
        self.assertEqual([(each.user, each.node) for each in refused], [("alice", "mail1")] * 2)
        client(b"n NOOP")
        self.links["mail1"][-1].send(b"n OK done\r\n")
        self.assertEqual(client.read(), b"n OK done\r\n")
        self.log_in("bob", "mail2")
        self.assertEqual(self.ask("undrain", node="mail1")["state"], "up")
        self.log_in("alice", "mail1")
        self.assertEqual(self.ask("nodes")[0]["sessions"], 2)

    def test_node_that_does_not_exist(self) -> None:
        """A wrong name is an error with the right ones."""
        drained = Deferred.fromCoroutine(self.commands.drain(Request("drain", {"node": "mail9"})))
        error = self.failureResultOf(drained, ControlError).value
        self.assertIn("known are mail1, mail2, mail3", str(error))


class MoveTests(NodeCase):
    def test_user_who_moves(self) -> None:
        """Logins that wait go to the new node, although the old one was remembered; so do those of a slow look-up."""
        client = self.log_in("alice", "mail1")
        slow = self.server.connect()
        self.map._users.clear()
        slow(b"s LOGIN alice secret")  # it has asked already
        client.lose_connection()
        self.assertEqual(self.ask("hold", user="alice")["ended"], 1)
        self.service.answer("mail1")  # what was true before the move
        waiting = self.server.connect()
        waiting(b"w LOGIN alice secret")
        self.assertEqual((slow.read(), waiting.read()), (b"", b""))
        self.release("alice", "mail2")
        self.assertEqual(len(self.links["mail2"]), 2)
        for link in self.links["mail2"]:
            link.send(b"s1 OK done\r\n")
        self.assertEqual((slow.read(), waiting.read()), (b"s OK done\r\n", b"w OK done\r\n"))

    def test_user_whom_the_map_does_not_know(self) -> None:
        """A hold says which node the user has, that the map has no such user, or that nobody can say."""

        def hold(user: str) -> Deferred[Any]:
            result: Any = self.commands.hold(Request("hold", {"user": user}))
            return Deferred.fromCoroutine(result)

        found = []
        for user, answer in (
            ("alicf", Answer("")),
            ("bob", Answer("mail2")),
            ("carol", LookUpFailed("no")),
        ):
            held = hold(user)
            self.assertNoResult(held)
            if isinstance(answer, Answer):
                self.service.answer(answer.node)
            else:
                self.service.fail(answer)
            found.append(self.successResultOf(held)["node"])
        self.assertEqual(found, ["", "mail2", None])
        # Repeated, it asks nobody.
        self.assertEqual(self.successResultOf(hold("bob"))["node"], "mail2")
        self.map._users.clear()
        self.assertIsNone(self.successResultOf(hold("bob"))["node"])
        self.service.caches = False
        self.assertIsNone(self.successResultOf(hold("dave"))["node"])
        self.nodes.stop()

    def test_hold_begins_before_the_look_up(self) -> None:
        """A worker that starts takes a hold over before its first connection, however slow the map is."""
        hold: Any = self.commands.hold(Request("hold", {"user": "alice"}))
        held = Deferred.fromCoroutine(hold)
        self.assertTrue(self.nodes.holds.is_held("alice"))
        self.service.answer("mail1")
        self.assertEqual(self.successResultOf(held)["node"], "mail1")
        self.nodes.stop()

    def test_look_up_that_fails_unexpectedly(self) -> None:
        """An error of the program in the look-up is in the log, and the hold answers, or says why it has failed."""
        for times_out in (False, True):
            holding = fail(TimeoutError()) if times_out else succeed(Held(0, 0, False))
            looked_up: Deferred[Answer] = Deferred()
            self.patch(self.nodes, "look_up", lambda _, answer=looked_up: answer)
            self.patch(self.nodes.holds, "hold", lambda *_, answer=holding: answer)
            hold: Any = self.commands.hold(Request("hold", {"user": "alice"}))
            answer = Deferred.fromCoroutine(hold)
            looked_up.errback(ZeroDivisionError())
            if times_out:
                self.failureResultOf(answer, ControlError)
            else:
                self.assertIsNone(self.successResultOf(answer)["node"])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_map_that_needs_the_password(self) -> None:
        """Only a login says which node the user has; a release does not ask with a wrong password."""
        self.service.caches = False
        self.assertEqual(
            self.ask("release", user="alice"), {"user": "alice", "held": False, "node": None}
        )

    def release(self, user: str, node: str) -> None:
        """Release a user whom the map has on another node now."""
        released = Deferred.fromCoroutine(self.commands.release(Request("release", {"user": user})))
        self.service.answer(node)
        self.assertEqual(self.successResultOf(released)["node"], node)
