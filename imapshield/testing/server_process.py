"""The process of `running_server`: ``python -m imapshield.testing.server_process``.

It reads its settings from the first line of standard input, prints its port, and ends with standard input.
"""

import json
import sys
import time
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from imapshield.certificates import CertificateSource, PairFiles
from imapshield.cred.realm import MaildirRealm
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.limits import Limits
from imapshield.observe.log_observer import LogObserver
from imapshield.testing.in_process import MemoryRealm
from imapshield.testing.memory_store import MemoryStore


class _Input(Protocol):
    """Stops the reactor when standard input ends, because the tests have ended or were killed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._reactor.running:
            self._reactor.stop()


def main() -> None:
    """Serve until standard input ends, or until SIGTERM."""
    # The process exists only for this server, so its reactor may be the global one.
    from twisted.internet import reactor as global_reactor
    from twisted.internet.stdio import StandardIO

    reactor: Any = global_reactor
    settings = json.loads(sys.stdin.buffer.readline())
    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(sys.stderr)], redirectStandardIO=False, discardBuffer=True
    )
    try:
        answer = _listen(settings, reactor)
    except Exception as error:  # whatever it is, the tests get one line and no traceback
        answer = {"error": str(error) or type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    if "error" not in answer:
        StandardIO(_Input(reactor))
        reactor.run()


def _listen(settings: dict[str, Any], reactor: Any) -> dict[str, Any]:
    """Start the server, and return its ports."""
    users = {user: password.encode() for user, password in settings["users"].items()}
    realm: Any = MemoryRealm(open_store=lambda: MemoryStore(time.time))
    if settings["mail_root"] is not None:
        realm = MaildirRealm(settings["mail_root"], reactor=reactor)
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    checker.users = {user.encode(): password for user, password in users.items()}
    path = settings["certificate"]
    source = None if path is None else CertificateSource(PairFiles(path, None))
    factory = ShieldedIMAP4Factory(
        Portal(realm, [checker]),
        limits=_limits(settings["limits"]),
        context_factory=source,
        observers=[LogObserver(verbose=True)],
    )
    ports = {"port": reactor.listenTCP(0, factory, interface="127.0.0.1")}
    if source is not None:
        tls = TLSMemoryBIOFactory(source, False, factory)
        ports["tls_port"] = reactor.listenTCP(0, tls, interface="127.0.0.1")
    for port in ports.values():
        reactor.addSystemEventTrigger("before", "shutdown", port.stopListening)
    reactor.addSystemEventTrigger("before", "shutdown", factory.shutdown)
    return {name: port.getHost().port for name, port in ports.items()}


def _limits(given: dict[str, Any]) -> Limits:
    """Return the limits.

    Raises:
        ValueError: one does not exist, or has a value of another type.
    """
    known = {field.name: type(field.default) for field in fields(Limits)}
    for name, value in given.items():
        if name not in known:
            similar = get_close_matches(name, known, 1)
            advice = "".join(f"; did you mean {meant}?" for meant in similar)
            raise ValueError(f"there is no limit {name}{advice}")
        is_number = known[name] in (int, float, bool)  # the others are names of limits
        if is_number and (
            isinstance(value, str) or (known[name] is bool) != isinstance(value, bool)
        ):
            raise ValueError(f"the limit {name} must be of type {known[name].__name__}: {value!r}")
    if "report_only_limits" in given:  # JSON has no sets
        given["report_only_limits"] = frozenset(given["report_only_limits"])
    return Limits(**given)


if __name__ == "__main__":
    main()
