"""curl, which speaks IMAP a command at a time: LIST, SELECT, FETCH, SEARCH, APPEND, STORE, COPY, MOVE, EXPUNGE, TLS."""

from __future__ import annotations

import os

from system_tests.cases import FAULTS, PASSWORD, USER, ServerCase, plain, simple, stored, tool
from system_tests.certificate import write_certificate
from system_tests.server import free_port


class CurlCase(ServerCase):
    scheme = "imap"
    tls: tuple[str, ...] = ()

    def curl(self, path, *arguments, status=0, user=f"{USER}:{PASSWORD}"):
        return self.run_it(
            tool("curl", "curl"), "-sS", "--max-time", "60", "-u", user, *self.tls, *arguments,
            f"{self.scheme}://127.0.0.1:{self.port}/{path}", status=status,
        )  # fmt: skip

    def upload(self, folder, octets):
        path = os.path.join(self.home, "message")
        with open(path, "wb") as file:
            file.write(octets)
        return self.curl(folder, "-T", path)


class AbsentTests(CurlCase):
    complaints = FAULTS  # to ask for what is not there is a bad command

    def test_absent(self) -> None:
        """A folder, a message or a UIDVALIDITY that is not there is an error of curl's, and no disturbance here."""
        self.upload("INBOX", simple("one"))
        self.curl(
            "Nowhere;MAILINDEX=1", status=67
        )  # "Select failed", for curl a kind of login denied
        self.curl("INBOX;MAILINDEX=2", status=78)  # CURLE_REMOTE_FILE_NOT_FOUND
        self.curl("INBOX;UIDVALIDITY=1;UID=1", status=78)
        self.curl("", user=f"{USER}:wrong", status=67)  # CURLE_LOGIN_DENIED


class CurlTests(CurlCase):
    def test_list(self) -> None:
        """With a path of nothing curl lists the folders."""
        self.curl("", "-X", "CREATE Work/2025")
        said = self.curl("")
        self.assertIn(b'"/" INBOX', said)
        self.assertIn(b'"/" Work/2025', said)

    def test_read(self) -> None:
        """curl fetches messages byte for byte, by number and by UID, and sections of them."""
        self.fill(40)
        client = self.login()
        client.select(readonly=True)
        for number in (1, 7, 40):
            (_, octets), _ = self.ok(client.fetch(str(number), "(BODY.PEEK[])"))
            self.assertIn(plain(octets), stored(self.maildir()))
            self.assertEqual(self.curl(f"INBOX;MAILINDEX={number}"), octets)
            self.assertEqual(self.curl(f"INBOX;UID={number}"), octets)
        self.assertIn(b"Subject:", self.curl("INBOX;MAILINDEX=7;SECTION=HEADER.FIELDS%20(SUBJECT)"))
        header = self.curl("INBOX;MAILINDEX=7;SECTION=HEADER")
        self.assertEqual(
            header + self.curl("INBOX;MAILINDEX=7;SECTION=TEXT"), self.curl("INBOX;MAILINDEX=7")
        )

    def test_search(self) -> None:
        """?SUBJECT%20x searches the folder of the URL."""
        for subject in ("apple", "pear", "apple pie"):
            self.upload("INBOX", simple(subject))
        self.assertEqual(self.curl("INBOX?SUBJECT%20apple"), b"* SEARCH 1 3\r\n")
        self.assertEqual(self.curl("INBOX?NOT%20SUBJECT%20apple"), b"* SEARCH 2\r\n")

    def test_append(self) -> None:
        """-T appends: a small message, one of 3 MB, one with 8-bit octets; each is stored as it was sent."""
        large = simple("large") + b"0123456789 abcdef\r\n" * 180_000
        eight = simple("eight", "Gr\xfc\xdfe").replace(b"\xc3\xbc", b"\xfc")
        for octets in (simple("small"), large, eight):
            self.upload("INBOX", octets)
        self.assertEqual(
            set(stored(self.maildir())), {plain(o) for o in (simple("small"), large, eight)}
        )
        self.assertEqual(self.curl("INBOX;MAILINDEX=2"), large)
        self.assertEqual(self.curl("INBOX;MAILINDEX=3"), eight)

    def test_change(self) -> None:
        """-X sends STORE, COPY, MOVE and EXPUNGE in the folder of the URL."""
        for folder in ("One", "Two"):
            self.curl("", "-X", f"CREATE {folder}")
        for subject in ("a", "b", "c"):
            self.upload("One", simple(subject))
        self.curl("One", "-X", "COPY 1:2 Two")
        self.curl("One", "-X", "MOVE 3 Two")
        self.assertIn(b"(MESSAGES 3)", self.curl("", "-X", "STATUS Two (MESSAGES)"))
        self.assertIn(b"(MESSAGES 2)", self.curl("", "-X", "STATUS One (MESSAGES)"))
        self.assertIn(b"\\Deleted", self.curl("Two", "-X", "STORE 2 +FLAGS (\\Deleted)"))
        self.assertIn(b"* 2 EXPUNGE", self.curl("Two", "-X", "EXPUNGE"))
        self.assertEqual(set(stored(self.maildir(".Two"))), {plain(simple(s)) for s in ("a", "c")})
        self.assertEqual(set(stored(self.maildir(".One"))), {plain(simple(s)) for s in ("a", "b")})


class TlsCase(CurlCase):
    def prepare(self) -> None:
        self.pem = write_certificate(self.home)
        self.tls = ("--cacert", self.pem)


class StartTlsTests(TlsCase):
    def start(self, **more) -> None:
        super().start(**{**more, "options": ("--certificate", self.pem)})

    def test_required(self) -> None:
        """--ssl-reqd upgrades with STARTTLS, checks our certificate, and reads and appends."""
        self.tls += ("--ssl-reqd",)
        self.upload("INBOX", simple("sealed"))
        self.assertEqual(self.curl("INBOX;MAILINDEX=1"), simple("sealed"))

    def test_large(self) -> None:
        """Five megabytes go up and come down through STARTTLS."""
        self.tls += ("--ssl-reqd",)
        octets = simple("large") + b"0123456789 abcdef\r\n" * 300_000
        self.upload("INBOX", octets)
        self.assertEqual(self.curl("INBOX;MAILINDEX=1"), octets)


class ImapsTests(TlsCase):
    scheme = "imaps"

    def start(self, **more) -> None:
        port = free_port()
        listen = f"ssl:{port}:privateKey={self.pem}:certKey={self.pem}:interface=127.0.0.1"
        super().start(**{**more, "options": ("--listen", listen)})
        self.port = port

    def test_implicit(self) -> None:
        """imaps: reads and appends."""
        self.upload("INBOX", simple("sealed"))
        self.assertEqual(self.curl("INBOX;MAILINDEX=1"), simple("sealed"))
        self.assertIn(b"INBOX", self.curl(""))
