"""The command ``twistd imapshield``: its options, and `makeService`."""

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.cred import strcred
from twisted.cred.credentials import IUsernamePassword
from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions

import twisted
from imapshield import __version__
from imapshield.config import ConfigError, Settings, load_settings
from imapshield.guard.memory_budget import bytes_per_stranger, stranger_cost
from imapshield.limits import Limits

if TYPE_CHECKING:
    from imapshield.process.process_control import Process


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
        [
            "default-domain",
            None,
            None,
            "The domain of user names without one: alice is alice@DOMAIN",
        ],
        ["master-users", None, None, "Password file of those who may log in as USER*THEMSELVES"],
        [
            "user-map",
            None,
            None,
            "Says which --backend has a user: file:PATH, https://HOST/PATH, ldap:FILE, redis://HOST",
        ],
        ["certificate", None, None, "PEM file with certificate and chain; enables STARTTLS"],
        ["key", None, None, "PEM file with the private key [default: the --certificate file]"],
        ["acme-email", None, None, "Address for the authority of --acme"],
        ["acme-http", None, None, "Port or endpoint where the authority asks [default: 80]"],
        ["acme-server", None, None, "URL of the authority [default: Let's Encrypt]"],
        ["acme-state", None, None, "Directory of its account and certificate [default: see docs]"],
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
        [
            "control",
            None,
            None,
            "UNIX socket for `imapshield status`, or none [default: see docs/operating.rst]",
        ],
        ["admin", None, None, "Endpoint of the status page, such as tcp:8143:interface=127.0.0.1"],
        ["admin-auth", None, None, "Who may log in to it, as file:PATH [default: see docs]"],
        ["metrics", None, None, "Endpoint with /metrics and /health, without a login"],
        ["log-format", None, None, "text, or json for one JSON object a line [default: text]"],
        ["workers", None, None, "Processes that serve the clients, on as many cores [default: 1]"],
        ["guard-redis", None, None, "Share bans and limits with other servers: redis://HOST"],
        ["guard-redis-password", None, None, "File with the password of --guard-redis"],
        ["guard-secret", None, None, "File with the secret of all servers with this --guard-redis"],
        ["config", None, None, "TOML file with these options; the command line takes precedence"],
    ]
    optFlags = [
        ["strict-backlog", None, "Reset above the backlog after login, too, instead of pausing"],
        ["report-only", None, "Log which connections the limits would reset, but reset none"],
        ["follow-symlinks", None, "Show folders that are symbolic links to directories"],
        ["no-text-index", None, "Do not index the text of messages; SEARCH TEXT and BODY read all"],
        ["no-special-folders", None, "New accounts have no Drafts, Sent, Junk, Trash and Archive"],
        ["exact-user-names", None, "Alice is not alice; without it the exact name is tried first"],
        ["backend-proxy", None, "Tell the backend the client's address with a PROXY header (v2)"],
        ["backend-id", None, "Tell the backend the client's address with ID x-originating-ip"],
        ["user-map-password", None, "Let the service of --user-map check passwords, too"],
        ["no-rehash", None, "Keep password hashes of other servers as they are in the file"],
        [
            "check",
            None,
            "Check the options, users and Maildirs, and start nothing; status 1: warnings, 2: errors",
        ],
        ["verbose", None, "Also log connections that never log in"],
    ]
    settings = Settings()
    load: Callable[[], Settings] = Settings

    def opt_listen(self, endpoint: str) -> None:
        """Twisted endpoint to listen on, such as tcp:143; repeatable [default: tcp:1143:interface=127.0.0.1]"""
        self.setdefault("listen", []).append(endpoint)

    def opt_backend(self, description: str) -> None:
        """Protect another server: tls:HOST:993, starttls:HOST:143, tcp:127.0.0.1:PORT, unix:PATH; or NAME=ENDPOINT"""
        self.setdefault("backend", []).append(description)

    def opt_acme(self, name: str) -> None:
        """Obtain and renew a certificate for this name by itself; repeatable; agrees to the authority's terms"""
        self.setdefault("acme", []).append(name)

    def opt_auth(self, description: str) -> None:
        """Who may log in: file:PATH (see `imapshield passwd`), dovecot:SOCKET, pam, introspect:URL, or --help-auth"""
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
        except ConfigError as error:
            text = "\n".join(f"imapshield: {problem}" for problem in error.args)
        except usage.UsageError as error:
            text = f"imapshield: {error}; {_advice(str(error), self.longOpt)}see --help"
        else:
            return
        if "--check" in (options or ()):
            print(text, file=sys.stderr)
            raise SystemExit(2)
        raise SystemExit(text)

    def opt_version(self) -> None:
        """Print the version of imapshield and of Twisted."""
        print(f"imapshield {__version__}, Twisted {twisted.__version__}")
        raise SystemExit(0)

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
        # Absolute, because twistd may change its directory (--rundir) before a reload.
        path = self["config"] and os.path.abspath(self["config"])
        self.load = partial(load_settings, given, path)
        self.settings = self.load()


