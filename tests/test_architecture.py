"""The import rules behind the drawing in README.rst, checked against every module of the package."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import imapshield
from tests.import_rules import ORDER, RULES, RUNTIME

PACKAGE = os.path.dirname(os.path.abspath(imapshield.__file__))
CHECKOUT = os.path.dirname(PACKAGE)


class Import(NamedTuple):
    """One name that a module imports, and the line of the import."""

    module: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.imported}"


def modules() -> dict[str, str]:
    """Return the path of each module of the package, by a name such as ``wire.framing``."""
    found = {}
    for folder, _, files in os.walk(PACKAGE):
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                parts = os.path.relpath(path, PACKAGE)[:-3].split(os.sep)
                if parts[-1] == "__init__" and len(parts) > 1:
                    parts.pop()
                found[".".join(parts)] = path
    return found


def read(path: str) -> str:
    """Return the text of a file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def imports(module: str, source: str) -> Iterator[Import]:
    """Yield every import in `source`, including those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield Import(module, f"{node.module}.{alias.name}", node.lineno)


def internal_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return, for each module, the modules of the package that it imports."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        targets = set()
        for found in imports(module, source):
            name = found.imported.removeprefix("imapshield.")
            while name and name not in sources:
                name = name.rpartition(".")[0]
            if name and name != module and found.imported.startswith("imapshield."):
                targets.add(name)
        graph[module] = targets
    return graph


def shortest_cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the modules of a shortest import cycle, each importing the next; empty if there is none."""
    best: list[str] = []
    for start in graph:
        paths = {start: [start]}
        queue = [start]
        for module in queue:
            for target in graph[module]:
                if target == start and (not best or len(paths[module]) < len(best)):
                    best = paths[module]
                elif target not in paths:
                    paths[target] = [*paths[module], target]
                    queue.append(target)
    return best


def below(name: str, roots: tuple[str, ...]) -> bool:
    """Return whether `name` is one of `roots` or a module inside one."""
    return any(name == root or name.startswith(root + ".") for root in roots)


def violation(found: Import) -> str | None:
    """Return a description of the rule that an import breaks, None if it breaks none."""
    key = next((k for k in sorted(RULES, key=len, reverse=True) if below(found.module, (k,))), None)
    if key is None:
        return f"{found.module} has no row in RULES"
    rule, top = RULES[key], found.imported.partition(".")[0]
    if top == "imapshield":
        inside = found.imported.partition(".")[2] or "__init__"
        if inside.startswith("__version__"):
            inside = "__init__"
        own = key.partition(".")[0]
        return None if below(inside, (own, *rule.internal)) else str(found)
    if top in sys.stdlib_module_names:
        return str(found) if below(found.imported, rule.never) else None
    return None if top in rule.others else str(found)


