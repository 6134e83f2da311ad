"""Every limit has a group and a reason, and docs/limits.rst lists exactly the limits of the code."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.limits import Limits

PAGE = Path(__file__).parent.parent / "docs" / "limits.rst"
MARKER = ".. The tables below are generated: see tests/test_limits.py.\n\n"


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


class LimitsTests(SynchronousTestCase):
    def test_every_limit_has_a_reason(self) -> None:
        """Every limit has a reason that is a sentence."""
        for limits in Limits().by_group().values():
            for name, (_, reason) in limits.items():
                self.assertRegex(reason, r"^[A-Z0-9].*\.$", name)

    def test_limits_page_has_the_tables_of_the_code(self) -> None:
        """docs/limits.rst ends with the tables of the code. To update it, write `tables()` after the marker."""
        self.assertEqual(PAGE.read_text().partition(MARKER)[2], tables())
