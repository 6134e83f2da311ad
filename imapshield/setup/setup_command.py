"""The command ``imapshield setup``: its options, its questions, and what it prints."""

import argparse
import getpass
import os
import pwd
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from imapshield import check_command
from imapshield.config import ConfigError, load_settings, read_toml
from imapshield.cred import users
from imapshield.setup import answers as checks
from imapshield.setup.answers import Answers, WrongAnswer
from imapshield.setup.installation import (
    SYSTEM_USER,
    Installation,
    program,
    server_user,
    unusable_program,
)
from imapshield.setup.next_steps import next_steps
from imapshield.setup.plan import HOST_COMMENT, make_plan
from imapshield.setup.steps import Password, Step, StepError, stored_hash
from imapshield.setup.undo import NotUndone, undone_on_error
from imapshield.user_commands import CommandError

T = TypeVar("T")

_SYSTEMD_RUNS = "/run/systemd/system"


def run(options: argparse.Namespace) -> int:
    """Set up a server, and return the exit status."""
    if not options.yes and not sys.stdin.isatty():
        raise CommandError(
            "standard input is not a terminal; use --yes, with options for the answers (see --help)"
        )
    installation = Installation.from_environ(os.environ, options.config, options.data)
    try:
        with _signals_interrupt():
            _check_paths(installation)
            answers = _Questions(options, installation).ask()
            steps = [step for step in make_plan(answers, installation) if step.describe()]
            if options.dry_run:
                _show(steps)
                return 0
            steps = _without_conflicts(steps, options)
            done = [step.describe() for step in steps]
            with undone_on_error() as undo:
                for step in steps:
                    step.apply(undo)
    except NotUndone as error:
        raise CommandError(str(error)) from None
    except (WrongAnswer, StepError) as error:
        raise CommandError(f"{error}; nothing was changed") from None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}; nothing was changed") from None
    print("\nDone:" if done else "\nNothing is to be changed.")
    print("".join(f"    {text}\n" for text in done), end="")
    return _report(answers, installation)


