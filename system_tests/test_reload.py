"""A running server reloads on SIGHUP, logs its state on SIGUSR1, and uses renewed certificates at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords, users
from system_tests.certificate import write_certificate
from system_tests.server import TIMEOUT, TWISTD, free_port, wait_until

RENEWALS = int(os.environ.get("RENEWALS", "10"))
"""Renewals under load. A thousand take some minutes: RENEWALS=1000."""

ACTIVATE = """
import os, sys
copies = [os.dup(int(number)) for number in sys.argv[1].split(",")]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
    os.set_inheritable(number, True)
os.environ |= dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(copies)), LISTEN_FDNAMES=":".join("x" * len(copies)))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes sockets to a server as systemd does (sd_listen_fds(3))."""


class Daemon:
    """A ``twistd --nodaemon --logfile`` with a configuration file, and a socket as that of systemd for notifications.

    Args:
        folder: where all its files are.
        options: options of ``twistd imapshield`` besides ``--config``.
        sockets: listening sockets, which it inherits as systemd's.
    """

    def __init__(
        self, folder: str, *options: str, sockets: list[socket.socket] | None = None
    ) -> None:
        self.log = f"{folder}/log"
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(f"{folder}/notify")
        self.notifications.settimeout(TIMEOUT)
        environ = {**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"}
        command = [TWISTD, "--nodaemon", "--pidfile=", f"--logfile={self.log}", "imapshield"]
        command += ["--config", f"{folder}/config.toml", *options]
        inherited = [each.fileno() for each in sockets or ()]
        if inherited:
            numbers = ",".join(map(str, inherited))
            command = [sys.executable, "-c", ACTIVATE, numbers, *command]
        self.process = subprocess.Popen(
            command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, pass_fds=inherited,
        )  # fmt: skip

    def wait_ready(self) -> Daemon:
        """Wait until the server says to systemd that it serves."""
        assert self.next_state() == "READY=1", self.lines()
        return self

    def next_state(self) -> str:
        """Return the next state that systemd is told, without the text of its status."""
        while True:
            text = self.notifications.recv(4096).decode()
            if not text.startswith("STATUS="):
                return text.partition("\n")[0]

    def lines(self, path: str = "") -> str:
        """Return the log."""
        with open(path or self.log, encoding="utf-8") as file:
            return file.read()

    def stop(self) -> str:
        """End the server and return its log, and what it has written on standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=TIMEOUT)
        self.notifications.close()
        return (self.lines() if os.path.exists(self.log) else "") + errors


class ReloadCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="imapshield-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.mkdir(f"{self.folder}/mail")
        self.port, self.tls_port = free_port(), free_port()
        self.pem = write_certificate(self.folder)
        users.set_hash(f"{self.folder}/users", "alice", passwords.hash_scrypt(b"secret", ln=2))
        self.configure()

    def configure(self, more: str = "", listen: str = "") -> None:
        """Write the configuration file."""
        listen = (
            listen
            or f'"tcp:{self.port}:interface=127.0.0.1", "imaps:{self.tls_port}:interface=127.0.0.1"'
        )
        with open(f"{self.folder}/config.toml", "w", encoding="utf-8") as file:
            file.write(
                f'listen = [{listen}]\nmail-root = "{self.folder}/mail"\nauth = "file:{self.folder}/users"\n'
                f'certificate = "{self.pem}"\nstate = "none"\ncontrol = "{self.folder}/control"\n{more}'
            )

    def start(self, *options: str, sockets: list[socket.socket] | None = None) -> Daemon:
        daemon = Daemon(self.folder, *options, sockets=sockets)
        self.addCleanup(lambda: daemon.process.poll() is None and daemon.stop())
        return daemon.wait_ready()

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command of ``imapshield`` that asks the server. Returns its exit status and output."""
        program = os.path.join(os.path.dirname(sys.executable), "imapshield")
        command = [program, *arguments, "--control", f"{self.folder}/control"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def fingerprint(self, port: int, *, starttls: bool = False) -> str:
        """Return the certificate of the server, from a session that goes on to its end."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
            if starttls:
                assert plain.recv(4096).startswith(b"* OK")
                plain.sendall(b"a STARTTLS\r\n")
                assert plain.recv(4096).startswith(b"a OK")
            with context.wrap_socket(plain) as client:
                client.sendall(b"b LOGOUT\r\n")
                answer = b""
                while b"b OK" not in answer:
                    data = client.recv(4096)
                    assert data, f"the server has closed the connection after {answer!r}"
                    answer += data
                certificate = client.getpeercert(binary_form=True)
        assert certificate is not None
        return hashlib.sha256(certificate).hexdigest()


