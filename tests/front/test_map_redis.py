"""A hash of Redis names the node of a user, over real connections to a stand-in for Redis."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from imapshield.config import ConfigError, load_settings
from imapshield.front.backend_address import parse_nodes
from imapshield.front.map_redis import MapRedis
from imapshield.front.map_sources import make_source
from imapshield.front.user_map import Answer, EntryWrong, LookUpFailed, Query
from imapshield.limits import Limits
from imapshield.shared import redis_protocol
from imapshield.shared.redis_address import RedisAddress
from tests.real_reactor import turns, until
from tests.shared.fake_redis import FakeRedis, FakeRedisProtocol, bulk

reactor: Any = installed_reactor
NODES = parse_nodes(["mail1=tls:mail1.example:993", "mail2=tls:mail2.example:993"])


class MapRedisTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.redis = FakeRedis()
        self.redis.answers[b"HMGET"] = self._found
        self.redis.answers[b"EXISTS"] = b":1\r\n"
        self.fields: dict[bytes, bytes] = {}
        self.port = reactor.listenTCP(0, self.redis, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.maps: list[MapRedis] = []
        self.addCleanup(self.stop)

    def _found(self, _: FakeRedisProtocol, command: list[bytes]) -> bytes:
        values = [self.fields.get(name) for name in command[2:]]
        return b"*3\r\n" + b"".join(b"$-1\r\n" if v is None else bulk(v) for v in values)

    def make(self, options: str = "", password: bytes | None = None) -> MapRedis:
        """Return the map, whose connection is closed when the test ends."""
        address = RedisAddress.parse(f"redis://127.0.0.1:{self.port.getHost().port}{options}")
        found = MapRedis(address, NODES, lambda: password, None, reactor)
        self.maps.append(found)
        return found

    async def stop(self) -> None:
        """Close the connections of all maps."""
        for each in self.maps:
            each.stop()
        await turns()
        await until(lambda: not self.redis.connections)

    async def test_fields(self) -> None:
        """The field of the user counts, then that of the domain, then that of everybody else."""
        found = self.make("/2?prefix=shop", b"secret")
        self.assertEqual(await found.ask(Query("alice@a.example")), Answer(""))
        self.assertEqual(
            self.redis.commands,
            [
                [b"AUTH", b"secret"],
                [b"SELECT", b"2"],
                [b"HMGET", b"shop:nodes", b"alice@a.example", b"*@a.example", b"*"],
                [b"EXISTS", b"shop:nodes"],
            ],
        )
        self.fields[b"*"] = b"mail1"
        self.assertEqual(await found.ask(Query("alice")), Answer("mail1"))
        self.fields[b"alice"] = b"mail2.example"
        self.assertEqual(await found.ask(Query("alice")), Answer("mail2"))
        self.assertEqual(len(self.redis.connections), 1)
        self.fields[b"alice"] = b"mail9"
        with self.assertRaises(EntryWrong):
            await found.ask(Query("alice"))

    async def test_redis_that_has_lost_its_data(self) -> None:
        """Without any hash nobody is unknown, so that no user is taken for one with a wrong password."""
        self.redis.answers[b"EXISTS"] = b":0\r\n"
        found = self.make()
        with self.assertRaisesRegex(LookUpFailed, "there is no hash imapshield:nodes; HSET it"):
            await found.ask(Query("alice"))
        self.redis.answers[b"EXISTS"] = b"-ERR no\r\n"
        with self.assertRaises(Exception):  # noqa: B017  as txredisapi or the connection fails
            await found.ask(Query("alice"))

    async def test_reply_of_many_long_strings(self) -> None:
        """It ends the connection before it takes memory, though each string is short enough."""
        self.patch(redis_protocol, "MAX_REPLY_BYTES", 10_000)
        self.fields[b"alice"] = b"x" * 9_000
        found = self.make()
        with self.assertRaises(EntryWrong):
            await found.ask(Query("alice"))
        self.fields[b"*"] = b"x" * 2_000
        with self.assertRaises(Exception):  # noqa: B017
            await found.ask(Query("alice"))

    async def test_questions_that_come_together(self) -> None:
        """They share one connection."""
        self.fields[b"*"] = b"mail1"
        found = self.make()
        asked = [Deferred.fromCoroutine(found.ask(Query(f"user{n}"))) for n in range(5)]
        self.assertEqual(await gatherResults(asked), [Answer("mail1")] * 5)
        self.assertEqual(len(self.redis.connections), 1)

    async def test_numbers_are_no_names(self) -> None:
        """An integer in the reply is refused, and the connection ends: it would become as many bytes."""
        found = self.make()
        for reply in (b"*3\r\n:99999999999\r\n$-1\r\n$-1\r\n", b"*3\r\n*0\r\n$-1\r\n$-1\r\n"):
            self.redis.answers[b"HMGET"] = reply
            with self.assertRaisesRegex(LookUpFailed, "malformed reply"):
                await found.ask(Query("alice"))

    async def test_value_that_looks_like_a_message(self) -> None:
        """The word "message" is a wrong node, and the next user gets no reply that was for another one."""
        found = self.make()
        self.fields = {b"alice": b"message", b"*": b"mail1"}
        with self.assertRaises(EntryWrong):
            await found.ask(Query("alice"))
        self.fields[b"bob"] = b"mail2"
        self.assertEqual(await found.ask(Query("bob")), Answer("mail2"))

    async def test_question_that_is_given_up(self) -> None:
        """Its late reply must not become the answer about another user, so the connection ends."""
        self.redis.answers[b"HMGET"] = b""
        found = self.make()
        asked = Deferred.fromCoroutine(found.ask(Query("alice")))
        await until(lambda: self.redis.commands)
        asked.cancel()
        asked.addErrback(lambda _: None)
        self.redis.answers[b"HMGET"] = self._found
        self.fields[b"bob"] = b"mail2"
        self.assertEqual(await found.ask(Query("bob")), Answer("mail2"))

    async def test_redis_that_lies_or_is_down(self) -> None:
        """An error, a reply of another kind and a lost connection are failures; the next question connects again."""
        found = self.make()
        for answer in (b"-ERR no\r\n", b"+OK\r\n"):
            self.redis.answers[b"HMGET"] = answer
            with self.assertRaises(Exception):  # noqa: B017  of txredisapi, which raises many kinds
                await found.ask(Query("alice"))
        self.redis.answers[b"HMGET"] = self._found
        self.assertEqual(await found.ask(Query("alice")), Answer(""))
        self.redis.close_all()
        await turns()
        self.assertEqual(await found.ask(Query("alice")), Answer(""))
        self.redis.answers[b"AUTH"] = b"-WRONGPASS no\r\n"
        refused = self.make(password=b"wrong")
        asked = [Deferred.fromCoroutine(refused.ask(Query("alice"))) for _ in range(2)]
        for each in asked:
            with self.assertRaises(Exception):  # noqa: B017
                await each

    def test_option(self) -> None:
        """--user-map redis://HOST makes such a map; a password in the URL is refused."""
        options = {"backend": ["mail1=unix:/a"], "user-map": "redis://127.0.0.1/3"}
        settings = load_settings(options)
        source: Any = make_source(settings, NODES, reactor, Limits)
        self.assertEqual(source.text, "redis://127.0.0.1/3")
        settings = load_settings({**options, "user-map": "redis://me:secret@127.0.0.1"})
        with self.assertRaisesRegex(ConfigError, "--user-map redis: a password on the command"):
            make_source(settings, NODES, reactor, Limits)
