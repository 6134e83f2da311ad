"""getmail (Debian's getmail6): fetches by UIDVALIDITY and UID, and deletes or moves what it has."""

from __future__ import annotations

import collections
import os
import re

from system_tests.cases import PASSWORD, USER, ServerCase, corpus, deliver, simple, stored, tool

COUNT = 25


class GetmailTests(ServerCase):
    def fetch(self, *options, mailboxes='"INBOX",') -> None:
        for part in ("cur", "new"):
            os.makedirs(f"{self.home}/Mail/{part}", exist_ok=True)
        # Its own Maildir destination refuses to work for root, who may be running this.
        # The agent takes its time: getmail misses the end of one that is quick, and waits for it until its timeout.
        agent = f'#!/bin/sh\ncat >"$(mktemp {self.home}/Mail/new/XXXXXXXX)"\nsleep 0.1\n'
        self.write("agent", agent, 0o700)
        config = self.write(
            "getmailrc",
            f"""\
[retriever]
type = SimpleIMAPRetriever
server = 127.0.0.1
port = {self.port}
username = {USER}
password = {PASSWORD}
timeout = 20
mailboxes = ({mailboxes})
{options[0] if options else ""}

[destination]
type = MDA_external
path = {self.home}/agent
allow_root_commands = true

[options]
read_all = false
delivered_to = false
received = false
verbose = 2
{chr(10).join(options[1:])}
""",
        )
        self.run_it(tool("getmail", "getmail6"), "--getmaildir", self.home, "--rcfile", config)
        self.assertNotIn("rror", self.log)

    def bodies(self, found):
        # getmail takes messages apart and puts them together again, and folds the fields of their parts its way.
        return collections.Counter(
            re.sub(rb"\s+", b" ", o.partition(b"\n\n")[2]) for o in found.elements()
        )

    def test_new_only(self) -> None:
        """What it has seen it does not fetch again: UIDs stay, also over a restart of the server."""
        self.fill(COUNT)
        self.fetch()
        self.same(self.bodies(stored(f"{self.home}/Mail")), self.bodies(corpus(COUNT)))
        self.stop()
        self.start()
        for number in range(3):
            deliver(self.maildir(), simple(f"new{number}"))
        self.fetch()
        self.assertEqual(sum(stored(f"{self.home}/Mail").values()), COUNT + 3)
        self.assertEqual(sum(stored(self.maildir()).values()), COUNT + 3)

    def test_delete(self) -> None:
        """With delete = true nothing stays on the server."""
        self.fill(20)
        self.fetch("", "delete = true")
        self.assertEqual(sum(stored(f"{self.home}/Mail").values()), 20)
        self.assertEqual(stored(self.maildir()), {})

    def test_move(self) -> None:
        """With move_on_delete it is in another folder."""
        self.ok(self.login().create("Done"))
        self.fill(20)
        self.fetch("move_on_delete = Done", "delete = true")
        self.assertEqual(stored(self.maildir()), {})
        self.same(stored(self.maildir(".Done")), corpus(20))

    def test_folders(self) -> None:
        """Several folders, one with a name that is not ASCII."""
        client = self.login()
        for name in ("Work", "K&APY-ln"):
            self.ok(client.create(name))
            self.ok(client.append(name, "", None, simple(name)))
        self.fetch(mailboxes='"INBOX", "Work", "Köln"')
        self.assertEqual(sum(stored(f"{self.home}/Mail").values()), 2)
