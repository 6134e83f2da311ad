"""Types for programs that use imapshield, without mypy's plugin for zope.interface."""

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.test_example_programs import program_with

SETTINGS = """[mypy]
strict = true
[mypy-zope.*]
ignore_missing_imports = true
follow_imports = skip
"""


class TypeTests(SynchronousTestCase):
    def run_mypy(self, program: str) -> str:
        """Return what mypy says about a program."""
        folder = self.mktemp()
        os.mkdir(folder)
        for name, text in (("mypy.ini", SETTINGS), ("program.py", program)):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--cache-dir", os.path.abspath("types_cache")),
                *("--config-file", "mypy.ini", "program.py"),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return done.stdout + done.stderr

    def test_program_with_types_has_no_errors(self) -> None:
        """The program of docs/extending.rst with types passes mypy --strict, and a wrong one does not."""
        program = program_with("Deferred[bytes]")
        self.assertIn("Success", self.run_mypy(program))
        wrong = program.replace("limits=Limits(backlog=50)", 'limits=Limits(backlog="50")')
        wrong = wrong.replace("event.user)", "event.name)")
        found = self.run_mypy(wrong)
        self.assertIn('has incompatible type "str"; expected "int"', found)
        self.assertIn('"LoggedIn" has no attribute "name"', found)
