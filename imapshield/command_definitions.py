"""The definitions of commands and options as plain values, from which completions and manual pages are made.

They are read from the parsers themselves, so no option is written down twice.
"""

import argparse
import inspect
from dataclasses import dataclass
from typing import Any

_OPTIONAL = (argparse.OPTIONAL, argparse.ZERO_OR_MORE, argparse.REMAINDER)


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        flags: its names with their dashes, such as ``("-u", "--uid")``.
        value: what stands for its value in the usage; empty if it has none.
        text: the help text.
        choices: all values that it can have; empty if they are not a list.
    """

    flags: tuple[str, ...]
    value: str
    text: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """An argument of a command that is no option.

    Attributes:
        name: what stands for it in the usage.
        text: the help text.
        is_optional: whether it may be omitted.
        choices: all values that it can have; empty if they are not a list.
    """

    name: str
    text: str
    is_optional: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: its name.
        text: the help text.
        arguments: its arguments in their order.
        options: its options.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]


def parser_commands(parser: argparse.ArgumentParser) -> list[Command]:
    """Return the subcommands of a parser."""
    (subparsers,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    texts = {action.dest: action.help or "" for action in subparsers._choices_actions}
    return [
        _command(name, texts.get(name, ""), child) for name, child in subparsers.choices.items()
    ]


def parser_options(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    """Return the options of a parser itself."""
    return tuple(
        Option(
            tuple(action.option_strings),
            "" if action.nargs == 0 else _value(action),
            _text(action),
            _choices(action),
        )
        for action in parser._actions
        if action.option_strings
    )


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    arguments = tuple(
        Argument(_value(action), _text(action), action.nargs in _OPTIONAL, _choices(action))
        for action in parser._actions
        if not action.option_strings
    )
    return Command(name, text, arguments, parser_options(parser))


def _value(action: argparse.Action) -> str:
    """Return what stands for the value of an option or argument in the usage."""
    return str(action.metavar or "|".join(_choices(action)) or action.dest.upper())


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))


def _text(action: argparse.Action) -> str:
    """Return the help text; ``%%`` stands for ``%`` in it."""
    return (action.help or "").replace("%%", "%")


def usage_options(options: Any) -> tuple[Option, ...]:
    """Return the options of a ``twisted.python.usage.Options``, in the order of their names."""
    shorts = {
        long: f"-{short}"
        for short, long in options.synonyms.items()
        if len(short) == 1 and long != short
    }
    found = []
    for long in sorted(options.longOpt, key=lambda long: long.removesuffix("=")):
        name = long.removesuffix("=")
        if options.synonyms.get(name, name) != name:
            continue
        flags = (*((shorts[name],) if name in shorts else ()), f"--{name}")
        text = " ".join(inspect.cleandoc(options.docs.get(name) or "").split())
        found.append(Option(flags, "VALUE" if long.endswith("=") else "", text))
    return tuple(found)
