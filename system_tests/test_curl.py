"""curl, which sends one IMAP command a run: LIST, SELECT, FETCH, SEARCH, APPEND, STORE, COPY, MOVE, EXPUNGE, TLS."""

from __future__ import annotations

import os

from system_tests.certificate import write_certificate
from system_tests.maildirs import small_message, stored_messages, with_lf
from system_tests.server import free_port
from system_tests.server_case import (
    FAULTS,
    PASSWORD,
    USER,
    ServerCase,
    TlsServerCase,
    find_program,
)


class CurlCase(ServerCase):
    scheme = "imap"
    tls_options: tuple[str, ...] = ()

    def curl(
        self, path: str, *arguments: str, status: int = 0, user: str = f"{USER}:{PASSWORD}"
    ) -> bytes:
        return self.run_client(
            find_program("curl", "curl"), "-sS", "--max-time", "60", "-u", user, *self.tls_options,
            *arguments, f"{self.scheme}://127.0.0.1:{self.port}/{path}", status=status,
        )  # fmt: skip

    def upload(self, folder: str, message: bytes) -> bytes:
        path = os.path.join(self.home, "message")
        with open(path, "wb") as file:
            file.write(message)
        return self.curl(folder, "-T", path)


class AbsentTests(CurlCase):
    forbidden_log_texts = FAULTS  # a request for something absent counts as a bad command

    def test_absent_folder_or_message_is_an_error_for_curl(self) -> None:
        """curl reports an absent folder, message or UIDVALIDITY as an error, and the server logs no fault."""
        self.upload("INBOX", small_message("one"))
        self.curl("Nowhere;MAILINDEX=1", status=67)  # curl reports "Select failed" as login denied
        self.curl("INBOX;MAILINDEX=2", status=78)  # CURLE_REMOTE_FILE_NOT_FOUND
        self.curl("INBOX;UIDVALIDITY=1;UID=1", status=78)
        self.curl("", user=f"{USER}:wrong", status=67)  # CURLE_LOGIN_DENIED


class CurlTests(CurlCase):
    def test_empty_path_lists_the_folders(self) -> None:
        """With an empty path curl lists the folders."""
        self.curl("", "-X", "CREATE Work/2025")
        listed = self.curl("")
        self.assertIn(b'"/" INBOX', listed)
        self.assertIn(b'"/" Work/2025', listed)

    def test_messages_are_fetched_byte_for_byte(self) -> None:
        """curl fetches messages byte for byte, by sequence number and by UID, and sections of them."""
        self.fill(40)
        client = self.login()
        client.select(readonly=True)
        for number in (1, 7, 40):
            (_, message), _ = self.ok(client.fetch(str(number), "(BODY.PEEK[])"))
            self.assertIn(with_lf(message), stored_messages(self.maildir()))
            self.assertEqual(self.curl(f"INBOX;MAILINDEX={number}"), message)
            self.assertEqual(self.curl(f"INBOX;UID={number}"), message)
        self.assertIn(b"Subject:", self.curl("INBOX;MAILINDEX=7;SECTION=HEADER.FIELDS%20(SUBJECT)"))
        header = self.curl("INBOX;MAILINDEX=7;SECTION=HEADER")
        self.assertEqual(
            header + self.curl("INBOX;MAILINDEX=7;SECTION=TEXT"), self.curl("INBOX;MAILINDEX=7")
        )

    def test_query_searches_the_folder_of_the_url(self) -> None:
        """A query such as ?SUBJECT%20x searches the folder of the URL."""
        for subject in ("apple", "pear", "apple pie"):
            self.upload("INBOX", small_message(subject))
        self.assertEqual(self.curl("INBOX?SUBJECT%20apple"), b"* SEARCH 1 3\r\n")
        self.assertEqual(self.curl("INBOX?NOT%20SUBJECT%20apple"), b"* SEARCH 2\r\n")

    def test_uploaded_messages_are_stored_unchanged(self) -> None:
        """curl -T appends a small message, one of 3 MB and one with 8-bit bytes; each is stored unchanged."""
        large = small_message("large") + b"0123456789 abcdef\r\n" * 180_000
        eight_bit = small_message("eight", "Gr\xfc\xdfe").replace(b"\xc3\xbc", b"\xfc")
        uploaded = (small_message("small"), large, eight_bit)
        for message in uploaded:
            self.upload("INBOX", message)
        self.assertEqual(set(stored_messages(self.maildir())), set(map(with_lf, uploaded)))
        self.assertEqual(self.curl("INBOX;MAILINDEX=2"), large)
        self.assertEqual(self.curl("INBOX;MAILINDEX=3"), eight_bit)

    def test_custom_commands_change_the_folder_of_the_url(self) -> None:
        """curl -X sends STORE, COPY, MOVE and EXPUNGE in the folder of the URL."""
        for folder in ("One", "Two"):
            self.curl("", "-X", f"CREATE {folder}")
        for subject in ("a", "b", "c"):
            self.upload("One", small_message(subject))
        self.curl("One", "-X", "COPY 1:2 Two")
        self.curl("One", "-X", "MOVE 3 Two")
        self.assertIn(b"(MESSAGES 3)", self.curl("", "-X", "STATUS Two (MESSAGES)"))
        self.assertIn(b"(MESSAGES 2)", self.curl("", "-X", "STATUS One (MESSAGES)"))
        self.assertIn(b"\\Deleted", self.curl("Two", "-X", "STORE 2 +FLAGS (\\Deleted)"))
        self.assertIn(b"* 2 EXPUNGE", self.curl("Two", "-X", "EXPUNGE"))
        for folder, subjects in ((".Two", "ac"), (".One", "ab")):
            self.assertEqual(
                set(stored_messages(self.maildir(folder))),
                {with_lf(small_message(subject)) for subject in subjects},
            )


class StartTlsTests(TlsServerCase, CurlCase):
    def prepare(self) -> None:
        super().prepare()
        self.tls_options = ("--cacert", self.pem, "--ssl-reqd")

    def test_curl_upgrades_with_starttls_and_checks_the_certificate(self) -> None:
        """curl --ssl-reqd upgrades with STARTTLS, checks the certificate, appends and fetches."""
        self.upload("INBOX", small_message("sealed"))
        self.assertEqual(self.curl("INBOX;MAILINDEX=1"), small_message("sealed"))

    def test_large_message_passes_through_starttls(self) -> None:
        """A message of five megabytes is appended and fetched through STARTTLS."""
        message = small_message("large") + b"0123456789 abcdef\r\n" * 300_000
        self.upload("INBOX", message)
        self.assertEqual(self.curl("INBOX;MAILINDEX=1"), message)


class ImapsTests(CurlCase):
    scheme = "imaps"

    def prepare(self) -> None:
        pem = write_certificate(self.home)
        self.tls_port = free_port()
        listen = f"ssl:{self.tls_port}:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
        self.options = ("--listen", listen)
        self.tls_options = ("--cacert", pem)

    def start(self) -> None:
        super().start()
        self.port = self.tls_port

    def test_implicit_tls_appends_fetches_and_lists(self) -> None:
        """curl appends, fetches and lists with imaps:."""
        self.upload("INBOX", small_message("sealed"))
        self.assertEqual(self.curl("INBOX;MAILINDEX=1"), small_message("sealed"))
        self.assertIn(b"INBOX", self.curl(""))
