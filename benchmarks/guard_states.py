"""Searches every state that `ConnectionGuard` can reach, with its limits scaled down to a small number.

The search applies every event to the real class in every state, and the same event to `GuardModel`, an independent
statement of the rules. It stops at the first difference, and reports the shortest sequence of events that leads there.
A state is the attributes of both. Two simplifications make the number of states finite. They lose nothing, because of
what the class does with the values:

* A counter is only increased, set to zero and compared with limits. So all values above the limit behave as the first
  of them. Only the observed value in a verdict differs, which is compared before the simplification. After the end of
  the connection no counter is read.
* The guard reads the name, the sizes and the rejection of a waiting command, and nothing else of it. Commands that
  agree in these are one object (`guard_model.ALIKE`).

The events obey the contract of the edge: a line arrives only while the input is not paused, and a command finishes
only if one runs. One event breaks it on purpose: a line that arrives all the same, for the rule that one command more
than the limit always resets the connection.
"""

import argparse
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

from benchmarks.guard_events import Event, Guard, canonical, client_events, outcome, server_events
from benchmarks.guard_model import ALIKE, SIZES, UNPACKED, GuardModel, Kind, Literal, Settings
from imapshield.guard.connection_guard import ConnectionGuard

COUNTER_BITS = 32  # of a state's number, for the number of its counters

OBSERVABLE = attrgetter("pending", "input_paused", "busy", "authenticated", "line_expected")


class Result(NamedTuple):
    """What a search has found.

    Args:
        states: how many states were reached.
        transitions: how many events were applied.
        closed: whether every reachable state was searched.
        violation: the first difference between the class and the rules; None if there is none.
        trace: the events that lead to it.
    """

    states: int
    transitions: int
    closed: bool
    violation: str | None = None
    trace: tuple[str, ...] = ()


def canonical_value(value: object) -> object:
    """Return an attribute with its commands replaced by `canonical` ones."""
    if isinstance(value, Kind):
        return value if value in UNPACKED.values() else canonical(value)
    if isinstance(value, tuple):
        return tuple([canonical_value(item) for item in value])
    return value


def has_new_command(value: object) -> bool:
    """Return whether `value` contains a command that is made again for each event."""
    if isinstance(value, Kind):
        return value not in SIZES and value not in ALIKE
    return isinstance(value, tuple) and any(map(has_new_command, value))


class Attributes:
    """The attributes of one object that belong to the state: its lists, its other control values, its counters.

    Args:
        value: the object in its first state.
        constant: names of attributes that do not belong to the state.
        caps: the largest value of each counter that matters.
    """

    def __init__(self, value: object, constant: set[str], caps: dict[str, int]) -> None:
        names = [name for name in vars(value) if name not in constant]
        names.sort(key=lambda name: type(getattr(value, name)) is not list)
        counters = [name for name in names if type(getattr(value, name)) is int]
        self.names = [name for name in names if name not in counters] + counters
        self.split = len(names) - len(counters)
        self.caps = [caps.get(name, sys.maxsize) for name in counters]
        self.end = len(names)
        self.constants = {name: getattr(value, name) for name in constant}
        self.lists = sum(type(getattr(value, name)) is list for name in names)

    def capped(self, counters: Sequence[int], ended: bool) -> list[int]:
        """Return `counters` without differences that do not matter."""
        caps = self.caps
        return [
            0 if ended and cap < sys.maxsize else min(n, cap)
            for n, cap in zip(counters, caps, strict=True)
        ]


