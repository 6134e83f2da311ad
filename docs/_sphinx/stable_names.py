"""Sphinx: the page api.rst documents the names that the table in extending.rst calls stable."""

import ast
import inspect
import os
import re
from collections.abc import Iterator
from importlib import import_module
from textwrap import indent
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from zope.interface.interface import InterfaceClass

INDENT = "   "


def add_names(app: Sphinx, name: str, source: list[str]) -> None:
    """Add directives for all stable names to api.rst."""
    if name != "api":
        return
    table = os.path.join(app.srcdir, "extending.rst")
    app.env.note_dependency(table)
    with open(table, encoding="utf-8") as file:
        text = file.read()
    for module, names in stable_names(text):
        source[0] += f"\n\n{module}\n{'-' * len(module)}\n\n.. py:currentmodule:: {module}\n\n"
        source[0] += "".join(_directive(import_module(module), each, app.config) for each in names)


def stable_names(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules of the table "Which names are stable" of extending.rst, each with its names."""
    table = text.partition("\nWhich names are stable\n")[2]
    for name, cell in re.findall(
        r"^   \* - ``([\w.]+)``\n     - (.*(?:\n       .*)*)", table, re.MULTILINE
    ):
        module = import_module(name)
        names = [each for each in re.findall(r"``(\w+)``", cell) if each != "__version__"]
        if "``__all__``" in cell:
            names = list(module.__all__)
        elif cell.startswith("all ") or "subclasses" in cell:
            names += [each for each in _defined_names(module) if each not in names]
        yield name, names


def _defined_names(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    ]


def _directive(module: ModuleType, name: str, config: Config) -> str:
    """Return the source that documents a name."""
    value = getattr(module, name)
    if isinstance(value, InterfaceClass):
        return _interface(value, config)
    if not inspect.isclass(value):
        kind = "autofunction" if callable(value) else "autodata"
        return f".. {kind}:: {module.__name__}.{name}\n\n"
    kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    return f".. {kind}:: {module.__name__}.{name}\n{INDENT}:members:\n\n"


def _interface(value: InterfaceClass, config: Config) -> str:
    """Return the source that documents an interface, which autodoc does not take for a class.

    The arguments are those of the source, because an interface does not keep their types.
    """
    tree = ast.parse(inspect.getsource(import_module(value.__module__)))
    (node,) = (each for each in ast.walk(tree) if getattr(each, "name", "") == value.__name__)
    methods = {
        each.name: each
        for each in ast.walk(node)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    bases = ", ".join(base.__name__ for base in value.__bases__)
    text = f".. py:class:: {value.__name__}({bases})\n\n" + _docstring(value, config)
    for name, member in value.namesAndDescriptions():
        line = f".. py:attribute:: {name}"
        if name in methods:
            returns = methods[name].returns
            result = f" -> {ast.unparse(returns)}" if returns else ""
            line = f".. py:method:: {name}({ast.unparse(methods[name].args)}){result}"
        text += indent(f"{line}\n\n{_docstring(member, config)}", INDENT)
    return text


def _docstring(value: Any, config: Config) -> str:
    return indent(str(GoogleDocstring(inspect.cleandoc(value.getDoc()), config)), INDENT) + "\n\n"


def name_interfaces(*arguments: Any) -> tuple[str | None, str | None]:
    """Write interfaces in a signature as classes: their repr is no Python, so Sphinx could not read the signature."""
    *_, signature, result = arguments
    return tuple(
        text and re.sub(r"<InterfaceClass ([\w.]+)>", r"~\1", text) for text in (signature, result)
    )  # type: ignore[return-value]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", add_names)
    app.connect("autodoc-process-signature", name_interfaces)
    return {"parallel_read_safe": True}