def _advice(error: str, options: Sequence[str]) -> str:
    """Return what was probably meant by an option that is not known."""
    match = re.fullmatch(r"option (--?)([\w-]+) not recognized", error)
    if match is None:
        return ""
    dashes, name = match.groups()
    of_twistd = ServerOptions()
    if name in of_twistd.shortOpt if dashes == "-" else _has(of_twistd.longOpt, name):
        return f"it is one of twistd, and belongs before `imapshield`: twistd {dashes}{name} imapshield; "
    known = [option.rstrip("=") for option in options]
    similar = get_close_matches(name, known, 1)
    return f"did you mean --{similar[0]}? " if similar else ""


def _has(options: Sequence[str], name: str) -> bool:
    return name in [option.rstrip("=") for option in options]


def limits_help() -> str:
    """Return the text of ``--limit help``: the limits by group, each with its default and its reason.

    It ends with what one client can cost that has not logged in, as a sum of limits, and what a password check takes.
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
    most = Limits().max_preauth_connections
    in_all = most * bytes_per_stranger(Limits()) >> 20
    lines += [
        "",
        f"Memory of {most} such clients (max_preauth_connections): {in_all} MiB",
        "Memory of one password check: 32 MiB for a scrypt hash, 64 MiB for argon2id; a password file checks 2 at once",
    ]
    return "\n".join(lines)


def makeService(options: Options) -> IService:
    """Return the server as a service that is not yet started.

    Raises:
        SystemExit: the options cannot be used; with one line that says what is wrong and what to do.
    """
    # Imported here, so that `twistd imapshield --help` does not load the server.
    from twisted.internet import reactor

    from imapshield.server import make_server

    make = make_server
    if options.settings.workers > 1:
        from imapshield.workers.supervising_server import make_supervising_server as make

    if options["check"]:
        raise SystemExit(run_check(options, options.parent or {}))
    use_monotonic_clock(reactor)
    from imapshield.process.json_log_file import json_log_observer

    try:
        service = make(options.settings, reactor, _process(options, reactor))
        if options.settings.log_format == "json":
            service.log_observer = json_log_observer(options.parent)
        return service
    except ConfigError as error:
        raise SystemExit(f"imapshield: {error}") from None


def run_check(options: Options, of_twistd: Mapping[str, Any]) -> int:
    """Print what `config_check` finds, and return the exit status. `of_twistd` may have ``uid`` and ``gid``."""
    from twisted.internet import reactor

    from imapshield.config_check import check
    from imapshield.process.server_user import ServerUser

    status, lines = check(options.settings, ServerUser.of_twistd(of_twistd), reactor)
    print("\n".join(lines), flush=True)
    return status


def _process(options: Options, reactor: Any) -> "Process":
    """Return what is known of the process. Without twistd, whose subcommand this is, its signals are left alone."""
    from imapshield.process.process_control import Process
    from imapshield.process.server_user import ServerUser
    from imapshield.process.signals import ProcessSignals, stop_once

    if options.parent is None:
        return Process(options.load)
    signals = ProcessSignals(reactor)
    signals.install()
    stop_once(reactor)
    return Process(options.load, signals, ServerUser.of_twistd(options.parent))


def use_monotonic_clock(reactor: Any) -> None:
    """Make the reactor measure time with a clock that nobody sets. By default, Twisted uses the wall clock.

    Setting that clock forward would end bans and all time-outs at once, and setting it back would stop them. A reactor
    with pending calls, whose times are of the old clock, is left as it is; twistd's has none yet.
    """
    if reactor.seconds is time.time and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
