"""The first start without options, from the command line to what is printed."""

import io
import os
import re
import socket
import sys
from unittest import mock

from imapshield.service import CannotServe
from tests.command_line import CommandLineTestCase


class FirstStartTests(CommandLineTestCase):
    async def start_and_stop(self, *arguments: str) -> str:
        """Start a service, stop it, and return what it has printed."""
        service = self.make(*arguments)
        service.privilegedStartService()
        await service.stopService()
        return self.printed()

    async def test_first_start_prints_user_and_password(self) -> None:
        """Once the server listens, the first start prints its address, user, password and what to try."""
        text = await self.start_and_stop("--listen", "tcp:0:interface=127.0.0.1")
        first = re.search(r'at (\S+), .*curl "imap://(\S+)/" -u demo:\w', text, re.DOTALL)
        assert first is not None, text
        self.assertEqual(first[1], first[2])
        self.assertRegex(first[1], r"^127\.0\.0\.1:[1-9]\d*$")
        text = await self.start_and_stop("--listen", "tcp:0:interface=127.0.0.2")
        self.assertRegex(text, r"listening on 127\.0\.0\.2:[1-9]")
        self.assertIn("shown at the first start", text)
        self.assertNotIn("-u demo:", text)

    async def test_first_start_with_other_endpoints(self) -> None:
        """The first start suggests curl only for an endpoint that curl can reach without TLS."""
        path = os.path.relpath(self.path("s"))  # a UNIX socket must have a short path
        text = await self.start_and_stop("--listen", f"unix:{path}")
        self.assertIn(f"at {path}, ", text)
        self.assertIn("password ", text)
        self.assertNotIn("curl", text)

    async def test_failed_first_start(self) -> None:
        """A start that cannot listen neither prints nor creates a password; the next start does."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            service = self.make("--listen", listen)
            with mock.patch.object(sys, "__stderr__", io.StringIO()):
                self.assertRaises(CannotServe, service.privilegedStartService)
        self.assertEqual(self.printed(), "")
        self.assertIn("first start", await self.start_and_stop("--listen", listen))
