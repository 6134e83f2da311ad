"""The events of the search of `benchmarks.guard_states`, each for the real guard and for the model."""

from collections.abc import Callable, Iterator
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

from benchmarks.guard_model import (
    ALIKE,
    COMMANDS,
    PLAIN,
    REJECTED,
    SUSPENDING,
    TAKEN,
    GuardModel,
    Kind,
    Outcome,
    Settings,
    announcements,
)
from imapshield.guard.verdicts import (
    Accepted,
    AcceptLiteral,
    CommandEvent,
    Disconnect,
    RejectLiteral,
    Reset,
)

Guard = Any
"""The class under test, which a test may have changed."""

_NAMES = {Accepted: "accepted", AcceptLiteral: "accept", RejectLiteral: "reject"}


class Event(NamedTuple):
    """Something that happens to a connection.

    Args:
        name: for people.
        possible: whether it can happen in a state of the model.
        real: applies it to the guard, and returns the outcome.
        model: the same for the model.
    """

    name: str
    possible: Callable[[GuardModel], bool]
    real: Callable[[Guard], Outcome | Kind]
    model: Callable[[GuardModel], Outcome | Kind]


def outcome(verdict: object) -> Outcome:
    """Return `verdict` as the model writes it."""
    name = _NAMES.get(type(verdict))
    if name is not None:
        return name
    if isinstance(verdict, Reset):
        instead = outcome(verdict.instead)
        return "reset", verdict.limit, verdict.value, verdict.observed, instead
    if isinstance(verdict, Disconnect):
        return "bye", verdict.limit, verdict.value, verdict.observed
    return None if verdict is None else repr(verdict)


def canonical(command: Kind) -> Kind:
    """Return the command that stands for all commands that equal `command` once it waits."""
    known = ALIKE.get(command)
    if known is not None:
        return known
    if command.rejection is not None and (command.tag, command.parts, command.octets) == (
        b"a",
        (),
        1,
    ):
        return REJECTED  # perhaps `RawCommand.rejected` has made it
    return command


def line(guard: Guard, event: CommandEvent) -> Outcome:
    """Let a line arrive as `protocol.lineReceived` does."""
    return TAKEN if guard.consume_expected_line() else outcome(guard.admit(event))


def _overlong_line(guard: Guard) -> Outcome:
    return outcome(guard.admit(REJECTED))


def _line_all_the_same(guard: Guard) -> Outcome:
    return outcome(guard.admit(PLAIN))


def _bytes(guard: Guard, count: int) -> Outcome:
    return outcome(guard.bytes_received(count))


def _next_command(guard: Guard) -> Kind | None:
    command = guard.next_command()
    return None if command is None else canonical(command)


def _finished(guard: Guard) -> Outcome:
    return outcome(guard.command_finished())


def _expect_line(guard: Guard) -> Outcome:
    guard.line_expected = True
    return None


def _always(_: GuardModel) -> bool:
    return True


def _before_login(model: GuardModel) -> bool:
    return not model.authenticated


def _readable(model: GuardModel) -> bool:
    return not model.input_paused


def _readable_or_ended(model: GuardModel) -> bool:
    # After the end it suffices that one event for each method of the guard changes nothing.
    return not model.input_paused or model.end is not None


def _begins(model: GuardModel) -> bool:
    return not model.input_paused and not model.incomplete


def _continues(model: GuardModel) -> bool:
    return not model.input_paused and model.incomplete


def _readable_before_login(model: GuardModel) -> bool:
    return not model.input_paused and not model.authenticated


def _readable_after_login(model: GuardModel) -> bool:
    return not model.input_paused and model.authenticated


# What is decided about an event without regard to the state need not be tried in all states.
_COMMAND_CONDITIONS = {
    "plain": _readable_or_ended,
    "nested-suspending": _readable_before_login,
    "rejected": _continues,
    "rejected-suspending": _begins,
}
_LITERAL_CONDITIONS = {
    "literal": _readable_or_ended,
    "literal too large before login": _readable_before_login,
    "pushed literal too large": _readable_before_login,
    "literal too large": _readable_after_login,
    "literal of no command": _begins,
    "literal above the total": _continues,
}


def _running(model: GuardModel) -> bool:
    return model.running is not None


def _alive(model: GuardModel) -> bool:
    return model.running is not None and model.end is None


def client_events(settings: Settings) -> Iterator[Event]:
    """Yield what a client can do."""
    for count, possible in ((1, _always), (2, _before_login)):
        model_step = methodcaller("bytes_received", count)
        yield Event(f"{count} bytes", possible, partial(_bytes, count=count), model_step)
    for name, kind in COMMANDS.items():
        possible = _COMMAND_CONDITIONS.get(name, _readable)
        yield Event(name, possible, partial(line, event=kind), methodcaller("line", kind))
    for name, literal in announcements(settings.size).items():
        possible = _LITERAL_CONDITIONS.get(name, _readable)
        model_step = methodcaller("announce", literal)
        yield Event(name, possible, partial(line, event=literal), model_step)
    yield Event(
        "an overlong line in place of the expected one",
        lambda m: m.line_expected and m.end is None and m.pending <= m.limits.backlog,
        _overlong_line,
        methodcaller("complete", REJECTED),
    )
    if not settings.reports("backlog"):
        yield Event(
            "a line although the input is paused",
            lambda m: m.input_paused and m.end is None,
            _line_all_the_same,
            methodcaller("complete", PLAIN),
        )


def server_events() -> Iterator[Event]:
    """Yield what the server can do."""
    yield Event("next command", _always, _next_command, methodcaller("next_command"))
    yield Event("finished", _running, _finished, methodcaller("command_finished"))
    yield Event(
        "a line is expected",
        lambda m: m.running is SUSPENDING and not m.line_expected and m.end is None,
        _expect_line,
        _expect_line,
    )
    methods: dict[str, Callable[[GuardModel], bool]] = {
        "command_parsed": _alive,
        "bad_command": _alive,
        "login_failed": _alive,
        "login": lambda m: _alive(m) and not m.authenticated,
        "logout": lambda m: _alive(m) and m.authenticated,
        "discard": _always,
    }
    for name, possible in methods.items():
        yield Event(name, possible, methodcaller(name), methodcaller(name))
