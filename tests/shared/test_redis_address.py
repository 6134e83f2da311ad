"""The value of ``--guard-redis`` and its companions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, load_settings
from imapshield.shared.redis_address import RedisAddress


class RedisAddressTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """A host with or without a port and a database, TLS with an authority, and a UNIX socket."""
        for text, expected in {
            "redis://localhost": RedisAddress("redis://localhost", "localhost", 6379),
            "redis://bob@[::1]:7/2": RedisAddress(
                "redis://bob@[::1]:7/2", "::1", 7, user="bob", database=2
            ),
            "rediss://r.example?ca=/c.pem&prefix=mail:": RedisAddress(
                *("rediss://r.example?ca=/c.pem&prefix=mail:", "r.example", 6379),
                uses_tls=True,
                authority="/c.pem",
                prefix="mail:",
            ),
            "unix:/run/redis.sock?db=1": RedisAddress(
                "unix:/run/redis.sock?db=1", path="/run/redis.sock", database=1
            ),
        }.items():
            self.assertEqual(RedisAddress.parse(text), expected)

    def test_what_is_refused(self) -> None:
        """Each error says what to type."""
        for text in (
            *("localhost", "http://x", "redis://", "redis://h:port", "redis://h#x", "redis://h/a"),
            *(
                "redis://h?ca=x",
                "rediss://h?key=x",
                "redis://h?prefix=a b",
                "unix:relative",
                "unix://h/p",
            ),
        ):
            with self.assertRaises(ValueError, msg=text):
                RedisAddress.parse(text)

    def test_local_addresses(self) -> None:
        """Only this machine is local, whatever a name service says of other names."""
        local = {"redis://localhost", "redis://127.0.0.1", "redis://[::1]", "unix:/r"}
        for text in (*local, "redis://192.0.2.1", "redis://mail.example"):
            self.assertEqual(RedisAddress.parse(text).is_local, text in local)


class OptionTests(SynchronousTestCase):
    def test_all_options(self) -> None:
        """The options become settings."""
        given = {"guard-redis": "redis://h", "guard-secret": "s"}
        settings = load_settings(given)
        self.assertEqual((settings.guard_redis, settings.guard_secret), ("redis://h", "s"))
        self.assertIsNone(load_settings({}).guard_redis)

    def test_errors(self) -> None:
        """Companions without ``--guard-redis``, no secret, and passwords that others could read are refused."""
        secret, password = {"guard-secret": "s"}, {"guard-redis-password": "p"}
        for given, expected in (
            (secret, "--guard-secret needs --guard-redis"),
            (password, "--guard-redis-password needs --guard-redis"),
            ({"guard-redis": "redis://h"}, "needs --guard-secret"),
            ({"guard-redis": "nonsense"} | secret, "--guard-redis nonsense: write redis://HOST"),
            ({"guard-redis": "redis://h"} | secret | password, "in the clear"),
        ):
            with self.assertRaisesRegex(ConfigError, expected):
                load_settings(given)
        with self.assertRaises(ConfigError) as raised:
            load_settings({"guard-redis": "redis://u:hunter2@h"} | secret)
        self.assertIn("--guard-redis-password FILE", str(raised.exception))
        self.assertNotIn("hunter2", str(raised.exception))
        for url in ("rediss://h", "redis://127.0.0.1", "unix:/r"):
            load_settings({"guard-redis": url, "workers": "2"} | secret | password)
