"""Parses a command of a known type, for tests that check its fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from imapshield.wire.commands.base import Command, LiteralData
from imapshield.wire.cursor import DEFAULT_LIMITS, GrammarLimits
from imapshield.wire.grammar import parse

C = TypeVar("C", bound=Command)


def parse_as(
    kind: type[C], parts: Sequence[bytes | LiteralData], limits: GrammarLimits = DEFAULT_LIMITS
) -> C:
    """Parse `parts` and return the command, which must be a `kind`."""
    command = parse(parts, limits=limits)
    assert isinstance(command, kind)
    return command
