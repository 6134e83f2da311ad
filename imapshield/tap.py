"""The command line of ``twistd imapshield``, and the one place that joins every part to the reactor."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from twisted.application.service import IService
from twisted.cred import strcred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from imapshield.first_run import FirstRunFolder
from imapshield.limits import Limits

LISTEN = "tcp:1143:interface=127.0.0.1"
FLAGS = ("strict-backlog", "report-only", "verbose")
TEXTS = ("mail-root", "certificate", "key", "backlog")
LISTS = ("listen", "auth", "limit")


class Options(usage.Options, strcred.AuthOptionMixin):
    """Options of ``twistd imapshield``; after parsing, `settings` holds them with those of --config."""

    supportedInterfaces = (IUsernamePassword,)
    synopsis = "[options]"
    longdesc = (
        "An IMAP server for Maildir that resets whoever has more than 100 commands pending. With no option it serves "
        "at once, on 127.0.0.1 port 1143, from a folder of its own."
    )
    optParameters = [
        [
            "mail-root",
            None,
            None,
            "Mail is in DIR/USER/; or a pattern with {user}, {local}, {domain}",
        ],
        [
            "certificate",
            None,
            None,
            "PEM file with the certificate and its chain; turns STARTTLS on",
        ],
        ["key", None, None, "PEM file with the private key [default: the certificate's file]"],
        ["backlog", None, None, "Pending commands before the reset [default: 100]"],
        ["config", None, None, "TOML file with these options; the command line wins"],
    ]
    optFlags = [
        ["strict-backlog", None, "Reset after login too, instead of flow control"],
        ["report-only", None, "Log what would have been reset, and reset nothing"],
        ["verbose", None, "Log each connection, also of those who never log in"],
    ]
    compData = usage.Completions(optActions={})

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list[str]] = {name: [] for name in LISTS}
        self.settings: dict[str, Any] = {}
        self.limits = Limits()

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint to listen on, such as tcp:143, tls:/etc/certs:993 or unix:/run/imap; repeatable
        [default: tcp:1143:interface=127.0.0.1]"""
        self.given["listen"].append(endpoint)

    def opt_auth(self, description: str) -> None:
        """Who may log in: file:PATH for hashed passwords (`imapshield passwd PATH USER` writes them), or any other
        type of --help-auth, such as memory:alice:secret; repeatable"""
        self.given["auth"].append(description)

    def opt_limit(self, setting: str) -> None:
        """Another limit, as NAME=VALUE; repeatable. --limit help lists them"""
        if setting == "help":
            raise SystemExit(_limits_text())
        self.given["limit"].append(setting)

    def parseOptions(self, options: Any = None) -> None:
        """Parse; what is wrong ends the program with one line, where twistd would print all of its help first."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"imapshield: {error}; see --help") from None

    def parseArgs(self, *surplus: str) -> None:
        """There are none."""
        if surplus:
            raise usage.UsageError(f"{surplus[0]!r} belongs to no option")

    def postOptions(self) -> None:
        """Join the command line to the file; the command line wins."""
        here = {name: self[name] for name in (*TEXTS, *FLAGS) if self[name]}
        here |= {name: values for name, values in self.given.items() if values}
        there = _config(self["config"]) if self["config"] else {}
        if "limit" in here:
            here["limit"] = [
                *there.get("limit", []),
                *here["limit"],
            ]  # of two for one name the last counts
        self.settings = there | here
        self.limits = _limits(self.settings)
        if "mail-root" in self.settings and "auth" not in self.settings:
            raise usage.UsageError(
                "--mail-root needs to know who may log in: "
                "add --auth file:PATH (users by `imapshield passwd PATH USER`) or --auth memory:alice:secret"
            )
        if "key" in self.settings and "certificate" not in self.settings:
            raise usage.UsageError("--key needs --certificate")


def makeService(options: Options) -> IService:
    """Build the server.

    Raises:
        SystemExit: with one line that says what is wrong and what to do.
    """
    from twisted.internet import reactor

    from imapshield.cred.checkers import CheckerChain
    from imapshield.cred.realm import MaildirRealm
    from imapshield.cred.sasl import challengers
    from imapshield.edge.factory import ShieldedIMAP4Factory
    from imapshield.observe.log_observer import LogObserver
    from imapshield.service import ShieldService

    settings = options.settings
    try:
        endpoints = [(text, _endpoint(reactor, text)) for text in settings.get("listen", [LISTEN])]
        context = _context(settings.get("certificate"), settings.get("key"))
        home = FirstRunFolder.of(os.environ)
        words = ""
        if "mail-root" not in settings or "auth" not in settings:
            words = _at_home(home, endpoints[0][0], settings)
        root = settings.get("mail-root", home.mail)
        checkers = [
            _checker(options, reactor, text)
            for text in settings.get("auth", [f"file:{home.users}"])
        ]
        quota = (options.limits.quota_bytes or None, options.limits.quota_messages or None)
        realm = _realm(lambda: MaildirRealm(root, reactor=reactor, quota=quota), root)
    except usage.UsageError as error:
        raise SystemExit(f"imapshield: {error}") from None
    log = LogObserver(verbose=bool(settings.get("verbose")))
    factory = ShieldedIMAP4Factory(
        Portal(realm, [CheckerChain(checkers)]),
        limits=options.limits,
        context_factory=context,
        observers=[log],
        reactor=reactor,
        # of several, nobody could say whose user a client of SCRAM is before it has proved it
        challengers=challengers(checkers) if len(checkers) == 1 else None,
    )
    closing: list[Callable[[], Any]] = [c.close for c in checkers if hasattr(c, "close")]
    closing.append(realm.close)
    closing.append(lambda: log.summarise(everything=True))
    if words:
        print(words, flush=True)
    connections = options.limits.max_connections
    return ShieldService(endpoints, factory, closing, log.summarise, reactor, connections)


def _endpoint(reactor: Any, text: str) -> Any:
    try:
        return serverFromString(reactor, text)
    except Exception as error:  # endpoint parsers are plugins: they raise what they like
        raise usage.UsageError(
            f"--listen {text}: not an endpoint ({error}); write for instance tcp:143 or {LISTEN}"
        ) from None


def _at_home(home: FirstRunFolder, listen: str, settings: dict[str, Any]) -> str:
    """Get our own folder ready; returns what to tell about it."""
    try:
        password = home.prepare()
    except OSError as error:
        raise usage.UsageError(
            f"{error.filename or home.folder}: {error.strerror}; make it writable, or name a folder with --mail-root"
        ) from None
    found = re.match(r"tcp:(?:port=)?(\d+)(?:.*interface=([^:]*))?", listen)
    port, host = found.groups() if found else ("1143", None)
    where = (host or "127.0.0.1", port)
    if "auth" in settings:
        return ""
    return home.next_words(*where) if password is None else home.first_words(*where, password)


def _realm(make: Callable[[], Any], root: str) -> Any:
    try:
        realm = make()
    except ValueError as error:
        raise usage.UsageError(f"--mail-root {root}: {error}") from None
    base = realm.mail_root.base
    if not os.path.isdir(base):
        raise usage.UsageError(f"--mail-root {root}: {base} is no folder; make it, or name another")
    if not os.access(base, os.R_OK | os.W_OK | os.X_OK):
        raise usage.UsageError(
            f"--mail-root {root}: the server's user may not read and write {base}; "
            f"chown it, or run as its owner with twistd --uid"
        )
    return realm


def _checker(options: Options, reactor: Any, text: str) -> Any:
    """One --auth: ours for file:, because Twisted's keeps passwords in the clear; else whatever strcred finds."""
    kind, _, argument = text.partition(":")
    if kind in ("file", "imapshield"):
        return _password_file(reactor, argument)
    try:
        checker = strcred.makeChecker(text)
        options.addChecker(checker)
    except strcred.InvalidAuthType:
        raise usage.UsageError(f"--auth {kind}: there is no such type; see --help-auth") from None
    except strcred.UnsupportedInterfaces:
        raise usage.UsageError(
            f"--auth {kind}: it checks no user name and password; see --help-auth"
        ) from None
    except Exception as error:  # plugins raise what they like
        raise usage.UsageError(f"--auth {kind}: {error}; see --help-auth-type {kind}") from None
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Its plugin fills it with str, and what comes from a client is bytes: nobody could log in.
        checker.users = {_bytes(user): _bytes(word) for user, word in checker.users.items()}
    return checker


