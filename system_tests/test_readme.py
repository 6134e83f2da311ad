"""The first command of README.rst, unchanged, in a copy of the checkout that holds only the sources."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from system_tests.server import REPOSITORY, free_port, wait_until
from system_tests.server_case import find_program
from system_tests.terminal import run_in_terminal

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", "_trial_temp*", "__pycache__", ".*_cache", ".hypothesis", "build", "dist"
)


def readme_command(text: str) -> str:
    """Return the first indented line of README.rst that contains `text`."""
    with open(os.path.join(REPOSITORY, "README.rst"), encoding="utf-8") as file:
        return next(line.strip() for line in file if line.startswith("    ") and text in line)


class ReadmeTests(SynchronousTestCase):
    def read_in_mutt(self, printed: str, home: str) -> None:
        """Read the first message with the printed command of mutt."""
        (command,) = re.findall(r"^    mutt (.*)$", printed, re.MULTILINE)
        (password,) = re.findall(r"^    password  (\S+)", printed, re.MULTILINE)
        done = run_in_terminal(
            [find_program("neomutt", "neomutt"), "-n", "-F", "/dev/null", *shlex.split(command)],
            [(b"Password", f"{password}\r".encode()), (b"Welcome to", b"1\r\r"), (b"stored byte for byte", b"qq")],
            folder=home, environment={"HOME": home}, timeout=60,
        )  # fmt: skip
        self.assertEqual((done.status, done.unmet), (0, []), done.screen[-3000:])

    def test_first_command_of_the_readme_serves(self) -> None:
        """The README's first command serves, and the commands of curl and mutt that it prints read mail."""
        folder = os.path.abspath(self.mktemp())
        shutil.copytree(REPOSITORY, folder, ignore=NOT_SOURCES)
        # The port differs from the README's, as another program may use 1143.
        command = (
            f"{readme_command('twistd --nodaemon')} --listen tcp:{free_port()}:interface=127.0.0.1"
        )
        log = os.path.join(folder, "output")
        with open(log, "wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=folder, env={**os.environ, "XDG_DATA_HOME": folder},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

        def output() -> str:
            with open(log, encoding="utf-8") as file:
                return file.read()

        try:
            wait_until(lambda: "serving at" in output() or process.poll() is not None, 300)
            self.assertIsNone(process.poll(), output())
            for line in re.findall(r"^    (curl .*)$", output(), re.MULTILINE):
                done = subprocess.run(
                    ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
                )
                self.assertEqual(done.returncode, 0, f"{line}: {done.stderr}")
                self.assertTrue(done.stdout)
            self.read_in_mutt(output(), folder)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
        self.assertNotIn("Traceback", output())
