"""The files of docs/household.rst, with Debian's Postfix and saslauthd. Neither is started as a service."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib

from system_tests.server import wait_until
from system_tests.server_case import FAULTS, ServerCase
from tests.documented_commands import literal_blocks, read

ROOT = os.environ.get("POSTFIX_ROOT", os.path.join(sys.prefix, "postfix"))
"""Where Debian's packages of Postfix and Cyrus SASL are unpacked."""
PAGE = "docs/household.rst"
PROGRAMS = f"{ROOT}/usr/sbin"
USER = "alice@example.org"
PASSWORD = 'a "quoted" \\ word'  # noqa: S105 of this test


def files() -> dict[str, str]:
    """Return the files of the page: path → content. The path is in the paragraph before the block."""
    blocks = {block.line: block.text for block in literal_blocks(PAGE)}
    lines, found = read(PAGE).split("\n"), {}
    for line, text in blocks.items():
        paragraph = "\n".join(lines[: line - 2]).rpartition("\n\n")[2]
        for path in re.findall(r"``(/etc/[^`]+)``", paragraph)[:1]:
            found[path] = text + "\n"
    return found


class HouseholdTests(ServerCase):
    forbidden_log_texts = FAULTS

    def prepare(self) -> None:
        self.assertTrue(os.path.exists(PROGRAMS), f"{PROGRAMS} not found: run system_tests/install")
        users = os.path.join(self.base, "users")
        self.auth = f"file:{users}"
        command = [sys.executable, "-m", "imapshield", "passwd", users, USER]
        subprocess.run(command, input=PASSWORD, text=True, check=True, capture_output=True)

    def run_postfix(self, *command: str) -> str:
        """Run a program of Postfix with the files of the page; it must not warn."""
        output = self.run_client(
            f"{PROGRAMS}/{command[0]}", "-c", self.home, *command[1:],
            env={"LD_LIBRARY_PATH": f"{ROOT}/usr/lib/postfix"},
        )  # fmt: skip
        self.assertEqual(self.log, output.decode())
        return output.decode()

    def test_postfix_understands_its_files(self) -> None:
        """Postfix accepts the settings, and delivers to the Maildir that imapshield serves."""
        for path, text in files().items():
            if path.startswith("/etc/postfix/"):
                self.write_home_file(os.path.basename(path), text)
        settings = dict(
            line.split(" = ", 1)
            for line in self.run_postfix("postconf", "-n").splitlines()
            if " = " in line
        )
        self.assertIn("smtpd_sasl_auth_enable=yes", self.run_postfix("postconf", "-M"))
        own = tomllib.loads(files()["/etc/imapshield/config.toml"])
        for table in ("mailboxes", "aliases", "senders"):
            self.assertIn(f"hash:/etc/postfix/{table}", settings.values())
            self.run_postfix("postmap", f"hash:{self.home}/{table}")
        mailbox = self.run_postfix("postmap", "-q", USER, f"hash:{self.home}/mailboxes")
        self.assertEqual(
            f"{settings['virtual_mailbox_base']}/{mailbox}", f"{own['mail-root']}/{USER}/\n"
        )

    def test_saslauthd_asks_imapshield(self) -> None:
        """With the options of the page, saslauthd accepts the password of a user, and no other one."""
        text = files()["/etc/default/saslauthd"]
        options = dict(re.findall(r'^(\w+)="?(.*?)"?$', text, re.MULTILINE))
        self.assertEqual(options["START"], "yes")
        words = shlex.split(options["OPTIONS"])
        words[words.index("-m") + 1] = self.home
        host, _, _ = options["MECH_OPTIONS"].partition("/")
        command = [
            f"{PROGRAMS}/saslauthd", "-d", "-a", options["MECHANISMS"], "-O", f"{host}/{self.port}", *words,
        ]  # fmt: skip
        # It ends its whole process group.
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as daemon:
            self.addCleanup(daemon.wait)
            self.addCleanup(daemon.terminate)
            socket = os.path.join(self.home, "mux")
            wait_until(lambda: os.path.exists(socket))
            for password, answer in ((PASSWORD, "0: OK"), ("wrong", "0: NO")):
                output = self.run_client(
                    f"{PROGRAMS}/testsaslauthd",
                    "-u",
                    USER,
                    "-p",
                    password,
                    "-f",
                    socket,
                    status=None,
                )
                self.assertIn(answer, output.decode())
            daemon.terminate()
        log = self.stop()
        self.assertIn(f'mechanism=LOGIN tls=False user="{USER}"', log)
        self.assertIn("login failed peer=127.0.0.1", log)
