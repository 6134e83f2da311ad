"""The control socket answers an operator, and nobody else."""

import os
import socket
import stat
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield import cli, operator_commands
from imapshield.control import server
from imapshield.control.client import ask, follow
from imapshield.control.commands import BanCommands, ConnectionCommands
from imapshield.control.port import ControlPort
from imapshield.control.request_lines import (
    ControlError,
    Request,
    encode_request,
    parse_request,
)
from imapshield.control.server import ControlFactory
from imapshield.control.socket_file import MAX_PATH, client_path, make_room, server_path
from imapshield.events import AddressBanned
from imapshield.testing.in_process import Client, Server


class RequestTests(SynchronousTestCase):
    def test_request_survives_its_line(self) -> None:
        """A request is the same after it was written as a line and read."""
        request = Request("ban", {"network": "2001:db8::/64", "seconds": 600})
        self.assertEqual(parse_request(encode_request(request).rstrip()), request)

    def test_what_is_no_request_is_refused(self) -> None:
        """Whatever else arrives is a `ControlError` of one line."""
        for line in (b"", b"status", b"[]", b"{}", b"1", b'{"command": 1}', b"[" * 60000, b"\xff"):
            with self.assertRaises(ControlError) as caught:
                parse_request(line)
            self.assertNotIn("\n", str(caught.exception))


