"""Messages about a missing package name the Python of the server."""

import os
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from imapshield.extras import install_command
from tests.test_architecture import PACKAGE


class InstallCommandTests(SynchronousTestCase):
    def test_path_of_python(self) -> None:
        """The command has the path of this Python, which the shell reads as one word."""
        self.patch(sys, "executable", "/opt/my mail/bin/python")
        self.assertEqual(
            install_command("metrics"),
            "'/opt/my mail/bin/python' -m pip install 'imapshield[metrics]'",
        )

    def test_no_message_has_another_command(self) -> None:
        """No message of the package names a bare pip. Docstrings, which have it in backquotes, may."""
        found = []
        for folder, _, names in os.walk(PACKAGE):
            for name in names:
                if name.endswith(".py") and name != "extras.py":
                    with open(os.path.join(folder, name)) as file:
                        found += re.findall(r"[^`]pip install[^\n]*", file.read())
        self.assertEqual(found, [])
