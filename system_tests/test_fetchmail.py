"""fetchmail: takes mail away, keeps mail, and waits in IDLE."""

from __future__ import annotations

import collections
import os
import signal
import subprocess

from system_tests.cases import (
    PASSWORD,
    USER,
    ServerCase,
    deliver,
    eventually,
    letters,
    plain,
    simple,
    stored,
    tool,
)

COUNT = 100


class FetchmailTests(ServerCase):
    def config(self, *words):
        os.makedirs(f"{self.home}/got", exist_ok=True)
        # Each message into a file of its own, octet for octet.
        agent = self.write(
            "agent", f'#!/bin/sh\nexec cat >"$(mktemp {self.home}/got/XXXXXXXX)"\n', 0o700
        )
        return self.write(
            "fetchmailrc",
            f"set no bouncemail\nset invisible\npoll 127.0.0.1 protocol IMAP service {self.port}\n"
            f'  user "{USER}" password "{PASSWORD}" is alice here sslproto "" {" ".join(words)}\n'
            f'  no rewrite no mimedecode pass8bits mda "{agent}"\n',
        )

    def fetch(self, *words, status=0) -> None:
        self.run_it(
            tool("fetchmail", "fetchmail"), "-v", "--pidfile", f"{self.home}/pid", "-f", self.config(*words),
            status=status, env={"FETCHMAILHOME": self.home},
        )  # fmt: skip

    def got(self):
        found = {}
        for name in os.listdir(f"{self.home}/got"):
            with open(f"{self.home}/got/{name}", "rb") as file:
                octets = file.read()
                found[octets] = found.get(octets, 0) + 1
        return found

    def test_take(self) -> None:
        """Everything is fetched once and gone from the server; the second time there is nothing (status 1)."""
        for number in range(COUNT):
            deliver(self.maildir(), simple(f"m{number}"), f"1700000000.{number:03}.host")
        self.fetch("fetchall")
        self.assertEqual(self.got(), {plain(simple(f"m{n}")): 1 for n in range(COUNT)})
        self.assertEqual(stored(self.maildir()), {})
        self.fetch("fetchall", status=1)

    def test_keep(self) -> None:
        """Kept mail stays and becomes \\Seen; only what is new comes the next time."""
        for number in range(5):
            deliver(self.maildir(), simple(f"m{number}"))
        self.fetch("keep")
        self.assertEqual(set(letters(self.maildir()).values()), {"S"})
        deliver(self.maildir(), simple("new"))
        self.fetch("keep")
        self.assertEqual(len(self.got()), 6)
        self.assertEqual(sum(self.got().values()), 6)
        self.assertEqual(sum(stored(self.maildir()).values()), 6)

    def test_corpus(self) -> None:
        """Real mail, with its 8-bit headers and its attachments, arrives with the octets that it had."""
        self.fill(40)
        expected = dict(stored(self.maildir()))
        self.fetch("fetchall", "keep")
        bodies = [
            collections.Counter(o.partition(b"\n\n")[2] for o in m) for m in (self.got(), expected)
        ]
        self.same(*bodies)

    def test_folder(self) -> None:
        """Another folder than INBOX."""
        self.ok(self.login().create("Lists/twisted"))
        deliver(self.maildir(".Lists.twisted"), simple("x"))
        self.fetch("folder", "Lists/twisted")
        self.assertEqual(self.got(), {plain(simple("x")): 1})

    def test_idle(self) -> None:
        """In IDLE it fetches what is delivered at once, again and again."""
        deliver(self.maildir(), simple("first"))
        with open(f"{self.home}/said", "wb") as log:
            process = subprocess.Popen(
                [tool("fetchmail", "fetchmail"), "-v", "--nodetach", "--pidfile", f"{self.home}/pid",
                 "-f", self.config("idle", "fetchall")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                env={**os.environ, "HOME": self.home, "FETCHMAILHOME": self.home},
            )  # fmt: skip
        try:
            eventually(lambda: len(self.got()) == 1, 20)
            for number in range(3):
                deliver(self.maildir(), simple(f"later{number}"))
                eventually(lambda number=number: len(self.got()) == 2 + number, 20)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        self.assertEqual(stored(self.maildir()), {})