def order_violations(package: str, graph: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield each import inside `package` that goes against its row order, and each module without a row."""
    ranks = {name: rank for rank, row in enumerate(ORDER[package]) for name in row}
    for module, targets in graph.items():
        if not module.startswith(package + "."):
            continue
        if module.split(".")[1] not in ranks:
            yield f"{module} has no row in ORDER[{package!r}]"
            continue
        for target in targets:
            if target.startswith(package + "."):
                rank, allowed = ranks.get(target.split(".")[1], 99), ranks[module.split(".")[1]]
                if rank > allowed:
                    yield f"{module} imports {target}, which belongs above it"


class ImportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sources = {module: read(path) for module, path in modules().items()}
        self.graph = internal_imports(self.sources)

    def test_every_import_is_allowed(self) -> None:
        """No part of the package imports anything that its row of RULES does not list."""
        self.assertGreater(len(self.sources), 40)
        violations = [
            text
            for module, source in self.sources.items()
            for found in imports(module, source)
            if (text := violation(found))
        ]
        self.assertEqual(violations, [])

    def test_rules_reject_wrong_imports(self) -> None:
        """RULES rejects a sample of forbidden imports."""
        for module, source in (
            ("wire.x", "import twisted"), ("wire.x", "from os import path"), ("wire.x", "from imapshield.mailbox import view"),
            ("wire.x", "def f():\n import time"), ("guard.x", "from imapshield.wire import grammar"), ("guard.x", "import time"),
            ("session.x", "from imapshield.maildir import store"), ("session.x", "from imapshield import guard"),
            ("maildir.store", "from twisted.internet import defer"), ("cred.x", "from imapshield.session import session"),
            ("edge.x", "from imapshield.maildir import store"), ("observe.x", "import attr"), ("message.x", "import requests"),
            ("edge.x", "from imapshield import testing"), ("nowhere", "import re"), ("cred.checkers", "import argon2"),
        ):  # fmt: skip
            with self.subTest(module=module, source=source):
                (found,) = imports(module, source)
                self.assertIsNotNone(violation(found))

    def test_imports_have_no_cycles(self) -> None:
        """No module imports itself through other modules, even under TYPE_CHECKING."""
        cycle = shortest_cycle(self.graph)
        self.assertEqual(" imports ".join([*cycle, *cycle[:1]]), "")

    def test_cycles_are_found(self) -> None:
        """The cycle test reports a shortest cycle, in the order of its imports."""
        graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"b"}, "e": {"a"}}
        self.assertEqual(shortest_cycle(graph), ["b", "d"])
        self.assertEqual(shortest_cycle({"a": {"b"}, "b": set()}), [])

    def test_packages_import_in_order(self) -> None:
        """Modules of session/ and edge/ import only modules of the same or of earlier rows in ORDER."""
        for package in ORDER:
            self.assertEqual(list(order_violations(package, self.graph)), [])

    def test_order_rejects_wrong_imports(self) -> None:
        """ORDER rejects an import of a later module and a module that it does not list."""
        graph = {
            "session.state": {"session.session"},
            "session.new": set(),
            "session.table": {"session.state"},
        }
        self.assertEqual(len(list(order_violations("session", graph))), 2)

    def test_only_the_dispatcher_imports_the_command_table(self) -> None:
        """Only the dispatcher imports the command table, so that the table can import every handler."""
        importers = [module for module, targets in self.graph.items() if "session.table" in targets]
        self.assertEqual(importers, ["session.dispatcher"])

    def test_only_programs_import_the_reactor(self) -> None:
        """Only tap, the plugin and two files that are processes import the reactor, inside a function: importing the
        package installs no reactor.
        """
        inside, anywhere = set(), set()
        plugin = read(f"{CHECKOUT}/twisted/plugins/imapshield_plugin.py")
        for module, source in {**self.sources, "plugin": plugin}.items():
            tree = ast.parse(source)
            functions = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            if any(
                "twisted.internet.reactor" in _imported(module, ast.unparse(f)) for f in functions
            ):
                inside.add(module)
            if "twisted.internet.reactor" in _imported(module, source):
                anywhere.add(module)
        programs = {"plugin", "tap", "testing.server_process", "workers.worker_process"}
        self.assertEqual((inside, anywhere), (programs, programs))

    def test_dependencies_are_declared(self) -> None:
        """pyproject.toml declares every third-party package that RULES permits."""
        with open(os.path.join(CHECKOUT, "pyproject.toml"), "rb") as file:
            project = tomllib.load(file)["project"]
        declared = " ".join(project["dependencies"]).lower()
        for name in ("twisted", "zope.interface", "service-identity", "pyopenssl"):
            self.assertIn(name, declared)
        extras = project["optional-dependencies"]
        self.assertIn("argon2-cffi", " ".join(extras["argon2"]))
        self.assertIn("python-ldap", " ".join(extras["ldap"]))
        self.assertIn("pamela", " ".join(extras["pam"]))
        self.assertIn("backports.zstd", " ".join(extras["zstd"]))
        self.assertIn("prometheus-client", " ".join(extras["metrics"]))
        # Python 3.14 has the package "compression".
        optional = {"argon2", "backports", "compression", "ldap", "pamela", "prometheus_client"}
        self.assertIn("acme", " ".join(extras["acme"]))
        self.assertIn("josepy", " ".join(extras["acme"]))
        self.assertIn("txredisapi", " ".join(extras["redis"]))
        optional |= {"txredisapi"}
        optional |= {"acme", "cryptography", "josepy", "requests"}  # the others come with acme
        permitted = {name for rule in RULES.values() for name in rule.others}
        self.assertEqual(permitted - {*RUNTIME, *optional}, set())


def _imported(module: str, source: str) -> set[str]:
    return {found.imported for found in imports(module, source)}


class FileTests(SynchronousTestCase):
    def test_file_names_are_unique_except_in_families(self) -> None:
        """Two modules share a file name only as one family of commands: its values, its grammar and its handlers."""
        packages = defaultdict(set)
        for module in modules():
            package, _, name = module.rpartition(".")
            if package and module not in {m.rpartition(".")[0] for m in modules()}:
                packages[name].add(package)
        families = {"wire.commands", "wire.grammar", "session", "session.handlers"}
        shared = {name: found for name, found in packages.items() if len(found) > 1}
        self.assertEqual({n: found for n, found in shared.items() if not found <= families}, {})

    def test_long_file_gives_a_reason(self) -> None:
        """The docstring of a file of more than 400 lines says why the file is not split."""
        for module, path in modules().items():
            source = read(path)
            if source.count("\n") > 400:
                self.assertIn("not split", ast.get_docstring(ast.parse(source)) or "", module)

    def test_architecture_page_names_every_file(self) -> None:
        """docs/architecture.rst names each file of the package, and no Python file that does not exist."""
        page = read(os.path.join(CHECKOUT, "docs", "architecture.rst"))
        files = {os.path.basename(path) for path in modules().values()} - {"__init__.py"}
        self.assertEqual(
            {f"{name}.py" for name in re.findall(r"(\w+)\.py", page)} - {"test_architecture.py"},
            files,
        )

    def test_drawing_shows_every_package(self) -> None:
        """A newcomer finds each package in the drawings of docs/architecture.rst."""
        page = read(os.path.join(CHECKOUT, "docs", "architecture.rst"))
        drawings = page.partition("The drawing")[2].partition(".. list-table")[0]
        packages = {module.partition(".")[0] for module in modules() if "." in module}
        self.assertEqual({p for p in packages if not re.search(rf"\b{p}\b", drawings)}, set())


# Python 3.11.2 (Debian 12) matches possessive groups such as (?:a b?)*+ incorrectly or raises SystemError (CPython
# gh-106052, fixed in 3.11.5). Possessive character sets such as [a-z]*+ work.
_POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,]*\})\+|\(\?>")


def strings(source: str) -> Iterator[str]:
    """Yield every string literal in `source`, because any of them could be a pattern."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value
            yield value if isinstance(value, str) else value.decode("latin-1")


# What the formatter makes of a statement that is too long because of its comment.
_TORN = re.compile(r"[(\[{]\n[^\n]*\n *[)\]}][^\n]{0,4}  # (?!fmt|noqa|type)")


class StyleTests(SynchronousTestCase):
    def test_no_statement_is_torn_by_its_comment(self) -> None:
        """A comment that makes its line too long is above the statement."""
        found = {module for module, path in modules().items() if _TORN.search(read(path))}
        self.assertEqual(found, set())


class PatternTests(SynchronousTestCase):
    def test_data_of_the_package_is_read_at_the_start(self) -> None:
        """`pip install` replaces the files of the package while the server runs, so it reads none of them later."""
        readers = []
        for module, path in modules().items():
            source = read(path)
            if re.search(r"from importlib(\.resources)? import (files|resources)\b", source):
                for scope in ast.walk(ast.parse(source)):
                    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        names = {node.id for node in ast.walk(scope) if isinstance(node, ast.Name)}
                        readers += [(module, scope.name)] if names & {"files", "resources"} else []
        self.assertEqual(readers, [("admin.web_pages", "__init__")])  # made at the start

    def test_patterns_have_no_possessive_groups(self) -> None:
        """No pattern repeats a group possessively, which the oldest supported Python matches incorrectly."""
        found = {
            module
            for module, path in modules().items()
            if any(_POSSESSIVE_GROUP.search(text) for text in strings(read(path)))
        }
        self.assertEqual(found, set())
