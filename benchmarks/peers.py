"""Starts the servers to measure, each in its own folder, in the foreground, on loopback.

`start(name, root)` serves the Maildirs `root`/<user>/, and stops only the processes that it has started, by
process id.
"""

from __future__ import annotations

import base64
import grp
import hashlib
import importlib.metadata
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.processes import process_tree, started

HOST = "127.0.0.1"
USER, PASSWORD = "alice", "secret"
NOOP = "noop"
"""The reference that has no mail."""
REPOSITORY = Path(__file__).resolve().parent.parent

# Debian's defaults, except for: the ports, no TLS, the safest fsync, and limits of sessions that a benchmark
# would reach (client_limit, process_limit, mail_max_userip_connections).
_DOVECOT = """\
protocols = imap
listen = {host}
base_dir = {state}/run
state_dir = {state}/state
log_path = {state}/log
disable_plaintext_auth = no
auth_mechanisms = plain login
default_process_limit = 5000
default_client_limit = 20000
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
mail_location = maildir:{root}/%u
mail_fsync = always
mail_max_userip_connections = 0
first_valid_uid = 1
first_valid_gid = 0
passdb {{
  driver = static
  args = password={password}
}}
{tls}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={root}/%u
}}
service imap-login {{
  {chroot}
  service_count = {login_count}
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service imap {{
  service_count = {imap_count}
  process_limit = 5000
}}
service anvil {{
  {chroot}
}}
!include {state}/more.conf
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve the mail.

    Attributes:
        options: more options for the command line of imapshield.
        configuration: more lines for the configuration of Dovecot.
        users: who may log in.
        password: of all users; stock Twisted has always `PASSWORD`.
        stored: an argon2id hash of the password, if servers do not store it plain. pymap always has a hash of its
            own kind, and stock Twisted none.
        certificate: a PEM file with a certificate and its key; without it there is no TLS.
        module: what runs imapshield of this checkout in place of ``twistd``, as ``python -m MODULE ... OPTION...``.
    """

    options: Sequence[str] = ()
    configuration: str = ""
    users: Sequence[str] = (USER,)
    password: str = PASSWORD
    stored: str = ""
    certificate: Path | None = None
    module: Sequence[str] = ()


