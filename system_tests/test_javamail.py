"""JavaMail with STARTTLS, UTF8=ACCEPT, QRESYNC and IDLE: JavaMail.java uses most of its functions."""

from __future__ import annotations

from system_tests.maildirs import flags_by_subject
from system_tests.server import REPOSITORY
from system_tests.server_case import PASSWORD, USER, TlsServerCase, find_program

JARS = "/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar"


class JavaMailTests(TlsServerCase):
    def prepare(self) -> None:
        super().prepare()
        self.fill_with_links(1000, ".Thousand")

    def test_java_program_succeeds_and_changes_the_disk(self) -> None:
        """JavaMail.java succeeds, and its changes are on disk."""
        printed = self.run_client(
            find_program("java", "default-jdk-headless"), "-cp", JARS,
            f"{REPOSITORY}/system_tests/JavaMail.java", str(self.port), USER, PASSWORD, timeout=120,
        )  # fmt: skip
        self.assertEqual(printed.strip(), b"done")
        self.assertEqual(set(flags_by_subject(self.maildir())), {b"nested", b"c", b"e"})
        self.assertEqual(
            set(flags_by_subject(self.maildir(".Kept"))),
            {b"a", b"=?UTF-8?B?w7w=?=", b"b", b"c", b"d"},
        )