def _password_file(reactor: Any, path: str) -> Any:
    from imapshield.cred.checkers import PasswordFile

    if not path:
        raise usage.UsageError("--auth file: needs a path, as in --auth file:/etc/imapshield/users")
    try:
        open(path, "rb").close()
    except OSError as error:
        raise usage.UsageError(
            f"--auth file:{path}: {error.strerror}; `imapshield passwd {path} USER` makes it"
        ) from None
    return PasswordFile(path, reactor=reactor)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _context(certificate: str | None, key: str | None) -> Any:
    """A TLS context from PEM files, looked at now rather than in the first handshake."""
    if certificate is None:
        return None
    from OpenSSL import SSL, crypto
    from twisted.internet.ssl import CertificateOptions

    chain = re.findall(
        rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----",
        _pem(certificate, "--certificate"),
        re.DOTALL,
    )
    if not chain:
        raise usage.UsageError(f"--certificate {certificate}: there is no PEM certificate in it")
    key = key or certificate
    try:
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, _pem(key, "--key"), b"")
    except (crypto.Error, ValueError, TypeError):
        raise usage.UsageError(
            f"--key {key}: there is no PEM private key in it that needs no passphrase"
        ) from None
    try:
        first, *others = (crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in chain)
        context = CertificateOptions(privateKey=private, certificate=first, extraCertChain=others)
        context.getContext()
    except crypto.Error:
        raise usage.UsageError(
            f"--certificate {certificate}: a certificate in it is damaged"
        ) from None
    except (SSL.Error, ValueError):
        raise usage.UsageError(
            f"--key {key}: it is not the key of the first certificate in {certificate}"
        ) from None
    return context