class SocketFileTests(SynchronousTestCase):
    def test_path(self) -> None:
        """The server prefers the directory of systemd, and a command the socket of its own user."""
        self.assertEqual(server_path({}, "/d"), "/d/control")
        self.assertEqual(
            server_path({"RUNTIME_DIRECTORY": "/run/x:/run/y"}, "/d"), "/run/x/control"
        )
        folder = self.mktemp()
        os.mkdir(folder)
        own = os.path.join(folder, "control")
        open(own, "wb").close()
        self.assertEqual(client_path(folder), own)

    def test_socket_of_a_killed_server_is_replaced(self) -> None:
        """What a killed server has left is removed. A socket in use, another file and a long path are errors."""
        path = self.mktemp()
        make_room(path)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            self.assertRaisesRegex(ControlError, "another server", make_room, path)
        make_room(path)
        self.assertFalse(os.path.exists(path))
        open(path, "wb").close()
        self.assertRaisesRegex(ControlError, "not a socket", make_room, path)
        self.assertRaisesRegex(ControlError, "shorter", make_room, "x" * (MAX_PATH + 1))


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        now = self.server.clock.seconds
        connections = ConnectionCommands(self.server.factory, now)
        bans = BanCommands(self.server.factory, now)
        self.handlers: dict[str, Any] = {
            **{name: getattr(connections, name) for name in ("status", "who", "kick")},
            **{name: getattr(bans, name) for name in ("bans", "ban", "unban")},
        }

    def ask(self, command: str, **arguments: Any) -> Any:
        answer = Deferred.fromCoroutine(self.handlers[command](Request(command, arguments)))
        return self.successResultOf(answer)

    def refusal(self, command: str, **arguments: Any) -> str:
        answer = Deferred.fromCoroutine(self.handlers[command](Request(command, arguments)))
        return str(self.failureResultOf(answer, ControlError).value)

    def connect(self, address: str, *, login: bool = False) -> Client:
        client = self.server.connect(address)
        if login:
            self.assertIn(b"OK", client(b"l AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA=="))
        return client

    def test_status_counts(self) -> None:
        """`status` has the connections, those without a login, and the bans."""
        self.connect("127.0.0.1", login=True)
        self.connect("192.0.2.2")
        self.ask("ban", network="198.51.100.7")
        status = self.ask("status")
        counts = [status[name] for name in ("connections", "without_login", "bans")]
        self.assertEqual(counts, [2, 1, 1])
        self.assertEqual(status["login_problems"], [])

    def test_who_is_found_by_user_address_network_and_number(self) -> None:
        """`who` lists all connections, or those of a user, an address, a network, or a number."""
        self.connect("127.0.0.1", login=True)
        self.connect("192.0.2.2")
        everyone = self.ask("who")
        self.assertEqual({each["peer"] for each in everyone}, {"127.0.0.1", "192.0.2.2"})
        (alice,) = self.ask("who", who="alice")
        self.assertEqual(
            (alice["user"], alice["peer"], alice["commands"]), ("alice", "127.0.0.1", 1)
        )
        self.assertEqual(self.ask("who", who=str(alice["connection"])), [alice])
        self.assertEqual(self.ask("who", who="127.0.0.1"), [alice])
        self.assertEqual(len(self.ask("who", who="192.0.2.0/24")), 1)
        self.assertEqual(self.ask("who", who="bob"), [])

    def test_kick_resets(self) -> None:
        """`kick` resets the connections of a user, and says how many; without any it is refused."""
        client = self.connect("127.0.0.1", login=True)
        other = self.connect("192.0.2.2", login=False)
        self.assertEqual(self.ask("kick", who="alice"), 1)
        self.assertEqual((client.transport.aborted, other.transport.aborted), (True, False))
        client.lose_connection()
        self.assertIn("imapshield who", self.refusal("kick", who="alice"))

    def test_ban_resets_and_refuses(self) -> None:
        """`ban` resets the connections of a network, and its end is reported."""
        clients = self.connect("192.0.2.1"), self.connect("192.0.2.9")
        answer = self.ask("ban", network="192.0.2.0/28", seconds=60)
        self.assertEqual(answer, {"network": "192.0.2.0/28", "seconds": 60, "reset": 2})
        self.assertEqual([client.transport.aborted for client in clients], [True, True])
        (ban,) = self.ask("bans")
        self.assertEqual(
            (ban["network"], ban["reason"], ban["remaining"]), ("192.0.2.0/28", "operator", 60)
        )
        self.assertEqual(self.ask("unban", network="192.0.2.0/24"), ["192.0.2.0/28"])
        self.assertEqual(self.ask("bans"), [])

    def test_longer_ban_replaces_a_present_one(self) -> None:
        """An operator who names a duration gets it, also for an address that is banned already."""
        self.ask("ban", network="192.0.2.1", seconds=60)
        self.ask("ban", network="192.0.2.1", seconds=90000)
        self.assertEqual([ban["remaining"] for ban in self.ask("bans")], [90000])

    def test_answers_have_as_many_rows_as_wanted(self) -> None:
        """`who` and `bans` have at most as many rows as the argument `number`, the most important ones."""
        for host in range(3):
            self.server.connect()
            self.ask("ban", network=f"198.51.100.{host}", seconds=100 + host)
        for number, rows in ((2, 2), (1, 1), (9999, 3)):
            self.assertEqual(len(self.ask("who", number=number)), rows)
            bans = [each["network"] for each in self.ask("bans", number=number)]
            self.assertEqual(bans, [f"198.51.100.{host}/32" for host in range(3 - rows, 3)])

    def test_ban_of_a_trusted_network_is_refused(self) -> None:
        """A ban that would have no effect, or of what is no network, is an error that says why."""
        self.assertIn("--trust", self.refusal("ban", network="127.0.0.0/16"))
        self.assertIn("not an address", self.refusal("ban", network="host"))
        refusal = self.refusal("ban", network="127.0.0.9", force=True)
        self.assertIn("also with --force", refusal)
        self.assertIn("--trust none, or", refusal)
        self.assertIn("`imapshield reload`", refusal)

    def test_ban_that_looks_like_a_slip(self) -> None:
        """A very wide network, or one with this machine or a trusted one in it, needs `force`, and spares these."""
        self.server.connect("192.0.2.7")
        trusted = self.server.connect("127.0.0.1")
        for network, reason in (
            *(("192.0.0.0/7", "wider than /8"), ("2001::/16", "wider than /20")),
            *(("0.0.0.0/0", "wider than /8"), ("126.0.0.0/7", "wider")),
        ):
            refusal = self.refusal("ban", network=network)
            self.assertIn(reason, refusal)
            self.assertIn(f"imapshield ban {network} --force", refusal)
        self.assertIn("this machine is in it", self.refusal("ban", network="::/64"))
        self.assertEqual(self.ask("ban", network="0.0.0.0/0", force=True)["reset"], 1)
        self.assertFalse(trusted.transport.aborted)

    def test_ban_of_a_host_names_it_without_a_prefix(self) -> None:
        """The event of a ban has the address as other events have it."""
        self.ask("ban", network="192.0.2.7")
        self.assertEqual(self.server.events_of(AddressBanned)[-1].peer, "192.0.2.7")


