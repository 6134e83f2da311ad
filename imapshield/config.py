"""Combines the command line and the TOML file of ``--config`` into one immutable `Settings` value.

Rules
-----
* This module does not import Twisted, and reads no file but the TOML file.
* The command line takes precedence over the file.
* An error message is one line: the option, what is wrong with it, and what to type instead.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from imapshield.acme import acme_names
from imapshield.front.front_options import front_options
from imapshield.guard.networks import THIS_MACHINE, parse_network
from imapshield.limit_options import assignments, limit_value, report_only_limits
from imapshield.limits import Limits
from imapshield.mailbox_name_options import check_names
from imapshield.regular_file import open_regular
from imapshield.shared.redis_address import redis_options

DEFAULT_LISTEN = "tcp:1143:interface=127.0.0.1"

LOG_FORMATS = ("text", "json")

MAX_WORKERS = 64
"""The most processes of ``--workers``. Each sends to all others what the guard counts."""

_TOML_TYPES: dict[str, type] = {
    **dict.fromkeys(("mail-root", "index-root", "separator", "prefix"), str),
    **dict.fromkeys(("certificate", "key", "backlog", "state", "ban-command", "control"), str),
    **dict.fromkeys(("default-domain", "master-users", "workers"), str),
    **dict.fromkeys(("guard-redis", "guard-redis-password", "guard-secret"), str),
    **dict.fromkeys(("exact-user-names", "no-rehash", "no-special-folders"), bool),
    **dict.fromkeys(("backend-proxy", "backend-id", "user-map-password"), bool),
    **dict.fromkeys(("admin", "admin-auth", "metrics", "log-format"), str),
    **dict.fromkeys(("acme-email", "acme-http", "acme-server", "acme-state", "user-map"), str),
    **dict.fromkeys(
        ("strict-backlog", "report-only", "verbose", "follow-symlinks", "no-text-index"), bool
    ),
    **dict.fromkeys(
        ("listen", "auth", "limit", "report-only-limit", "proxy", "trust", "acme", "backend"), list
    ),
}
_TYPE_NAMES = {str: "a string", bool: "true or false", list: "a list of strings"}


class ConfigError(Exception):
    """The server cannot start with this configuration. Each argument is one line about a problem, for the operator."""

    def __str__(self) -> str:
        return "; also: ".join(map(str, self.args))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The complete configuration of the server.

    Args:
        listen: descriptions of Twisted endpoints.
        mail_root: the directory or pattern of the users' Maildirs; None selects the first-run folder.
        index_root: the directory or pattern of the users' indexes; None keeps each in its Maildir.
        follow_symlinks: whether the folders of a Maildir may be symbolic links.
        no_text_index: whether SEARCH reads all messages, without an index of their text.
        no_special_folders: whether new accounts have no mailbox but INBOX, and names give no special uses.
        separator: the character between the levels of mailbox names, as clients see them.
        prefix: what all mailbox names except INBOX begin with, as clients see them; it ends with the separator, or is
            empty.
        auth: the values of ``--auth``, in the order in which their checkers are tried; empty selects the password file
            of the first-run folder.
        exact_user_names: whether a user name must be written as it is, also in letter case.
        default_domain: the domain of user names without one; "" for none.
        master_users: path of the password file of the master users, or None.
        no_rehash: whether hashes of other servers in password files stay as they are.
        certificate: path of a PEM file with the certificate and its chain; None disables STARTTLS.
        key: path of a PEM file with the private key; by default it is in the file `certificate`.
        acme: the names in the certificate that the server obtains by itself; empty if it does not.
        acme_email: the address that the authority gets, or None.
        acme_http: where the authority asks: a port on all addresses, or the description of an endpoint.
        acme_server: the URL of the authority.
        acme_state: the directory of its account and certificate; None for the default.
        backend: descriptions of the servers whose clients are protected; empty if this server has the mail itself.
        backend_proxy: whether the backend gets the address of each client in a PROXY header.
        backend_id: whether it gets the address with ID.
        user_map: what says which backend a user has; None if there is one.
        user_map_password: whether that gets the password of each login.
        verbose: also log connections that never log in.
        proxy: the networks of proxies, whose connections begin with a PROXY header.
        trust: the networks without rates and bans.
        state: path of the file that keeps bans over a restart; "none" for no file, None for the default.
        ban_command: path of a program that is called for each ban, or None.
        control: path of the control socket; "none" for no socket, None for the default.
        admin: description of the endpoint of the status page; None for no page.
        admin_auth: who may see it, as ``file:PATH``; None for those who have the token of the process.
        metrics: description of an endpoint with figures for Prometheus, without a login; None for none.
        log_format: one of `LOG_FORMATS`.
        workers: how many processes serve the clients; 1 for that of the server itself.
        guard_redis: URL of the Redis with which servers share one guard; None for none.
        guard_redis_password: path of a file with its password, or None.
        guard_secret: path of a file with the secret of all these servers, or None.
        limits: the limits, with the changes of the operator.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    mail_root: str | None = None
    index_root: str | None = None
    follow_symlinks: bool = False
    no_text_index: bool = False
    no_special_folders: bool = False
    separator: str = "/"
    prefix: str = ""
    auth: tuple[str, ...] = ()
    exact_user_names: bool = False
    default_domain: str = ""
    master_users: str | None = None
    no_rehash: bool = False
    certificate: str | None = None
    key: str | None = None
    acme: tuple[str, ...] = ()
    acme_email: str | None = None
    acme_http: str = acme_names.DEFAULT_HTTP
    acme_server: str = acme_names.DEFAULT_SERVER
    acme_state: str | None = None
    backend: tuple[str, ...] = ()
    backend_proxy: bool = False
    backend_id: bool = False
    user_map: str | None = None
    user_map_password: bool = False
    verbose: bool = False
    proxy: tuple[str, ...] = ()
    trust: tuple[str, ...] = THIS_MACHINE
    state: str | None = None
    ban_command: str | None = None
    control: str | None = None
    admin: str | None = None
    admin_auth: str | None = None
    metrics: str | None = None
    log_format: str = LOG_FORMATS[0]
    workers: int = 1
    guard_redis: str | None = None
    guard_redis_password: str | None = None
    guard_secret: str | None = None
    limits: Limits = field(default_factory=Limits)


def load_settings(command_line: Mapping[str, Any], path: str | None = None) -> Settings:
    """Combine the options of the command line with those of the TOML file `path`.

    Args:
        command_line: the options that were given, by their long names: strings, True, or lists of strings.
        path: the file of ``--config``, or None.

    Raises:
        ConfigError: options are wrong, in the file or on the command line.
    """
    from_file, problems = _read_toml(path) if path else ({}, [])
    options = from_file | dict(command_line)

    def tried(read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except (ConfigError, ValueError) as error:
            problems.extend(error.args)

    # Limits are merged one by one, whichever option sets them.
    assigned = assignments(from_file, f"--config {path}: ") | assignments(command_line, "--")
    limits = {name: tried(limit_value, name, *given) for name, given in assigned.items()}
    limits["report_only_limits"] = tried(report_only_limits, options.get("report-only-limit", ()))
    groups = tried(_groups, options)
    proxy = tried(_networks, "proxy", options.get("proxy", ()))
    trust = tried(_networks, "trust", options.get("trust", THIS_MACHINE))
    workers = tried(_workers, options.get("workers", "1"))
    if problems:
        raise ConfigError(*problems)
    settings = Settings(
        listen=tuple(options.get("listen", ())) or (DEFAULT_LISTEN,),
        mail_root=options.get("mail-root"),
        index_root=options.get("index-root"),
        follow_symlinks=options.get("follow-symlinks", False),
        no_text_index=options.get("no-text-index", False),
        no_special_folders=options.get("no-special-folders", False),
        separator=options.get("separator", "/"),
        prefix=options.get("prefix", ""),
        auth=tuple(options.get("auth", ())),
        exact_user_names=options.get("exact-user-names", False),
        default_domain=options.get("default-domain", ""),
        master_users=options.get("master-users"),
        no_rehash=options.get("no-rehash", False),
        certificate=options.get("certificate"),
        key=options.get("key"),
        **groups,
        verbose=options.get("verbose", False),
        proxy=proxy,
        trust=trust,
        state=options.get("state"),
        ban_command=options.get("ban-command"),
        control=options.get("control"),
        admin=options.get("admin"),
        admin_auth=options.get("admin-auth"),
        metrics=options.get("metrics"),
        log_format=options.get("log-format", LOG_FORMATS[0]),
        workers=workers,
        limits=Limits(**limits),
    )
    if problems := [*_contradictions(settings)]:
        raise ConfigError(*problems)
    return settings


def _contradictions(settings: Settings) -> Iterator[str]:
    """Yield which options need others, or exclude each other."""
    if settings.mail_root is not None and not settings.auth:
        yield (
            "--mail-root needs --auth: add --auth file:PATH (`imapshield passwd PATH USER` creates the file) or --auth"
            " memory:USER:PASSWORD"
        )
    if settings.key is not None and settings.certificate is None:
        yield "--key needs --certificate: add --certificate PEM"
    if settings.acme and settings.certificate is not None:
        yield "--acme and --certificate exclude each other: remove one of them"
    for text in settings.listen if settings.certificate is None and not settings.acme else ():
        if text.removeprefix("haproxy:").startswith("imaps"):
            yield f"--listen {text} needs --certificate: add --certificate PEM, or --acme NAME"
    if settings.admin_auth is not None and settings.admin is None:
        yield "--admin-auth needs --admin: add --admin tcp:8143:interface=127.0.0.1"
    if settings.log_format not in LOG_FORMATS:
        yield f"--log-format {settings.log_format}: must be {' or '.join(LOG_FORMATS)}"


def _groups(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``--acme``, ``--backend`` and ``--guard-redis``, and check those of names."""
    groups: dict[str, Any] = {}
    problems: list[str] = []
    for read in (_check_names, acme_names.acme_options, front_options, redis_options):
        try:
            groups |= read(options)
        except ValueError as error:
            problems += map(str, error.args)
    if problems:
        raise ConfigError(*problems)
    return groups


