"""The wheel in a fresh virtual environment, as a new user has it after ``pip install``."""

from __future__ import annotations

import functools
import hashlib
import imaplib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import imapshield
from system_tests.server import REPOSITORY, TIMEOUT, Server, free_port
from system_tests.server_case import literals
from system_tests.test_readme import NOT_SOURCES

EPOCH = "1700000000"
"""A time that stands for that of the last commit."""

SOURCES = (
    "README.rst", "CHANGELOG.rst", "LICENSE", "changelog.d/README.rst", "contrib/systemd/imapshield.service",
    "docs/conf.py", "docs/index.rst", "docs/man/imapshield.1", "docs/status-page.png", "tests/test_cli.py",
    "system_tests/test_wheel.py", "twisted/plugins/imapshield_plugin.py", "imapshield/maildir/schema.sql",
)  # fmt: skip
"""Files that the sdist has, among others."""


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False, **options
    )  # fmt: skip


@functools.cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for all tests of this file, which is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="imapshield-wheel-")


@functools.cache
def wheel() -> str:
    """Build the wheel, once, and return its path."""
    folder = os.path.join(scratch().name, "dist")
    done = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    (name,) = os.listdir(folder)
    return os.path.join(folder, name)


@functools.cache
def environment() -> str:
    """Create a virtual environment with the wheel and its dependencies, once, and return the path of its bin/."""
    folder = os.path.join(scratch().name, "venv")
    # The checkout must not be importable, neither as the working directory nor through PYTHONPATH.
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


def printed_password(server: Server) -> str:
    """Return the password that the server has printed at its first start."""
    match = re.search(r"password +(\S+)", "".join(server.output))
    assert match is not None, server.output
    return match[1]


class WheelTests(SynchronousTestCase):
    def test_wheel_has_every_file_and_hides_no_package(self) -> None:
        """The wheel contains the plugin, the schema and the licence, and no __init__.py that would hide Twisted."""
        with zipfile.ZipFile(wheel()) as archive:
            names = archive.namelist()
        self.assertIn("imapshield/py.typed", names)
        self.assertIn("imapshield/maildir/schema.sql", names)
        self.assertEqual(
            [name for name in names if name.startswith("twisted/")],
            ["twisted/plugins/imapshield_plugin.py"],
        )
        self.assertEqual(
            {
                name.split("/")[0]
                for name in names
                if ".dist-info/" not in name and ".data/" not in name
            },
            {"imapshield", "twisted"},
        )
        self.assertEqual(
            [name.partition(".data/data/")[2] for name in names if ".data/" in name],
            ["share/man/man1/imapshield.1", "share/man/man8/twistd-imapshield.8"],
        )
        self.assertTrue(any(name.endswith("LICENSE") for name in names))


def build_in_copy(folder: str, umask: int) -> dict[str, bytes]:
    """Build sdist and wheel in a new copy of the checkout, as git makes one with `umask`, and return them by name."""
    before = os.umask(umask)
    try:
        shutil.copytree(REPOSITORY, folder, ignore=NOT_SOURCES, copy_function=copy_with_umask)
        done = run(
            *(sys.executable, "-m", "build", "--no-isolation"),
            cwd=folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        )
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {}
    for name in os.listdir(os.path.join(folder, "dist")):
        with open(os.path.join(folder, "dist", name), "rb") as file:
            built[name] = file.read()
    return built


def copy_with_umask(source: str, target: str) -> None:
    """Copy a file with the time of now, and the mode that the umask leaves of 666 or 777."""
    shutil.copyfile(source, target)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(target, (0o777 if os.access(source, os.X_OK) else 0o666) & ~umask)


