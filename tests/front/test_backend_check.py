"""`check-config` asks the backends, and says what is wrong with their greeting or their TLS."""

from __future__ import annotations

import os
import socket
import ssl
from threading import Event, Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.check_findings import ERROR, OK, WARNING
from imapshield.front import backend_check
from imapshield.front.backend_address import parse_nodes
from imapshield.front.backend_check import ask_backends
from tests.certificates import self_signed


class BackendCheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(backend_check, "SECONDS", 60.0)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.pem = os.path.abspath(self.mktemp())
        with open(self.pem, "wb") as file:
            file.write(b"".join(self_signed("mail.example")))

    def ask(self, text: str, *steps: bytes, proxy: bool = False) -> tuple[int, str]:
        """Return the finding about a backend that takes the `steps`: sends bytes, waits for a line, or begins TLS."""

        def serve() -> None:
            connection: Any = self.listening.accept()[0]
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.pem)
            try:
                for step in steps:
                    if step == b"TLS":
                        connection = context.wrap_socket(connection, server_side=True)
                    elif step.startswith(b"<"):
                        self.received = connection.recv(1000)
                    else:
                        connection.sendall(step)
            except OSError:  # the check ends a connection whose certificate is wrong
                pass
            connection.close()

        thread = Thread(target=serve)
        if steps:
            thread.start()
        port = self.listening.getsockname()[1]
        (address,) = parse_nodes([text.format(port=port, ca=self.pem)])
        (finding,) = ask_backends([address], proxy=proxy)
        if steps:
            thread.join()
        return finding

    def test_backends_that_answer(self) -> None:
        """The greeting of a backend is in the line, over TLS and without."""
        for text, steps in (
            ("tcp:127.0.0.1:{port}", [b"* OK hello\r\n"]),
            ("tls:127.0.0.1:{port}:name=mail.example:ca={ca}", [b"TLS", b"* OK hello\r\n"]),
            (
                "starttls:127.0.0.1:{port}:name=mail.example:ca={ca}",
                [b"* OK hello\r\n", b"<", b"* x\r\n", b"a OK go\r\n", b"TLS"],
            ),
        ):
            severity, line = self.ask(text, *steps)
            self.assertEqual(severity, OK, line)
            self.assertTrue(line.endswith("answers with the greeting * OK hello"), line)

    def test_proxy_header(self) -> None:
        """With ``--backend-proxy``, the connection begins with a header."""
        self.assertEqual(self.ask("tcp:127.0.0.1:{port}", b"<", b"* OK\r\n", proxy=True)[0], OK)
        self.assertTrue(self.received.startswith(b"\r\n\r\n\0\r\nQUIT\n"))

    def test_backends_that_are_wrong(self) -> None:
        """A mistake of the options is an error that says what to write."""
        for text, steps, words in (
            ("tls:127.0.0.1:{port}:name=mail.example", [b"TLS"], "certificate is refused: self"),
            ("tls:127.0.0.1:{port}:name=other.example:ca={ca}", [b"TLS"], "append :ca=FILE"),
            ("tls:127.0.0.1:{port}", [b"* OK hello\r\n"], "TLS fails"),
            ("tcp:127.0.0.1:{port}", [b"220 smtp\r\n"], "its greeting is '220 smtp', which is not"),
            ("tcp:127.0.0.1:{port}", [b"* OK"], "it ends the connection"),
            ("starttls:127.0.0.1:{port}", [b"* OK\r\n", b"<", b"a NO\r\n"], "refuses STARTTLS"),
            ("tls:mail..example:{port}", [], "mail..example cannot be the name of a host"),
        ):
            severity, line = self.ask(text, *steps)
            self.assertEqual(severity, ERROR, line)
            self.assertIn(words, line)

    def test_backends_that_do_not_answer(self) -> None:
        """One that is down or silent is a warning: the server starts, and waits for it."""
        self.patch(backend_check, "SECONDS", 0.05)
        severity, line = self.ask("tcp:127.0.0.1:{port}")
        self.assertEqual(severity, WARNING)
        # On a busy machine the thread that asks may be late, too.
        self.assertRegex(line, r"no answer within 0\.(05 s; see whether|1 s)")
        ended = Event()
        self.patch(backend_check, "_finding", lambda *_, **__: ended.wait(30))
        severity, line = self.ask("tcp:127.0.0.1:{port}")
        ended.set()
        self.assertEqual((severity, line.rpartition(": ")[2]), (WARNING, "no answer within 0.1 s"))

    def test_backends_that_do_not_answer_together(self) -> None:
        """Those that are asked at the same time are waited for together, also if looking up their names takes for ever."""
        waited: list[float] = []

        class Endless:
            def __init__(self, **_: Any) -> None:
                pass

            def start(self) -> None:
                pass

            def join(self, timeout: float) -> None:
                waited.append(timeout)

        self.patch(backend_check, "Thread", Endless)
        self.patch(backend_check, "monotonic", lambda: sum(waited))
        findings = [*ask_backends(parse_nodes([f"n{n}=unix:/{n}" for n in range(4)]), proxy=False)]
        self.assertEqual([severity for severity, _ in findings], [WARNING] * 4)
        self.assertEqual(sum(waited), 2 * backend_check.SECONDS)

    def test_backends_that_are_down(self) -> None:
        """The reason is in the line."""
        for text in ("unix:/does/not/exist", "tcp:127.0.0.1:1"):
            (address,) = parse_nodes([text])
            ((severity, line),) = ask_backends([address], proxy=False)
            self.assertEqual(severity, WARNING)
            self.assertIn("does not answer now: ", line)
