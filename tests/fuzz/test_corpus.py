"""Every input that the fuzzers keep: the first ones by hand, and those that have found something."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

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
