"""Taking back what was done of something that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Undo:
    """Steps to take back if what they belong to fails."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[bytes, ...]]] = []

    def add(self, step: Callable[..., object], *paths: bytes) -> None:
        """Remember how to take a step back."""
        self._steps.append((step, paths))

    def run(self) -> None:
        """Take everything back."""
        while self._steps:
            step, paths = self._steps.pop()
            with suppress(OSError):  # the file has another name by now, which is as good
                step(*paths)


@contextmanager
def undoing() -> Iterator[Undo]:
    """Take back the steps of a block that raises."""
    undo = Undo()
    try:
        yield undo
    except BaseException:
        undo.run()
        raise