class Search:
    """A search of all states of one configuration, breadth first.

    Args:
        settings: the configuration.
        guard_class: the class to check.
        max_states: how many states to search at most.
        trace: whether to remember how each state was reached.
    """

    def __init__(
        self,
        settings: Settings,
        guard_class: Guard = ConnectionGuard,
        max_states: int = sys.maxsize,
        trace: bool = True,
    ) -> None:
        self.settings = settings
        limits = settings.limits()
        scaled: Any = type("Scaled", (guard_class,), {"unpacked_commands": 1})
        self.guard, self.model = scaled(limits), GuardModel(settings)
        self._max_states = max_states
        bad = max(limits.max_bad_commands, limits.preauth_bad_commands)
        octets, commands = limits.preauth_bytes + 1, limits.preauth_commands + 1
        failures = limits.max_login_failures
        self._guard_attributes = Attributes(
            self.guard,
            {"limits"},
            {
                "_preauth_bytes": octets,
                "_preauth_commands": commands,
                "_bad_commands": bad,
                "_login_failures": failures,
            },
        )
        self._model_attributes = Attributes(
            self.model,
            {"limits", "settings", "closed"},
            {"octets": octets, "commands": commands, "bad": bad, "failures": failures},
        )
        self._events = [*client_events(settings), *server_events()]
        self._controls: dict[tuple[object, ...], int] = {}
        self._counters: dict[tuple[bool, Sequence[int], Sequence[int]], int] = {}
        self._capped: dict[tuple[int, ...], int] = {}
        self._control_list: list[tuple[object, ...]] = []
        self._counter_list: list[tuple[int, ...]] = []
        self._possible: dict[int, list[Event]] = {}  # no counter makes an event possible
        self._seen: set[int] = set()
        self._parents: dict[int, tuple[int, str]] | None = {} if trace else None
        self.transitions = 0

    def run(self) -> Result:
        """Search until every state is searched, a violation is found, or there are too many states."""
        for attributes, value in (
            (self._guard_attributes, self.guard),
            (self._model_attributes, self.model),
        ):
            values = {name: getattr(value, name) for name in attributes.names}
            value.__dict__ = values | attributes.constants
        first = self._key()
        self._seen.add(first)
        current, following = array("Q", [first]), array("Q")
        violation = self._invariants()
        while current and violation is None and len(self._seen) < self._max_states:
            for key in current:
                violation = self._expand(key, following)
                if violation is not None or len(self._seen) >= self._max_states:
                    break
            current, following = following, array("Q")
        closed = not current and violation is None
        return Result(len(self._seen), self.transitions, closed, violation, self._trace)

    _trace: tuple[str, ...] = ()

    def _expand(self, key: int, following: "array[int]") -> str | None:
        guard, model, seen = self.guard, self.model, self._seen
        state = self._decode(key)
        possible = self._possible.get(key >> COUNTER_BITS)
        if possible is None:
            self._restore(state)
            possible = [event for event in self._events if event.possible(model)]
            self._possible[key >> COUNTER_BITS] = possible
        self.transitions += len(possible)
        for event in possible:
            self._restore(state)
            Literal.closed = model.closed = 0
            real, expected = event.real(guard), event.model(model)
            if real != expected:
                return self._found(f"{event.name}: {real} instead of {expected}", key, event.name)
            if Literal.closed != model.closed:
                text = f"{event.name}: {Literal.closed} literals closed instead of {model.closed}"
                return self._found(text, key, event.name)
            successor = self._key()
            if successor not in seen:
                seen.add(successor)
                if self._parents is not None:
                    self._parents[successor] = key, event.name
                following.append(successor)
                problem = self._invariants()
                if problem is not None:
                    return self._found(f"after {event.name}: {problem}", key, event.name)
        return None

    def _found(self, what: str, key: int, event: str) -> str:
        trace = [event]
        while self._parents is not None and key in self._parents:
            key, event = self._parents[key]
            trace.append(event)
        self._trace = tuple(reversed(trace))
        return what

    # States as numbers

    def _key(self) -> int:
        """Return the number of the state that the guard and the model are in."""
        guard, model = self._guard_attributes, self._model_attributes
        real = tuple(self.guard.__dict__.values())  # `_restore` has put them into this order
        expected = tuple(self.model.__dict__.values())
        lists, split = guard.lists, guard.split
        control = (*map(tuple, real[:lists]), *real[lists:split], *expected[: model.split])
        high = self._controls.get(control)
        if high is None:
            high = self._new_control(control)
        counters = (
            self.model.end is None,
            real[split : guard.end],
            expected[model.split : model.end],
        )
        low = self._counters.get(counters)
        if low is None:
            low = self._new_counters(*counters)
        return high << COUNTER_BITS | low

    def _new_control(self, control: tuple[object, ...]) -> int:
        canonic = tuple(canonical_value(value) for value in control)
        number = self._controls.setdefault(canonic, len(self._control_list))
        if number == len(self._control_list):
            self._control_list.append(canonic)
        if not has_new_command(control):
            self._controls[control] = number
        return number

    def _new_counters(self, alive: bool, real: Sequence[int], expected: Sequence[int]) -> int:
        capped = (
            *self._guard_attributes.capped(real, not alive),
            *self._model_attributes.capped(expected, not alive),
        )
        number = self._capped.setdefault(capped, len(self._counter_list))
        if number == len(self._counter_list):
            self._counter_list.append(capped)
        self._counters[alive, real, expected] = number
        return number

    def _decode(self, key: int) -> "State":
        control = self._control_list[key >> COUNTER_BITS]
        counters = self._counter_list[key & (1 << COUNTER_BITS) - 1]
        guard, model = self._guard_attributes, self._model_attributes
        values = control[: guard.split] + counters[: len(guard.caps)]
        expected = control[guard.split :] + counters[len(guard.caps) :]
        return State(
            dict(zip(guard.names, values, strict=True)) | guard.constants,
            [(guard.names[n], control[n]) for n in range(guard.lists)],
            dict(zip(model.names, expected, strict=True)) | model.constants,
        )

    def _restore(self, state: "State") -> None:
        attributes = state.guard.copy()
        for name, commands in state.backlogs:
            attributes[name] = list(commands)
        self.guard.__dict__ = attributes
        self.model.__dict__ = state.model.copy()

    def _invariants(self) -> str | None:
        """Check what holds in every state, and return what does not."""
        guard, model = self.guard, self.model
        real, expected = OBSERVABLE(guard), OBSERVABLE(model)
        if real != expected:
            return f"pending, input_paused, busy, authenticated, line_expected: {real} {expected}"
        if guard.backlog_full() != model.backlog_full():
            return f"backlog_full() is {guard.backlog_full()}"
        for in_literal in (False, True):
            verdict = outcome(guard.timed_out(99, in_literal=in_literal))
            if verdict != model.timed_out(in_literal):
                return f"timed_out: {verdict}"
        for text, holds in self._facts():
            if not holds:
                return f"not true: {text}"
        return None

    def _facts(self) -> Iterator[tuple[str, bool]]:
        """Yield what must be true of the guard, whatever the model says: the model may be wrong."""
        guard, limits = self.guard, self.model.limits
        backlog, reports, end = guard._backlog, self.settings.reports, guard._final
        held = sum(SIZES[canonical(command)] for command in backlog)
        yield "the bytes counted are the bytes held", guard._backlog_bytes == held
        held = sum(command.memory for command in backlog)
        held += 0 if guard._running is None else guard._running.memory
        yield "the memory counted is that of the commands held", guard.memory == held
        parts = len(backlog) + (guard._running is not None) + guard._incomplete
        yield "the pending commands are those held", guard.pending == parts
        if end is not None:
            yield "a reported limit resets nothing", end.limit == "closed" or not reports(end.limit)
            return
        most = limits.backlog + reports("backlog")
        yield "the pending commands stay within their limit", guard.pending <= most
        yield (
            "something runs or waits while the input is paused",
            not guard.input_paused or guard.busy,
        )
        octets, commands = guard._preauth_bytes, guard._preauth_commands
        fits = octets <= limits.preauth_bytes or reports("preauth_bytes")
        yield "bytes stay within their limit", fits
        fits = commands <= limits.preauth_commands or reports("preauth_commands")
        yield "commands stay within their limit", fits


