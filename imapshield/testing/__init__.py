r"""Tools for tests of mail clients, and of programs that embed or extend imapshield.

`running_server` runs a server in a process of its own, for any client, and returns a `RunningServer`, with `ServerTls`
if it has TLS. Nothing else here opens a socket, and nothing starts a reactor in the process of the tests.

* `Server` is a server in memory, and `Client` is one connection to it. A call of a client sends a line and returns
  everything that the server answered. Time stands still until a test advances ``server.clock``.
* `MemoryRealm` gives every user an account in memory. It accepts your own store and worker.
* `MemoryStore` keeps mail in memory. It is the reference implementation of `mailbox.storage.IStore`.
* `StoreContract` is a set of tests that every store has to pass. Mix it into a test case and override `make_store`.
* `InlineWorker` runs each store call at once. `SlowWorker` keeps calls until the test runs them.
* `Transport` is the transport of a client. It shows whether the server stopped reading or reset the connection.
* `MAIL` is the message that `Client.append` sends by default. `NOW` is the time of the stores of `MemoryRealm`, in
  seconds since the epoch.

An example::

    from imapshield.events import LimitTriggered
    from imapshield.testing import Server

    server = Server(backlog=3)  # any field of imapshield.limits.Limits
    alice = server.login()
    alice(b"a1 SELECT INBOX")
    alice(b"a2 IDLE")
    phone = server.login(b"alice", b"secret")
    phone.append(b"Subject: Hello\r\n\r\nHi.\r\n")
    assert b"* 1 EXISTS" in alice.read()

    peer = server.connect("192.0.2.1")
    peer.send(b"x NOOP\r\n" * 4)
    assert peer.transport.aborted
    assert server.events_of(LimitTriggered)[0].limit == "backlog"

A server for a mail client::

    import imaplib
    from imapshield.testing import running_server

    with running_server(users={"alice": "secret"}) as server:
        server.append("alice", b"Subject: Hello\r\n\r\nHi.\r\n")
        client = imaplib.IMAP4(server.host, server.port)
        client.login("alice", "secret")
        assert client.select() == ("OK", [b"1"])
        client.logout()

The same with TLS, which is also on ``server.port`` with STARTTLS::

    with running_server({"alice": "secret"}, tls=True) as server:
        client = imaplib.IMAP4_SSL(server.host, server.tls.port, ssl_context=server.tls.context)

Tests of a store of your own::

    class MyStoreTests(StoreContract, SynchronousTestCase):
        def make_store(self):
            return MyStore(self.mktemp())
"""

from imapshield.testing.in_process import (
    MAIL,
    NOW,
    Client,
    InlineWorker,
    MemoryRealm,
    Server,
    SlowWorker,
    Transport,
)
from imapshield.testing.memory_store import MemoryStore
from imapshield.testing.running_server import RunningServer, ServerTls, running_server
from imapshield.testing.store_contract import StoreContract

__all__ = [
    "MAIL",
    "NOW",
    "Client",
    "InlineWorker",
    "MemoryRealm",
    "MemoryStore",
    "RunningServer",
    "Server",
    "ServerTls",
    "SlowWorker",
    "StoreContract",
    "Transport",
    "running_server",
]