# From (state folder, mail root, port, settings) to (command line, version).
Command = Callable[[Path, Path, int, Settings], tuple[Sequence[str], str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server: where it listens, and its first process, of which all others are descendants."""

    name: str
    version: str
    port: int
    pid: int
    host: str = HOST
    user: str = USER
    password: str = PASSWORD


def free_port() -> int:
    """Return a port of `HOST` that no program uses."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def mail_owner() -> tuple[int, int]:
    """Return the (uid, gid) that owns the mail: Dovecot refuses to serve mail of root."""
    if os.getuid():
        return os.getuid(), os.getgid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def change_owner(path: Path) -> None:
    """Give a folder and all its contents to `mail_owner`, if this process runs as root."""
    if os.getuid() == 0:
        uid, gid = mail_owner()
        for folder, _, files in os.walk(path):
            os.chown(folder, uid, gid)
            for name in files:
                os.chown(os.path.join(folder, name), uid, gid)


@contextmanager
def start(
    name: str, root: Path, options: Sequence[str] = (), configuration: str = ""
) -> Iterator[Peer]:
    """Start a server for one user, as `start_with` does."""
    with start_with(name, root, Settings(options, configuration)) as peer:
        yield peer


@contextmanager
def start_with(name: str, root: Path, settings: Settings) -> Iterator[Peer]:
    """Start a server, and stop it and its children at the end of the `with` statement.

    Args:
        name: one of `NAMES`.
        root: the folder of the Maildirs.
        settings: how to serve them.

    Raises:
        RuntimeError: the server did not start. The text is its output.
    """
    port = free_port()
    state = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    state.chmod(0o755)  # for Dovecot's processes of other users
    log = state / "output"
    (state / "more.conf").write_text(settings.configuration)
    try:
        command, version = _COMMANDS[name](state, root, port, settings)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=state,
            )
        try:
            wait_for_greeting(process, port)
            yield Peer(name, version, port, process.pid, password=settings.password)
        except TimeoutError:
            printed = "".join(
                f.read_text(errors="replace") for f in (log, state / "log") if f.exists()
            )
            raise RuntimeError(
                f"{name} sent no greeting: {printed[-2000:] or 'it printed nothing'}"
            ) from None
        finally:
            stop(process)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def dovecot_command(
    state: Path, root: Path, port: int, settings: Settings, reuse: bool = False
) -> tuple[Sequence[str], str]:
    """Write the configuration of a Dovecot, and return its command and version."""
    program = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise RuntimeError("dovecot not found: apt-get install dovecot-imapd")
    uid, gid = mail_owner()
    own_user = pwd.getpwuid(os.getuid()).pw_name
    as_root = os.getuid() == 0
    encoded = base64.b64encode(settings.password.encode()).decode()  # it may have a space
    file = settings.certificate
    tls = f"ssl = yes\nssl_cert = <{file}\nssl_key = <{file}" if file else "ssl = no"
    configuration = state / "dovecot.conf"
    configuration.write_text(
        _DOVECOT.format(
            host=HOST,
            port=port,
            state=state,
            root=root,
            password=f"{{ARGON2ID}}{settings.stored}"
            if settings.stored
            else f"{{PLAIN.b64}}{encoded}",
            tls=tls,
            uid=uid,
            gid=gid,
            internal="dovecot" if as_root else own_user,
            internal_group="dovecot" if as_root else grp.getgrgid(gid).gr_name,
            login="dovenull" if as_root else own_user,
            login_count=0 if reuse else 1,
            imap_count=1000 if reuse else 1,
            chroot="" if as_root else "chroot =",
        )
    )
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return [program, "-F", "-c", str(configuration)], version.stdout.split()[0]


def _imapshield(
    state: Path, root: Path, port: int, settings: Settings, twistd: Path | None = None
) -> tuple[Sequence[str], str]:
    own = Path(sys.executable).with_name("twistd")
    program = twistd or own
    if not program.exists():
        raise RuntimeError(f"{program} not found: install imapshield in that environment")
    # The copy next to another twistd must not be hidden by the one of this checkout.
    path = f"PYTHONPATH={REPOSITORY if twistd is None else ''}"
    if settings.module:
        command = ["env", path, sys.executable, "-m", *settings.module]
    else:
        command = ["env", path, str(program), "--nodaemon", "--pidfile=", "imapshield"]
    command += ["--listen", f"tcp:{port}:interface={HOST}", "--mail-root", str(root)]
    if twistd is None:  # an older version, which another environment may have, does not know it
        command += ["--no-special-folders"]  # all servers begin with INBOX alone
    if not settings.stored:
        auth = "memory:" + ":".join(f"{user}:{settings.password}" for user in settings.users)
    else:
        auth = f"file:{state}/passwords"
        lines = (f"{user}:{settings.stored}\n" for user in settings.users)
        (state / "passwords").write_text("".join(lines))
    command += ["--auth", auth, *settings.options]
    if twistd is None:  # an older imapshield may not have the option
        # Bans of one server are not those of the next.
        command += ["--state", str(state / "guard.sqlite")]
    if settings.certificate:
        command += ["--certificate", str(settings.certificate)]
    checkout = REPOSITORY if twistd is None else twistd.resolve().parent
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    version = subprocess.run(describe, capture_output=True, text=True, check=False)
    return command, version.stdout.strip() or "unversioned"


def _workers(state: Path, root: Path, port: int, settings: Settings) -> tuple[Sequence[str], str]:
    """Return imapshield with two workers. In the Maildir of another user, an index is open for one process only."""
    command, version = _imapshield(state, root, port, settings)
    indexes = state / "indexes"
    indexes.mkdir()
    return [*command, "--workers", "2", "--index-root", str(indexes)], f"{version} --workers 2"


def _pymap(_: Path, root: Path, port: int, settings: Settings) -> tuple[Sequence[str], str]:
    program = shutil.which("pymap")
    if program is None:
        raise RuntimeError("pymap not found: pip install pymap, and put it on PATH")
    # Its own kind of hash: with about the cost of argon2id, or with hardly any.
    rounds = 200_000 if settings.stored else 1000
    salt = os.urandom(16)
    digest = hashlib.pbkdf2_hmac("sha256", settings.password.encode(), salt, rounds)
    texts = (base64.b64encode(value).decode() for value in (salt, digest))
    stored = f"$pbkdf2-sha256${rounds}${'$'.join(texts)}"
    files = {
        "passwd": "".join(f"{user}:x::::{user}:\r\n" for user in settings.users),
        "shadow": "".join(f"{user}:{stored}:::::::\r\n" for user in settings.users),
    }
    for name, text in files.items():
        (root / f"pymap-etc-{name}").write_text(text, newline="")
    command = [program, "--host", HOST, "--port", str(port)]
    if settings.certificate:
        command += ["--cert", str(settings.certificate), "--key", str(settings.certificate)]
    else:
        command.append("--no-tls")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return [*command, "maildir", str(root)], version.stdout.split()[-1]


def _twisted(_: Path, root: Path, port: int, __: Settings) -> tuple[Sequence[str], str]:
    command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "benchmarks.stock_twisted"]
    return [*command, str(port), str(root), PASSWORD], importlib.metadata.version("twisted")


def _noop(_: Path, __: Path, port: int, ___: Settings) -> tuple[Sequence[str], str]:
    command = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "benchmarks.noop_server"]
    return [*command, str(port)], importlib.metadata.version("twisted")


def add_imapshield(name: str, twistd: Path) -> None:
    """Make a second imapshield, such as the version before a change, available as server `name`.

    Args:
        name: its name in `start`.
        twistd: the ``twistd`` of the environment that it is installed in.
    """
    _COMMANDS[name] = partial(_imapshield, twistd=twistd.absolute())


def add_server(name: str, command: Command) -> None:
    """Make another server available as `name`."""
    _COMMANDS[name] = command


_COMMANDS: dict[str, Command] = {
    "dovecot": dovecot_command,
    # The high-performance mode of its manual: a process serves one session after another.
    "dovecot-reuse": partial(dovecot_command, reuse=True),
    "imapshield": _imapshield,
    "workers": _workers,
    "pymap": _pymap,
    "twisted": _twisted,
    NOOP: _noop,
}
NAMES = tuple(_COMMANDS)


def wait_for_greeting(process: subprocess.Popen[bytes], port: int, timeout: float = 60) -> None:
    """Wait until the server on `port` of `HOST` has greeted a client.

    Raises:
        TimeoutError: it has not within `timeout` seconds, or `process` has ended.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((HOST, port), 2) as connection:
                if connection.recv(4) == b"* OK":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError


def stop(process: subprocess.Popen[bytes]) -> None:
    """Send TERM to the first process, and KILL to all its processes that are left after it, or after 10 seconds.

    Processes of Dovecot outlive their parent while they are busy with a command.
    """
    if process.poll() is not None:
        return
    tree = {pid: started(pid) for pid in process_tree(process.pid)}
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for pid, ticks in tree.items():
        if ticks and started(pid) == ticks:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(10)
