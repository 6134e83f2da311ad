"""A test case that stores large messages and fetches pieces of them."""

from __future__ import annotations

import base64
import gzip
import re

from imapshield.mailbox.values import Blob
from imapshield.wire import strings
from imapshield.wire.commands.fetch import Binary, BodySection
from tests.maildir.disk import DiskTestCase

BUDGET = 1 << 24
Item = BodySection | Binary


def on_wire(content: bytes) -> bytes:
    return re.sub(rb"(?<!\r)\n", b"\r\n", content)


def big_message(body: bytes, encoding: bytes = b"base64") -> bytes:
    """A multipart of which part 2 is large."""
    head = b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhi\n--b\n"
    return head + b"Content-Transfer-Encoding: " + encoding + b"\n\n" + body + b"\n--b--\n"


RANDOM = bytes(range(256)) * 2000
ENCODED = base64.encodebytes(RANDOM)
PIECE = (300_000, 16384)


class PieceTestCase(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.let_mtimes_age()
        self.key = self.store.open("INBOX", True).key
        self.large = self.store._account.large_messages

    def add(self, content: bytes, kind: str = "delivered") -> int:
        """Store a message; return its UID."""
        if kind == "appended":
            return self.append(content=content)
        if kind == "compressed":
            name = f"17000001{next(self._numbers):02d}.x,S={len(content)}:2,S"
            self.deliver(gzip.compress(content), name=name, directory="cur")
        else:
            self.deliver(content)
        return self.store.open("INBOX", True).delta.rows[-1].uid

    def value(self, uid: int, item: Item) -> bytes | None:
        """Return the string of an item; a blob is read in chunks."""
        fetched = self.store.fetch(self.key, [uid], [item], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.unreadable)), ([uid], []), item)
        value = fetched.columns[0][0]
        if isinstance(value, Blob):
            octets = b"".join(
                self.store.read(self.key, uid, item, at, 70_001)
                for at in range(0, value.size, 70_001)
            )
            self.assertEqual(len(octets), value.size)
            return octets
        return None if value == strings.NIL else value.partition(b"\r\n")[2]
