"""Each option of ``twistd imapshield`` is in the table of README.rst, and a page says what it is for."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield.tap import Options

CHECKOUT = Path(__file__).parent.parent
OF_TWISTED = {"help", "help-auth", "help-auth-type", "version"}


def options() -> set[str]:
    """Return the long names of all options of the server."""
    return {name.rstrip("=") for name in Options().longOpt} - OF_TWISTED


class OptionsPagesTests(SynchronousTestCase):
    def test_readme_lists_every_option(self) -> None:
        """The table of README.rst has each option, and no option that does not exist."""
        table = CHECKOUT.joinpath("README.rst").read_text().partition("\nOptions\n")[2]
        rows = re.findall(r"^``(--[^`]*)``", table, re.MULTILINE)
        names = {name for row in rows for name in re.findall(r"--([a-z-]+)", row)}
        self.assertEqual(sorted(names), sorted(options()))

    def test_pages_explain_every_option(self) -> None:
        """Each option is explained on one of the pages for operators."""
        pages = ["running.rst", "operating.rst", "limits.rst"]
        text = "".join(CHECKOUT.joinpath("docs", page).read_text() for page in pages)
        explained = set(re.findall(r"--([a-z-]+)", text))
        self.assertEqual(sorted(options() - explained), [])
