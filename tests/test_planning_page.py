"""docs/planning.rst: its configurations are accepted, and its figures are those of `benchmarks.plan`."""

import argparse
import math
import os
import re

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.plan import (
    ROLES,
    Habits,
    Machine,
    nodes,
    not_negative,
    positive,
    report,
    users_per_node,
)
from imapshield.config import load_settings
from tests.documented_commands import kind, literal_blocks, read

PAGE = "docs/planning.rst"


class ConfigurationTests(SynchronousTestCase):
    def test_configurations_are_accepted(self) -> None:
        """Each configuration on the page has only options and limits that exist, with possible values."""
        blocks = [block for block in literal_blocks(PAGE) if kind(block) == "toml"]
        self.assertEqual(len(blocks), 3)
        for block in blocks:
            path = os.path.abspath(self.mktemp())
            with open(path, "w", encoding="utf-8") as file:
                file.write(block.text)
            settings = load_settings({}, path)
            self.assertEqual(settings.workers, 2 if settings.backend else 4, block)


class CalculationTests(SynchronousTestCase):
    def test_users_per_node(self) -> None:
        """What is used up first decides: connections on a shield node, memory on a mail node."""
        shield, mail = (
            users_per_node(ROLES[name], Habits(), Machine()) for name in ("shield", "mail")
        )
        self.assertEqual(min(shield, key=shield.__getitem__), "connections")
        self.assertEqual(min(mail, key=mail.__getitem__), "memory")
        self.assertEqual(round(shield["cores"], -3), 54_000)
        self.assertEqual(round(mail["cores"], -2), 15_400)
        cheap = users_per_node(ROLES["mail"], Habits(hash=0), Machine())
        self.assertGreater(cheap["cores"], 2 * mail["cores"])

    def test_nodes(self) -> None:
        """Shield nodes are half as many again as needed, because a third may fail; a mail node has no spare one."""
        self.assertEqual(nodes(40_000, ROLES["shield"], Habits(), Machine()), (3, "connections"))
        self.assertEqual(nodes(40_000, ROLES["mail"], Habits(), Machine()), (4, "memory"))
        self.assertEqual(nodes(40_000, ROLES["mail"], Habits(hash=0.5), Machine())[1], "cores")

    def test_few_users(self) -> None:
        """A small service has two shield nodes all the same, because one may fail. The page says what 5,000 users need."""
        self.assertEqual(nodes(5_000, ROLES["shield"], Habits(), Machine()), (2, "redundancy"))
        small = Machine(cores=2, memory=4, open=20_000)
        self.assertEqual(nodes(5_000, ROLES["all in one"], Habits(), small)[0], 1)
        idle = users_per_node(ROLES["mail"], Habits(commands=0, logins=0), Machine())
        self.assertEqual(idle["cores"], math.inf)

    def test_wrong_numbers(self) -> None:
        """A machine without cores, and what is no number, are errors of the command line, not tracebacks."""
        for text in ("0", "-1", "nan", "inf", "many"):
            self.assertRaises(argparse.ArgumentTypeError, positive, text)
        self.assertEqual((not_negative("0"), positive("1.5")), (0, 1.5))

    def test_page_has_the_figures(self) -> None:
        """The figures on the page are those with which the command calculates."""
        page = " ".join(read(PAGE).split())
        for role in ROLES.values():
            for value, unit in (
                (role.login * 1e3, "ms"),
                (role.command * 1e3, "ms"),
                (role.connection / 1e3, "kB"),
            ):
                self.assertRegex(page, rf"- {re.escape(f'{value:g}')}(\.0)? {unit} ")

    def test_report(self) -> None:
        """The command says for each kind of node how many are needed, and why."""
        lines = list(report(40_000, Habits(), Machine()))
        self.assertIn("shield: 3 nodes because of the connections", lines[0])
        self.assertEqual(len(lines), len(ROLES))
