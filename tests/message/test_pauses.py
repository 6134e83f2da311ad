"""Long computations with messages can be interrupted often."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.message_items import MessageItems
from imapshield.message.pauses import call_with_pauses, pause_point
from imapshield.wire.commands.fetch import Attribute, Binary, FetchItem
from imapshield.wire.commands.search import EnvelopeKey, SearchKey, TextKey

HEAD = b"MIME-Version: 1.0\r\nContent-Type: multipart/%b; boundary=b\r\n\r\n"
MAX_CALLS = 8_000
"""Python calls between two pauses: a millisecond or two."""


class PauseTests(SynchronousTestCase):
    def most_calls(self, function: Callable[[], object]) -> int:
        """Return how many Python functions are called at most without a pause."""
        calls = most = pauses = 0

        def count(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call"

        def pause() -> None:
            nonlocal calls, most, pauses
            most, calls, pauses = max(most, calls), 0, pauses + 1

        sys.setprofile(count)
        try:
            call_with_pauses(function, pause)
        finally:
            sys.setprofile(None)
        self.assertGreater(pauses, 3)
        return max(most, calls)

    def check(self, data: bytes, *questions: FetchItem | SearchKey) -> None:
        for question in questions:
            message = MessageItems(data)
            if isinstance(question, (TextKey, EnvelopeKey)):
                calls = self.most_calls(partial(message.matches, question))
            else:
                calls = self.most_calls(partial(message.value, cast("FetchItem", question)))
            self.assertLess(calls, MAX_CALLS, question)

    def test_many_parts(self) -> None:
        """A message of many parts is parsed, described and searched with pauses."""
        data = HEAD % b"mixed" + b"--b\r\nContent-Type: text/x; c=d\r\n\r\nx\r\n" * 3000
        self.check(data, Attribute(b"BODYSTRUCTURE"), TextKey("zzz"))

    def test_long_headers(self) -> None:
        """Long header fields are read with pauses."""
        phrases = b"--b\r\n\r\nFrom: " + b'"" ' * 10_000 + b"\r\n\r\n\r\n"
        self.check(HEAD % b"digest" + phrases * 3, Attribute(b"BODYSTRUCTURE"))
        addresses = b"To: " + b"<@a:b@c>,\r\n " * 3_000 + b"d@e\r\n\r\n"
        self.check(addresses, Attribute(b"ENVELOPE"), EnvelopeKey(b"TO", "zzz"))
        self.check(b"Subject: " + b"=?utf-8?q?x?= " * 5_000 + b"\r\n\r\n", TextKey("zzz", True))

    def test_large_bodies(self) -> None:
        """Large bodies are decoded and searched with pauses, in every encoding."""
        for encoding, line in (
            (b"base64", b"w6TDtsO8"),
            (b"quoted-printable", b"=C3=A4 "),
            (b"8bit", b"x "),
        ):
            head = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            head += b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n"
            self.check(head + line * 40_000, TextKey("zzz"), Binary((1,)))

    def test_no_pause_outside(self) -> None:
        """A pause belongs to one thread and one call, also if the call fails."""
        paused: list[int] = []

        def fail() -> None:
            pause_point()
            raise ValueError

        def outer() -> None:
            self.assertRaises(ValueError, call_with_pauses, fail, lambda: paused.append(2))

        call_with_pauses(outer, lambda: paused.append(1))
        pause_point()
        self.assertEqual(paused, [2])
