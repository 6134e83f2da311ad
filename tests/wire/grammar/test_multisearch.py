"""ESEARCH (RFC 7377)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.mailbox_filters import MailboxFilter
from imapshield.wire.commands.multisearch import MultiSearch
from imapshield.wire.commands.search_keys import And, FlagKey, Not
from imapshield.wire.grammar import parse

ALL = frozenset({b"ALL"})
UNSEEN = Not(FlagKey(b"\\Seen"))


class ESearchTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """ESEARCH has mailbox filters, result options and search keys; without filters it searches the selected mailbox."""
        for line, command in (
            (b"ESEARCH ALL", MultiSearch((MailboxFilter(b"SELECTED"),), And(()), ALL)),
            (
                b'ESEARCH IN (mailboxes "folder1" subtree "folder2") unseen',
                MultiSearch(
                    (
                        MailboxFilter(b"MAILBOXES", frozenset({"folder1"})),
                        MailboxFilter(b"SUBTREE", frozenset({"folder2"})),
                    ),
                    UNSEEN,
                    ALL,
                ),
            ),
            (
                b"ESEARCH IN (mailboxes (a inbox) personal) RETURN (COUNT PARTIAL 1:9) CHARSET UTF-8 unseen",
                MultiSearch(
                    (
                        MailboxFilter(b"MAILBOXES", frozenset({"a", "INBOX"})),
                        MailboxFilter(b"PERSONAL"),
                    ),
                    UNSEEN,
                    frozenset({b"COUNT", b"PARTIAL"}),
                    (1, 9),
                ),
            ),
        ):
            self.assertEqual(parse([line]), command)

    def test_malformed(self) -> None:
        """Unknown filters, and names where none are permitted or some are missing, are refused."""
        for line in (
            b"ESEARCH", b"ESEARCH IN", b"ESEARCH IN () ALL", b"ESEARCH IN (nowhere) ALL",
            b"ESEARCH IN (mailboxes) ALL", b"ESEARCH IN (mailboxes ()) ALL",
            b"ESEARCH IN (personal", b"ESEARCH IN (selected-delayed) ALL",
            b"ESEARCH IN (personal (scope)) ALL", b"ESEARCH IN (personal)",
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])

    def test_limits(self) -> None:
        """Too many mailbox filters are refused (RFC 7377 section 2.4)."""
        error = self.assertRaises(
            CommandRefused, parse, [b"ESEARCH IN (inboxes" + b" personal" * 32 + b") ALL"]
        )
        self.assertEqual(error.code, b"LIMIT")
