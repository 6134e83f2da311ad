"""Combines the command line and the TOML file of ``--config`` into one immutable `Settings` value.

Rules
-----
* Nothing here depends on Twisted, and nothing but the TOML file is read.
* The command line takes precedence over the file.
* An error is one line: the option, what is wrong with it, and what to type instead.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from imapshield.limits import Limits

DEFAULT_LISTEN = "tcp:1143:interface=127.0.0.1"

STRING_OPTIONS = ("mail-root", "certificate", "key", "backlog")
FLAG_OPTIONS = ("strict-backlog", "report-only", "verbose")
LIST_OPTIONS = ("listen", "auth", "limit")

_TOML_TYPES: dict[str, type] = {
    **dict.fromkeys(STRING_OPTIONS, str),
    **dict.fromkeys(FLAG_OPTIONS, bool),
    **dict.fromkeys(LIST_OPTIONS, list),
}
_TYPE_NAMES = {str: "a string", bool: "true or false", list: "a list of strings"}

_LIMIT_TYPES: dict[str, Any] = {limit.name: limit.type for limit in fields(Limits)}
_LIMIT_VALUES = {
    int: "must be a whole number above zero",
    float: "must be a number above zero",
    bool: "must be true or false",
}


class ConfigError(Exception):
    """The server cannot start as configured. The text is one line for the operator, without the program's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator configured.

    Args:
        listen: Twisted endpoint descriptions.
        mail_root: where the users' Maildirs are; None selects the first-run folder.
        auth: values of ``--auth``, in the order in which the checkers are tried; empty selects the users of the
            first-run folder.
        certificate: path of a PEM file with the certificate and its chain; None leaves STARTTLS off.
        key: path of a PEM file with the private key; None means that it is in `certificate`.
        verbose: also log connections that never log in.
        limits: all limits, changed or not.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    mail_root: str | None = None
    auth: tuple[str, ...] = ()
    certificate: str | None = None
    key: str | None = None
    verbose: bool = False
    limits: Limits = field(default_factory=Limits)


def load_settings(command_line: Mapping[str, Any], path: str | None = None) -> Settings:
    """Combine the options of the command line with those of the TOML file `path`.

    Args:
        command_line: the options that were given, by their long names: strings, True, or lists of strings.
        path: the file of ``--config``, or None.

    Raises:
        ConfigError: an option is wrong, in the file or on the command line.
    """
    from_file = read_toml(path) if path else {}
    options = from_file | dict(command_line)
    # Limits are merged one by one. If one is given twice, the last value counts: the command line's.
    limits = [*from_file.get("limit", ()), *command_line.get("limit", ())]
    settings = Settings(
        listen=tuple(options.get("listen", ())) or (DEFAULT_LISTEN,),
        mail_root=options.get("mail-root"),
        auth=tuple(options.get("auth", ())),
        certificate=options.get("certificate"),
        key=options.get("key"),
        verbose=options.get("verbose", False),
        limits=_limits(limits, options),
    )
    if settings.mail_root is not None and not settings.auth:
        raise ConfigError(
            "--mail-root requires --auth: add --auth file:PATH (`imapshield passwd PATH USER` creates the file)"
            " or --auth memory:USER:PASSWORD"
        )
    if settings.key is not None and settings.certificate is None:
        raise ConfigError("--key requires --certificate: add --certificate PEM")
    return settings


def read_toml(path: str) -> dict[str, Any]:
    """Read the options of a TOML file: the long names of the command line, and a table ``[limit]``.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown option or a value of the wrong type.
    """
    try:
        with open(path, "rb") as file:
            options = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; name a readable TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not valid TOML: {error}") from None
    if isinstance(options.get("limit"), dict):
        options["limit"] = [f"{name}={value}" for name, value in options["limit"].items()]
    try:
        return {name: _option_value(name, value) for name, value in options.items()}
    except ConfigError as error:
        raise ConfigError(f"--config {path}: {error}") from None


def _option_value(name: str, value: object) -> object:
    if name not in _TOML_TYPES:
        raise ConfigError(f"unknown option {name!r}; known are {', '.join(sorted(_TOML_TYPES))}")
    if name == "backlog" and type(value) is int:
        return str(value)
    if name in ("listen", "auth") and isinstance(value, str):
        return [value]
    expected = _TOML_TYPES[name]
    if not isinstance(value, expected) or (
        isinstance(value, list) and not all(isinstance(item, str) for item in value)
    ):
        raise ConfigError(f"{name} must be {_TYPE_NAMES[expected]}")
    return value


def _limits(assignments: Iterable[str], options: Mapping[str, Any]) -> Limits:
    """Return the limits of ``--limit NAME=VALUE``, ``--backlog``, ``--strict-backlog`` and ``--report-only``."""
    pairs = [assignment.partition("=") for assignment in assignments]
    texts = {name.strip().replace("-", "_"): text.strip() for name, _, text in pairs}
    if "backlog" in options:
        texts["backlog"] = options["backlog"]
    values: dict[str, Any] = {name: _limit_value(name, text) for name, text in texts.items()}
    for flag in ("strict-backlog", "report-only"):
        if options.get(flag):
            values[flag.replace("-", "_")] = True
    return Limits(**values)


def _limit_value(name: str, text: str) -> float | bool:
    if name not in _LIMIT_TYPES:
        raise ConfigError(f"--limit {name}: unknown limit; known are {', '.join(_LIMIT_TYPES)}")
    kind = _LIMIT_TYPES[name]
    try:
        if kind is bool:
            return ("false", "true").index(text.lower()) == 1
        number = int(text) if kind is int else float(text)
        if not 0 < number < 1e12:
            raise ValueError
    except ValueError:
        raise ConfigError(f"--limit {name}={text}: {_LIMIT_VALUES[kind]}") from None
    return number
