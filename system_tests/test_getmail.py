"""getmail (Debian's getmail6): fetches by UIDVALIDITY and UID, and deletes or moves what it has fetched."""

from __future__ import annotations

import os
import re

from system_tests.maildirs import (
    MessageCounts,
    corpus_messages,
    deliver,
    small_message,
    stored_messages,
)
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program

COUNT = 25


def normalized_bodies(messages: MessageCounts) -> MessageCounts:
    """Return the bodies with single spaces: getmail parses messages, and folds the fields of their parts again."""
    return MessageCounts(
        re.sub(rb"\s+", b" ", message.partition(b"\n\n")[2]) for message in messages.elements()
    )


class GetmailTests(ServerCase):
    def fetch(
        self, retriever: str = "", options: str = "", mailboxes: str = '"INBOX",'
    ) -> MessageCounts:
        """Run getmail with more lines for two sections of its configuration; return all that it has fetched."""
        for part in ("cur", "new"):
            os.makedirs(f"{self.home}/Mail/{part}", exist_ok=True)
        # getmail's own Maildir destination refuses to work for root, who may run this.
        # The agent sleeps: getmail does not notice that a faster agent has ended, and waits until its timeout.
        agent = f'#!/bin/sh\ncat >"$(mktemp {self.home}/Mail/new/XXXXXXXX)"\nsleep 0.1\n'
        self.write_home_file("agent", agent, 0o700)
        config = self.write_home_file(
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
{retriever}

[destination]
type = MDA_external
path = {self.home}/agent
allow_root_commands = true

[options]
read_all = false
delivered_to = false
received = false
verbose = 2
{options}
""",
        )
        getmail = find_program("getmail", "getmail6")
        self.run_client(getmail, "--getmaildir", self.home, "--rcfile", config)
        self.assertNotIn("rror", self.log)
        return stored_messages(f"{self.home}/Mail")

    def test_no_message_is_fetched_twice(self) -> None:
        """getmail fetches no message twice: UIDs are stable, also across a restart of the server."""
        self.fill(COUNT)
        self.assert_same_messages(
            normalized_bodies(self.fetch()), normalized_bodies(corpus_messages(COUNT))
        )
        self.stop()
        self.start()
        for number in range(3):
            deliver(self.maildir(), small_message(f"new{number}"))
        self.assertEqual(self.fetch().total(), COUNT + 3)
        self.assertEqual(stored_messages(self.maildir()).total(), COUNT + 3)

    def test_delete_leaves_no_message_on_the_server(self) -> None:
        """With delete = true no message stays on the server."""
        self.fill(20)
        self.assertEqual(self.fetch(options="delete = true").total(), 20)
        self.assertEqual(stored_messages(self.maildir()), {})

    def test_move_on_delete_moves_the_messages(self) -> None:
        """With move_on_delete the messages are in another folder."""
        self.ok(self.login().create("Done"))
        self.fill(20)
        self.fetch("move_on_delete = Done", "delete = true")
        self.assertEqual(stored_messages(self.maildir()), {})
        self.assert_same_messages(stored_messages(self.maildir(".Done")), corpus_messages(20))

    def test_several_folders_are_fetched(self) -> None:
        """Several folders are fetched, one with a name that is not ASCII."""
        client = self.login()
        for name in ("Work", "K&APY-ln"):
            self.ok(client.create(name))
            self.ok(client.append(name, "", "", small_message(name)))
        self.assertEqual(self.fetch(mailboxes='"INBOX", "Work", "Köln"').total(), 2)
