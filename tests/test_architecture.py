"""Who may import whom: the walls of the drawing in README.rst, as a table."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import imapshield

PACKAGE = os.path.dirname(os.path.abspath(imapshield.__file__))
HERE = os.path.dirname(PACKAGE)

BASE = ("limits", "errors", "events")
PURE = (
    "os",
    "io",
    "socket",
    "sqlite3",
    "time",
    "logging",
    "threading",
    "subprocess",
    "asyncio",
    "ssl",
    "shutil",
    "tempfile",
)
NO_DISK = tuple(name for name in PURE if name not in ("time", "logging"))
RUNTIME = ("twisted", "zope", "OpenSSL", "service_identity")


class Rule(NamedTuple):
    """What the modules of one part may import: of ours, of others', and never of the standard library."""

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


# The first rule that fits a module, from the special to the general, is the one that counts.
RULES = {
    "limits": Rule(never=PURE),
    "errors": Rule(never=PURE),
    "events": Rule(never=PURE),
    "wire": Rule(BASE, never=PURE),
    "guard": Rule((*BASE, "wire.framing"), never=PURE),
    "message": Rule((*BASE, "wire"), never=PURE),
    "mailbox": Rule((*BASE, "wire", "message"), ("zope",), NO_DISK),
    "session": Rule((*BASE, "wire", "message", "mailbox"), ("zope",), NO_DISK),
    "maildir.worker": Rule((*BASE, "wire", "message", "mailbox"), ("twisted", "zope")),
    "maildir.watch": Rule((*BASE, "wire", "message", "mailbox"), ("twisted", "zope")),
    "maildir": Rule((*BASE, "wire", "message", "mailbox"), ("zope",)),
    "cred.passwords": Rule((), ("argon2",)),
    "cred.users": Rule(()),
    "cred.twisted_mail_account": Rule((*BASE, "mailbox", "wire", "cred.twisted_mail_mailbox"), ("twisted", "zope")),
    "cred.twisted_mail_mailbox": Rule((*BASE, "mailbox", "wire"), ("twisted", "zope")),
    "cred": Rule((*BASE, "mailbox", "maildir"), ("twisted", "zope")),
    "testing": Rule((*BASE, "cred", "edge", "mailbox", "message", "wire"), ("twisted", "zope")),
    "observe": Rule(("limits", "events"), ("twisted",)),
    "first_run": Rule(("cred.passwords", "cred.users")),
    "cli": Rule(("__init__", "cred.passwords", "cred.users")),
    "__main__": Rule(("cli",)),
    "__init__": Rule(("limits", "cred.realm", "edge.factory", "edge.protocol")),
    "service": Rule((), ("twisted",)),
    "edge": Rule((*BASE, "wire", "guard", "message", "mailbox", "session", "cred"), ("twisted", "zope", "OpenSSL")),
    "tap": Rule(
        (*BASE, "cred", "edge", "observe", "maildir", "service", "first_run"), ("twisted", "zope", "OpenSSL")
    ),
}  # fmt: skip


class Import(NamedTuple):
    """One name that a module imports, and the line."""

    module: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.imported}"


def modules() -> Iterator[tuple[str, str]]:
    """Each module of the package, as ``wire.framing``, and its file."""
    for folder, _, files in os.walk(PACKAGE):
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                parts = os.path.relpath(path, PACKAGE)[:-3].split(os.sep)
                if parts[-1] == "__init__" and len(parts) > 1:
                    parts.pop()
                yield ".".join(parts), path


