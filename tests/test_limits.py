"""Every limit has a group and a reason, and docs/limits.rst lists exactly the limits of the code."""

import ast
import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.memory_budget import bytes_per_stranger
from imapshield.limits import POLITE_LIMITS, REPORTABLE, Limits
from imapshield.wire.framing import COMMAND_COST

PAGE = Path(__file__).parent.parent / "docs" / "limits.rst"
PACKAGE = PAGE.parent.parent / "imapshield"
LIMIT_NAME = re.compile(r"_?MAX_\w+|CAPACITY|CACHE_SIZE|POINTS|\w*THREADS")
NO_LIMITS = {
    "speed": """
        cred.text_indexing.MAX_PAUSE cred.twisted_mail_mailbox.MAX_STRING_SIZE edge.fair_queue.MAX_REST
        mailbox.view.MAX_UNAPPLIED_CHANGES maildir.move_log.MAX_ANNOUNCEMENTS
        maildir.directory_state.MAX_TRUSTED_SECONDS maildir.in_place_rules.MAX_PREEMPTED
        maildir.job_queue.MAX_USED_SECONDS maildir.message_fetch.MAX_STRING_SIZE maildir.search_values.MAX_ROW_SIZE
        maildir.text_index_file.CACHE_SIZE maildir.watch.MAX_REMOVED maildir.worker.MAX_DELAY
        maildir.call_pauses.MAX_LONG_PAUSE maildir.call_pauses.MAX_SHORT_PAUSE message.ordinary_structure.MAX_SIZE
        session.uid_collection.MAX_PARTS testing.memory_mailbox.MAX_STRING_SIZE
        """,
    "what operators see or write": """
        acme.renewal.MAX_RETRY admin.monitor.MAX_DELAY limit_options._MAX_VALUE config_check.MAX_USERS
        control.advisor.MAX_NAMED control.end_history.MAX_ANSWERS
        control.arguments.MAX_BAN_SECONDS control.arguments.MAX_LISTED control.arguments.MAX_ROWS
        control.arguments.MAX_TEXT control.arguments.MAX_TRACE_SECONDS edge.ban_command.MAX_OUTPUT
        move.journal.MAX_EARLIER move.move_command.MAX_SHOWN
        front.backend_address._MAX_CONNECTIONS
        observe.counters.MAX_LABELS observe.dialogue.MAX_SHOWN user_commands.MAX_MISTAKES
        workers.supervisor.MAX_PAUSE
        """,
    "numbers of standards, formats and systems": """
        control.socket_file.MAX_PATH maildir.index_database._MAX_UIDVALIDITY maildir.message_table.MAX_UID
        maildir.other_servers.MAX_UIDVALIDITY maildir.text_index.MAX_ROW wire.cursor.MAX_NUMBER64
        setup.answers._MAX_PORT wire.sequence.MAX_NUMBER wire.strings.MAX_QUOTED_SIZE
        """,
}
"""Constants with the name of a limit that protect nothing, by what they are about instead."""

POLITE_VERDICTS = {"Disconnect", "_disconnect_at", "_not_checked"}
BEGIN = (
    ".. The tables from here are generated from imapshield/limits.py: see tests/test_limits.py.\n\n"
)
END = "\n.. The generated tables end here.\n"


def tables() -> str:
    """Return the sections of docs/limits.rst, one per group of limits."""
    sections = []
    for group, limits in Limits().by_group().items():
        rows = "".join(
            f"   * - ``{name}``\n     - {value}\n     - {reason}\n"
            for name, (value, reason) in limits.items()
        )
        sections.append(
            f"{group}\n{'-' * len(group)}\n\n"
            ".. list-table::\n   :header-rows: 1\n\n   * - limit\n     - default\n     - reason\n"
            f"{rows}"
        )
    return "\n".join(sections)


def fixed_limits() -> str:
    """Return the table of the fixed limits in docs/limits.rst."""
    return PAGE.read_text().partition("\nFixed limits\n")[2].partition("\nMemory of clients")[0]


def _called(function: ast.FunctionDef) -> set[str]:
    """Return the names of what a function calls."""
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {ast.unparse(func).rpartition(".")[2] for func in calls}


