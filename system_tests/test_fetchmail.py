"""fetchmail: removes mail from the server, leaves mail there, and waits in IDLE."""

from __future__ import annotations

import os
import signal
import subprocess

from system_tests.maildirs import (
    MessageCounts,
    deliver,
    flags_by_subject,
    small_message,
    stored_messages,
    with_lf,
)
from system_tests.server import wait_until
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program

COUNT = 100


class FetchmailTests(ServerCase):
    def write_config(self, *words: str) -> str:
        os.makedirs(f"{self.home}/got", exist_ok=True)
        # The delivery agent writes each message unchanged into a separate file.
        agent = self.write_home_file(
            "agent", f'#!/bin/sh\nexec cat >"$(mktemp {self.home}/got/XXXXXXXX)"\n', 0o700
        )
        return self.write_home_file(
            "fetchmailrc",
            f"set no bouncemail\nset invisible\npoll 127.0.0.1 protocol IMAP service {self.port}\n"
            f'  user "{USER}" password "{PASSWORD}" is alice here sslproto "" {" ".join(words)}\n'
            f'  no rewrite no mimedecode pass8bits mda "{agent}"\n',
        )

    def fetch(self, *words: str, status: int = 0) -> None:
        """Run fetchmail with user options; its status is 1 if there was no mail."""
        self.run_client(
            find_program("fetchmail", "fetchmail"), "-v", "--pidfile", f"{self.home}/pid",
            "-f", self.write_config(*words), status=status, env={"FETCHMAILHOME": self.home},
        )  # fmt: skip

    def received(self) -> MessageCounts:
        found = MessageCounts()
        for name in os.listdir(f"{self.home}/got"):
            with open(f"{self.home}/got/{name}", "rb") as file:
                found[file.read()] += 1
        return found

    def test_fetched_messages_are_removed_from_the_server(self) -> None:
        """Each message is fetched once and removed from the server; the second run finds no mail (status 1)."""
        for number in range(COUNT):
            deliver(self.maildir(), small_message(f"m{number}"), f"1700000000.{number:03}.host")
        self.fetch("fetchall")
        self.assertEqual(
            self.received(), {with_lf(small_message(f"m{n}")): 1 for n in range(COUNT)}
        )
        self.assertEqual(stored_messages(self.maildir()), {})
        self.fetch("fetchall", status=1)

    def test_kept_mail_becomes_seen_and_is_fetched_once(self) -> None:
        """With `keep` mail stays on the server and becomes \\Seen; the next run fetches only new mail."""
        for number in range(5):
            deliver(self.maildir(), small_message(f"m{number}"))
        self.fetch("keep")
        self.assertEqual(set(flags_by_subject(self.maildir()).values()), {"S"})
        deliver(self.maildir(), small_message("new"))
        self.fetch("keep")
        self.assertEqual(len(self.received()), 6)
        self.assertEqual(self.received().total(), 6)
        self.assertEqual(stored_messages(self.maildir()).total(), 6)

    def test_corpus_arrives_unchanged(self) -> None:
        """The bodies of the corpus, with 8-bit text and attachments, arrive unchanged."""
        self.fill(40)
        expected = stored_messages(self.maildir())
        self.fetch("fetchall", "keep")
        bodies = [
            MessageCounts(message.partition(b"\n\n")[2] for message in side)
            for side in (self.received(), expected)
        ]
        self.assert_same_messages(*bodies)

    def test_mail_is_fetched_from_another_folder(self) -> None:
        """Mail is fetched from a folder other than INBOX."""
        self.ok(self.login().create("Lists/twisted"))
        deliver(self.maildir(".Lists.twisted"), small_message("x"))
        self.fetch("folder", "Lists/twisted")
        self.assertEqual(self.received(), {with_lf(small_message("x")): 1})

    def test_idle_fetches_each_delivery_soon(self) -> None:
        """In IDLE each delivery is fetched soon, more than once."""
        deliver(self.maildir(), small_message("first"))
        with open(f"{self.home}/output", "wb") as log:
            process = subprocess.Popen(
                [find_program("fetchmail", "fetchmail"), "-v", "--nodetach", "--pidfile", f"{self.home}/pid",
                 "-f", self.write_config("idle", "fetchall")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                env={**os.environ, "HOME": self.home, "FETCHMAILHOME": self.home},
            )  # fmt: skip
        try:
            self.wait_for_messages(1)
            for number in range(3):
                deliver(self.maildir(), small_message(f"later{number}"))
                self.wait_for_messages(2 + number)
            # The deletion of a message follows its delivery.
            wait_until(lambda: not stored_messages(self.maildir()))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def wait_for_messages(self, count: int) -> None:
        wait_until(lambda: len(self.received()) == count, 20)
