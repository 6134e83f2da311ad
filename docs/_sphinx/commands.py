"""Sphinx: the page commands.rst describes all commands and options, from their definitions."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from sphinx.application import Sphinx

from imapshield.cli import CHECK, command_definitions
from imapshield.command_definitions import Option, usage_options
from imapshield.first_run import FirstRunFolder
from imapshield.tap import Options


def add_commands(_app: Sphinx, name: str, source: list[str]) -> None:
    """Add the commands and the options of the server to commands.rst."""
    if name == "commands":
        folder = FirstRunFolder.from_environ(os.environ).folder
        text = "\n".join(_page()).replace(folder, "~/.local/share/imapshield")
        source[0] += f"\n\n{text}\n"


def _page() -> Iterator[str]:
    make_options: Any = Options  # Twisted's class has no annotations
    server = usage_options(make_options())
    for command in command_definitions():
        arguments = " ".join(
            f"[{each.name}]" if each.is_optional else each.name for each in command.arguments
        )
        yield from _heading(f"imapshield {command.name}")
        yield f"``{f'imapshield {command.name} {arguments}'.strip()}``: {command.text}."
        yield ""
        if command.name == CHECK:
            yield "The other options are those of the server.\n"
        yield from _terms((each.name, each.text) for each in command.arguments)
        known = {each.flags for each in server} if command.name == CHECK else set()
        yield from _options(each for each in command.options if each.flags not in known)
    yield from _heading("twistd imapshield")
    yield from _options(server)


def _heading(text: str) -> list[str]:
    return ["", text, "-" * len(text), ""]


def _options(options: Iterable[Option]) -> Iterator[str]:
    shown = (each for each in options if "--help" not in each.flags)
    yield from _terms(
        (f"{', '.join(each.flags)} {each.value}".strip(), each.text) for each in shown
    )


def _terms(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in terms:
        yield f"``{term}``"
        yield f"   {_escape(text)}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("_", "\\_")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", add_commands)
    return {"parallel_read_safe": True}
