"""PyPI's aioimaplib: several commands in flight on one connection, many connections in one loop, and its IDLE loop."""

from __future__ import annotations

import asyncio
import time

import aioimaplib

from system_tests.cases import PASSWORD, USER, ServerCase, deliver, letters, simple


class AioimaplibTests(ServerCase):
    def run_async(self, scenario) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await scenario()

        asyncio.run(bounded())

    async def box(self):
        client = aioimaplib.IMAP4(host="127.0.0.1", port=self.port, timeout=30)
        await client.wait_hello_from_server()
        self.assertEqual((await client.login(USER, PASSWORD)).result, "OK")
        return client

    async def done(self, command):
        answer = await command
        self.assertEqual(answer.result, "OK", answer)
        return answer.lines

    def test_session(self) -> None:
        """Folders, append, search, fetch, store, copy, move, expunge, close."""

        async def scenario() -> None:
            box = await self.box()
            await self.done(box.create("Kept"))
            for subject in "abcd":
                await self.done(box.append(simple(subject), "INBOX"))
            await self.done(box.select("INBOX"))
            self.assertEqual((await self.done(box.search("ALL")))[0], b"1 2 3 4")
            lines = await self.done(box.fetch("2", "(BODY.PEEK[])"))
            self.assertIn(simple("b"), [bytes(line) for line in lines])
            await self.done(box.store("1", "+FLAGS (\\Flagged)"))
            await self.done(box.copy("1", "Kept"))
            await self.done(box.uid("move", "2", "Kept"))
            await self.done(box.store("2", "+FLAGS (\\Deleted)"))
            await self.done(box.expunge())
            await self.done(box.namespace())
            await self.done(box.id(name="aioimaplib"))
            await self.done(box.close())
            await self.done(box.logout())

        self.run_async(scenario)
        self.assertEqual(letters(self.maildir()), {b"a": "F", b"d": ""})
        self.assertEqual(letters(self.maildir(".Kept")), {b"a": "F", b"b": ""})

    def test_in_flight(self) -> None:
        """Ten connections in one loop, each with commands of several kinds in flight."""
        self.fill(100)

        async def scenario() -> None:
            async def one() -> None:
                box = await self.box()
                await self.done(box.select("INBOX"))
                # Not two of one kind: aioimaplib mixes up the answers of three FETCHes in flight.
                for number in range(1, 41):
                    lines, *_ = await asyncio.gather(
                        self.done(box.uid("fetch", str(number), "(UID RFC822.SIZE)")),
                        self.done(box.noop()),
                        self.done(box.status("INBOX", "(MESSAGES)")),
                        self.done(box.list('""', "*")),
                    )
                    self.assertIn(b"RFC822.SIZE", lines[0])
                await box.logout()

            await asyncio.gather(*(one() for _ in range(10)))

        self.run_async(scenario)

    def test_idle(self) -> None:
        """A delivery comes out of wait_server_push within a second, and the session works on afterwards."""

        async def scenario() -> None:
            box = await self.box()
            await self.done(box.select("INBOX"))
            idle = await box.idle_start(timeout=30)
            for number in range(3):
                began = time.monotonic()
                deliver(self.maildir(), simple(f"late{number}"))
                while not any(b"EXISTS" in bytes(line) for line in await box.wait_server_push()):
                    pass
                self.assertLess(time.monotonic() - began, 1.0)
            box.idle_done()
            await asyncio.wait_for(idle, 10)
            self.assertEqual((await self.done(box.search("ALL")))[0], b"1 2 3")
            await box.logout()

        self.run_async(scenario)