class LimitsTests(SynchronousTestCase):
    def test_every_limit_has_a_reason(self) -> None:
        """Every limit has a reason that is a sentence."""
        for limits in Limits().by_group().values():
            for name, (_, reason) in limits.items():
                self.assertRegex(reason, r"^[A-Z0-9].*\.$", name)

    def test_limits_page_has_the_tables_of_the_code(self) -> None:
        """docs/limits.rst has the tables of the code. To update it, write `tables()` between BEGIN and END."""
        self.assertEqual(PAGE.read_text().partition(BEGIN)[2].partition(END)[0], tables())

    def test_report_only_limits(self) -> None:
        """docs/limits.rst names the limits that --report-only-limit accepts, and no others."""
        sentence = (
            PAGE.read_text().partition("``--report-only-limit`` accepts ")[2].partition(".")[0]
        )
        self.assertEqual(set(re.findall(r"``(\w+)``", sentence)), REPORTABLE)

    def test_polite_limits(self) -> None:
        """`POLITE_LIMITS` has all limits that end in BYE or NO: those in functions that make such a verdict."""
        found: set[str] = set()
        for path in PACKAGE.rglob("*.py"):
            text = path.read_text()
            if not any(name in text for name in POLITE_VERDICTS):
                continue
            for function in ast.walk(ast.parse(text)):
                if isinstance(function, ast.FunctionDef) and _called(function) & POLITE_VERDICTS:
                    constants = (n for n in ast.walk(function) if isinstance(n, ast.Constant))
                    found |= {str(constant.value) for constant in constants}
        self.assertEqual(found & REPORTABLE, POLITE_LIMITS)

    def test_cost_of_a_stranger(self) -> None:
        """One client without a login costs at most 96 KiB, and the longest ID with some commands fits into that."""
        limits = Limits()
        self.assertLessEqual(bytes_per_stranger(limits), 96 << 10)
        self.assertGreater(limits.preauth_held_bytes, limits.preauth_id_length + 30 * COMMAND_COST)
        self.assertGreater(limits.preauth_held_bytes, limits.backlog * (COMMAND_COST + 100))

    def test_fixed_limits(self) -> None:
        """docs/limits.rst lists fixed limits with the values that they have."""
        table = fixed_limits()
        rows = re.findall(
            r"\* - ``([\w.]+)``\n     - ([\d.]+)\n     - ``([\w/]+)\.py``\n     - [A-Z]", table
        )
        self.assertEqual(len(rows), table.count("   * - ") - 1)
        for name, value, path in rows:
            module = import_module("imapshield." + path.replace("/", "."))
            owner, _, attribute = name.partition(".")
            limit = getattr(module, owner)
            self.assertEqual(
                getattr(limit(), attribute) if attribute else limit, float(value), name
            )

    def test_every_constant_that_is_a_limit_is_listed(self) -> None:
        """A constant with the name of a limit has a row for its file, is named in one, or is in `NO_LIMITS`."""
        listed = set(" ".join(NO_LIMITS.values()).split())
        for row in fixed_limits().split("   * - ")[2:]:
            names = re.findall(r"``(?:[\w/]+\.py|(\w+)[\w.]*)``", row)
            module = re.findall(r"``([\w/]+)\.py``", row)[0].replace("/", ".")
            listed |= {f"{module}.{name}" for name in names}
        found = {
            f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{name.id}"
            for path in PACKAGE.rglob("*.py")
            for statement in ast.parse(path.read_text()).body
            if isinstance(statement, (ast.Assign, ast.AnnAssign))
            for name in ast.walk(statement)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            if LIMIT_NAME.fullmatch(name.id)
        }
        self.assertEqual(found - listed, set())
        self.assertEqual(set(" ".join(NO_LIMITS.values()).split()) - found, set())

    def test_other_constants_have_a_reason(self) -> None:
        """A constant MAX_… is on the page or has a docstring; constants in a row may share one."""
        for path in PACKAGE.rglob("*.py"):
            explained = False
            for statement in reversed(ast.parse(path.read_text()).body):
                if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                    name = ast.unparse(statement).replace(":", " ").split()[0]
                    if name.startswith("MAX_") and not explained:
                        self.assertIn(f"``{name}``", PAGE.read_text(), path)
                else:
                    explained = isinstance(statement, ast.Expr)