def _check_paths(installation: Installation) -> None:
    for option, path in ("--config", installation.config), ("--data", installation.state):
        try:
            checks.printable(path)
        except WrongAnswer as error:
            raise WrongAnswer(f"{option} {error}") from None


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let the ends that a terminal or a shutdown asks for be a `KeyboardInterrupt`, which undoes what was done."""
    names = signal.SIGTERM, signal.SIGHUP
    handlers = [signal.signal(name, signal.default_int_handler) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, handlers, strict=True):
            signal.signal(name, handler)


class _Questions:
    """Asks what no option answers. A wrong answer is asked for again; a wrong option ends the command."""

    def __init__(self, options: argparse.Namespace, installation: Installation) -> None:
        self._options, self._installation = options, installation
        self._old = _old_options(installation)

    def ask(self) -> Answers:
        """Return all answers."""
        options, installation, old = self._options, self._installation, self._old
        if not options.yes:
            print(
                f"Five questions; Enter accepts what is in brackets. Then {installation.config} is written.\n"
            )
        mail_root = self._answer(
            "mail_root",
            "1/5 Where is the mail, or where shall it be? A directory with a Maildir for each user, or a path such as\n"
            "    /home/{user}/Maildir",
            old.get("mail-root", installation.mail),
            checks.mail_root,
        )
        host = self._answer(
            "host",
            "2/5 To which host name do mail clients connect?",
            old.get("host", _own_host()),
            checks.host,
        )
        known = old.get("certificate", checks.usual_certificate(host))
        certificate, key = self._answer(
            "certificate",
            "3/5 TLS certificate for that name: the PEM file with its chain (and the file of the key, if that is\n"
            "    another one), or `none` to serve only this machine, without TLS",
            " ".join(map(shlex.quote, filter(None, (known, old.get("key"))))),
            lambda text: self._certificate(text, host),
        )
        # The earlier endpoints do not fit if TLS comes or goes.
        has_same_tls = (certificate is None) == ("certificate" not in old)
        listen = options.listen or (old.get("listen", ()) if has_same_tls else ())
        listen = checks.listen(listen, certificate, key)
        user = self._answer(
            "user",
            "4/5 Name of the first user",
            old.get("user") or _own_user(),
            lambda text: checks.user(text, mail_root),
        )
        password = self._password(user)
        start = self._answer(
            "start",
            "5/5 Is the server started by `systemd`, or by `hand`?",
            "systemd" if os.path.isdir(_SYSTEMD_RUNS) else "hand",
            checks.start,
        )
        return Answers(
            mail_root=mail_root,
            host=host,
            certificate=certificate,
            key=key,
            user=user,
            password=password,
            start=start,
            listen=listen,
            server_user=self._server_user(mail_root),
        )

    def _answer(self, name: str, question: str, default: str, check: Callable[[str], T]) -> T:
        given = getattr(self._options, name)
        if given is not None or self._options.yes:
            text = default if given is None else given
            option = f"--{name.replace('_', '-')}"
            if not text:
                raise WrongAnswer(f"{option} is missing; add it, or omit --yes to be asked")
            try:
                return check(checks.printable(text))
            except WrongAnswer as error:
                raise WrongAnswer(f"{option} {error}") from None
        while True:
            print(question)
            text = input(f"    [{default}]: " if default else "    : ").strip() or default
            try:
                return check(checks.printable(text))
            except WrongAnswer as error:
                print(f"    {error}\n")

    def _certificate(self, text: str, host: str) -> tuple[str | None, str | None]:
        if self._options.certificate is not None:
            return checks.certificate(text, self._options.key, host)
        try:
            path, *keys = shlex.split(text)
        except ValueError:
            raise WrongAnswer(f"{text}: a quote is missing; type the path of a PEM file") from None
        if len(keys) > 1:
            raise WrongAnswer(f"{text}: type one or two files, and quotes around names with spaces")
        return checks.certificate(path, self._options.key or (keys[0] if keys else None), host)

    def _password(self, user: str) -> bytes | None:
        """Return the password of the first user; None if the user is in the password file and none is given."""
        path, exists = (
            self._options.password_file,
            stored_hash(self._installation.users, user) is not None,
        )
        if path is not None:
            return checks.password(checks.read_password(path), user)
        if exists:
            return None
        if self._options.yes:
            given = b"" if sys.stdin.isatty() else sys.stdin.buffer.readline().rstrip(b"\r\n")
            if not given:
                advice = "add --password-file FILE, write it to standard input, or omit --yes"
                raise WrongAnswer(f"the password of {user} is missing; {advice}")
            return checks.password(given, user)
        while True:
            try:
                password = getpass.getpass(f"    Password of {user} (it is not shown): ")
                given = checks.password(password.encode("utf-8", "surrogateescape"), user)
                if getpass.getpass("    The same password again: ") == password:
                    return given
                print("    the passwords do not match; type them again\n")
            except WrongAnswer as error:
                print(f"    {error}\n")

    def _server_user(self, mail_root: str) -> str:
        """Return the user of the server, who must be able to run it."""
        given = self._options.server_user
        if not self._installation.is_system:
            if given is not None:
                raise WrongAnswer("--server-user: only root can choose it; use sudo, or omit it")
            return server_user(self._installation, mail_root)
        name = given or server_user(self._installation, mail_root)
        if given not in (None, SYSTEM_USER):
            try:
                pwd.getpwnam(given)
            except KeyError:
                raise WrongAnswer(f"--server-user {given}: no such user; create it first") from None
        path = unusable_program(name)
        if not path:
            return name
        advice = "install imapshield in /opt/imapshield, with a Python that all users can run, and run setup there"
        problem = f"the user {name} cannot run {path}"
        if given is not None:
            raise WrongAnswer(f"--server-user: {problem}; {advice}")
        print(
            f"\nimapshield: {problem}, so the server will be root; better: {advice}",
            file=sys.stderr,
        )
        return "root"


def _old_options(installation: Installation) -> dict[str, Any]:
    """Return what the present configuration and password file say, as defaults of the questions."""
    try:
        old = read_toml(installation.config)
        with open(installation.config, encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(HOST_COMMENT)]
    except (ConfigError, OSError):
        return {}
    if lines:
        old["host"] = lines[0].removeprefix(HOST_COMMENT).strip().rstrip(".")
    try:
        with open(installation.users, "rb") as file:
            old["user"] = next(iter(users.parse(file.read())[0]), "")
    except OSError:
        pass
    return old


def _own_host() -> str:
    name = socket.getfqdn()
    return name if "." in name and not name.endswith((".localdomain", ".arpa")) else "localhost"


def _own_user() -> str:
    """Return the name of who runs the command: of root, that before sudo; "" if it is not known."""
    name = (
        os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    )
    return "" if name == "root" else name


def _show(steps: Sequence[Step]) -> None:
    print("\nThis would be done:" if steps else "\nNothing would be changed.")
    for step in steps:
        print(f"    {step.describe()}")
        _show_text(step)


def _show_text(step: Step) -> None:
    print("".join(f"        | {line}\n" for line in step.preview().splitlines()), end="")


def _without_conflicts(steps: Sequence[Step], options: argparse.Namespace) -> list[Step]:
    """Return the steps that may be done. Asks for each file that would be replaced."""
    kept: list[Step] = []
    for step in steps:
        conflict = step.conflict()
        if conflict and not options.force:
            if options.yes:
                what = (
                    "is another one" if isinstance(step, Password) else "exists, with other content"
                )
                raise WrongAnswer(
                    f"{conflict} {what}; --dry-run shows the difference, --force replaces it"
                )
            _show_text(step)
            if input(f"Replace {conflict}? [y/N]: ").strip().lower() not in ("y", "yes"):
                print("    kept as it is")
                continue
        kept.append(step)
    return kept


def _report(answers: Answers, installation: Installation) -> int:
    """Check the configuration, and print what to do next."""
    print(f"\nThe check of {installation.config}:")
    uid = [] if not installation.is_system else ["--uid", answers.server_user]
    status = check_command.run(["--config", installation.config, *uid])
    if status == 2:
        command = shlex.join(
            [program("imapshield"), "check-config", "--config", installation.config, *uid]
        )
        print(f"imapshield: correct the errors above, then: {command}", file=sys.stderr)
        return 1
    print("\n" + next_steps(answers, installation, load_settings({}, installation.config).listen))
    return 0
