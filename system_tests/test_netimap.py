"""Ruby's Net::IMAP, behind STARTTLS; what it does is in netimap.rb."""

from __future__ import annotations

from system_tests.cases import PASSWORD, USER, ServerCase, letters, tool
from system_tests.certificate import write_certificate
from system_tests.server import HERE


class NetImapTests(ServerCase):
    def prepare(self) -> None:
        self.link(1000, ".Thousand")
        self.pem = write_certificate(self.home)

    def start(self, **more) -> None:
        super().start(**{**more, "options": ("--certificate", self.pem)})

    def test_day(self) -> None:
        """Everything in netimap.rb, and its end as it lies on disk."""
        said = self.run_it(
            tool("ruby", "ruby"), f"{HERE}/system_tests/netimap.rb", str(self.port), USER, PASSWORD,
            self.maildir(), self.pem, timeout=90,
        )  # fmt: skip
        self.assertEqual(said.strip(), b"done")
        self.assertEqual(
            set(letters(self.maildir())), {b"=?utf-8?q?K=C3=B6ln?=", b"c", b"e", b"late"}
        )
        self.assertEqual(
            set(letters(self.maildir(".Kept"))), {b"a", b"Gr\xf6\xdfe roh", b"c", b"d"}
        )
