"""JavaMail, with UTF8=ACCEPT, QRESYNC and IDLE; what it does is in JavaMail.java."""

from __future__ import annotations

from system_tests.cases import PASSWORD, USER, ServerCase, letters, tool
from system_tests.certificate import write_certificate
from system_tests.server import HERE

JARS = "/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar"


class JavaMailTests(ServerCase):
    def prepare(self) -> None:
        self.link(1000, ".Thousand")
        self.pem = write_certificate(self.home)

    def start(self, **more) -> None:
        super().start(**{**more, "options": ("--certificate", self.pem)})

    def test_day(self) -> None:
        """Everything in JavaMail.java, and its end as it lies on disk."""
        said = self.run_it(
            tool("java", "default-jdk-headless"), "-cp", JARS, f"{HERE}/system_tests/JavaMail.java",
            str(self.port), USER, PASSWORD, timeout=120,
        )  # fmt: skip
        self.assertEqual(said.strip(), b"done")
        self.assertEqual(set(letters(self.maildir())), {b"nested", b"c", b"e"})
        self.assertEqual(
            set(letters(self.maildir(".Kept"))), {b"a", b"=?UTF-8?B?w7w=?=", b"b", b"c", b"d"}
        )
