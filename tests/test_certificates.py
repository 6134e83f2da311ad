"""Certificates are read again when their files change, whoever renews them and however, and the log says when they end."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield import certificates
from imapshield.certificates import (
    RELOAD_SECONDS,
    SETTLED_SECONDS,
    WARN_SECONDS,
    Certificates,
    CertificateSource,
    DirectoryFiles,
    PairFiles,
    pair_files,
)
from imapshield.config import ConfigError
from tests.certificates import issued, self_signed
from tests.handshakes import handshake, sent_certificates

ACCEPTED = b"ECDHE-RSA-AES128-GCM-SHA256"


class CertificateCase(SynchronousTestCase):
    """Has a directory, and certificates whose clocks are `clock` and `today`. All files are older than a moment."""

    def setUp(self) -> None:
        self.clock, self.today = Clock(), datetime.now(UTC)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(certificates, "SETTLED_SECONDS", 0)
        self.certificates = Certificates(self.clock, maybeDeferred, lambda: self.today)

    def write(self, name: str, *pems: bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(pems))
        return str(path)

    def pass_time(self, checks: int = 1) -> list[str]:
        """Let the server check its files `checks` times, and return what it logs."""
        with capturedLogs() as logged:
            for _ in range(checks):
                self.clock.advance(RELOAD_SECONDS)
        return [formatEvent(event) for event in logged]

    def gets(self, source: CertificateSource, certificate: bytes, name: bytes = b"") -> bool:
        """Return whether a client that asks for `name` gets `certificate`, in TLS 1.2 and 1.3."""
        versions = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
        connections = [source.serverConnectionForTLS(None) for _ in versions]
        clients = [
            handshake(peer, version=version, name=name)
            for peer, version in zip(connections, versions, strict=True)
        ]
        return all(sent_certificates(client)[0] == certificate for client in clients)


class PairTests(CertificateCase):
    """The certificate of ``--certificate`` and ``--key``, or of an endpoint ``ssl:``."""

    def setUp(self) -> None:
        super().setUp()
        self.old = self_signed()
        self.paths = [
            self.write(name, pem)
            for name, pem in zip(("cert.pem", "key.pem"), self.old, strict=True)
        ]
        self.source = self.certificates.add(PairFiles(self.paths[0], self.paths[1]))
        self.certificates.start()

    def test_client_may_offer_protocols(self) -> None:
        """A client that offers protocols with ALPN, as browsers do, connects without one."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            peer = self.source.serverConnectionForTLS(None)
            client = handshake(peer, version=version, protocols=[b"imap", b"h2", b"http/1.1"])
            self.assertEqual(client.get_alpn_proto_negotiated(), b"")

    def test_certificate_that_is_written_in_place(self) -> None:
        """Files with new contents are used within `RELOAD_SECONDS`, and the log says until when they are valid."""
        certificate, key = self_signed()
        self.assertEqual(self.pass_time(), [])
        self.write("key.pem", key)
        self.write("cert.pem", certificate)
        self.assertTrue(self.gets(self.source, self.old[0]))
        (line,) = self.pass_time()
        self.assertRegex(line, rf"^--certificate {self.paths[0]}: renewed, valid until 20\d\d-")
        self.assertTrue(self.gets(self.source, certificate))
        self.assertEqual(self.pass_time(), [])

    def test_certificate_behind_symbolic_links(self) -> None:
        """Symbolic links that point to other files, as those of certbot, are used like changed files."""
        new = self_signed()
        for path, pem in zip(self.paths, new, strict=True):
            target = self.write(f"archive/{os.path.basename(path)}", pem)
            os.symlink(target, path + ".new")
            os.replace(path + ".new", path)
        self.assertEqual(len(self.pass_time()), 1)
        self.assertTrue(self.gets(self.source, new[0]))

    def test_half_of_a_pair_changes_nothing(self) -> None:
        """A new key beside an old certificate changes nothing. The log says so once, unless the rest comes at once."""
        certificate, key = self_signed()
        self.write("key.pem", key)
        self.assertEqual(self.pass_time(), [])
        (line,) = self.pass_time(checks=5)
        self.assertIn("the private key does not match", line)
        self.assertIn("the earlier certificate stays in use", line)
        self.assertTrue(self.gets(self.source, self.old[0]))
        self.write("cert.pem", certificate)
        (line,) = self.pass_time()
        self.assertIn("renewed", line)
        self.assertTrue(self.gets(self.source, certificate))

    def test_fifo_in_place_of_a_file_changes_nothing(self) -> None:
        """While a FIFO has the name of the file, the earlier certificate is used, and the next file is read as usual."""
        os.unlink(self.paths[0])
        os.mkfifo(self.paths[0])
        (line,) = self.pass_time(checks=3)
        self.assertIn("not a regular file", line)
        self.assertTrue(self.gets(self.source, self.old[0]))
        os.unlink(self.paths[0])
        new = self_signed()
        self.write("key.pem", new[1])
        self.write("cert.pem", new[0])
        self.assertEqual(len(self.pass_time()), 1)
        self.assertTrue(self.gets(self.source, new[0]))

    def test_problem_that_comes_back_is_logged_again(self) -> None:
        """A problem that was solved, and comes back, is in the log again."""
        for _ in range(2):
            os.rename(self.paths[0], self.paths[0] + ".away")
            self.assertEqual(len(self.pass_time(checks=3)), 1)
            os.rename(self.paths[0] + ".away", self.paths[0])
            self.assertEqual(self.pass_time(checks=3), [])

    def test_reload_on_request(self) -> None:
        """A reload on request uses renewed files at once, and reports a problem each time."""
        self.write("key.pem", b"")
        for _ in range(2):
            with capturedLogs() as logged:
                (problem,) = self.successResultOf(self.certificates.reload())
            self.assertIn("contains no PEM private key", problem)
            self.assertEqual(len(logged), 1)
        certificate, key = self_signed()
        self.write("key.pem", key)
        self.write("cert.pem", certificate)
        self.assertEqual(self.successResultOf(self.certificates.reload()), [])
        self.assertTrue(self.gets(self.source, certificate))

    def test_open_connections_keep_their_certificate(self) -> None:
        """A handshake that has begun ends with the certificate with which it began."""
        peer = self.source.serverConnectionForTLS(None)
        certificate, key = self_signed()
        self.write("both.pem", certificate, key)
        self.source.take(CertificateSource(PairFiles(str(self.folder / "both.pem"))))
        self.assertEqual(sent_certificates(handshake(peer)), [self.old[0]])
        self.assertTrue(self.gets(self.source, certificate))

    def test_file_that_may_change_again_is_read_again(self) -> None:
        """A file that has changed just now is read once more: it may change again in the same tick of the clock."""
        self.patch(certificates, "SETTLED_SECONDS", 1e9)
        times = os.stat(self.paths[0]).st_mtime_ns
        self.write("cert.pem", self_signed()[0])
        os.utime(self.paths[0], ns=(times, times))
        self.certificates.reload()
        both = self_signed()
        self.write("key.pem", both[1])
        self.write("cert.pem", both[0])
        self.certificates.reload()
        self.assertTrue(self.gets(self.source, both[0]))
        self.assertGreater(SETTLED_SECONDS, 0.02)  # ticks of a kernel with 50 Hz

    def test_unexpected_error(self) -> None:
        """An error that is not foreseen is a line like any other, once, and the earlier certificate stays."""

        def load(*_: object) -> None:
            raise SSL.Error([("x", "", "strange")])

        self.patch(certificates, "load_file", load)
        self.write("key.pem", self.old[1])
        (line,) = self.pass_time(checks=5)
        self.assertRegex(line, r"^--certificate .*: cannot be used \(.*strange.*\); the earlier")

    def test_reading_that_was_overtaken(self) -> None:
        """What was read is ignored if the source has got other files in the meantime."""
        waiting: list[tuple[Any, Deferred[Any]]] = []

        def run(function: Any) -> Deferred[Any]:
            waiting.append((function, Deferred()))
            return waiting[-1][1]

        own = Certificates(self.clock, run)
        source = own.add(PairFiles(self.paths[0], self.paths[1]))
        self.write("key.pem", b"")
        reloading = own.reload()
        certificate, key = self_signed()
        found = source.read()
        source.take(CertificateSource(PairFiles(self.write("other.pem", certificate, key))))
        waiting[0][1].callback(found)
        self.assertEqual(self.successResultOf(reloading), [])
        self.assertTrue(self.gets(source, certificate))

    def test_relative_paths(self) -> None:
        """Relative paths are those of the directory in which the server was started: twistd may leave it."""
        files = pair_files("cert.pem", "key.pem")
        self.assertEqual(files, PairFiles(os.path.abspath("cert.pem"), os.path.abspath("key.pem")))
        self.assertIsNone(pair_files("both.pem", None).key)


