"""`running_server`, used as the tests of a mail client use it: with unittest and imaplib, without Twisted."""

import atexit
import gc
import imaplib
import socket
import ssl
import subprocess
import sys
import unittest
import warnings
import weakref
from contextlib import ExitStack
from functools import cache
from unittest import mock

from imapshield.cred.users import BadUserName
from imapshield.testing import RunningServer, running_server

MAIL = b"Subject: Hello\r\n\r\nHi.\r\n"


def client_of(
    server: RunningServer,
    user: str = "alice",
    password: str = "secret",  # noqa: S107, of a test
) -> imaplib.IMAP4:
    client = imaplib.IMAP4(server.host, server.port, timeout=30)
    client.login(user, password)
    return client


@cache
def shared_server() -> RunningServer:
    """One server for several tests. (trial does not call `setUpClass`.)"""
    stack = ExitStack()
    atexit.register(stack.close)
    users = {"alice": "secret", "bob": "word", "Zoë": 'pass "word"'}
    return stack.enter_context(running_server(users, max_message_size=1000))


def connection_to(host: str, port: int) -> socket.socket:
    """Connect from another address: from the same one, TCP may connect an unused port with itself."""
    return socket.create_connection((host, port), 30, source_address=("127.0.0.2", 0))


class MemoryServerTests(unittest.TestCase):
    def setUp(self) -> None:
        self.server = shared_server()

    def test_client_reads_what_a_test_puts_in(self) -> None:
        """A client reads a message that a test puts in, with its flags."""
        self.server.append("alice", MAIL, flags=[r"\Seen", "$Work"])
        with client_of(self.server) as client:
            self.assertEqual(client.select(), ("OK", [b"1"]))
            status, data = client.fetch("1", "(FLAGS BODY.PEEK[])")
        self.assertEqual(status, "OK")
        assert isinstance(data[0], tuple)
        self.assertEqual(data[0][1], MAIL)
        self.assertIn(b"\\Seen", data[0][0])
        self.assertIn(b"$Work", data[0][0])

    def test_test_reads_what_a_client_puts_in(self) -> None:
        """A test reads the messages that a client has stored, in a mailbox with any name, oldest first."""
        name = 'Entwürfe "neu"'
        self.server.append("bob", MAIL, mailbox=name)
        with client_of(self.server, "bob", "word") as client:
            client.append(r'"Entw&APw-rfe \"neu\""', "", "", b"Subject: 2\r\n\r\n")
        self.assertEqual(self.server.messages("bob", name), [MAIL, b"Subject: 2\r\n\r\n"])
        self.assertEqual(self.server.messages("bob"), [])

    def test_user_may_have_any_name_and_password(self) -> None:
        """A user name and a password may have any characters."""
        self.assertEqual(self.server.messages("Zoë"), [])

    def test_wrong_password_is_refused_and_logged(self) -> None:
        """A wrong password is refused, and the log says so."""
        with self.assertRaises(imaplib.IMAP4.error):
            client_of(self.server, "alice", "wrong")
        self.assertIn("login failed", self.server.log())

    def test_refusal_is_an_exception(self) -> None:
        """A message that a limit refuses, a mailbox and a user that do not exist are errors of the test."""
        with self.assertRaisesRegex(imaplib.IMAP4.error, "too large|TOOBIG"):
            self.server.append("alice", b"x" * 2000)
        with self.assertRaisesRegex(imaplib.IMAP4.error, "does not exist"):
            self.server.messages("alice", "Nowhere")
        with self.assertRaises(KeyError):
            self.server.messages("carol")

    def test_servers_run_side_by_side(self) -> None:
        """Two servers have different ports and different mail."""
        with running_server({"alice": "secret"}) as other:
            self.assertNotEqual(other.port, self.server.port)
            other.append("alice", MAIL)
            self.assertEqual(other.messages("alice"), [MAIL])


