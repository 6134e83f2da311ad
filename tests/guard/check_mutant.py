"""The test command of cosmic-ray (see CONTRIBUTING.rst): runs the tests of the changed module of ``imapshield/guard``.

cosmic-ray changes one module at a time. ``python -m tests.guard.check_mutant`` finds out which one, and stops at the
first test that fails, so that a mutant takes about a second.
"""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

GUARD = Path("imapshield/guard")
TESTS = Path("tests/guard")
SLOW = ("states", "simulations")
STATES = 1500


def changed_modules() -> list[str]:
    """Return the names of the modules that differ from the last commit; all of them if none does."""
    command = ["git", "diff", "--name-only", "--", str(GUARD)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    paths = [Path(line) for line in output.splitlines()] or sorted(GUARD.glob("*.py"))
    return [path.stem for path in paths if path.stem != "__init__"]


def tests_pass(names: list[str]) -> bool:
    """Return whether the tests in the modules `names` pass."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    return unittest.TextTestRunner(failfast=True, verbosity=0).run(suite).wasSuccessful()


def states_pass() -> bool:
    """Return whether a small search of states finds nothing."""
    from benchmarks.guard_states import Search, configurations

    searches = [Search(settings, max_states=STATES) for settings in configurations(3)[:4]]
    return not any(search.run().violation for search in searches)


def main() -> int:
    """Return 1 if a test fails."""
    names = changed_modules()
    if names == ["verdicts"]:
        names = ["connection_guard"]
    tests = [path.stem for name in names for path in TESTS.glob(f"test_{name}*.py")]
    if not tests:
        tests = [p.stem for p in TESTS.glob("test_*.py") if p.stem.split("_")[-1] not in SLOW]
    passed = tests_pass([f"tests.guard.{test}" for test in tests])
    if passed and "connection_guard" in names:
        passed = states_pass()
    return not passed


if __name__ == "__main__":
    sys.exit(main())