class ExpiryTests(CertificateCase):
    """The log says when a certificate ends."""

    def test_warning_before_the_end(self) -> None:
        """From 14 days before the end, the log has a line each day, with the days that are left."""
        path = self.write("both.pem", *self_signed(days=22))
        self.certificates.add(PairFiles(path))
        self.certificates.start()
        lines = []
        for _ in range(9):
            lines.append(self.pass_time(3))
            self.today += timedelta(days=1)
            self.clock.rightNow += WARN_SECONDS - 3 * RELOAD_SECONDS
        self.assertEqual([len(each) for each in lines], [0, 0, 0, 0, 0, 0, 1, 1, 1])
        self.assertRegex(
            lines[6][0], r"both.pem: the certificate expires in 14 days, on 20\S+; renew"
        )

    def test_expired_certificate(self) -> None:
        """An expired certificate is used, and the log says at the start that it has expired; of others it says nothing."""
        for days, word in ((1, "has expired on 20"), (3, "expires in 24 hours"), (90, "")):
            path = self.write(f"{days}.pem", *self_signed(days=days))
            with capturedLogs() as logged:
                self.certificates.add(PairFiles(path))
            texts = [formatEvent(event) for event in logged]
            self.assertEqual(len(texts), bool(word))
            for text in texts:
                self.assertIn(f"--certificate {path}: the certificate {word}", text)
                self.assertIn(text, self.status()["problems"])
        self.assertEqual(len(self.status()["problems"]), 2)

    def test_status(self) -> None:
        """Operators see which certificate ends first, and when."""
        self.assertIsNone(self.status())
        for days in (90, 60):
            path = self.write(f"{days}.pem", *self_signed(days=days))
            source = self.certificates.add(PairFiles(path))
        expires = source.certificates[0].expires.timestamp()
        expected = {"option": f"--certificate {path}", "expires": expires, "problems": []}
        self.assertEqual(self.status(), expected)

    def status(self) -> Any:
        """Return what the command ``status`` says."""
        return self.successResultOf(Deferred.fromCoroutine(self.certificates.status()))


