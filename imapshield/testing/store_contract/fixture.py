"""What the parts of the contract share: sample messages, FETCH items, and shorter calls of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import SkipTest

from imapshield.mailbox.storage import IStore
from imapshield.mailbox.values import Blob, NewMessage
from imapshield.testing.in_process import MAIL
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import Attribute, BodySection, FetchItem, Section

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _TestCase
else:
    # A contract is not a test case: a test loader would run it, without a store, in every module that imports it.
    _TestCase = object

SECOND_MAIL = (
    b"From: Zo\xc3\xab <zoe@example.org>\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n"
    b"X-Tag: blue\r\n\r\nSee you there.\r\n"
)

ENVELOPE = Attribute(b"ENVELOPE")
STRUCTURE = Attribute(b"BODYSTRUCTURE")
EMAILID = Attribute(b"EMAILID")
WHOLE = BodySection(Section())
SEEN, DELETED, FLAGGED = b"\\Seen", b"\\Deleted", b"\\Flagged"
BUDGET = 1 << 20
"""The size in bytes that a FETCH of these tests may return at once."""


def literal(octets: bytes) -> bytes:
    """Return `octets` as FETCH returns a string: a literal."""
    return b"{%d}\r\n%b" % (len(octets), octets)


class StoreFixture(_TestCase):
    """The store under test, which is made for each test, and shorter calls of it."""

    store: IStore

    def make_store(self) -> IStore:
        """Return an empty store. Its clock may stand still."""
        raise NotImplementedError

    def reopen(self) -> IStore:
        """Return a store of the same mail, as after a restart. By default the same store."""
        return self.store

    def deliver(self, mailbox: str, content: bytes) -> None:
        """Let a message arrive from another program. By default another session appends it."""
        self.store.append(mailbox, [NewMessage((), None, MemoryLiteral(content))])

    def damage(self, uid: int) -> None:
        """Make the content of a message of INBOX unreadable, as a bad disk does. By default the test is skipped."""
        raise SkipTest("the test does not say how to damage a message")

    def setUp(self) -> None:
        """Make the store."""
        self.store = self.make_store()

    def append(
        self,
        *flags: bytes,
        name: str = "INBOX",
        content: bytes = MAIL,
        internaldate: int | None = None,
    ) -> int:
        """Append one message and return its UID."""
        new = NewMessage(flags, internaldate, MemoryLiteral(content))
        return self.store.append(name, [new]).uids[0]

    def key(self, name: str = "INBOX") -> int:
        """Return the key of a mailbox."""
        return self.store.mailbox_key(name)

    def modseq(self, name: str = "INBOX") -> int:
        """Return the HIGHESTMODSEQ of a mailbox."""
        return self.store.status(name).highestmodseq

    def flags_by_uid(self, name: str = "INBOX") -> dict[int, set[bytes]]:
        """Return the flags of every message of a mailbox."""
        opened = self.store.open(name, False)
        return {row.uid: set(row.flags.split()) for row in opened.delta.rows}

    def mailbox_names(self) -> list[str]:
        """Return the names of all mailboxes, in the order of the store."""
        return [info.name for info in self.store.mailboxes()]

    def fetch_item(self, uid: int, item: FetchItem, name: str = "INBOX") -> bytes | Blob:
        """Return one FETCH item of one message, which has to exist."""
        fetched = self.store.fetch(self.key(name), [uid], [item], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([uid], []))
        return fetched.columns[0][0]

    def fetch_bytes(self, uid: int, item: FetchItem, name: str = "INBOX") -> bytes:
        """Return one FETCH item of one message, which has to be short enough to be returned whole."""
        value = self.fetch_item(uid, item, name)
        assert isinstance(value, bytes), value
        return value