class ReleaseTests(SynchronousTestCase):
    def test_two_builds_are_the_same(self) -> None:
        """Two builds, in other directories, at other times and with other umasks, give the same sdist and wheel."""
        first = build_in_copy(os.path.join(scratch().name, "first"), 0o022)
        time.sleep(2 - time.time() % 2)  # archives have times in steps of two seconds
        second = build_in_copy(os.path.join(scratch().name, "second", "deeper"), 0o077)
        self.assertEqual(sorted(first), sorted(second))
        for name, data in first.items():
            self.assertEqual(
                hashlib.sha256(data).digest(), hashlib.sha256(second[name]).digest(), name
            )
        (name,) = (each for each in first if each.endswith(".tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(first[name])) as archive:
            members = archive.getmembers()
        self.assertEqual({member.mtime for member in members}, {int(EPOCH)})
        names = {member.name.partition("/")[2] for member in members}
        for path in SOURCES:
            self.assertIn(path, names)


class InstalledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = os.path.abspath(self.mktemp())
        os.mkdir(self.home)

    def run_installed(
        self, name: str, *arguments: str, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the virtual environment."""
        return run(
            os.path.join(environment(), name), *arguments,
            cwd=self.home, env={**os.environ, "XDG_DATA_HOME": self.home}, **options,
        )  # fmt: skip

    def start_server(self, port: int | None = None) -> Server:
        twistd = os.path.join(environment(), "twistd")
        server = Server(twistd=twistd, port=port, XDG_DATA_HOME=self.home).wait_ready()
        self.addCleanup(lambda: server.process.poll() is not None or server.stop(signal.SIGKILL))
        return server

    def test_commands_and_plugin_are_installed(self) -> None:
        """The console script, the module and the plugin are installed, and twistd has its own commands too."""
        self.assertEqual(
            self.run_installed("imapshield", "--version").stdout.strip(), imapshield.__version__
        )
        self.assertEqual(
            self.run_installed("python", "-m", "imapshield", "--version").stdout.strip(),
            imapshield.__version__,
        )
        done = self.run_installed("twistd", "imapshield", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("--mail-root", done.stdout)
        self.assertIn(
            "imapshield", self.run_installed("twistd", "imapshield", "--help-auth").stdout
        )
        self.assertEqual(self.run_installed("twistd", "web", "--help").returncode, 0)

    def test_testing_tools_are_installed(self) -> None:
        """The store contract and `running_server` are installed, and work without the checkout and its extras."""
        program = (
            "from imapshield.testing import StoreContract, running_server\n"
            "with running_server({'alice': 'secret'}) as server:\n"
            "    server.append('alice', b'Subject: 1\\n\\n')\n"
            "    print(server.messages('alice'), StoreContract.__name__)\n"
        )
        done = self.run_installed("python", "-c", program)
        self.assertEqual(done.stdout, "[b'Subject: 1\\r\\n\\r\\n'] StoreContract\n", done.stderr)

    def test_second_start_uses_the_data_of_the_first(self) -> None:
        """One command serves; the printed password logs in; SIGTERM sends BYE; a second start uses the same data."""
        server = self.start_server()
        password = printed_password(server)
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=TIMEOUT)
        client.login("demo", password)
        self.assertEqual(client.select("INBOX"), ("OK", [b"3"]))
        kind, data = client.fetch("1", "(UID FLAGS BODY.PEEK[])")
        self.assertEqual(kind, "OK")
        self.assertIn(b"imapshield", literals(data)[0])
        self.assertEqual(client.append("INBOX", "", "", b"Subject: kept\r\n\r\nx\r\n")[0], "OK")
        server.process.send_signal(signal.SIGTERM)
        self.assertIn(b"* BYE", client.socket().recv(1000))
        client.socket().close()
        self.assertNotIn("Traceback", server.stop(None))

        second = self.start_server(server.port)
        self.assertIn("shown at the first start", "".join(second.output))
        self.assertNotIn(password, "".join(second.output))
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=TIMEOUT)
        client.login("demo", password)
        self.assertEqual(client.select("INBOX"), ("OK", [b"4"]))
        client.logout()
        self.assertNotIn("Traceback", second.stop())

    def test_new_password_is_valid_at_once(self) -> None:
        """A password that is set while the server runs is valid at once, and the old one is not."""
        server = self.start_server()
        old = printed_password(server)
        command = (f"{environment()}/imapshield", "passwd", f"{self.home}/imapshield/users", "demo")
        self.assertEqual(run(*command, cwd=self.home).returncode, 1, "an empty password was set")
        subprocess.run(command, input=b"new one\n", check=True, stdout=subprocess.DEVNULL)
        client = imaplib.IMAP4("127.0.0.1", server.port, timeout=TIMEOUT)
        self.assertRaises(imaplib.IMAP4.error, client.login, "demo", old)
        client.login("demo", "new one")
        client.logout()
        self.assertNotIn("new one", server.stop())

    def assert_start_fails(self, *arguments: str, message: str) -> None:
        """Starting the server must fail with status 1 and one line on standard error that contains `message`."""
        done = self.run_installed("twistd", "--nodaemon", "--pidfile=", "imapshield", *arguments)
        self.assertEqual(done.returncode, 1, done)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertNotIn("Traceback", done.stdout)

    def test_command_line_mistake_is_one_line_of_advice(self) -> None:
        """A mistake on the command line is reported in one line that says what to type instead."""
        self.assert_start_fails("--nonsense", message="--help")
        self.assert_start_fails("--mail-root", self.home, message="--auth")
        self.assert_start_fails(
            "--mail-root", "/no/such", "--auth", "memory:a:b", message="/no/such"
        )
        self.assert_start_fails("--listen", "nonsense", message="tcp:143")
        self.assert_start_fails("--certificate", "/no/such.pem", message="/no/such.pem")
        self.assert_start_fails("--backlog", "x", message="whole number")
        self.assert_start_fails("--limit", "x=1", message="--limit help")

    def test_port_in_use_is_reported_in_one_line(self) -> None:
        """A port in use is reported in one line with status 1, in the foreground and by the daemon's parent."""
        port = free_port()
        with socket.create_server(("127.0.0.1", port)):
            listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
            self.assert_start_fails(*listen, message="another program")
            done = self.run_installed(
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