def imports(module: str, source: str) -> Iterator[Import]:
    """Every import in `source`, wherever it stands; those for type checkers too, since a wall is a wall."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield Import(module, f"{node.module}.{alias.name}", node.lineno)


def below(name: str, roots: tuple[str, ...]) -> bool:
    """Whether `name` is one of `roots` or inside one."""
    return any(name == root or name.startswith(root + ".") for root in roots)


def broken(one: Import) -> str | None:
    """What rule an import breaks."""
    place = next((p for p in sorted(RULES, key=len, reverse=True) if below(one.module, (p,))), None)
    if place is None:
        return f"{one.module} is in no row of the table"
    rule, top = RULES[place], one.imported.partition(".")[0]
    if top == "imapshield":
        inside = one.imported.partition(".")[2] or "__init__"
        if inside.startswith("__version__"):
            inside = "__init__"
        own = place.partition(".")[0]
        return None if below(inside, (own, *rule.ours)) else str(one)
    if top in sys.stdlib_module_names:
        return str(one) if below(one.imported, rule.never) else None
    return None if top in rule.others else str(one)


# Debian 12's Python 3.11.2 matches possessive groups such as (?:a b?)*+ wrongly, or raises SystemError (CPython gh-106052,
# mended in 3.11.5); a possessive set such as [a-z]*+ is sound. These have such groups still; nobody may join them.
_POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,]*\})\+|\(\?>")


def strings(source: str) -> Iterator[str]:
    """Every literal in `source` that could be a pattern."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value
            yield value if isinstance(value, str) else value.decode("latin-1")


class PatternTests(SynchronousTestCase):
    def test_possessive_groups(self) -> None:
        """No pattern repeats a group possessively, which the oldest Pythons that we promise get wrong."""
        found = set()
        for module, path in modules():
            with open(path, encoding="utf-8") as file:
                if any(_POSSESSIVE_GROUP.search(text) for text in strings(file.read())):
                    found.add(module)
        self.assertEqual(found, set())


class ImportTests(SynchronousTestCase):
    def test_walls(self) -> None:
        """No part of the package imports what its row of the table does not have."""
        found = list(modules())
        self.assertGreater(len(found), 40)
        bad = []
        for module, path in found:
            with open(path, encoding="utf-8") as file:
                bad += [text for one in imports(module, file.read()) if (text := broken(one))]
        self.assertEqual(bad, [])

    def test_the_table_bites(self) -> None:
        """A few imports which nobody may write are found."""
        for module, source in (
            ("wire.x", "import twisted"), ("wire.x", "from os import path"), ("wire.x", "from imapshield.mailbox import view"),
            ("wire.x", "def f():\n import time"), ("guard.x", "from imapshield.wire import grammar"), ("guard.x", "import time"),
            ("session.x", "from imapshield.maildir import store"), ("session.x", "from imapshield import guard"),
            ("maildir.store", "from twisted.internet import defer"), ("cred.x", "from imapshield.session import session"),
            ("edge.x", "from imapshield.maildir import store"), ("observe.x", "import attr"), ("message.x", "import requests"),
            ("nowhere", "import re"), ("cred.checkers", "import argon2"),
            ("edge.x", "from imapshield.testing import Server"), ("tap", "from imapshield.testing import MemoryRealm"),
        ):  # fmt: skip
            with self.subTest(module=module, source=source):
                (one,) = imports(module, source)
                self.assertIsNotNone(broken(one))

    def test_reactor(self) -> None:
        """Only tap and the plugin (for its checker) import the reactor, and only inside a function."""
        inside, outside = [], []
        for module, path in [
            *modules(),
            ("plugin", f"{HERE}/twisted/plugins/imapshield_plugin.py"),
        ]:
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read())
            functions = [
                n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            local = {name for f in functions for name in imports(module, ast.unparse(f))}
            wherever = set(imports(module, ast.unparse(tree)))
            for found, names in ((inside, local), (outside, wherever)):
                found += [n.module for n in names if n.imported == "twisted.internet.reactor"]
        self.assertEqual(sorted(inside), ["plugin", "tap"])
        self.assertEqual(sorted(outside), ["plugin", "tap"])

    def test_declared(self) -> None:
        """Whatever the package imports of others is a dependency that pyproject.toml declares."""
        with open(os.path.join(HERE, "pyproject.toml"), "rb") as file:
            project = tomllib.load(file)["project"]
        declared = " ".join(project["dependencies"]).lower()
        for name in ("twisted", "zope.interface", "service-identity", "pyopenssl"):
            self.assertIn(name, declared)
        self.assertIn("argon2-cffi", " ".join(project["optional-dependencies"]["argon2"]))
        allowed = {name for rule in RULES.values() for name in rule.others}
        self.assertEqual(allowed - {*RUNTIME, "argon2"}, set())
