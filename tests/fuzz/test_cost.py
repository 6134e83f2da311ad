"""The costliest inputs that `tests.fuzz.cost` has found, and what they may cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.cost import message, stranger, user


class Worst(NamedTuple):
    """A kind of input: `begin`, and `unit` as often as it is repeated.

    `most` is the number of bytecodes for each octet that it may cost. CPython 3.11 executes about two thirds of it;
    the number differs between versions of Python.
    """

    cost: Callable[[bytes], int]
    begin: bytes
    unit: bytes
    most: int

    def bytecodes(self, times: int) -> tuple[int, int]:
        """Return how many bytecodes the input takes, and its octets."""
        data = self.begin + self.unit * times
        return self.cost(data), len(data)


WORST = {
    "empty_lines_of_a_stranger": Worst(stranger, b"", b"\r\n", 600),
    "literals_of_a_stranger": Worst(stranger, b"", b"a X {0+}\r\n{0+}\r\n\r\n", 240),
    "lines_that_are_not_DONE": Worst(user, b"a IDLE\r\n", b"DODLE\r\n", 420),
    "addresses_of_words_and_quoted_strings": Worst(message, b"From: a@b, ", b'Tue, 1 F"e"', 660),
}


class CostTests(SynchronousTestCase):
    """One test for each of the worst inputs."""


def _test(worst: Worst) -> Callable[[CostTests], None]:
    def test(self: CostTests) -> None:
        worst.bytecodes(40)  # the first run also does what is done once, or is counted otherwise
        (one, octets), (two, more_octets) = worst.bytecodes(40), worst.bytecodes(80)
        self.assertLess(one / octets, worst.most)
        self.assertLess(two / more_octets, worst.most)
        self.assertLess(two, 2.2 * one)

    return test


for _name, _worst in WORST.items():
    _method = _test(_worst)
    _method.__doc__ = (
        f"The cost of {_name.replace('_', ' ')} is bounded for each octet, and linear."
    )
    setattr(CostTests, f"test_{_name}", _method)
