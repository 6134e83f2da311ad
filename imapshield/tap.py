"""The command ``twistd imapshield``: its options, and `makeService`, which builds the server from them."""

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.cred import strcred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.python import usage

from imapshield.config import DEFAULT_LISTEN, ConfigError, Settings, load_settings
from imapshield.first_run import FirstRunFolder
from imapshield.guard.memory_budget import bytes_per_stranger, stranger_cost
from imapshield.limits import Limits


class Options(usage.Options, strcred.AuthOptionMixin):
    """The options of ``twistd imapshield``. After parsing, `settings` combines them with those of ``--config``.

    The docstring of each ``opt_`` method is the help text of the option.
    """

    supportedInterfaces = (IUsernamePassword,)
    synopsis = "[options]"
    longdesc = (
        "An IMAP server for Maildir that resets a connection with more than 100 pending "
        "commands. Without options it "
        "listens on 127.0.0.1 port 1143, serves ~/.local/share/imapshield, and prints the "
        "password of a demo user."
    )
    optParameters = [
        ["mail-root", None, None, "Maildirs: DIR/USER, or a path with {user}, {local}, {domain}"],
        ["index-root", None, None, "Keep the indexes here, not in the Maildirs; like --mail-root"],
        ["separator", None, None, "Between levels of names, one of / . ^ _ | : ~ - [default: /]"],
        ["prefix", None, None, "What all mailbox names but INBOX begin with, such as INBOX."],
        ["certificate", None, None, "PEM file with certificate and chain; enables STARTTLS"],
        ["key", None, None, "PEM file with the private key [default: the --certificate file]"],
        ["backlog", None, None, "Pending commands before a connection is reset [default: 100]"],
        [
            "proxy",
            None,
            None,
            "Networks of proxies that send a PROXY header, such as 10.0.0.1,fd00::/8",
        ],
        ["trust", None, None, "Networks without rates and bans, or none [default: this machine]"],
        [
            "state",
            None,
            None,
            "File that keeps bans over a restart, or none [default: see docs/running.rst]",
        ],
        [
            "ban-command",
            None,
            None,
            "Program that is called with: ban NETWORK SECONDS, or: unban NETWORK",
        ],
        ["config", None, None, "TOML file with these options; the command line takes precedence"],
    ]
    optFlags = [
        ["strict-backlog", None, "Reset above the backlog after login, too, instead of pausing"],
        ["report-only", None, "Log which connections the limits would reset, but reset none"],
        ["follow-symlinks", None, "Show folders that are symbolic links to directories"],
        ["verbose", None, "Also log connections that never log in"],
    ]
    settings = Settings()

    def opt_listen(self, endpoint: str) -> None:
        """Twisted endpoint to listen on, such as tcp:143; repeatable [default: tcp:1143:interface=127.0.0.1]"""
        self.setdefault("listen", []).append(endpoint)

    def opt_auth(self, description: str) -> None:
        """Who may log in: file:PATH (see `imapshield passwd`), or another type of --help-auth; repeatable"""
        self.setdefault("auth", []).append(description)

    def opt_limit(self, assignment: str) -> None:
        """Change a limit: NAME=VALUE; repeatable. `--limit help` lists all limits with their reasons"""
        if assignment == "help":
            print(limits_help())
            raise SystemExit(0)
        self.setdefault("limit", []).append(assignment)

    def opt_report_only_limit(self, name: str) -> None:
        """Log when this limit is reached, but do not enforce it; repeatable"""
        self.setdefault("report-only-limit", []).append(name)

    def parseOptions(self, options: Any = None) -> None:
        """Parse the command line and read the file of ``--config``.

        Raises:
            SystemExit: with one line that says what is wrong. twistd itself would print its whole help first.
        """
        try:
            super().parseOptions(options)
        except (usage.UsageError, ConfigError) as error:
            advice = "" if isinstance(error, ConfigError) else "; see --help"
            raise SystemExit(f"imapshield: {error}{advice}") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments that are not options."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        """Build `settings` from the options and the file of ``--config``."""
        for name, value in self.items():
            if value == "":
                raise ConfigError(f"--{name} needs a value")
        given = {name: value for name, value in self.items() if value and name != "config"}
        self.settings = load_settings(given, self["config"])


def limits_help() -> str:
    """Return the text of ``--limit help``: the limits by group, each with its default and its reason.

    It ends with what one client can cost that has not logged in, as a sum of limits.
    """
    lines = ["All limits with their defaults. To change one: --limit NAME=VALUE"]
    for group, limits in Limits().by_group().items():
        lines += ["", f"{group}:"]
        for name, (value, reason) in limits.items():
            lines += [f"  {name}={value}", textwrap.indent(textwrap.fill(reason, 72), " " * 6)]
    lines += ["", "Memory of one client that has not logged in, at most, in bytes:"]
    lines += [f"  {size:>6}  {part}" for part, size in stranger_cost(Limits()).items()]
    lines += [
        f"  {bytes_per_stranger(Limits()):>6}  in all, without the socket buffers of the kernel"
    ]
    return "\n".join(lines)


def makeService(options: Options) -> IService:
    """Return the server as a service that is not yet started.

    Raises:
        SystemExit: the options cannot be used; with one line that says what is wrong and what to do.
    """
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    try:
        return _make_service(options.settings, reactor)
    except ConfigError as error:
        raise SystemExit(f"imapshield: {error}") from None


def use_monotonic_clock(reactor: Any) -> None:
    """Make the reactor measure time with a clock that nobody sets. By default, Twisted uses the wall clock.

    Setting that clock forward would end bans and all time-outs at once, and setting it back would stop them. A reactor
    with pending calls, whose times are of the old clock, is left as it is; twistd's has none yet.
    """
    if reactor.seconds is time.time and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def _make_service(settings: Settings, reactor: Any) -> IService:
    # Imported here, so that `twistd imapshield --help` does not load the server.
    from imapshield.cred.checkers import CheckerChain, PasswordFile
    from imapshield.cred.sasl import challengers
    from imapshield.edge.factory import ShieldedIMAP4Factory
    from imapshield.edge.gate import Gate
    from imapshield.edge.proxy import Proxies
    from imapshield.endpoints import is_proxied
    from imapshield.free_memory import FreeMemory
    from imapshield.guard.networks import NetworkSet
    from imapshield.guard.process_guard import ProcessGuard
    from imapshield.guard_state import GuardState
    from imapshield.observe.log_observer import LogObserver
    from imapshield.service import ShieldService
    from imapshield.tls import load_context

    limits, certificate = settings.limits, settings.certificate
    endpoints = [(text, _endpoint(reactor, text)) for text in settings.listen]
    context = None if certificate is None else load_context(certificate, settings.key)
    first_run = FirstRunFolder.from_environ(os.environ)
    if settings.mail_root is None:
        try:
            first_run.create_mail_root(samples=not settings.auth)
        except OSError as error:
            raise ConfigError(_not_writable(first_run, error)) from None
    demo_checker = PasswordFile(first_run.users, reactor=reactor)
    checkers = [_checker(reactor, text) for text in settings.auth] or [demo_checker]
    realm = _realm(settings, settings.mail_root or first_run.mail, reactor)
    guard = ProcessGuard(limits, NetworkSet.parse(settings.trust))
    log = LogObserver(verbose=settings.verbose)
    factory = ShieldedIMAP4Factory(
        Portal(realm, [CheckerChain(checkers)]),
        limits=limits,
        context_factory=context,
        observers=[log],
        reactor=reactor,
        # A SCRAM exchange begins with the salt of one checker. With several checkers, it is not known which one to use.
        challengers=challengers(checkers) if len(checkers) == 1 else None,
        guard=guard,
    )
    proxies = Proxies(NetworkSet.parse(settings.proxy), limits, reactor, [log])
    path = _state_path(settings, first_run)
    state = GuardState(path, guard.bans, guard.failures, reactor=reactor, now=reactor.seconds)

    ban_command = _ban_command(settings, guard, reactor)
    if ban_command is not None:
        factory.shared.admission.on_ban = state.on_ban = ban_command.ban
        state.on_unban = ban_command.unban

    def load_state() -> None:
        state.start()
        decoy_key = state.kept_secret("decoys")
        for checker in checkers:
            if decoy_key is not None and hasattr(checker, "decoy_key"):
                checker.decoy_key = decoy_key

    def close_off(text: str, port: Any) -> None:
        port_proxies = proxies.everyone() if is_proxied(text) else proxies
        Gate.close_off(port, factory.shared.admission, factory.shared.fair_queue, port_proxies)

    free_memory = FreeMemory(
        lambda: (len(factory.connections), factory.shared.memory_budget.memory)
    )

    def periodic() -> None:
        log.summarize()
        free_memory.check()

    on_stop = [checker.close for checker in checkers if hasattr(checker, "close")]
    on_stop += [ban_command.stop] if ban_command is not None else []
    on_stop += [realm.close, state.stop, lambda: log.summarize(everything=True)]
    return ShieldService(
        endpoints,
        factory,
        on_stop,
        periodic,
        reactor,
        max_connections=limits.max_connections,
        on_start=[load_state],
        on_open_files=lambda open_files: _fit_open_files(open_files, guard, realm),
        on_port=close_off,
        on_listening=None if settings.auth else _announcer(first_run),
    )


def _ban_command(settings: Settings, guard: Any, reactor: Any) -> Any:
    from imapshield.edge.ban_command import BanCommand, parse_command

    if settings.ban_command is None:
        return None
    try:
        command = parse_command(settings.ban_command)
    except ValueError as error:
        raise ConfigError(f"--ban-command {error}") from None
    return BanCommand(command, guard.trusted, reactor=reactor, now=reactor.seconds)


def _state_path(settings: Settings, first_run: FirstRunFolder) -> str | None:
    """Return the path of the state file; None for no file."""
    from imapshield.state_file import default_path

    if settings.state == "none":
        return None
    if settings.state is None:
        with suppress(OSError):  # the log then says that the file cannot be used
            os.makedirs(first_run.folder, mode=0o700, exist_ok=True)
    return settings.state or default_path(os.environ, first_run.folder)


def _fit_open_files(open_files: int | None, guard: Any, realm: Any) -> None:
    """Fit the limits to the number of files that the process may open."""
    guard.shares.set_open_files(open_files)
    idle = guard.shares.max_idle_accounts
    if idle is not None:
        realm.max_idle_accounts = min(realm.max_idle_accounts, idle)


def _endpoint(reactor: Any, text: str) -> Any:
    from imapshield.endpoints import server_endpoint

    try:
        return server_endpoint(reactor, text)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        reason = f"file {error.filename} not found"
    except Exception as error:  # endpoint parsers are plugins and may raise anything
        without_port = re.search(r"(^|:)(tcp[46]?|ssl)(:?$|::)", text)
        reason = "has no port" if without_port else f"not a Twisted endpoint ({error})"
    raise ConfigError(f"--listen {text}: {reason}; use for example tcp:143 or {DEFAULT_LISTEN}")


def _not_writable(first_run: FirstRunFolder, error: OSError) -> str:
    return (
        f"{error.filename or first_run.folder}: {error.strerror};"
        " make it writable, or name another directory with --mail-root"
    )


def _announcer(first_run: FirstRunFolder) -> Callable[[Sequence[tuple[str, str]]], None]:
    """Return a function that adds the demo user and prints how to log in, to the present standard output.

    It is called when the server listens, so a start that fails creates no password that nobody has seen. By then twistd
    has redirected standard output to the log or, in the background, to /dev/null.
    """
    from imapshield.service import CannotServe

    output = os.dup(sys.__stdout__.fileno()) if sys.__stdout__ else os.open(os.devnull, os.O_WRONLY)

    def announce(listening: Sequence[tuple[str, str]]) -> None:
        try:
            text = first_run.add_demo_user(listening)
        except OSError as error:
            raise CannotServe(_not_writable(first_run, error)) from None
        with open(output, "w", encoding="utf-8") as file:
            print(text, file=file)

    return announce


def _realm(settings: Settings, mail_root: str, reactor: Any) -> Any:
    from imapshield.cred.realm import MaildirRealm, MailRoot

    limits, index_root = settings.limits, settings.index_root
    for option, pattern in (("mail-root", mail_root), ("index-root", index_root)):
        if pattern is not None:
            try:
                base = MailRoot(pattern).base
            except ValueError as error:
                raise ConfigError(f"--{option} {pattern}: {error}") from None
            _check_writable(f"--{option} {pattern}", base)
    return MaildirRealm(
        mail_root,
        reactor=reactor,
        quota=(limits.quota_bytes or None, limits.quota_messages or None),
        index_root=index_root,
        follow_symlinks=settings.follow_symlinks,
        separator=settings.separator,
        prefix=settings.prefix,
    )


def _check_writable(option: str, directory: str) -> None:
    if not os.path.isdir(directory):
        raise ConfigError(
            f"{option}: {directory} is not a directory; create it, or name another one"
        )
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option}: the server cannot read and write {directory};"
            " chown it, or run the server as its owner with twistd --uid"
        )


def _checker(reactor: Any, text: str) -> Any:
    """Return the checker of one ``--auth``.

    ``file:`` is a file of hashed passwords. The checker of strcred with that name compares passwords in plain text.
    """
    kind, _, argument = text.partition(":")
    if kind in ("file", "imapshield"):
        return _password_file(reactor, argument)
    if kind == "memory" and ":" not in argument:
        raise ConfigError("--auth memory: needs USER:PASSWORD, as in --auth memory:alice:secret")
    try:
        checker: Any = strcred.makeChecker(text)
    except strcred.InvalidAuthType:
        raise ConfigError(
            f"--auth {kind}: unknown type; use file:PATH, memory:USER:PASSWORD or a type of "
            "--help-auth"
        ) from None
    except Exception as error:  # checker factories are plugins and may raise anything
        reason = str(error).rstrip(".")
        raise ConfigError(f"--auth {kind}: {reason}; see --help-auth-type {kind}") from None
    if IUsernamePassword not in checker.credentialInterfaces:
        raise ConfigError(f"--auth {kind}: does not check passwords; see --help-auth")
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # The plugin of strcred stores str, but the names and passwords that clients send are bytes.
        users: dict[Any, Any] = checker.users
        checker.users = {user.encode(): word.encode() for user, word in users.items()}
    return checker


def _password_file(reactor: Any, path: str) -> Any:
    from imapshield.cred.checkers import PasswordFile

    if not path:
        raise ConfigError("--auth file: needs a path, as in --auth file:/etc/imapshield/users")
    try:
        open(path, "rb").close()
    except OSError as error:
        raise ConfigError(
            f"--auth file:{path}: {error.strerror}; `imapshield passwd {path} USER` creates it"
        ) from None
    return PasswordFile(path, reactor=reactor)