class DirectoryTests(CertificateCase):
    """The certificates of ``--listen tls:DIRECTORY``."""

    def add(self, folder: str, host: str, **options: Any) -> bytes:
        """Write a certificate and its key as certbot does. Returns the certificate."""
        (self.folder / folder).mkdir(exist_ok=True)
        certificate, key = self_signed(host, **options)
        for name in ("cert.pem", "fullchain.pem"):
            (self.folder / folder / name).write_bytes(certificate)
        (self.folder / folder / "privkey.pem").write_bytes(key)
        return certificate

    def load(self) -> CertificateSource:
        source = self.certificates.add(DirectoryFiles(str(self.folder)))
        self.certificates.start()
        return source

    def test_client_gets_the_certificate_for_its_name(self) -> None:
        """Each client gets the certificate for the name that it asks for; any other name gets the first one."""
        first, second = self.add("a", "a.example"), self.add("b", "*.b.example", rsa_key=True)
        server = self.load()
        for name, certificate in (
            (b"a.example", first),
            (b"imap.b.example", second),
            (b"IMAP.B.example", second),
            (b"x.imap.b.example", first),
            (b"unknown.example", first),
            (b"\xff\xfe", first),
            (b"", first),
        ):
            self.assertTrue(self.gets(server, certificate, name), name)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_policy_applies_to_every_name(self) -> None:
        """The suites are the same for every certificate."""
        self.add("a", "a.example", rsa_key=True)
        self.add("b", "b.example", rsa_key=True)
        server = self.load()
        for name in (b"a.example", b"b.example"):
            handshake(server.serverConnectionForTLS(None), ACCEPTED, name=name)
            with self.assertRaises(SSL.Error):
                handshake(server.serverConnectionForTLS(None), b"AES128-SHA", name=name)

    def test_renewed_certificate_is_used(self) -> None:
        """A renewed or new certificate is used within `RELOAD_SECONDS`."""
        old = self.add("a", "a.example")
        server = self.load()
        new, other = self.add("a", "a.example"), self.add("b", "b.example")
        self.assertTrue(self.gets(server, old, b"a.example"))
        self.pass_time()
        self.assertTrue(self.gets(server, new, b"a.example"))
        self.assertTrue(self.gets(server, other, b"b.example"))

    def test_clients_cannot_make_the_server_read_files(self) -> None:
        """Connections with unknown names read no files in between."""
        self.add("a", "a.example")
        server = self.load()
        read: list[str] = []

        def walk(folder: str, **_: Any) -> list[Any]:
            read.append(folder)
            return []

        self.patch(os, "walk", walk)
        for _ in range(10):
            handshake(server.serverConnectionForTLS(None), name=b"unknown.example")
        self.assertEqual(read, [])

    def test_damaged_renewal_leaves_the_old_certificate(self) -> None:
        """If the files are damaged later, the old certificate stays, and the log has a line."""
        old = self.add("a", "a.example")
        server = self.load()
        (self.folder / "a" / "privkey.pem").write_bytes(b"")
        (line,) = self.pass_time(checks=5)
        self.assertIn("no certificate with its private key", line)
        self.assertTrue(self.gets(server, old, b"a.example"))

    def test_short_key_and_expired_certificate(self) -> None:
        """A short key is an error, and an expired certificate is in the log, both with the names of the certificate."""
        self.add("a", "a.example", days=1)
        with capturedLogs() as logged:
            self.load()
        (text,) = map(formatEvent, logged)
        self.assertIn(f"tls:{self.folder} (a.example): the certificate has expired", text)
        self.add("b", "b.example", rsa_key=True, bits=1024)
        error = self.assertRaises(ConfigError, self.load)
        self.assertIn(f"tls:{self.folder} (b.example): OpenSSL refuses", str(error))

    def test_chain_is_sent(self) -> None:
        """The certificates of the issuers are sent too, from whatever file."""
        leaf, issuer = issued("mail.example")
        (self.folder / "mail.pem").write_bytes(b"".join(leaf))
        (self.folder / "chain.pem").write_bytes(issuer)
        client = handshake(self.load().serverConnectionForTLS(None))
        self.assertEqual(sent_certificates(client), [leaf[0], issuer])

    def test_directory_without_a_certificate_is_an_error(self) -> None:
        """Without a certificate that has its key, or with a damaged file, the server does not start."""
        with self.assertRaisesRegex(ConfigError, "no certificate with its private key"):
            self.load()
        self.add("a", "a.example")
        (self.folder / "a" / "privkey.pem").write_bytes(self_signed()[1])
        with self.assertRaisesRegex(ConfigError, "no certificate with its private key"):
            self.load()
        damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        (self.folder / "a" / "cert.pem").write_bytes(damaged)
        with self.assertRaisesRegex(ConfigError, "cert.pem is damaged"):
            self.load()
