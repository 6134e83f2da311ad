"""The manual pages have every command, option and limit, and are up to date."""

import os
import re
import runpy

from twisted.trial.unittest import SynchronousTestCase

from imapshield.cli import CHECK, command_definitions
from imapshield.limits import Limits
from tests.test_documentation import REPOSITORY, read

FOLDER = os.path.join("docs", "man")


def page(name: str) -> str:
    """Return a page without the marks of roff."""
    text = read(os.path.join(FOLDER, name))
    return re.sub(r"\\f[BIR]|\\&", "", text).replace("\\-", "-")


class ManualPageTests(SynchronousTestCase):
    def test_pages_are_up_to_date(self) -> None:
        """The pages are what generate.py makes from the definitions; run it after a change of an option or limit."""
        program = runpy.run_path(os.path.join(REPOSITORY, FOLDER, "generate.py"))
        for name, text in program["pages"]().items():
            self.assertEqual(
                read(os.path.join(FOLDER, name)), text, f"run python docs/man/generate.py: {name}"
            )

    def test_every_command_and_option_is_described(self) -> None:
        """imapshield(1) has each command with its options; those of check-config are in twistd-imapshield(8)."""
        console, server = page("imapshield.1"), page("twistd-imapshield.8")
        for command in command_definitions():
            (text,) = re.findall(
                rf'\n\.SS "imapshield {command.name}[ "](.*?)(?=\n\.S)', console, re.DOTALL
            )
            for option in command.options:
                for flag in set(option.flags) - {"-h", "--help"}:
                    self.assertRegex(
                        server if command.name == CHECK and flag not in text else text,
                        rf"(?m)^(-\w, )?{flag}\b",
                    )

    def test_every_limit_is_described(self) -> None:
        """twistd-imapshield(8) has each limit with its default."""
        text = page("twistd-imapshield.8")
        for limits in Limits().by_group().values():
            for name, (value, _) in limits.items():
                self.assertIn(f"\n{name}={value}\n", text)

    def test_no_path_of_this_machine(self) -> None:
        """The default paths are those of any user."""
        for name in ("imapshield.1", "twistd-imapshield.8"):
            self.assertNotIn(os.path.expanduser("~/"), page(name))
        self.assertIn("~/.local/share/imapshield/control", page("imapshield.1"))
