"""The process of `running_server`: ``python -m imapshield.testing.server_process``.

It reads its settings from the first line of standard input, prints its port, and ends with standard input.
"""

import json
import sys
import time
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

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
    users = {user: password.encode() for user, password in settings["users"].items()}
    realm: Any = MemoryRealm(open_store=lambda: MemoryStore(time.time))
    if settings["mail_root"] is not None:
        realm = MaildirRealm(settings["mail_root"], reactor=reactor)
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    checker.users = {user.encode(): password for user, password in users.items()}
    factory = ShieldedIMAP4Factory(
        Portal(realm, [checker]),
        limits=Limits(**settings["limits"]),
        observers=[LogObserver(verbose=True)],
    )
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    reactor.addSystemEventTrigger("before", "shutdown", port.stopListening)
    reactor.addSystemEventTrigger("before", "shutdown", factory.shutdown)
    sys.stdout.write(f"{port.getHost().port}\n")
    sys.stdout.flush()
    StandardIO(_Input(reactor))
    reactor.run()


if __name__ == "__main__":
    main()
