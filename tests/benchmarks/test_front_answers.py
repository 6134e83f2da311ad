"""What `benchmarks.front_answers` sends, and which differences it takes for known ones."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.front_answers import SILENCE, kind, normal
from benchmarks.front_commands import COMMANDS, Exchange, exchanges

PAIR = Exchange([(b"a", [b"a NOOP\r\n"]), (b"b", [b"b NOOP\r\n"])])
OK = [b"a OK done\r\n", b"b OK done\r\n"]


class KindTests(SynchronousTestCase):
    def test_unknown_difference(self) -> None:
        """A response that another server sends in another way is printed."""
        self.assertEqual(kind(PAIR, OK, [b"a NO what\r\n", OK[1]]), "")
        self.assertEqual(kind(PAIR, [b"* 3 EXPUNGE\r\n", *OK], OK), "")

    def test_order(self) -> None:
        """Dovecot may run pipelined commands side by side."""
        self.assertEqual(kind(PAIR, OK, OK[::-1]), "order")
        self.assertEqual(kind(PAIR, [b"* 3 EXISTS\r\n", *OK], OK), "order of updates")

    def test_answers_of_the_shield(self) -> None:
        """The text of BAD may be that of the shield. Something else than BAD has the text as the name of the difference."""
        own = b"a BAD Invalid literal\r\n"
        self.assertEqual(kind(PAIR, [b"a BAD no\r\n", OK[1]], [own, OK[1]]), "text of BAD")
        self.assertEqual(kind(PAIR, OK, [own, OK[1]]), "Invalid literal")

    def test_dovecot_runs_a_literal_as_commands(self) -> None:
        """It reads the lines of a literal that it has refused, and ends the session after twenty of them."""
        line = b"Subject: BAD Error in IMAP command X: Unknown command.\r\n"
        self.assertEqual(kind(PAIR, [line, *OK], OK), "literal as commands")

    def test_bare_line_feed_and_silence(self) -> None:
        """What Dovecot does not answer says nothing."""
        bare = Exchange([(b"", [b"a NOOP\nx NOOP\r\n"])])
        self.assertEqual(kind(bare, OK, [b"a BAD\r\n"]), "bare LF")
        self.assertEqual(kind(PAIR, [SILENCE], OK), "not answered alone")

    def test_volatile_numbers_are_left_out(self) -> None:
        """Times and UIDVALIDITY differ in each run."""
        line = b"a OK [APPENDUID 17 3] done (0.001 + 0.000 secs).\r\n"
        self.assertEqual(normal([line]), [b"a OK [APPENDUID N 3] done.\r\n"])


class CommandTests(SynchronousTestCase):
    def test_same_seed_sends_the_same(self) -> None:
        """A session can be run again; another seed sends something else."""
        first, again, other = (list(exchanges(Random(seed))) for seed in (1, 1, 2))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertEqual(len(first), COMMANDS)

    def test_each_exchange_ends_in_step(self) -> None:
        """The last command can be answered by both servers, whatever they think of those before it."""
        for exchange in exchanges(Random(3)):
            tag, parts = exchange.commands[-1]
            self.assertEqual(parts, [tag + b" NOOP\r\n"])
