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

PACKAGE = os.path.dirname(os.path.abspath(imapshield.__file__))
CHECKOUT = os.path.dirname(PACKAGE)

BASE = ("limits", "errors", "events")
IO_MODULES = (
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
IO_EXCEPT_CLOCK_AND_LOG = tuple(name for name in IO_MODULES if name not in ("time", "logging"))
RUNTIME = ("twisted", "zope", "OpenSSL", "service_identity")


class Rule(NamedTuple):
    """The imports that the modules of one part may have.

    `internal`: parts of imapshield; `others`: third-party packages; `never`: standard library modules that are forbidden.
    """

    internal: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


# The rule with the most specific key that matches a module applies to the module.
RULES = {
    "limits": Rule(("front_limits",), never=IO_MODULES),
    "front_limits": Rule(never=IO_MODULES),
    "mailbox_name_options": Rule(never=IO_MODULES),
    "errors": Rule(("limits",), never=IO_MODULES),
    "events": Rule(never=IO_MODULES),
    "wire": Rule(BASE, never=IO_MODULES),
    "guard": Rule((*BASE, "wire.framing", "wire.traits"), never=IO_MODULES),
    "message": Rule((*BASE, "wire"), never=IO_MODULES),
    "message.pauses": Rule(never=tuple(name for name in IO_MODULES if name != "threading")),
    "mailbox": Rule((*BASE, "wire", "message"), ("zope",), IO_EXCEPT_CLOCK_AND_LOG),
    "session": Rule((*BASE, "wire", "message", "mailbox"), ("zope",), IO_EXCEPT_CLOCK_AND_LOG),
    "mailbox.in_place": Rule(
        ("message.pauses",), never=tuple(name for name in IO_MODULES if name != "threading")
    ),
    "mailbox.request": Rule(("errors", "message.pauses"), never=IO_EXCEPT_CLOCK_AND_LOG),
    "maildir.job_queue": Rule(never=IO_MODULES),
    "maildir.in_place_rules": Rule(never=IO_MODULES),
    "maildir.worker": Rule((*BASE, "wire", "message", "mailbox"), ("twisted", "zope")),
    "maildir.watch": Rule((*BASE, "wire", "message", "mailbox"), ("twisted", "zope")),
    "maildir.compression": Rule(
        (
            "extras",
            "message",
        ),
        ("backports", "compression"),
        IO_MODULES,
    ),
    "maildir": Rule((*BASE, "wire", "message", "mailbox"), ("zope",)),
    "cred.passwords": Rule(
        (
            "extras",
            "cred.foreign_hashes",
        ),
        ("argon2",),
    ),
    "cred.foreign_hashes": Rule(()),
    "cred.password_rules": Rule(never=IO_MODULES),
    "cred.pam_checker": Rule(
        ("cred.checker_threads", "cred.unavailable"), ("pamela", "twisted", "zope")
    ),
    "cred.ldap_checker": Rule(
        ("cred.checker_threads", "cred.ldap_settings", "cred.unavailable"),
        ("ldap", "twisted", "zope"),
    ),
    "cred.ldap_settings": Rule(("regular_file",)),
    "cred.user_import": Rule(("cred.foreign_hashes", "cred.passwords", "cred.users")),
    "cred.users": Rule(("cred.foreign_hashes", "cred.locked_lines", "cred.passwords")),
    "cred.locked_lines": Rule(("regular_file", "replace_file")),
    "cred.user_table": Rule(("cred.decoys", "cred.passwords", "cred.users")),
    "cred.decoys": Rule((), never=IO_MODULES),
    "cred.twisted_mail_account": Rule(
        (*BASE, "mailbox", "wire", "cred.twisted_mail_mailbox"), ("twisted", "zope")
    ),
    "cred.twisted_mail_mailbox": Rule((*BASE, "mailbox", "wire"), ("twisted", "zope")),
    "cred.unused_stores": Rule(("free_memory", "mailbox"), ("twisted",)),
    "cred": Rule((*BASE, "mailbox", "maildir", "regular_file"), ("twisted", "zope")),
    "observe.dialogue": Rule(("wire.traits",), never=IO_MODULES),
    "observe.counters": Rule(("events",), never=IO_MODULES),
    "observe.chart_history": Rule(never=IO_MODULES),
    "observe": Rule(("limits", "events"), ("twisted", "zope")),
    # A process of its own for tests, which needs what `server` needs.
    "testing.server_process": Rule(
        (
            *("certificates", "cred.realm", "edge.factory", "limits", "observe.log_observer"),
            "testing",
        ),
        ("twisted",),
    ),
    "testing.running_server": Rule(("cred.users", "testing", "wire")),
    "testing.throwaway_certificate": Rule((), ("cryptography",)),  # which pyOpenSSL needs
    "testing": Rule((*BASE, "edge", "mailbox", "message", "wire"), ("twisted", "zope")),
    "free_memory": Rule(never=IO_MODULES),
    **dict.fromkeys(
        (
            *("front.backend_address", "front.circuit_breaker", "front.front_options"),
            *("front.map_option", "front.proxy_v2", "front.sasl_user"),
        ),
        Rule(("errors",), never=IO_MODULES),
    ),
    "front.command_pieces": Rule((*BASE, "wire"), never=IO_MODULES),
    "front.offered_capabilities": Rule(never=IO_MODULES),
    "front.response_stream": Rule(("wire",), never=IO_MODULES),
    "front": Rule(
        (
            *(*BASE, "config", "control.request_lines", "cred.checker_threads"),
            *("cred.ldap_checker", "cred.ldap_settings", "cred.unavailable", "edge", "extras"),
            *("mailbox", "regular_file", "session.dispatcher", "shared", "wire"),
        ),
        ("twisted", "zope", "OpenSSL", "service_identity"),
    ),
    **dict.fromkeys(
        ("shared.redis_address", "shared.signed_messages", "shared.rate_script"),
        Rule(("guard",), never=IO_MODULES),
    ),
    "shared": Rule(
        (
            *("config", "credentials", "edge.admission", "extras", "front.backend_address"),
            *("front.backend_tls", "guard", "guard_state", "observe.talkers", "regular_file"),
        ),
        ("OpenSSL", "twisted", "txredisapi"),
    ),
    "first_run": Rule(("cred.passwords", "cred.users")),
    "cli": Rule(
        (
            "__init__",
            *("check_command", "command_definitions", "command_output"),
            "shell_completion",
            *("control.client", "control.request_lines", "control.socket_file"),
            "cred.users",
            "first_run",
            "guard.bans",
            "mail_commands",
            *("move.move_options", "move.places"),
            "operator_commands",
            "setup.options",
            "state_file",
            "user_commands",
        )
    ),
    "command_definitions": Rule(never=IO_MODULES),
    "shell_completion": Rule(("command_definitions",), never=IO_MODULES),
    "move.move_options": Rule(),
    "move.nodes_file": Rule(never=IO_MODULES),
    "move": Rule(
        (
            *(*BASE, "command_output", "control.client", "control.request_lines", "cred"),
            *("mail_commands", "maildir", "regular_file", "replace_file"),
        )
    ),
    "setup.options": Rule(("setup.setup_command",)),
    "setup": Rule(
        (
            *("__init__", "certificates", "check_command", "config", "cred", "endpoints"),
            *("first_run", "process.server_user", "replace_file", "user_commands"),
        ),
        ("OpenSSL", "twisted"),
    ),
    "check_command": Rule(("check_findings", "command_output", "tap"), ("twisted",)),
    "check_findings": Rule(never=IO_MODULES),
    "extras": Rule(()),
    "live_server": Rule(
        ("control.client", "control.request_lines", "control.socket_file", "first_run")
    ),
    "port_check": Rule(("check_findings",)),
    "certificate_check": Rule(("certificates", "check_findings", "tls"), ("OpenSSL",)),
    "config_check": Rule(
        (
            *("auth_option", "certificates", "config", "cred", "edge.ban_command", "endpoints"),
            *("admin.web_ports", "first_run", "process.server_user", "start_checks"),
            *("acme", "certificate_check", "check_findings", "front.front_parts", "live_server"),
            "front.map_sources",
            "port_check",
        )
    ),
    "user_commands": Rule(
        ("cred.password_rules", "cred.passwords", "regular_file", "cred.user_import", "cred.users")
    ),
    "acme.acme_names": Rule(never=IO_MODULES),
    "acme.acme_files": Rule(("config", "replace_file", "unwritable")),
    "acme.acme_client": Rule((), ("acme", "cryptography", "josepy", "requests"), IO_MODULES),
    "acme": Rule(
        (
            "extras",
            "certificates",
            "config",
            "endpoints",
            "service",
            "state_file",
            "tls",
            "web_site",
        ),
        ("twisted",),
    ),
    "admin.web_sessions": Rule(("guard",), never=IO_MODULES),
    "admin.metrics": Rule(("observe.reactor_delay",), ("prometheus_client",)),
    "admin": Rule(
        (
            "extras",
            *("auth_option", "certificates", "config", "control.request_lines", "cred.checkers"),
            *("cred.users", "endpoints", "guard", "observe", "web_site"),
        ),
        ("twisted",),
    ),
    "web_site": Rule(("guard.networks", "guard.rates"), ("twisted",)),
    "control.arguments": Rule(("observe.talkers",), never=IO_MODULES),
    "control.request_lines": Rule(("control.arguments",), never=IO_MODULES),
    "control.socket_file": Rule(("control.request_lines",)),
    "control.client": Rule(("control.request_lines",)),
    "control": Rule(
        ("__init__", *BASE, "command_output", "edge", "guard", "observe"), ("twisted",)
    ),
    "operator_ports": Rule(
        (
            *("admin", "certificates", "config", "control", "edge.factory", "events", "observe"),
            *("first_run", "service"),
        ),
        ("twisted",),
    ),
    "operator_commands": Rule(
        (
            *("advise_command", "command_output", "node_output"),
            *("control.client", "control.request_lines", "control.socket_file"),
        )
    ),
    "command_output": Rule(()),
    "node_output": Rule(("command_output",)),
    "advise_command": Rule(("command_output", "observe.limit_advice")),
    "regular_file": Rule(()),
    "replace_file": Rule(()),
    "unwritable": Rule(()),
    "state_file": Rule(("guard",)),
    "guard_state": Rule(("guard", "state_file"), ("twisted",)),
    "mail_commands": Rule((*BASE, "live_server", "maildir")),
    "__main__": Rule(("cli",)),
    "__init__": Rule(("limits", "cred.realm", "edge.factory", "edge.protocol")),
    "service": Rule(("endpoints",), ("twisted",)),
    "config": Rule(
        (
            *("limits", "acme.acme_names", "front.front_options", "guard.networks"),
            *("mailbox_name_options", "regular_file"),
            "shared.redis_address",
        ),
        never=IO_MODULES,
    ),
    "tls": Rule(("config", "regular_file"), ("twisted", "OpenSSL", "service_identity")),
    "credentials": Rule(("config",)),
    "certificates": Rule(("config", "credentials", "tls"), ("twisted", "zope", "OpenSSL")),
    "auth_option": Rule(("extras", "config", "credentials", "cred", "regular_file"), ("twisted",)),
    "process.server_user": Rule(()),
    "process.signals": Rule(()),
    "process": Rule(
        (
            *("auth_option", "certificates", "config", "control.request_lines", "cred", "edge"),
            *("guard", "limits", "observe"),
        ),
        ("twisted",),
    ),
    "endpoints": Rule(("certificates", "config"), ("twisted",)),
    "start_checks": Rule(
        (
            "auth_option",
            "certificates",
            "config",
            "cred.realm",
            "first_run",
            "process",
            "unwritable",
        ),
        ("twisted",),
    ),
    "edge": Rule(
        (*BASE, "wire", "guard", "message", "mailbox", "session", "cred"),
        ("twisted", "zope", "OpenSSL"),
    ),
    "workers.division": Rule(("config", "limits"), never=IO_MODULES),
    "workers.link_messages": Rule(
        ("config", "events", "guard.bans", "limits"),
        never=tuple(name for name in IO_MODULES if name != "io"),
    ),
    "workers.link": Rule(("workers.link_messages",), ("twisted",)),
    "workers.inherited_ports": Rule((), ("twisted",)),
    "workers.worker_process": Rule(("config", "tap"), ("twisted",)),
    "workers": Rule(
        (
            *(*BASE, "admin.monitor", "certificates", "command_output", "config", "control"),
            *("cred.checkers", "edge", "endpoints", "guard", "observe", "operator_ports"),
            *("process", "server", "server_parts", "service", "start_checks"),
        ),
        ("twisted", "zope"),
    ),
    "tap": Rule(
        (
            *("__init__", "limits", "config", "guard.memory_budget", "process", "server"),
            *("config_check", "workers.supervising_server"),
        ),
        ("twisted",),
    ),
    "server_parts": Rule(
        (
            *BASE,
            "acme.acme_service",
            "auth_option",
            "certificates",
            "config",
            "cred",
            "edge",
            "first_run",
            "free_memory",
            "front.front_parts",
            "guard",
            "guard_state",
            "observe",
            "operator_ports",
            "process",
            "shared.guard_sharing",
            "start_checks",
            "state_file",
        ),
        ("twisted",),
    ),
    "server": Rule(
        (
            "__init__",
            "acme.acme_service",
            "certificates",
            "config",
            "cred.checkers",
            "edge.gate",
            "endpoints",
            "first_run",
            "guard.shares",
            "process.process_control",
            "server_parts",
            "service",
            "start_checks",
        ),
        ("twisted",),
    ),
}

# In these packages, a module imports only from earlier rows, or from its own row if that closes no cycle.
ORDER = {
    "session": (
        ("connection",),
        ("state",),
        (
            *("background", "command_spec", "fetch_responses", "mailbox_names", "progress"),
            "uid_collection",
        ),
        (
            "capabilities",
            "catenate",
            "new_messages",
            "notifications",
            "search_contexts",
            "sort_keys",
        ),
        ("session",),
        ("handlers",),
        ("table",),
        ("dispatcher",),
    ),
    "edge": (
        (
            "ban_command",
            "channel_binding",
            "tls_failures",
            "fair_queue",
            "input_turns",
            "peer",
            "user_turns",
        ),
        ("event_reporter",),
        ("idle_timeout", "write_buffer"),
        ("login_checks", "memory_share", "spool"),
        ("admission",),
        ("shared_parts",),
        ("connection_owner", "proxy"),
        ("answer_delay", "client_peaks", "gate"),
        (
            "authentication",
            "compress",
            "flow_control",
            "long_input",
            "reading_check",
            "write_timeout",
        ),
        ("session_io",),
        ("command_runner",),
        ("protocol",),
        ("factory",),
    ),
}


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
    def test_patterns_have_no_possessive_groups(self) -> None:
        """No pattern repeats a group possessively, which the oldest supported Python matches incorrectly."""
        found = {
            module
            for module, path in modules().items()
            if any(_POSSESSIVE_GROUP.search(text) for text in strings(read(path)))
        }
        self.assertEqual(found, set())
