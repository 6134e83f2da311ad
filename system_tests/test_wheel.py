"""The wheel in a fresh virtual environment: what a newcomer has after ``pip install``."""

from __future__ import annotations

import functools
import imaplib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import imapshield
from system_tests.server import HERE, PATIENCE, Server, free_port


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False, **options
    )  # fmt: skip


@functools.cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for all tests of this file, which goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="imapshield-wheel-")


@functools.cache
def wheel() -> str:
    """Build the wheel, once."""
    folder = os.path.join(scratch().name, "dist")
    done = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    (name,) = os.listdir(folder)
    return os.path.join(folder, name)


@functools.cache
def environment() -> str:
    """A virtual environment with the wheel and what it depends on, once; returns its bin/."""
    folder = os.path.join(scratch().name, "venv")
    # The checkout must not be seen: not as the working directory, and not through PYTHONPATH.
    for command in (
        [sys.executable, "-m", "venv", folder],
        [f"{folder}/bin/pip", "install", "--quiet", wheel()],
    ):
        done = run(
            *command,
            cwd=scratch().name,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return f"{folder}/bin"


class WheelTests(SynchronousTestCase):
    def test_contents(self) -> None:
        """The wheel has the plugin, the schema and the licence, and no __init__.py that would hide Twisted."""
        with zipfile.ZipFile(wheel()) as archive:
            names = archive.namelist()
        self.assertIn("twisted/plugins/imapshield_plugin.py", names)
        self.assertIn("imapshield/py.typed", names)
        self.assertIn("imapshield/maildir/schema.sql", names)
        self.assertEqual(
            [
                n
                for n in names
                if n.startswith("twisted/") and n != "twisted/plugins/imapshield_plugin.py"
            ],
            [],
        )
        self.assertEqual(
            {n.split("/")[0] for n in names if ".dist-info" not in n}, {"imapshield", "twisted"}
        )
        self.assertTrue(any(n.endswith("LICENSE") for n in names))


class FreshTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = os.path.abspath(self.mktemp())
        os.mkdir(self.home)

    def bin(self, name, *arguments, **more):
        return run(
            os.path.join(environment(), name),
            *arguments,
            cwd=self.home,
            env={**os.environ, "XDG_DATA_HOME": self.home},
            **more,
        )

    def server(self, *arguments, port=None):
        server = Server(
            *arguments,
            twistd=os.path.join(environment(), "twistd"),
            port=port,
            XDG_DATA_HOME=self.home,
        )
        self.addCleanup(lambda: server.process.poll() is not None or server.stop(signal.SIGKILL))
        return server

    def test_commands(self) -> None:
        """The console script, the module and the plugin are there, and twistd is still Twisted's."""
        self.assertEqual(self.bin("imapshield", "--version").stdout.strip(), imapshield.__version__)
        self.assertEqual(
            self.bin("python", "-m", "imapshield", "--version").stdout.strip(),
            imapshield.__version__,
        )
        done = self.bin("twistd", "imapshield", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("--mail-root", done.stdout)
        self.assertIn("imapshield", self.bin("twistd", "imapshield", "--help-auth").stdout)
        self.assertEqual(self.bin("twistd", "web", "--help").returncode, 0)

    def test_first_start_to_last(self) -> None:
        """One command serves; the printed password logs in; SIGTERM says BYE; the second start knows the first."""
        server = self.server().ready()
        said = "".join(server.output)
        password = re.search(r"password +(\S+)", said).group(1)
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=PATIENCE)
        client.login("demo", password)
        self.assertEqual(client.select("INBOX"), ("OK", [b"3"]))
        kind, (data, *_) = client.fetch("1", "(UID FLAGS BODY.PEEK[])")
        self.assertEqual(kind, "OK")
        self.assertIn(b"imapshield", data[1])
        self.assertEqual(client.append("INBOX", "", None, b"Subject: kept\r\n\r\nx\r\n")[0], "OK")
        server.process.send_signal(signal.SIGTERM)
        self.assertIn(b"* BYE", client.sock.recv(1000))
        client.sock.close()
        self.assertNotIn("Traceback", server.stop(None))

        again = self.server(port=server.port).ready()
        self.assertIn("shown at the first start", "".join(again.output))
        self.assertNotIn(password, "".join(again.output))
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=PATIENCE)
        client.login("demo", password)
        self.assertEqual(client.select("INBOX"), ("OK", [b"4"]))
        client.logout()
        self.assertNotIn("Traceback", again.stop())

    def test_new_password(self) -> None:
        """A password set while the server runs counts at once, and the old one no more."""
        server = self.server().ready()
        old = re.search(r"password +(\S+)", "".join(server.output)).group(1)
        done = run(
            f"{environment()}/imapshield",
            "passwd",
            f"{self.home}/imapshield/users",
            "demo",
            cwd=self.home,
        )
        self.assertEqual(done.returncode, 1, "an empty password was taken")
        subprocess.run(
            [f"{environment()}/imapshield", "passwd", f"{self.home}/imapshield/users", "demo"],
            input=b"new one\n",
            check=True,
            stdout=subprocess.DEVNULL,
        )
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=PATIENCE)
        self.assertRaises(imaplib.IMAP4.error, client.login, "demo", old)
        client.login("demo", "new one")
        client.logout()
        self.assertNotIn("new one", server.stop())

    def refused(self, *arguments, saying) -> None:
        """The start fails with status 1 and one line on standard error."""
        done = self.bin("twistd", "--nodaemon", "--pidfile=", "imapshield", *arguments)
        self.assertEqual(done.returncode, 1, done)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(saying, done.stderr)
        self.assertNotIn("Traceback", done.stdout)

    def test_errors(self) -> None:
        """What is wrong on the command line is one line that says what to do."""
        self.refused("--nonsense", saying="--help")
        self.refused("--mail-root", self.home, saying="--auth")
        self.refused("--mail-root", "/no/such", "--auth", "memory:a:b", saying="/no/such")
        self.refused("--listen", "nonsense", saying="tcp:143")
        self.refused("--certificate", "/no/such.pem", saying="/no/such.pem")
        self.refused("--backlog", "x", saying="whole number")
        self.refused("--limit", "x=1", saying="preauth_seconds")

    def test_port_in_use(self) -> None:
        """A port in use is one line and status 1, in the foreground and for the daemon's parent."""
        port = free_port()
        with socket.create_server(("127.0.0.1", port)):
            listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
            self.refused(*listen, saying="another program")
            done = self.bin(
                "twistd",
                f"--pidfile={self.home}/pid",
                f"--logfile={self.home}/log",
                "imapshield",
                *listen,
            )
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot listen on tcp", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertFalse(os.path.exists(f"{self.home}/pid"))
