"""The port at which the authority asks."""

from __future__ import annotations

import io
import socket
import sys
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield.acme.challenge_port import ChallengePort, challenge_endpoint
from imapshield.config import ConfigError
from imapshield.service import CannotServe

PATH = "/.well-known/acme-challenge/abc"


def ask(port: int, path: str) -> bytes:
    """Return the answer to a request."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while received := client.recv(4096):
            answer += received
        return answer


class PortTests(TestCase):
    @inlineCallbacks
    def test_answers(self) -> Any:
        """While an order runs, the port answers what was published, and nothing else. Then it accepts nothing."""
        port = ChallengePort("tcp:0:interface=127.0.0.1", reactor)
        port.begin()  # before it is open, nothing happens
        port.end()
        port.open()
        self.addCleanup(port.close)
        number = port._port.getHost().port
        self.assertNotIn(port._port, reactor.getReaders())
        port.begin()
        port.publish(PATH, "abc.xyz")
        answer = yield deferToThread(ask, number, PATH)
        self.assertTrue(b" 200 OK\r\n" in answer, answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nabc.xyz"), answer)
        for path in (f"{PATH}d", "/", "/../../etc/passwd"):
            answer = yield deferToThread(ask, number, path)
            self.assertTrue(b" 404 Not Found\r\n" in answer, answer)
        port.end()
        self.assertNotIn(port._port, reactor.getReaders())
        self.assertEqual(port._handlers, {})

    def test_port_of_another_program(self) -> None:
        """A port that another program has is an error that names the option."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            port = ChallengePort(f"tcp:{number}:interface=127.0.0.1", reactor)
            self.patch(sys, "__stderr__", io.StringIO())
            error = self.assertRaises(CannotServe, port.open)
        self.assertIn("choose another with --acme-http", str(error))


class LatePortTests(SynchronousTestCase):
    def test_endpoint_that_listens_later(self) -> None:
        """An endpoint that does not listen at once is an error that names the option."""
        self.patch(sys, "__stderr__", io.StringIO())
        port = ChallengePort("8080", MemoryReactorClock())
        late: Any = SimpleNamespace(listen=lambda _: Deferred())
        port._endpoint = late
        error = self.assertRaises(CannotServe, port.open)
        self.assertIn("cannot listen on --acme-http 8080: this kind of endpoint", str(error))


class EndpointTests(SynchronousTestCase):
    def test_port_number_is_on_all_addresses(self) -> None:
        """A number is a port on all addresses, because authorities prefer IPv6."""
        memory = MemoryReactorClock()
        endpoint: Any = challenge_endpoint("80", memory)
        self.assertEqual(endpoint._port, 80)
        self.assertEqual(challenge_endpoint("tcp:8080", memory)._port, 8080)

    def test_endpoint_that_cannot_be(self) -> None:
        """An endpoint with TLS, and what is no endpoint, are errors with an example."""
        for text in ("imaps:80", "tls:/x:80", "haproxy:tcp:80", "https:80", "nonsense", "tcp:x"):
            error = self.assertRaises(ConfigError, challenge_endpoint, text, MemoryReactorClock())
            self.assertIn(f"--acme-http {text}: ", str(error))
            self.assertIn("use for example 80", str(error))
