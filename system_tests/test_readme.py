"""The first command of README.rst, word for word, in a copy of the checkout that has nothing in it but the sources."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from system_tests.server import HERE, free_port


def command(containing: str) -> str:
    """The first indented line of README.rst that has these words."""
    with open(os.path.join(HERE, "README.rst"), encoding="utf-8") as file:
        return next(line.strip() for line in file if line.startswith("    ") and containing in line)


class ReadmeTests(SynchronousTestCase):
    def test_start(self) -> None:
        """The command of the README serves on a machine that has Python alone, and what it says to type next works."""
        folder = os.path.abspath(self.mktemp())
        left_out = shutil.ignore_patterns(
            ".git",
            ".venv",
            "_trial_temp*",
            "__pycache__",
            ".*_cache",
            ".hypothesis",
            "build",
            "dist",
        )
        shutil.copytree(HERE, folder, ignore=left_out)
        port, log = free_port(), os.path.join(folder, "said")
        with open(log, "wb") as out:
            # The port is the one thing that is not the README's: somebody may be using 1143.
            process = subprocess.Popen(
                ["bash", "-c", f"{command('twistd --nodaemon')} --listen tcp:{port}:interface=127.0.0.1"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "XDG_DATA_HOME": folder},
            )  # fmt: skip

        def said() -> str:
            with open(log, encoding="utf-8") as file:
                return file.read()

        try:
            until = time.monotonic() + 300
            while "serving at" not in said():
                self.assertIsNone(process.poll(), said())
                self.assertLess(time.monotonic(), until, said())
                time.sleep(0.2)
            for line in re.findall(r"^    (curl .*)$", said(), re.MULTILINE):
                done = subprocess.run(
                    ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
                )
                self.assertEqual(done.returncode, 0, f"{line}: {done.stderr}")
                self.assertTrue(done.stdout)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
        self.assertNotIn("Traceback", said())
