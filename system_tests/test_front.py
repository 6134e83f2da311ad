"""Dovecot behind the shield: clients notice nothing, and floods do not reach Dovecot."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import imaplib
import os
import socket
import threading
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator

from system_tests import test_curl
from system_tests.front_case import FrontCase
from system_tests.maildirs import small_message
from system_tests.server import TIMEOUT, wait_until
from system_tests.server_case import FAULTS, PASSWORD, USER, literals


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Return a connection that has read the greeting."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        client.recv(4096)
        yield client


class FrontCurlTests(test_curl.CurlTests, FrontCase):
    """The tests of curl, with Dovecot in place of the own mail."""

    backend = "tls:localhost:{tls_port}:ca={pem}"


class FrontImaplibTests(FrontCase):
    backend = "tcp:127.0.0.1:{proxy_port}"
    front_options = ("--backend-proxy",)

    def test_session_of_a_client(self) -> None:
        """A client sees Dovecot's capabilities, mail of any content, IDLE, literals and pipelines unharmed."""
        client = self.login()
        names = client.capability()[1][0].split()
        for name in (b"IDLE", b"NOTIFY", b"LITERAL+", b"COMPRESS=DEFLATE"):
            self.assertIn(name, names)
        trap = small_message("trap") + b"* BYE\r\nA1 OK {5}\r\n\r\n" * 3
        large = small_message("large") + b"0123456789abcdef\r\n" * 300_000
        for message in (trap, large):
            self.ok(client.append("INBOX", "", "", message))
        self.ok(client.select())
        self.assertEqual(literals(self.ok(client.fetch("1:*", "(BODY.PEEK[])"))), [trap, large])
        self.ok(client.uid("STORE", "1", "+FLAGS", "(\\Flagged)"))
        self.assertEqual(self.ok(client.search(None, "FLAGGED")), [b"1"])
        client.send(b"i IDLE\r\n")
        self.assertTrue(client.readline().startswith(b"+ "))
        self.ok(self.login().append("INBOX", "", "", small_message("new")))
        self.assertEqual(client.readline(), b"* 3 EXISTS\r\n")
        client.send(b"DONE\r\n" + b"".join(b"n%d NOOP\r\n" % n for n in range(250)))
        lines = [client.readline() for _ in range(252)]
        self.assertTrue(lines[-1].startswith(b"n249 OK"), lines[-1])

    def test_compression_ends_at_the_shield(self) -> None:
        """Commands and responses are compressed between client and shield."""
        client = self.login()
        client.send(b"c COMPRESS DEFLATE\r\n")
        self.assertTrue(client.readline().startswith(b"c OK"))
        deflate, inflate = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
        client.send(deflate.compress(b"d NOOP\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH))
        received = b""
        while b"\n" not in received:
            received += inflate.decompress(client.sock.recv(4096))
        self.assertTrue(received.startswith(b"d OK"), received)

    def test_bulk_of_concurrent_sessions(self) -> None:
        """Eight sessions append, copy, flag, fetch and expunge at the same time, as imaptest does."""
        failures: list[Exception] = []
        # Dovecot alone refuses some of several CREATEs at one time: "Mailbox already exists".
        creator = self.login()
        for number in range(8):
            self.ok(creator.create(f"work{number}"))

        def work(number: int) -> None:
            try:
                client = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
                client.login(USER, PASSWORD)
                folder = f"work{number}"
                self.ok(client.select(folder))
                for turn in range(15):
                    message = small_message(f"{number}-{turn}") + b"x" * (turn * 5000)
                    self.ok(client.append(folder, "", "", message))
                    self.ok(client.noop())
                    last = self.ok(client.search(None, "ALL"))[0].split()[-1].decode()
                    (content,) = literals(self.ok(client.fetch(last, "(BODY.PEEK[])")))
                    self.assertEqual(content, message)
                    self.ok(client.copy(last, "INBOX"))
                    if turn % 3 == 2:
                        self.ok(client.store("1", "+FLAGS", "(\\Deleted)"))
                        self.ok(client.expunge())
                self.assertEqual(self.ok(client.select(folder)), [b"10"])
                client.logout()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual(failures, [])
        self.assertEqual(self.ok(self.login().select()), [b"120"])

    def test_wrong_password_and_plain(self) -> None:
        """A wrong password is refused, and AUTHENTICATE PLAIN accepted."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
        with self.assertRaisesRegex(imaplib.IMAP4.error, "AUTHENTICATIONFAILED"):
            client.login(USER, "wrong")
        message = b"\0%b\0%b" % (USER.encode(), PASSWORD.encode())
        self.ok(client.authenticate("PLAIN", lambda _: message))
        client.logout()

    def test_scram(self) -> None:
        """SCRAM-SHA-256 passes through the shield."""
        with connected(self.port) as client:
            bare = b"n=%b,r=abcdef" % USER.encode()
            first = b64encode(b"n,," + bare)
            client.sendall(b"a AUTHENTICATE SCRAM-SHA-256 %b\r\n" % first)
            challenge = b64decode(client.recv(4096)[2:])
            fields = dict(field.split(b"=", 1) for field in challenge.split(b","))
            salted = hashlib.pbkdf2_hmac(
                "sha256", PASSWORD.encode(), b64decode(fields[b"s"]), int(fields[b"i"])
            )
            final = b"c=biws,r=" + fields[b"r"]
            key = hmac.digest(salted, b"Client Key", "sha256")
            signed = b",".join((bare, challenge, final))
            signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
            proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
            client.sendall(b64encode(final + b",p=" + b64encode(proof)) + b"\r\n")
            answer = client.recv(4096)
            if answer.startswith(b"+"):
                client.sendall(b"\r\n")
                answer = client.recv(4096)
            self.assertTrue(answer.startswith(b"a OK"), answer)


class FrontStartTlsTests(FrontCase):
    def test_starttls_on_both_sides(self) -> None:
        """STARTTLS of the client is the shield's, and that toward Dovecot verifies its certificate."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
        self.assertIn("STARTTLS", client.capabilities)
        client.starttls()
        client.login(USER, PASSWORD)
        self.assertNotIn(b"STARTTLS", client.capability()[1][0])
        client.logout()


class FrontCourierTests(FrontCase):
    peer = "courier"

    def test_session_of_a_client(self) -> None:
        """A client of Courier sees its capabilities, mail and IDLE."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
        self.assertIn("IMAP4REV1", client.capabilities)
        self.ok(client.login(USER, PASSWORD))
        self.ok(client.create("INBOX.Work"))
        message = small_message("trap") + b"* BYE\r\nA1 OK {5}\r\n\r\n" * 3
        self.ok(client.append("INBOX.Work", "", "", message))
        self.assertEqual(self.ok(client.select("INBOX.Work")), [b"1"])
        self.assertEqual(literals(self.ok(client.fetch("1", "(BODY.PEEK[])"))), [message])
        client.send(b"i IDLE\r\n")
        self.assertTrue(client.readline().startswith(b"+ "))
        client.send(b"DONE\r\n")
        self.assertTrue(client.readline().startswith(b"i OK"))
        client.logout()


class FrontFailureTests(FrontCase):
    forbidden_log_texts = FAULTS
    backend = "tcp:127.0.0.1:{proxy_port}"
    front_options = ("--backend-proxy", "--limit", "backend_check_seconds=0.2")

    def test_message_that_is_too_large(self) -> None:
        """The limit of the shield applies to messages, and the session goes on."""
        client = self.login()
        client.send(b"s APPEND INBOX {999999999}\r\n")
        self.assertTrue(client.readline().startswith(b"s NO [TOOBIG]"))
        self.ok(client.noop())

    def test_dovecot_that_stops_and_comes_back(self) -> None:
        """Users get BYE when Dovecot stops, logins NO [UNAVAILABLE], and all is well when it is back."""
        client = self.login()
        self.stack.close()
        with self.assertRaises(imaplib.IMAP4.abort):
            while True:
                client.noop()
        other = imaplib.IMAP4("127.0.0.1", self.port, timeout=TIMEOUT)
        with self.assertRaisesRegex(imaplib.IMAP4.error, "UNAVAILABLE"):
            other.login(USER, PASSWORD)
        self.server.wait_for_output("logins are refused until it answers a check")
        self.start_peer()
        self.server.wait_for_output("answers again")
        other.login(USER, PASSWORD)
        other.logout()

    def test_floods_before_and_after_the_login(self) -> None:
        """A flood before the login does not reach Dovecot, one after it is bounded, and others are served."""
        user = self.login()
        for _ in range(50):
            with connected(self.port) as attacker, contextlib.suppress(OSError):
                attacker.sendall(b"a NOOP\r\n" * 5000)
                while attacker.recv(65536):
                    pass
        with connected(self.port) as attacker:
            attacker.sendall(b"a LOGIN bob {%d}\r\n" % len(PASSWORD))
            attacker.recv(100)
            attacker.sendall(PASSWORD.encode() + b"\r\n")
            wait_until(lambda: b"OK" in attacker.recv(4096))
            attacker.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                for _ in range(2000):
                    attacker.sendall(b'a LIST "" *\r\n' * 500)
            started = time.monotonic()
            self.ok(user.noop())
            self.assertLess(time.monotonic() - started, 5)
            with open(f"/proc/{self.server.process.pid}/statm", encoding="ascii") as file:
                resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            self.assertLess(resident, 200e6)
