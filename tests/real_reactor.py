"""Waits on the global reactor for what happens, not for a time: on a busy machine any time may be too short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

_reactor: Any = reactor


async def turns(number: int = 5) -> None:
    """Wait for turns of the reactor. In each it looks at its sockets; over loopback, what was sent has arrived."""
    for _ in range(number):
        await deferLater(_reactor, 0)


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` returns something true."""
    while not condition():
        await deferLater(_reactor, 0.005)
