"""Every limit has a reason, and docs/limits.rst lists them as they are."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.limits import Limits

PAGE = Path(__file__).parent.parent / "docs" / "limits.rst"


def table() -> str:
    rows = "".join(
        f"   * - ``{name}``\n     - {value}\n     - {reason}\n"
        for name, (value, reason) in Limits().reasons().items()
    )
    return (
        f".. list-table::\n   :header-rows: 1\n\n   * - limit\n     - value\n     - reason\n{rows}"
    )


class Reasons(SynchronousTestCase):
    def test_reasons(self) -> None:
        """No limit is without a reason."""
        self.assertEqual([n for n, (_, reason) in Limits().reasons().items() if not reason], [])

    def test_page(self) -> None:
        """The page for operators says what the code does; to renew it, print `table()` into it."""
        self.assertTrue(PAGE.read_text().endswith(table()))
