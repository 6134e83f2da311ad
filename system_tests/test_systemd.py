"""The files in contrib/ for systemd, as systemd's own programs read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from system_tests.server import REPOSITORY
from system_tests.server_case import find_program

CONTRIB = os.path.join(REPOSITORY, "contrib")
MAX_EXPOSURE = 2.0


class SystemdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def run_program(self, name: str, *arguments: str) -> str:
        program = find_program(name, "systemd")
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout + done.stderr

    def test_units_are_valid(self) -> None:
        """systemd knows every line of the units; before version 253 one line is left to newer versions."""
        for name in ("imapshield.service", "imapshield.socket"):
            with open(f"{CONTRIB}/systemd/{name}", encoding="utf-8") as file:
                unit = file.read().replace("/opt/imapshield/bin/twistd", "/bin/true")
            with open(f"{self.folder}/{name}", "w", encoding="utf-8") as file:
                file.write(unit)
        units = [f"{self.folder}/{name}" for name in os.listdir(self.folder)]
        output = self.run_program("systemd-analyze", "verify", *units)
        problems = [line for line in output.splitlines() if "notify-reload" not in line]
        self.assertEqual(problems, [])

    def test_service_is_confined(self) -> None:
        """The exposure of the service is low. (A unit without any of these lines has 9.6.)"""
        unit = f"{CONTRIB}/systemd/imapshield.service"
        output = self.run_program("systemd-analyze", "security", "--offline=true", unit)
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", output)
        assert exposure is not None
        self.assertLess(float(exposure[1]), MAX_EXPOSURE)

    def test_user_and_directories_are_made(self) -> None:
        """The user and the directories are made, and `imapshield passwd` then makes a file that the server can read."""
        root = f"--root={self.folder}"
        os.mkdir(f"{self.folder}/etc")
        for name in ("passwd", "group"):
            with open(f"{self.folder}/etc/{name}", "w", encoding="utf-8") as file:
                file.write("root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
        self.run_program("systemd-sysusers", root, f"{CONTRIB}/sysusers.d/imapshield.conf")
        with open(f"{self.folder}/etc/passwd", encoding="utf-8") as file:
            entry = next(line for line in file if line.startswith("imapshield:")).split(":")
        owner = int(entry[2]), int(entry[3])
        self.run_program(
            "systemd-tmpfiles", root, "--create", f"{CONTRIB}/tmpfiles.d/imapshield.conf"
        )
        for path, expected, mode in (
            ("etc/imapshield", (0, owner[1]), 0o750),
            ("var/lib/imapshield/mail", owner, 0o700),
        ):
            status = os.stat(f"{self.folder}/{path}")
            self.assertEqual((status.st_uid, status.st_gid), expected, path)
            self.assertEqual(status.st_mode & 0o777, mode, path)
        users = f"{self.folder}/etc/imapshield/users"
        program = os.path.join(os.path.dirname(sys.executable), "imapshield")
        subprocess.run(
            [program, "passwd", users, "alice"], input=b"correct horse battery\n", check=True
        )
        status = os.stat(users)
        self.assertEqual((status.st_uid, status.st_gid), (0, owner[1]))
        self.assertEqual(status.st_mode & 0o777, 0o640)
