"""The least that a server in Twisted costs: a LineReceiver that answers every line with OK, and does nothing else.

It is the reference column of the table: what imapshield needs above this is its own work.

python -m benchmarks.noop_server PORT
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted.internet.tcp import Server
from twisted.protocols.basic import LineReceiver


class NoopServer(LineReceiver):
    """Answers LOGIN, SELECT and NOOP with OK, without a look at the arguments."""

    def connectionMade(self) -> None:
        assert isinstance(self.transport, Server)
        self.transport.setTcpNoDelay(True)
        self.sendLine(b"* OK")

    def lineReceived(self, line: bytes) -> None:
        tag, _, command = line.partition(b" ")
        if command.startswith(b"SELECT"):
            self.sendLine(b"* 0 EXISTS")
        self.sendLine(tag + b" OK")


def main(port: int) -> None:
    """Serve on loopback until the process is stopped."""
    factory = ServerFactory()
    factory.protocol = NoopServer
    reactor.listenTCP(port, factory, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
