"""What a server with ``--guard-redis`` has besides."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from imapshield.admin.metrics import _guard_redis
from imapshield.config import ConfigError, Settings
from imapshield.edge.admission import Admission
from imapshield.guard.process_guard import ProcessGuard
from imapshield.guard_state import GuardState
from imapshield.limits import Limits
from imapshield.operator_commands import _show_status
from imapshield.shared.guard_sharing import GuardSharing, member_name, read_password, redis_tls
from imapshield.shared.redis_address import RedisAddress
from tests.certificates import reload_authority, write_authority


class GuardSharingTests(TestCase):
    def setUp(self) -> None:
        self.secret = self.mktemp()
        with open(self.secret, "w") as file:
            file.write("0123456789abcdef\n")

    def make(self, url: str = "redis://127.0.0.1:1", **settings: Any) -> GuardSharing:
        settings.setdefault("guard_secret", self.secret)
        self.clock = clock = Clock()
        self.guard = ProcessGuard(Limits())
        admission = Admission(self.guard, [], clock.seconds)
        self.state = GuardState(
            None, self.guard.bans, self.guard.failures, reactor=clock, now=clock.seconds
        )
        return GuardSharing(
            Settings(guard_redis=url, **settings), admission, self.state, None, clock
        )

    def test_servers_with_one_secret_have_the_same_hashes(self) -> None:
        """Known users of one server are known users of the other, if their secret is the same."""
        keys = []
        for content in ("0123456789abcdef", "0123456789abcdef\n", "another secret of all"):
            with open(self.secret, "w") as file:
                file.write(content)
            self.make()
            self.state.start()
            keys.append(self.guard.failures.hash_account("alice"))
        self.assertEqual(keys[0], keys[1])
        self.assertNotEqual(keys[0], keys[2])

    def test_status(self) -> None:
        """The status says whether Redis can be used, and who else does."""
        sharing = self.make()
        self.assertEqual(
            self.successResultOf(Deferred.fromCoroutine(sharing.status())),
            {
                "connected": False,
                "problem": "not connected yet",
                "others": [],
                "reports": 0,
                "refused": 0,
                "refusal": "",
            },
        )
        sharing.exchange.start()
        sharing.stop()

    def test_operators_see_it(self) -> None:
        """The command ``status`` has a line about Redis, and the metrics have four figures."""
        found = Deferred.fromCoroutine(self.make().status())
        status = self.successResultOf(found) | {"problem": "", "others": ["one"]}
        answer = dict.fromkeys(("seconds", "connections", "max_connections", "without_login"), 1)
        answer |= dict.fromkeys(
            ("pending_commands", "memory_of_connections", "max_memory", "bans"), 1
        )
        lines = [*_show_status({**answer, "version": "1", "guard_redis": status})]
        self.assertIn("guard-redis  connected, shares with 1 other server", lines)
        self.assertEqual(len([*_guard_redis(status)]), 4)
        self.assertEqual([*_guard_redis(None)], [])

    def test_secrets_that_cannot_be_used(self) -> None:
        """A file that is missing or short is an error that says what to do."""
        with self.assertRaisesRegex(ConfigError, "name a readable file"):
            self.make(guard_secret=self.secret + "x")
        with open(self.secret, "w") as file:
            file.write("short")
        with self.assertRaisesRegex(ConfigError, "openssl rand"):
            self.make()

    def test_passwords(self) -> None:
        """The password is the content of the file, also of a credential of systemd."""
        with open(self.mktemp(), "w") as file:
            file.write("hunter2\n")
        self.assertEqual(read_password(Settings(guard_redis_password=file.name)), b"hunter2")
        self.assertIsNone(read_password(Settings()))
        self.patch(
            os,
            "environ",
            {**os.environ, "CREDENTIALS_DIRECTORY": os.path.dirname(os.path.abspath(file.name))},
        )
        missing = Settings(guard_redis_password="credential:nothing")  # noqa: S106
        self.assertRaises(ConfigError, read_password, missing)

    def test_tls(self) -> None:
        """``rediss:`` verifies the certificate; an authority that is no certificate is an error."""
        self.assertIsNotNone(redis_tls(RedisAddress.parse("rediss://h")))
        with self.assertRaisesRegex(ConfigError, "not a certificate|has no certificate"):
            self.make(f"rediss://h?ca={self.secret}")

    async def test_reload_of_the_authority(self) -> None:
        """A reload reads the file of ``ca=`` again; one that cannot be used changes nothing, and is told."""
        path = write_authority(self.mktemp())
        sharing = self.make(f"rediss://h?ca={path}")
        options: Any = sharing.link._tls_options
        problem = await reload_authority(self, path, options, sharing.reload)
        self.assertIn("--guard-redis: ca=", problem)
        self.assertEqual(await self.make().reload(), [])

    def test_names_are_unique(self) -> None:
        """Each process has another name, also after a restart."""
        self.assertNotEqual(member_name(), member_name())
