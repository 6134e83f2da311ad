"""Reverses what `setup` has done if a later step fails."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class NotUndone(Exception):
    """A step has failed, and an earlier one could not be reversed. The text says what has failed and what is left."""


class Undo:
    """The reversals of the steps that were done, and the directories that these have opened.

    Attributes:
        files: closes what the reversals use.
    """

    def __init__(self) -> None:
        self._reversals: list[tuple[str, Callable[[], object]]] = []
        self.files = ExitStack()

    def add(self, what: str, reverse: Callable[[], object]) -> None:
        """Add a reversal. `what` names the change if it fails: "created /etc/imapshield"."""
        self._reversals.append((what, reverse))

    def run(self) -> list[str]:
        """Reverse all, the last step first, and return what could not be reversed."""
        left = []
        # Another Ctrl-C must not end this in the middle.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            while self._reversals:
                what, reverse = self._reversals.pop()
                try:
                    reverse()
                except FileNotFoundError:
                    pass  # it is gone, as it should be
                except Exception as error:
                    reason = error.strerror if isinstance(error, OSError) else str(error)
                    left.append(f"{what} ({reason or type(error).__name__})")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return left


@contextmanager
def undone_on_error() -> Iterator[Undo]:
    """Undo the steps of a block in the reverse order if it raises, also at a signal that is an exception.

    Raises:
        NotUndone: the block has raised, and something is left.
    """
    undo = Undo()
    with undo.files:
        try:
            yield undo
        except BaseException as error:
            if left := undo.run():
                reason = (
                    f"{error.filename}: {error.strerror}"
                    if isinstance(error, OSError)
                    else str(error) or "interrupted"
                )
                raise NotUndone(
                    f"{reason}; this is left, reverse it yourself: {', '.join(left)}"
                ) from None
            raise
