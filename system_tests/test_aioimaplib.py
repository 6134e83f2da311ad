"""aioimaplib (PyPI): several commands in flight on one connection, many connections in one loop, and its IDLE loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aioimaplib

from system_tests.maildirs import deliver, flags_by_subject, small_message
from system_tests.server_case import PASSWORD, USER, ServerCase


class AioimaplibTests(ServerCase):
    def run_async(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await scenario()

        asyncio.run(bounded())

    async def async_login(self) -> Any:
        client = aioimaplib.IMAP4(host="127.0.0.1", port=self.port, timeout=30)
        await client.wait_hello_from_server()
        self.assertEqual((await client.login(USER, PASSWORD)).result, "OK")
        return client

    async def lines(self, command: Awaitable[Any]) -> Any:
        """Return the lines of a response that must be OK."""
        response = await command
        self.assertEqual(response.result, "OK", response)
        return response.lines

    def test_commands_of_a_session_work(self) -> None:
        """Create, append, search, fetch, store, copy, move, expunge and close work."""

        async def scenario() -> None:
            client = await self.async_login()
            await self.lines(client.create("Kept"))
            for subject in "abcd":
                await self.lines(client.append(small_message(subject), "INBOX"))
            await self.lines(client.select("INBOX"))
            self.assertEqual((await self.lines(client.search("ALL")))[0], b"1 2 3 4")
            lines = await self.lines(client.fetch("2", "(BODY.PEEK[])"))
            self.assertIn(small_message("b"), [bytes(line) for line in lines])
            await self.lines(client.store("1", "+FLAGS (\\Flagged)"))
            await self.lines(client.copy("1", "Kept"))
            await self.lines(client.uid("move", "2", "Kept"))
            await self.lines(client.store("2", "+FLAGS (\\Deleted)"))
            await self.lines(client.expunge())
            await self.lines(client.namespace())
            await self.lines(client.id(name="aioimaplib"))
            await self.lines(client.close())
            await self.lines(client.logout())

        self.run_async(scenario)
        self.assertEqual(flags_by_subject(self.maildir()), {b"a": "F", b"d": ""})
        self.assertEqual(flags_by_subject(self.maildir(".Kept")), {b"a": "F", b"b": ""})

    def test_commands_in_flight_all_get_their_responses(self) -> None:
        """Ten connections in one loop, each with commands of several kinds in flight, get all their responses."""
        self.fill(100)

        async def scenario() -> None:
            async def use_connection() -> None:
                client = await self.async_login()
                await self.lines(client.select("INBOX"))
                # One command of each kind: aioimaplib mixes up the responses of three FETCHes in flight.
                for number in range(1, 41):
                    lines, *_ = await asyncio.gather(
                        self.lines(client.uid("fetch", str(number), "(UID RFC822.SIZE)")),
                        self.lines(client.noop()),
                        self.lines(client.status("INBOX", "(MESSAGES)")),
                        self.lines(client.list('""', "*")),
                    )
                    self.assertIn(b"RFC822.SIZE", lines[0])
                await client.logout()

            await asyncio.gather(*(use_connection() for _ in range(10)))

        self.run_async(scenario)

    def test_idle_returns_a_delivery_within_a_second(self) -> None:
        """wait_server_push returns a delivery within a second, and the session works on after IDLE."""

        async def scenario() -> None:
            client = await self.async_login()
            await self.lines(client.select("INBOX"))
            idle = await client.idle_start(timeout=30)
            for number in range(3):
                started = time.monotonic()
                deliver(self.maildir(), small_message(f"late{number}"))
                while not any(b"EXISTS" in bytes(line) for line in await client.wait_server_push()):
                    pass
                self.assertLess(time.monotonic() - started, 1.0)
            client.idle_done()
            await asyncio.wait_for(idle, 10)
            self.assertEqual((await self.lines(client.search("ALL")))[0], b"1 2 3")
            await client.logout()

        self.run_async(scenario)
