"""`imapshield move` between two nodes behind a shield, with real processes and rsync, while five clients work."""

from __future__ import annotations

import imaplib
import random
import re
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.moving_user import (
    MAILBOXES,
    Site,
    WorkingClient,
    dump,
    fill,
    running_site,
    working_clients,
)
from system_tests.server_case import FAULTS, find_program


class MoveTests(SynchronousTestCase):
    def setUp(self) -> None:
        find_program("rsync", "rsync")

    def test_a_quiet_move_changes_nothing(self) -> None:
        """Every answer to LIST, LSUB, STATUS, GETMETADATA, EXAMINE and FETCH is the same after a move, and back.

        That is so for mailboxes that are named as what is not moved. The node that the user has left refuses the login.
        """
        with running_site() as site:
            fill(site, 20)
            client = site.connect()
            for name in ("Archive/2025", "tmp", "work/tmp"):
                client.create(name)
            client.send(b'm SETMETADATA INBOX (/private/comment "mine")\r\n')
            self.assertTrue(client.readline().startswith(b"m OK"))
            client.logout()
            before = dump(site)
            self.assertGreater(len(before["FETCH INBOX"]), 20)
            self.assertIn(b"mine", b"".join(before["GETMETADATA INBOX (/private/comment)"]))
            for node in ("two", "one"):
                self.assertIn(f"to {node}", site.move(node))
                self.assertEqual(dump(site), before)
                left = "one" if node == "two" else "two"
                with self.assertRaisesRegex(imaplib.IMAP4.error, "UNAVAILABLE.*being moved"):
                    site.connect(left)
            self.check_log(site)

    def test_clients_work_while_the_user_moves_and_the_command_is_killed(self) -> None:
        """Nothing that was acknowledged is lost or has another UID, wherever the command was killed."""
        dice = random.Random(13)  # noqa: S311
        with running_site() as site:
            fill(site, 10)
            with working_clients(site) as clients:
                for number in range(4):
                    node = ("two", "one")[number % 2]
                    time.sleep(0.3)
                    process = site.start_move(node)
                    try:
                        process.wait(dice.uniform(0.5, 2.5))
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                    site.move(node)
                time.sleep(0.5)
            for client in clients:
                self.assertGreater(client.logins, 3, client._work)
                self.assertGreater(len(client.done), 10, client._work)
            self.check_messages(site, clients[0])
            self.check_log(site)

    def test_move_over_ssh(self) -> None:
        """Nothing changes on the way to another machine and back, also if the command is killed while it copies."""
        with running_site(over_ssh=True) as site:
            fill(site, 10)
            before = dump(site)
            for node in ("two", "one"):
                if node == "two":
                    process = site.start_move(node)
                    time.sleep(0.8)
                    process.kill()
                    process.communicate()
                self.assertIn(node, site.move(node, "--max-pause", "10"))
                self.assertEqual(dump(site), before)
            self.check_log(site)

    def test_power_cuts(self) -> None:
        """While the new node accepts the copy, the power of a node is cut: one has the user, with everything."""
        command = [sys.executable, "-m", "benchmarks.move_cuts", "--first", "820", "--moves", "6"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        self.assertIn("6 moves, 0 problems", done.stdout, done.stderr)

    def check_messages(self, site: Site, appender: WorkingClient) -> None:
        """Check that each message that was appended is there once; with its UID, unless MOVE gave it another one."""
        self.assertGreater(len(appender.stored), 10)
        found: dict[str, list[tuple[str, str]]] = {}
        uids: set[tuple[str, str]] = set()
        client = site.connect()
        for mailbox in MAILBOXES:
            client.select(mailbox, readonly=True)
            (uidvalidity,) = client.response("UIDVALIDITY")[1]
            _, data = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
            for part in data:
                if isinstance(part, tuple):
                    (uid,) = re.findall(rb"UID (\d+)", part[0])
                    (name,) = re.findall(rb"<(.*)@example.org>", part[1])
                    place = (mailbox, f"{uidvalidity.decode()}:{uid.decode()}")
                    self.assertNotIn(place, uids)
                    uids.add(place)
                    found.setdefault(name.decode(), []).append(place)
        client.logout()
        for name, place in appender.stored.items():
            self.assertEqual(len(found.get(name, [])), 1, name)
            if place[0] == "INBOX":
                self.assertEqual(found[name], [place])
        self.assertEqual(sum(name.startswith("first.") for name in found), 10)
        self.assertEqual({len(places) for places in found.values()}, {1})

    def check_log(self, site: Site) -> None:
        log = site.log()
        for fault in (*FAULTS, "all mailboxes get a new UIDVALIDITY", "has a new UIDVALIDITY"):
            self.assertNotIn(fault, log)
