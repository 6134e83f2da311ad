"""``imapshield setup`` in a terminal: its server starts with the printed command, and a client reads the first mail."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from system_tests.certificate import write_certificate
from system_tests.server import free_port, wait_until
from system_tests.server_case import find_program
from system_tests.terminal import TerminalRun, run_in_terminal

PROGRAM = os.path.join(os.path.dirname(sys.executable), "imapshield")
PASSWORD = "correct horse"  # noqa: S105, of a test
CTRL_C = b"\x03"


class SetupTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Not below _trial_temp: the lines of the terminal have 80 columns.
        self.base = tempfile.mkdtemp(prefix="is-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.config = f"{self.base}/etc/config.toml"
        self.plain, self.tls = free_port(), free_port()
        self.arguments = ["--config", self.config, "--data", f"{self.base}/data"]
        self.arguments += ["--listen", f"tcp:{self.plain}:interface=127.0.0.1"]
        if os.geteuid() == 0:  # another user could not use the directory
            self.arguments += ["--server-user", "root"]

    def log(self) -> str:
        with open(f"{self.base}/log", encoding="utf-8") as file:
            return file.read()

    def setup_in_terminal(self, *replies: tuple[bytes, bytes], arguments: list[str]) -> TerminalRun:
        return run_in_terminal(
            [PROGRAM, "setup", *self.arguments, *arguments], replies,
            folder=self.base, environment={"HOME": self.base}, timeout=60,
        )  # fmt: skip

    def test_from_setup_to_the_first_mail(self) -> None:
        """Five answers, of which some are wrong at first, then the printed commands: a client reads the first mail."""
        pem = write_certificate(self.base)
        done = self.setup_in_terminal(
            (b"1/5", b"mail\r"), (b"begins with /", b"\r"),
            (b"2/5", b"localhost\r"),
            (b"3/5", b"/no/such.pem\r"), (b"or type none", f"{pem}\r".encode()),
            (b"4/5", b"alice\r"), (b"not shown", b"abc\r"),
            (b"fewer than 6", b""), (b"not shown", f"{PASSWORD}\r".encode()), (b"again", f"{PASSWORD}\r".encode()),
            (b"5/5", b"hand\r"),
            arguments=["--listen", f"imaps:{self.tls}:interface=127.0.0.1"],
        )  # fmt: skip
        screen = done.screen.decode().replace("\r\n", "\n")
        self.assertEqual((done.status, done.unmet), (0, []), screen)
        self.assertNotIn(PASSWORD, screen)
        start = re.search(r"Start it:\n    (.*)\n", screen)
        assert start is not None, screen
        with open(f"{self.base}/log", "wb") as log:
            server = subprocess.Popen(
                shlex.split(start[1]), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.base, env={**os.environ, "HOME": self.base},
            )  # fmt: skip
        self.addCleanup(server.kill)
        wait_until(lambda: self.log().count("serving at") == 2 or server.poll() is not None)
        commands = re.findall(r"try: (curl .*)\n", screen)
        self.assertEqual(len(commands), 2, screen)
        find_program("curl", "curl")
        for command in commands:
            curl = subprocess.run(
                [*shlex.split(command), "-u", f"alice:{PASSWORD}"],
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(curl.returncode, 0, f"{command}: {curl.stderr}")
            self.assertIn("Welcome to imapshield", curl.stdout)
        server.terminate()
        self.assertEqual(server.wait(60), -signal.SIGTERM)
        self.assertEqual(self.log().count("tls=True"), 2)
        self.assertNotIn("Traceback", self.log())

    def test_interruption_leaves_nothing(self) -> None:
        """Ctrl-C while the password is typed leaves no file, and the terminal shows what is typed again."""
        done = self.setup_in_terminal(
            (b"1/5", b"\r"), (b"2/5", b"localhost\r"), (b"3/5", b"none\r"), (b"4/5", b"alice\r"),
            (b"not shown", CTRL_C), arguments=[],
        )  # fmt: skip
        self.assertIn(b"interrupted; nothing was changed", done.screen)
        self.assertEqual((os.waitstatus_to_exitcode(done.status), done.unmet), (1, []))
        self.assertEqual(os.listdir(self.base), [])
