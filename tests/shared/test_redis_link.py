"""The link to Redis, over real connections to a stand-in that answers, is silent, refuses or lies."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from txredisapi import ResponseError

from imapshield.guard.guard_report import RateTaken
from imapshield.guard.rates import RateTable
from imapshield.shared import redis_link
from imapshield.shared.redis_address import RedisAddress
from imapshield.shared.redis_link import RedisLink, _text
from imapshield.shared.redis_protocol import RedisError
from tests.real_reactor import turns, until
from tests.shared.fake_redis import FakeRedis, FakeRedisProtocol, bulk

reactor: Any = installed_reactor
RATES = (RateTaken("scram", b"1" * 16, 1.0),)


class _Times:
    """A reactor whose clock shows some times, one after another."""

    def __init__(self, *times: float) -> None:
        self.seconds, self.callLater = iter(times).__next__, reactor.callLater


def _refuse(client: FakeRedisProtocol) -> None:
    client.buffer = b""
    client.factory.connections.append(client)
    client.transport.write(b"-ERR max number of clients reached\r\n")
    client.transport.loseConnection()


class RedisLinkTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.redis = FakeRedis()
        self.port = reactor.listenTCP(0, self.redis, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.lines: list[str] = []

        def observe(event: Any) -> None:
            self.lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, observe)  # type: ignore[arg-type]
        self.patch(redis_link, "RETRY_SECONDS", (0.05, 0.1))
        self.messages: list[bytes] = []
        self.ready = 0

    def make(self, options: str = "", password: bytes | None = None) -> RedisLink:
        address = RedisAddress.parse(f"redis://127.0.0.1:{self.port.getHost().port}{options}")
        return self.started(address, lambda: password)

    def started(self, address: RedisAddress, read_password: Any, tls: Any = None) -> RedisLink:
        table = RateTable(1.0, 10.0, 10)
        link = RedisLink(address, read_password, tls, b"k", lambda _: (table, b""), reactor)
        link.on_message = self.messages.append

        def ready() -> None:
            self.ready += 1

        link.on_ready = ready
        link.start()
        self.addCleanup(self.stop, link)
        return link

    async def stop(self, link: RedisLink) -> None:
        link.stop()
        await turns()
        await until(lambda: not self.redis.connections)

    async def test_messages_and_rates(self) -> None:
        """A message comes back to all listeners; the script adds up what was taken; the clock is that of Redis."""
        begun = reactor.seconds()
        link = self.make()
        await until(lambda: link.is_ready)
        # The stand-in always says 5000.5.
        self.assertTrue(begun <= 5000.5 - link.clock_offset <= reactor.seconds())
        self.assertEqual(await link.send(b"hello", ()), None)
        self.assertEqual(await link.send(b"again", RATES), [2.5])
        self.assertEqual(await link.send(b"again", RATES), [3.5])
        await until(lambda: len(self.messages) == 3)
        self.assertEqual(self.messages, [b"hello", b"again", b"again"])
        self.assertEqual((self.ready, link.problem), (1, ""))

    def test_reasons_are_our_own_words(self) -> None:
        """Why Redis cannot be used is in words of ours, which say what to look at, or in those of Redis."""
        for error, words in (
            (
                ConnectionRefusedError(osError=111),
                "connection refused (does the server run, and listen there?)",
            ),
            (ConnectionDone(), "it closed the connection"),
            (ResponseError("WRONGPASS no"), "WRONGPASS no"),
        ):
            self.assertEqual(_text(error), words)

    async def test_password_and_database(self) -> None:
        """The password is sent before anything else, with the user, if there is one."""
        address = RedisAddress.parse(f"redis://bob@127.0.0.1:{self.port.getHost().port}/3")
        link = self.started(address, lambda: b"hunter2")
        await until(lambda: link.is_ready)
        self.assertEqual(self.redis.commands[0], [b"AUTH", b"bob", b"hunter2"])
        self.assertEqual(self.redis.commands[1], [b"SELECT", b"3"])

    async def test_a_wrong_password(self) -> None:
        """What Redis says is in the log, the password is not; the next attempt reads the file again."""
        self.redis.answers[b"AUTH"] = b"-WRONGPASS invalid username-password pair\r\n"
        link = self.make(password=b"hunter2")
        await until(lambda: len(self.redis.commands) > 2)
        self.assertIn("WRONGPASS", link.problem)
        self.assertNotIn("hunter2", " ".join(self.lines))
        self.redis.answers[b"AUTH"] = b"+OK\r\n"
        await until(lambda: link.is_ready)

    async def test_a_password_file_that_is_missing(self) -> None:
        """An error of the file is the problem."""

        def read() -> bytes:
            raise OSError(2, "No such file")

        address = RedisAddress.parse(f"redis://127.0.0.1:{self.port.getHost().port}")
        link = self.started(address, read)
        await until(lambda: "password" in link.problem)
        self.assertEqual(link.problem, "--guard-redis-password: No such file")

    async def test_lost_and_back(self) -> None:
        """The log has one line when Redis is lost, however often it cannot be reached, and one when it is back."""
        link = self.make()
        await until(lambda: link.is_ready)
        self.redis.answers[b"TIME"] = b"-LOADING\r\n"
        self.redis.close_all()
        await until(lambda: self.redis.commands.count([b"TIME"]) > 4)
        with self.assertRaises(RedisError):
            await link.send(b"x", RATES)
        del self.redis.answers[b"TIME"]
        self.redis.answers[b"TIME"] = b"*2\r\n" + bulk(b"1") + bulk(b"2")
        await until(lambda: self.ready == 2)
        await link.send(b"x", ())
        about = [line for line in self.lines if line.startswith("guard-redis")]
        self.assertEqual(len(about), 2)
        self.assertIn("this server decides alone until it is back", about[0])
        self.assertIn("connected again", about[1])

    async def test_a_redis_that_permits_too_little(self) -> None:
        """If no message can be published, the log has one line, although the connections are made again and again."""
        self.redis.answers[b"PUBLISH"] = b"-NOPERM this user has no permissions\r\n"
        link = self.make()
        link.on_ready = lambda: link.send(b"x", ()).addErrback(lambda _: None)
        await until(
            lambda: self.redis.commands.count([b"PUBLISH", b"imapshield:reports", b"x"]) > 3
        )
        self.assertEqual(len(self.lines), 1, self.lines)
        self.assertIn(
            "NOPERM this user has no permissions; this server decides alone", self.lines[0]
        )

    async def test_a_redis_that_wants_no_clients(self) -> None:
        """What Redis says before it closes the connection is the problem."""
        self.patch(FakeRedisProtocol, "connectionMade", _refuse)
        link = self.make()
        await until(lambda: link.problem == "ERR max number of clients reached")

    async def test_the_clock_of_a_slow_redis(self) -> None:
        """A reply that took long says little about the clock of Redis; what it does not contradict stays."""
        link = self.make()
        await until(lambda: link.is_ready)
        assert link._commands is not None
        known, said = link.clock_offset, 5000.5
        for sent, answered, offset in (
            (said - known - 1.0, said - known + 2.0, known),
            (100.0, 101.0, said - 101.0),
        ):
            self.patch(link, "_reactor", _Times(sent, answered))
            await link._read_clock(link._commands)
            self.assertAlmostEqual(link.clock_offset, offset, places=3)
        link._reactor = reactor

    async def test_a_silent_redis(self) -> None:
        """A reply that takes too long ends the connections, whatever it is the reply to."""
        self.patch(redis_link, "REPLY_SECONDS", 0.05)
        link = self.make()
        await until(lambda: link.is_ready)
        for command in (b"PUBLISH", b"EVAL"):
            before, kept = self.ready, self.redis.answers[command]
            self.redis.answers[command] = b""
            with self.assertRaises(RedisError):
                await link.send(b"x", RATES)
            self.redis.answers[command] = kept
            await until(lambda: self.ready > before)  # noqa: B023
        self.redis.answers[b"TIME"] = b""
        self.redis.close_all()
        await until(lambda: not link.is_ready)

    async def test_a_listener_that_hears_nothing(self) -> None:
        """If the own messages do not come back, both connections are made again."""
        self.patch(redis_link, "CLOCK_SECONDS", 0.05)
        link = self.make()
        await until(lambda: self.ready == 2)
        self.assertIsNotNone(link)

    async def test_a_full_redis(self) -> None:
        """Without memory for rates, messages still pass; the log has a line when it begins and when it ends."""
        link = self.make()
        await until(lambda: link.is_ready)
        self.redis.answers[b"EVAL"] = b"-OOM command not allowed\r\n"
        for _ in range(2):
            self.assertIsNone(await link.send(b"x", RATES))
        self.redis.answers[b"EVAL"] = b"*1\r\n" + bulk(b"1.0")
        self.assertEqual(await link.send(b"x", RATES), [1.0])
        about = [line for line in self.lines if "rates" in line]
        self.assertEqual(len(about), 2)
        self.assertIn("OOM command not allowed; rates are counted by each server alone", about[0])

    async def test_texts_of_redis(self) -> None:
        """What Redis says is a line of bounded length, and cannot control a terminal."""
        link = self.make()
        await until(lambda: link.is_ready)
        said = "OOM \x1b]0;owned\x07 ä\t" + "x" * 5000
        self.redis.answers[b"EVAL"] = b"-" + said.encode() + b"\r\n"
        self.assertIsNone(await link.send(b"x", RATES))
        self.redis.answers[b"PUBLISH"] = b"-" + said.encode() + b"\r\n"
        with self.assertRaises(RedisError):
            await link.send(b"x", ())
        await until(lambda: len([line for line in self.lines if "OOM" in line]) == 2)
        for line in (each for each in self.lines if "OOM" in each):
            self.assertIn(r"OOM \x1b]0;owned\x07 \xc3\xa4 xxx", line)
            self.assertTrue(line.isprintable())
            self.assertLess(len(line), 400)

    async def test_a_lying_redis(self) -> None:
        """Replies that are malformed, too long, endless or not asked for end the connection, and nothing is kept."""
        link = self.make()
        await until(lambda: link.is_ready)
        for lie in (
            *(b"$99999999999\r\n", b"*99999999\r\n", b"$x\r\n", b"\xff\r\n", b"*-7\r\n"),
            *(b":1\r\n:2\r\n", b"*1\r\n" * 6000, b"x" * 20000, b"*2\r\n" + bulk(b"1")),
        ):
            before, self.redis.answers[b"EVAL"] = self.ready, lie
            with self.assertRaises(RedisError, msg=repr(lie[:20])):
                await link.send(b"x", RATES)
                await turns()
                await link.send(b"x", RATES)
            await until(lambda: self.ready > before)  # noqa: B023
        self.redis.answers[b"TIME"] = b"+soon\r\n"
        self.redis.close_all()
        await until(lambda: "malformed reply to TIME" in link.problem)

    async def test_a_unix_socket(self) -> None:
        """Redis may be at a UNIX socket."""
        path = self.mktemp()
        port = reactor.listenUNIX(path, self.redis)
        self.addCleanup(port.stopListening)
        address = RedisAddress("unix", path=path)
        link = self.started(address, lambda: None)
        await until(lambda: link.is_ready)
