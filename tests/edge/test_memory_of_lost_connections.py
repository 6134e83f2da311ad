"""What a command holds is freed when its connection ends, without a garbage collection."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from imapshield.mailbox.values import FetchResult
from imapshield.session import fetch_responses
from imapshield.session.handlers import fetch
from tests.session.test_unread_responses import UnreadCase


class KeptResult(list[Any]):
    """A column of a result, which can have a weak reference."""


class LostConnectionTests(UnreadCase):
    def test_result_is_freed(self) -> None:
        """A FETCH whose client is reset or leaves while it waits keeps no result."""
        columns: list[weakref.ref[Any]] = []
        read_chunk = fetch_responses.read_chunk

        async def noting_read_chunk(*args: Any) -> FetchResult:
            fetched = await read_chunk(*args)
            fetched.columns[:] = [KeptResult(column) for column in fetched.columns]
            columns.extend(weakref.ref(column) for column in fetched.columns)
            return fetched

        self.patch(fetch, "read_chunk", noting_read_chunk)
        for command in (b"FETCH 1:500 BODY.PEEK[HEADER]", b"FETCH 1:500 (BODY[HEADER] FLAGS)"):
            for reset in (False, True):
                client = self.login(b"s SELECT INBOX")
                gc.disable()
                self.addCleanup(gc.enable)
                client.protocol.dataReceived(b"c " + command + b"\r\n")
                client.run_due_calls()
                self.assertTrue([column for column in columns if column() is not None])
                if reset:
                    client.protocol.reset("a test")
                client.lose_connection()
                client.run_due_calls()
                kept = [column for column in columns if column() is not None]
                gc.enable()
                self.assertEqual(kept, [], command)