class EndTests(unittest.TestCase):
    def test_nothing_is_left(self) -> None:
        """With the context, the port, the process and the directory end, also if a client is still connected."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with running_server({"alice": "secret"}, maildir=True) as server:
                client = client_of(server)
                assert server.mail_root is not None
                self.assertTrue(server.mail_root.is_dir())
            self.assertFalse(server.mail_root.exists())
            with (
                self.assertRaises(ConnectionRefusedError),
                connection_to(server.host, server.port),
            ):
                pass
            self.assertIn(b"* BYE", client.readline())
            client.shutdown()
            left = weakref.ref(server)
            del server, client
            gc.collect()
        self.assertIsNone(left())

    def test_exception_ends_the_server(self) -> None:
        """A test that fails inside the context ends the server, too."""
        with self.assertRaises(ZeroDivisionError), running_server({"alice": "secret"}) as server:
            raise ZeroDivisionError
        with (
            self.assertRaises(ConnectionRefusedError),
            connection_to(server.host, server.port),
        ):
            pass

    def test_server_ends_with_the_tests(self) -> None:
        """A server ends when the process of the tests is killed."""
        program = (
            "import os, signal\nfrom imapshield.testing import running_server\n"
            "with running_server({'alice': 'secret'}) as server:\n"
            "    print(server.port, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=False
        )
        port = int(done.stdout)
        self.assertNotEqual(done.returncode, 0)
        for _ in range(1000):
            try:
                with connection_to("127.0.0.1", port) as client:
                    while client.recv(1000):
                        pass
            except ConnectionError:
                return
        self.fail("the server goes on")

    def test_error_is_one_line_with_the_cause(self) -> None:
        """A limit that does not exist is named in the error, with what was meant; there is no traceback."""
        for limits, words in (
            ({"no_such_limit": 1}, "not started: there is no limit no_such_limit$"),
            ({"max_message_sise": 1}, "no limit max_message_sise; did you mean max_message_size?"),
            ({"backlog": "x"}, "the limit backlog must be of type int: 'x'$"),
            ({"report_only": 1}, "the limit report_only must be of type bool: 1$"),
        ):
            with (
                self.assertRaisesRegex(RuntimeError, words) as caught,
                running_server({}, **limits),
            ):
                pass
            self.assertNotIn("Traceback", str(caught.exception))

    def test_python_that_fails_is_the_error(self) -> None:
        """If the process ends before it could start the server, its last line is the error."""
        with (
            mock.patch.object(sys, "executable", "/bin/false"),
            self.assertRaisesRegex(RuntimeError, "not started: it has ended without a word"),
            running_server({}),
        ):
            pass


class TlsServerTests(unittest.TestCase):
    def test_client_uses_tls(self) -> None:
        """A client uses TLS from the first byte or with STARTTLS, and trusts only the certificate of this server."""
        with running_server({"alice": "secret"}, tls=True) as server:
            assert server.tls is not None
            server.append("alice", MAIL)
            self.assertEqual(server.messages("alice"), [MAIL])
            self.assertIn("tls=True", server.log())
            with imaplib.IMAP4(server.host, server.port, timeout=30) as client:
                client.starttls(server.tls.context)
                client.login("alice", "secret")
                self.assertEqual(client.select(), ("OK", [b"1"]))
            with self.assertRaises(ssl.SSLCertVerificationError):
                imaplib.IMAP4_SSL(
                    server.host,
                    server.tls.port,
                    timeout=30,
                    ssl_context=ssl.create_default_context(),
                )
            self.assertEqual(server.tls.certificate.stat().st_mode & 0o777, 0o600)
        self.assertFalse(server.tls.certificate.exists())


class MaildirServerTests(unittest.TestCase):
    def test_mail_is_in_a_maildir(self) -> None:
        """With a Maildir, a client sees what another program delivers, and a test sees the files of the server."""
        with running_server({"alice": "secret"}, maildir=True) as server:
            assert server.mail_root is not None
            (server.mail_root / "alice" / "new" / "1.1.host").write_bytes(b"Subject: 1\n\n")
            server.append("alice", MAIL)
            self.assertEqual(server.messages("alice"), [b"Subject: 1\r\n\r\n", MAIL])
            stored = [path.read_bytes() for path in server.mail_root.glob("alice/cur/*")]
        self.assertIn(MAIL, stored)

    def test_directories_are_inside_the_temporary_one(self) -> None:
        """A user whose name would lead outside the temporary directory is refused."""
        with self.assertRaises(BadUserName), running_server({"../alice": "secret"}, maildir=True):
            pass
