"""The programs in contrib/."""

import os
import subprocess

from twisted.trial.unittest import SynchronousTestCase

CONTRIB = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "contrib")

FAKE_NFT = """#!/bin/sh
echo "nft $*" >> "$LOG"
case "$*" in
"list table inet imapshield") [ -e "$LOG.table" ] ;;
"-f -") cat >> "$LOG"; touch "$LOG.table" ;;
"delete element"*) exit 1 ;;
esac
"""


class NftablesTests(SynchronousTestCase):
    """The script runs with a fake ``nft``, which logs its arguments and its standard input."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.log = os.path.join(os.path.abspath(folder), "log")
        nft = os.path.join(folder, "nft")
        with open(nft, "w", encoding="utf-8") as file:
            file.write(FAKE_NFT)
        os.chmod(nft, 0o700)
        self.environ = {"PATH": f"{os.path.abspath(folder)}:{os.environ['PATH']}", "LOG": self.log}

    def call(self, *arguments: str) -> tuple[int, list[str]]:
        """Run the script. Returns its exit status and what the fake has logged."""
        program = os.path.join(CONTRIB, "imapshield-nftables")
        status = subprocess.run(
            [program, *arguments], env=self.environ, capture_output=True, check=False
        ).returncode
        if not os.path.exists(self.log):
            return status, []
        with open(self.log, encoding="utf-8") as file:
            lines = file.read().splitlines()
        os.unlink(self.log)
        return status, lines

    def test_ban(self) -> None:
        """The first ban creates a table with a set with timeouts for IPv4 and IPv6; each ban adds an element."""
        status, lines = self.call("ban", "192.0.2.7/32", "600")
        self.assertEqual(status, 0)
        self.assertEqual(lines[1], "nft -f -")
        table = "\n".join(lines)
        self.assertIn("set banned4 { type ipv4_addr; flags interval, timeout; }", table)
        self.assertIn("ct state new tcp dport { 143, 993 } ip6 saddr @banned6 counter drop", table)
        added = "nft add element inet imapshield banned4 { 192.0.2.7/32 timeout 600s }"
        self.assertEqual(lines[-1], added)
        status, lines = self.call("ban", "2001:db8::/64", "86400")
        self.assertEqual((status, lines[0]), (0, "nft list table inet imapshield"))
        removed = "nft delete element inet imapshield banned6 { 2001:db8::/64 }"
        added = "nft add element inet imapshield banned6 { 2001:db8::/64 timeout 86400s }"
        self.assertEqual(lines[1:], [removed, added])

    def test_unban(self) -> None:
        """A pardon removes the element; that it has ended already is no error."""
        line = "nft delete element inet imapshield banned4 { 192.0.2.7/32 }"
        self.assertEqual(self.call("unban", "192.0.2.7/32"), (0, [line]))

    def test_flush(self) -> None:
        """`flush` empties the sets, if there is a table."""
        self.assertEqual(self.call("flush"), (0, ["nft list table inet imapshield"]))
        self.call("ban", "192.0.2.7/32", "600")
        self.assertEqual(
            self.call("flush")[1][1:],
            [
                "nft flush set inet imapshield banned4",
                "nft flush set inet imapshield banned6",
            ],
        )

    def test_other_arguments_do_nothing(self) -> None:
        """Whatever is not a network and a number of seconds never reaches nft."""
        for arguments in (
            (), ("ban",), ("ban", "192.0.2.7/32"), ("ban", "192.0.2.7/32", "1s"), ("ban", "192.0.2.7/32", "0"), ("ban", "192.0.2.7/32", ""), ("ban", "", "600"),
            ("ban", "192.0.2.7 }; flush ruleset", "600"), ("ban", "$(id)", "600"), ("unban", "-f"), ("unban", "x\\ny"), ("delete", "::/64"),
            ("ban", "192.0.2.7/32", "600", "more"),
        ):  # fmt: skip
            self.assertEqual(self.call(*arguments), (2, []), arguments)