def _pem(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise usage.UsageError(f"{option} {path}: {error.strerror}; name a PEM file") from None


def _config(path: str) -> dict[str, Any]:
    """Read --config: names as on the command line, and a table [limit]."""
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise usage.UsageError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise usage.UsageError(f"--config {path}: not TOML: {error}") from None
    known = {
        **dict.fromkeys(TEXTS, str),
        **dict.fromkeys(FLAGS, bool),
        **dict.fromkeys(LISTS, list),
    }
    if isinstance(found.get("limit"), dict):
        found["limit"] = [f"{name}={value}" for name, value in found["limit"].items()]
    for name, value in found.items():
        if name not in known:
            raise usage.UsageError(
                f"--config {path}: no option {name!r}; there are {', '.join(sorted(known))}"
            )
        if name == "backlog" and type(value) is int:
            found[name] = str(value)
        elif name in ("listen", "auth") and isinstance(value, str):
            found[name] = [value]
        elif not isinstance(value, known[name]) or (
            isinstance(value, list) and not all(isinstance(one, str) for one in value)
        ):
            kind = {str: "a string", bool: "true or false", list: "a list of strings"}[known[name]]
            raise usage.UsageError(f"--config {path}: {name} has to be {kind}")
    return found


def _limits(settings: dict[str, Any]) -> Limits:
    """Every number from --limit, --backlog and the two flags."""
    pairs = [text.partition("=") for text in settings.get("limit", [])]
    values = {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}
    if "backlog" in settings:
        values["backlog"] = settings["backlog"]
    kinds = {field.name: field.type for field in fields(Limits)}
    changed: dict[str, Any] = {}
    for name, text in values.items():
        if name not in kinds:
            raise usage.UsageError(f"--limit {name}: no such limit; there are {', '.join(kinds)}")
        try:
            changed[name] = _value(kinds[name], text)
        except ValueError:
            raise usage.UsageError(f"--limit {name}={text}: {_KINDS[kinds[name]]}") from None
    for flag in ("strict-backlog", "report-only"):
        if settings.get(flag):
            changed[flag.replace("-", "_")] = True
    return Limits(**changed)


_KINDS: dict[Any, str] = {
    "int": "has to be a whole number above zero",
    "float": "has to be a number above zero",
    "bool": "has to be true or false",
}


def _value(kind: Any, text: str) -> float | bool:
    if kind == "bool":
        return ("false", "true").index(text.lower()) == 1
    number = int(text) if kind == "int" else float(text)
    if not 0 < number < 1e12:
        raise ValueError
    return number


def _limits_text() -> str:
    return "\n".join(
        f"{name}={value}\n    {why}" for name, (value, why) in Limits().reasons().items()
    )