class State(NamedTuple):
    """A state, ready to be restored: the attributes of the guard, its lists, and the attributes of the model."""

    guard: dict[str, object]
    backlogs: list[tuple[str, Any]]
    model: dict[str, object]


def configurations(size: int) -> list[Settings]:
    """Return the configurations of the search with limits of `size`; of one less where one limit is only reported."""
    modes = [Settings(size, strict, report) for strict, report in product((False, True), repeat=2)]
    names = ("backlog", "preauth_bytes", "preauth_commands", "preauth_literal_size")
    return modes + [Settings(max(2, size - 1), reported=name) for name in names]


def main() -> int:
    """Run the search of the command line; return 1 if a rule is violated."""
    parser = argparse.ArgumentParser(
        prog="guard_states", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--limits", type=int, default=3, help="the size of the limits; default 3")
    parser.add_argument("--max-states", type=int, default=sys.maxsize, help="of each configuration")
    options = parser.parse_args()
    states = 0
    for settings in configurations(options.limits):
        started = time.monotonic()
        search = Search(settings, max_states=options.max_states, trace=options.limits <= 3)
        result = search.run()
        seconds = time.monotonic() - started
        end = "all states searched" if result.closed else "not all states searched"
        print(
            f"{settings}: {result.states} states, {result.transitions} transitions, {end}, {seconds:.0f} s"
        )
        states += result.states
        if result.violation is not None:
            print(f"VIOLATION: {result.violation}\n  " + "\n  ".join(result.trace))
            return 1
    print(f"{states} states, no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
