"""`Gate`: the outermost factory of a listening port, which admits each connection before anything is done for it.

A connection from a banned address costs its `accept` and its `close`: no transport, no TLS handshake, no greeting.
"""

from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import ServerFactory

from imapshield.edge.admission import Admission
from imapshield.edge.peer import AdmittedAddress, address_text
from imapshield.edge.proxy import Proxies

ACCEPT_QUEUE = 4096
"""Connections that the kernel accepts before the server does. Twisted's default of 50 is full at once when a client
connects and resets in a loop; the handshakes of others are then lost, and repeated after a second. Linux lowers the
value to net.core.somaxconn."""


class Gate(ServerFactory):
    """Admits the connections of one port, and passes them to the factory that the port had before.

    The client of a proxy is admitted when the PROXY header has told its address.

    Args:
        inner: the factory that the port had, which may wrap the factory of the server for TLS.
        admission: decides about each connection.
        proxies: the proxies whose connections begin with a PROXY header.
    """

    noisy = False

    def __init__(
        self, inner: IProtocolFactory, admission: Admission, proxies: Proxies | None = None
    ) -> None:
        self._inner = inner
        self._admission = admission
        self._proxies = proxies

    @classmethod
    def close_off(cls, port: Any, admission: Admission, proxies: Proxies | None = None) -> None:
        """Put a gate in front of the factory of a listening `port`, and make its accept queue long enough."""
        port.factory = cls(port.factory, admission, proxies)
        port.socket.listen(ACCEPT_QUEUE)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the protocol of one connection, or None to close it at once."""
        if self._proxies is not None and self._proxies.include(addr):
            return self._proxies.connection(addr, self._admit)
        return self._admit(addr)

    def _admit(self, addr: IAddress | None) -> Any:
        arrival = self._admission.admit(address_text(addr))
        if arrival.silent:
            return None
        return self._inner.buildProtocol(AdmittedAddress(addr, arrival.connection))

    def doStart(self) -> None:
        """Do nothing: the port has started the inner factory."""

    def doStop(self) -> None:
        """Stop the inner factory."""
        self._inner.doStop()
