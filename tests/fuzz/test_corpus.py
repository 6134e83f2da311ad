"""Every input that the fuzzers keep: the first ones by hand, and those that have found something."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.message import envelope
from imapshield.session.session import Session
from imapshield.wire import encode
from imapshield.wire.framing import Framer
from tests.fuzz.targets import TARGETS, corpus


class CorpusTests(SynchronousTestCase):
    """One test for each target."""


def _test(name: str) -> Callable[[CorpusTests], None]:
    def test(self: CorpusTests) -> None:
        inputs = sorted(corpus(name).iterdir())
        self.assertNotEqual(inputs, [])
        for path in inputs:
            try:
                TARGETS[name](path.read_bytes())
            except Exception as error:
                raise AssertionError(f"{name}/{path.name}: {error!r}") from error

    test.__doc__ = f"No input in the corpus of {name} does anything wrong."
    return test


for _name in TARGETS:
    setattr(CorpusTests, f"test_{_name}", _test(_name))


class PlantedBugTests(SynchronousTestCase):
    """The targets would notice an error: each of these is one."""

    def assert_noticed(self, name: str) -> None:
        """Assert that an input in the corpus of the target `name` fails."""
        for path in sorted(corpus(name).iterdir()):
            try:
                TARGETS[name](path.read_bytes())
            except Exception:
                return
        self.fail(f"no input of {name} has noticed the bug")

    def test_framer_out_of_step(self) -> None:
        """A framer that loses the byte after a literal is noticed."""
        receive = Framer.receive_literal

        def lose_a_byte(framer: Framer, data: bytes) -> bytes | None:
            rest = receive(framer, data)
            return rest[1:] if rest else rest

        self.patch(Framer, "receive_literal", lose_a_byte)
        self.assert_noticed("segments")

    def test_malformed_response(self) -> None:
        """A response with a bare line feed in a quoted string, or without its closing parenthesis, is noticed."""
        self.patch(envelope, "envelope", lambda _: b'("a\n" NIL')
        self.assert_noticed("mime")
        self.assert_noticed("edge")

    def test_internal_error(self) -> None:
        """A command that fails with an exception is noticed."""

        def fail(_: object) -> None:
            raise RuntimeError

        self.patch(Session, "after_command", fail)
        self.assert_noticed("edge")

    def test_unanswered_command(self) -> None:
        """A command without a tagged response is noticed."""
        for name in ("tagged", "short_tagged"):
            self.patch(encode, name, lambda *_: b"")
        self.assert_noticed("edge")

    def test_answers_depend_on_segments(self) -> None:
        """Input that is understood differently if TCP cuts it differently is noticed."""
        receive = ShieldedIMAP4Server.dataReceived

        def lose_one_byte_reads(server: ShieldedIMAP4Server, data: bytes) -> None:
            receive(server, b"" if data == b"\r" else data)

        self.patch(ShieldedIMAP4Server, "dataReceived", lose_one_byte_reads)
        self.assert_noticed("segments")