def _check_names(options: Mapping[str, Any]) -> dict[str, Any]:
    check_names(options.get("separator", "/"), options.get("prefix", ""))
    return {}


def _networks(option: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the networks of an option: separated by commas, or as a list; "none" is no network."""
    texts = given.split(",") if isinstance(given, str) else given
    networks = tuple(text.strip() for text in texts)
    if networks == ("none",):
        return ()
    for network in networks:
        try:
            parse_network(network)
        except ValueError as error:
            raise ConfigError(f"--{option}: {error}") from None
    return networks


def _workers(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_WORKERS:
        raise ConfigError(
            f"--workers {text}: must be a whole number from 1 to {MAX_WORKERS}; usually that of the cores"
        )
    return int(text)


def read_toml(path: str) -> dict[str, Any]:
    """Read the options of a TOML file: the long names of the command line, and a table ``[limit]``.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown option or a value of the wrong type.
    """
    options, problems = _read_toml(path)
    if problems:
        raise ConfigError(*problems)
    return options


def _read_toml(path: str) -> tuple[dict[str, Any], list[str]]:
    """Return the options of a TOML file that are right, and what is wrong with the others."""
    try:
        with open_regular(path) as file:
            text = file.read().decode()
        given = tomllib.loads(text)
    except OSError as error:
        return {}, [f"--config {path}: {error.strerror}; name a readable TOML file"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [f"--config {path}: invalid TOML: {error}"]
    options: dict[str, Any] = {}
    problems: list[str] = []
    limits = given.pop("limit") if isinstance(given.get("limit"), dict) else {}
    if limits:
        options["limit"] = []
    for name, value in limits.items():
        assignment = f"{name}={value}"
        try:
            limit_value(name.replace("-", "_"), f"limit {assignment}", str(value))
            options["limit"].append(assignment)
        except ValueError as error:
            problems.append(f"--config {path}: {_line_of(text, name)}{error}")
    for name, value in given.items():
        try:
            options[name] = _option_value(name, value)
        except ConfigError as error:
            problems.append(f"--config {path}: {_line_of(text, name)}{error}")
    return options, problems


def _line_of(text: str, name: str) -> str:
    """Return ``line N: `` for the line of a TOML file that sets `name`, "" if it is not found."""
    pattern = rf"\s*(\[+\s*)?[\"']?{re.escape(name)}[\"']?\s*[]=.]"
    lines = enumerate(text.splitlines(), 1)
    return next((f"line {number}: " for number, line in lines if re.match(pattern, line)), "")


def _option_value(name: str, value: object) -> object:
    if name not in _TOML_TYPES:
        meant = get_close_matches(name.replace("_", "-"), _TOML_TYPES, 1)
        similar = "".join(f" did you mean {option!r}?" for option in meant)
        raise ConfigError(
            f"unknown option {name!r};{similar} `twistd imapshield --help` lists all; in the file they have no --"
        )
    if name in ("backlog", "workers") and type(value) is int:
        return str(value)
    if value == "":
        raise ConfigError(f"{name} needs a value")
    if name in ("listen", "auth", "proxy", "trust", "acme", "backend") and isinstance(value, str):
        return [value]
    expected = _TOML_TYPES[name]
    items = value if isinstance(value, list) else ()
    if not isinstance(value, expected) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{name} must be {_TYPE_NAMES[expected]}")
    return value