def handles(process: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        handled = next(line for line in file if line.startswith("SigCgt:")).split()[1]
    return bool(int(handled, 16) >> (number - 1) & 1)


class SignalTests(ReloadCase):
    def test_signals_while_the_server_starts(self) -> None:
        """Signals that arrive long before the server serves do not end it, and are handled when it does."""
        daemon = Daemon(self.folder)
        self.addCleanup(lambda: daemon.process.poll() is None and daemon.stop())
        wait_until(lambda: handles(daemon.process.pid, signal.SIGUSR1))
        for number in (signal.SIGHUP, signal.SIGUSR1):
            daemon.process.send_signal(number)
        daemon.wait_ready()
        wait_until(lambda: "reloaded: changes=0" in daemon.lines())
        wait_until(lambda: "status connections=" in daemon.lines())

    def test_hangup_and_usr1(self) -> None:
        """SIGHUP applies what has changed and opens the log again, SIGUSR1 logs the state, and the server goes on."""
        daemon = self.start()
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "status connections=0 without-login=0" in daemon.lines())
        os.rename(daemon.log, f"{daemon.log}.1")
        self.configure("[limit]\nmax_connections = 50\nbacklog = 60\n")
        daemon.process.send_signal(signal.SIGHUP)
        states = [daemon.next_state() for _ in range(2)]
        self.assertEqual(states, ["RELOADING=1", "READY=1"])
        for text in (
            "reload: backlog: 100 -> 60",
            "reload: max_connections: 10000 -> 50",
            "reloaded: changes=2 problems=0",
        ):
            self.assertIn(text, daemon.lines())
            self.assertNotIn(text, daemon.lines(f"{daemon.log}.1"))
        self.configure("[limit]\nmax_conections = 50\n")
        self.assertEqual(self.command("reload")[0], 1)
        self.configure("", listen=f'"tcp:{free_port()}"')
        expected = "changed backlog: 60 -> 100\nchanged max_connections: 50 -> 10000\nneeds a restart: listen\n"
        self.assertEqual(self.command("reload"), (0, expected))
        self.fingerprint(self.tls_port)
        log = daemon.stop()
        self.assertIn("unknown limit; did you mean max_connections?", log)
        self.assertNotIn("Traceback", log)


class CertificateTests(ReloadCase):
    def renew(self, folder: str) -> None:
        """Replace the certificate, as certbot does, or in place."""
        os.replace(write_certificate(folder), self.pem)

    def test_renewals_under_load(self) -> None:
        """Renewed certificates are used by STARTTLS and by `imaps:`, and no client loses its connection meanwhile."""
        other = f"{self.folder}/other"
        os.mkdir(other)
        daemon = self.start()
        context = ssl._create_unverified_context()  # noqa: S323
        old = context.wrap_socket(socket.create_connection(("127.0.0.1", self.tls_port), TIMEOUT))
        self.addCleanup(old.close)
        self.assertTrue(old.recv(4096).startswith(b"* OK"))
        failures: list[BaseException] = []
        sessions, stopped = [0], threading.Event()

        def load(port: int, starttls: bool) -> None:
            try:
                while not stopped.is_set():
                    self.fingerprint(port, starttls=starttls)
                    sessions[0] += 1
            except BaseException as error:
                failures.append(error)

        clients = [
            threading.Thread(target=load, args=(port, port == self.port))
            for port in (self.port, self.tls_port)
        ]
        for client in clients:
            client.start()
        seen = set()
        try:
            for _ in range(RENEWALS):
                self.renew(other)
                self.assertEqual(self.command_free_reload(daemon), "READY=1")
                shown = self.fingerprint(self.tls_port)
                self.assertEqual(shown, self.fingerprint(self.port, starttls=True))
                seen.add(shown)
        finally:
            stopped.set()
            for client in clients:
                client.join(TIMEOUT)
        self.assertEqual(failures, [])
        if RENEWALS < 50:  # else its time to log in is over
            old.sendall(b"a NOOP\r\n")
            self.assertTrue(old.recv(4096).startswith(b"a OK"))
        self.assertEqual(len(seen), RENEWALS)
        self.assertGreater(sessions[0], 0)
        self.assertNotIn("Traceback", daemon.stop())

    def command_free_reload(self, daemon: Daemon) -> str:
        """Send SIGHUP, and return the state after the reload."""
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.next_state() == "RELOADING=1"
        return daemon.next_state()

    def test_renewal_is_noticed(self) -> None:
        """Without a signal, a renewed certificate is used soon."""
        self.start()
        before = self.fingerprint(self.tls_port)
        other = f"{self.folder}/other"
        os.mkdir(other)
        self.renew(other)
        wait_until(lambda: self.fingerprint(self.tls_port) != before)


class ActivationTests(ReloadCase):
    def test_sockets_of_systemd(self) -> None:
        """The server serves the sockets that it inherits, with and without TLS."""
        with (
            socket.create_server(("127.0.0.1", 0)) as plain,
            socket.create_server(("127.0.0.1", 0)) as tls,
        ):
            self.configure("", '"systemd:domain=INET:index=0", "imaps:systemd:domain=INET:index=1"')
            self.start(sockets=[plain, tls])
            first = self.fingerprint(plain.getsockname()[1], starttls=True)
            self.assertEqual(first, self.fingerprint(tls.getsockname()[1]))

    def test_no_socket(self) -> None:
        """Without the sockets the server does not start, and says what to start."""
        self.configure("", '"systemd:domain=INET:index=0"')
        daemon = Daemon(self.folder)
        self.assertEqual(daemon.process.wait(TIMEOUT), 1)
        self.assertIn(
            "systemd has passed no such socket; start the unit imapshield.socket", daemon.stop()
        )


class StopTests(ReloadCase):
    def test_systemd_is_told(self) -> None:
        """systemd is told that the server stops, before the connections end."""
        daemon = self.start()
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.next_state(), "STOPPING=1")
        self.assertEqual(daemon.process.wait(TIMEOUT), -signal.SIGTERM)
        assert daemon.process.stderr is not None
        daemon.process.stderr.close()
