"""Ruby's Net::IMAP with STARTTLS: netimap.rb uses most of its functions against one server."""

from __future__ import annotations

from system_tests.maildirs import flags_by_subject
from system_tests.server import REPOSITORY
from system_tests.server_case import PASSWORD, USER, TlsServerCase, find_program


class NetImapTests(TlsServerCase):
    def prepare(self) -> None:
        super().prepare()
        self.fill_with_links(1000, ".Thousand")

    def test_ruby_script_succeeds_and_changes_the_disk(self) -> None:
        """netimap.rb succeeds, and its changes are on disk."""
        printed = self.run_client(
            find_program("ruby", "ruby"), f"{REPOSITORY}/system_tests/netimap.rb", str(self.port),
            USER, PASSWORD, self.maildir(), self.pem, timeout=90,
        )  # fmt: skip
        self.assertEqual(printed.strip(), b"done")
        self.assertEqual(
            set(flags_by_subject(self.maildir())), {b"=?utf-8?q?K=C3=B6ln?=", b"c", b"e", b"late"}
        )
        self.assertEqual(
            set(flags_by_subject(self.maildir(".Kept"))), {b"a", b"Gr\xf6\xdfe roh", b"c", b"d"}
        )