class SocketTests(TestCase):
    """On a real UNIX socket, because the kernel checks who may connect."""

    def setUp(self) -> None:
        self.path = os.path.relpath(self.mktemp())
        self.ended: list[str] = []

        async def echo(request: Request) -> object:
            return request.arguments

        async def fail(request: Request) -> object:
            raise ValueError("a bug")

        async def count(request: Request) -> Any:
            try:
                number = 0
                while True:
                    yield number
                    number += 1
            finally:
                self.ended.append("count")

        factory = ControlFactory({"echo": echo, "fail": fail}, {"count": count})
        self.port = ControlPort(self.path, factory, reactor)
        self.port.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.port.close()))

    @inlineCallbacks
    def test_answer(self) -> Any:
        """A client gets the answer to its request, and only the owner of the socket may be a client."""
        answer = yield deferToThread(ask, self.path, Request("echo", {"a": 1}))
        self.assertEqual(answer, {"a": 1})
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    @inlineCallbacks
    def test_errors_are_lines(self) -> Any:
        """An unknown command is an error that lists the known ones; a bug is one that refers to the log."""
        for command, text in (("ech", "known are count, echo, fail"), ("fail", "the log")):
            failure = yield self.assertFailure(
                deferToThread(ask, self.path, Request(command)), ControlError
            )
            self.assertIn(text, str(failure))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    @inlineCallbacks
    def test_answer_that_goes_on_ends_when_the_client_leaves(self) -> Any:
        """Items arrive in order. A client that does not read stops them, and one that has left ends the command."""

        def read_three() -> list[object]:
            items = follow(self.path, Request("count"))
            return [next(items) for _ in range(3)]

        items = yield deferToThread(read_three)
        self.assertEqual(items, [0, 1, 2])
        while not self.ended:
            done: Deferred[None] = Deferred()
            reactor.callLater(0, done.callback, None)
            yield done
        self.assertEqual(self.ended, ["count"])

    @inlineCallbacks
    def test_no_server(self) -> Any:
        """Without a server, the error says what is wrong and what to do."""
        yield Deferred.fromCoroutine(self.port.close())
        self.assertFalse(os.path.exists(self.path))
        failure = yield self.assertFailure(
            deferToThread(ask, self.path, Request("echo")), ControlError
        )
        self.assertIn("is the server running?", str(failure))

    @inlineCallbacks
    def test_clients_are_bounded(self) -> Any:
        """The client above `MAX_CLIENTS` is told so, and the others are served."""
        self.patch(server, "MAX_CLIENTS", 0)
        failure = yield self.assertFailure(
            deferToThread(ask, self.path, Request("echo")), ControlError
        )
        self.assertIn("too many clients", str(failure))


class CommandLineTests(SynchronousTestCase):
    def test_reader_that_has_enough(self) -> None:
        """A command whose output goes to a program that ends, such as ``head``, ends without a word."""

        class Closed(StringIO):
            def write(self, _: str) -> int:
                raise BrokenPipeError

        self.patch(operator_commands, "ask", lambda *_: [])
        with redirect_stdout(Closed()):
            self.assertEqual(cli.main(["who", "--json"]), 0)
            sys.stdout.close()

    def test_interrupt(self) -> None:
        """Ctrl-C is how `trace` and `top` end, so it is no error there."""

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        for name in ("ask", "follow"):
            self.patch(operator_commands, name, interrupted)
        self.assertEqual([cli.main(["top"]), cli.main(["trace", "alice"])], [0, 0])
