"""The scripts of ``imapshield completion``, which let a shell complete the commands and options of the console script.

They are made from the definitions of the commands. Names of users and addresses are not completed: a shell would have
to ask the server for them.
"""

import re
import shlex
from collections.abc import Iterator, Sequence

from imapshield.command_definitions import Argument, Command, Option

_FILES = re.compile(r"FILE|PEM|DIR|MAILDIR|PATH|SOURCE|DIR_OR_PATTERN|VALUE")
"""What stands for a value that is a path, or may be one as those of the options of the server."""


def script(shell: str, commands: Sequence[Command]) -> str:
    """Return the script for a shell: ``bash``, ``fish`` or ``zsh``."""
    lines = {"bash": _bash, "fish": _fish, "zsh": _zsh}[shell](commands)
    return "\n".join(lines) + "\n"


def _is_file(value: str) -> bool:
    return _FILES.fullmatch(value) is not None


def _flags(options: Sequence[Option]) -> str:
    return " ".join(flag for option in options for flag in option.flags)


def _bash(commands: Sequence[Command]) -> Iterator[str]:
    yield "# imapshield completion bash > ~/.local/share/bash-completion/completions/imapshield"
    yield "_imapshield() {"
    yield "    local word=${COMP_WORDS[COMP_CWORD]} options= words= files= IFS=$'\\n'"
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    names = "\\n".join([*(command.name for command in commands), "--help", "--version"])
    yield f"        words=$'{names}'"
    yield "    else"
    yield "        case ${COMP_WORDS[1]} in"
    for command in commands:
        files = "yes" if any(_is_file(argument.name) for argument in command.arguments) else ""
        words = "\\n".join(word for argument in command.arguments for word in argument.choices)
        flags = "\\n".join(_flags(command.options).split())
        yield f"        {command.name}) options=$'{flags}' words=$'{words}' files={files} ;;"
    yield "        esac"
    yield '        case "${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD-1]}" in'
    for command in commands:
        for option in command.options:
            if option.value:
                patterns = "|".join(f'"{command.name} {flag}"' for flag in option.flags)
                words = "\\n".join(option.choices)
                files = "yes" if _is_file(option.value) else ""
                yield f"        {patterns}) options= words=$'{words}' files={files} ;;"
    yield "        esac"
    yield "    fi"
    yield "    if [[ $word == -* && $options ]]; then words=$options files=; fi"
    yield '    if [ -z "$files" ]; then compopt +o default; fi'
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")'
    yield "    local i"
    yield '    for i in "${!COMPREPLY[@]}"; do printf -v "COMPREPLY[i]" %q "${COMPREPLY[i]}"; done'
    yield "}"
    yield "complete -o default -F _imapshield imapshield"


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "# imapshield completion fish > ~/.config/fish/completions/imapshield.fish"
    yield "complete -c imapshield -f"
    for command in commands:
        text = _fish_quote(command.text)
        yield f"complete -c imapshield -n __fish_use_subcommand -a {command.name} -d {text}"
    for command in commands:
        start = f"complete -c imapshield -n '__fish_seen_subcommand_from {command.name}'"
        for argument in command.arguments:
            yield from _fish_argument(start, argument)
        for option in command.options:
            names = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in option.flags
            )
            value = ""
            if option.choices:
                value = f" -x -a {_fish_words(option.choices)}"
            elif option.value:
                value = " -r -F" if _is_file(option.value) else " -x"
            yield f"{start} {names}{value} -d {_fish_quote(option.text)}"


def _fish_argument(start: str, argument: Argument) -> Iterator[str]:
    if argument.choices:
        yield f"{start} -a {_fish_words(argument.choices)}"
    elif _is_file(argument.name):
        yield f"{start} -F"


def _fish_words(words: Sequence[str]) -> str:
    return _fish_quote(" ".join(word.replace(" ", "\\ ") for word in words))


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _zsh(commands: Sequence[Command]) -> Iterator[str]:
    yield "#compdef imapshield"
    yield "# imapshield completion zsh > a file _imapshield in a directory of $fpath"
    yield "_imapshield() {"
    yield "    if (( CURRENT == 2 )); then"
    yield "        local -a commands=("
    for command in commands:
        yield f"            {shlex.quote(command.name + ':' + command.text.replace(':', chr(92) + ':'))}"
    yield "        )"
    yield "        _describe command commands"
    yield "        return"
    yield "    fi"
    yield "    local name=$words[2]"
    yield "    shift words"
    yield "    (( CURRENT-- ))"
    yield "    case $name in"
    for command in commands:
        yield f"    {command.name}) _arguments \\"
        for option in command.options:
            for flag in option.flags:
                text = f"{flag}[{_zsh_escape(option.text)}]"
                if option.value:
                    text += f":value:{_zsh_action(option.value, option.choices)}"
                yield f"        {shlex.quote(text)} \\"
        for argument in command.arguments:
            action = _zsh_action(argument.name, argument.choices)
            separator = "::" if argument.is_optional else ":"
            yield f"        {shlex.quote(f'{separator}{_zsh_escape(argument.name)}:{action}')} \\"
        yield "        ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _imapshield ]]; then _imapshield "$@"; else compdef _imapshield imapshield; fi'


def _zsh_action(value: str, choices: Sequence[str]) -> str:
    if choices:
        return "(" + " ".join(choice.replace(" ", "\\ ") for choice in choices) + ")"
    return "_files" if _is_file(value) else " "


def _zsh_escape(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)
