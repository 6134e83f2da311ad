"""The IMAP server of Twisted as it is, `twisted.mail.imap4.IMAP4Server`, with the mail of Maildirs in memory.

It changes nothing in Twisted's protocol. Accounts and mailboxes are the least that its interfaces ask for. It has
no TLS: with a certificate, Twisted refuses the passwords that the benchmark's users send without TLS::

    python -m benchmarks.stock_twisted PORT MAIL_ROOT PASSWORD
"""

from __future__ import annotations

import email
import email.message
import io
import sys
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted.mail.imap4 import IMAP4Server, MemoryAccount, MessageSet
from twisted.mail.interfaces import IAccountIMAP, IMailboxIMAP, IMessageIMAP
from zope.interface import implementer

HOST = "127.0.0.1"


@implementer(IMessageIMAP)
class Message:
    """One message, parsed when a client asks for its structure."""

    def __init__(self, uid: int, content: bytes, parsed: email.message.Message | None = None):
        self._uid, self._content, self._message = uid, content, parsed

    @property
    def _parsed(self) -> email.message.Message:
        if self._message is None:
            self._message = email.message_from_bytes(self._content)
        return self._message

    def getUID(self) -> int:
        return self._uid

    def getFlags(self) -> list[str]:
        return ["\\Seen"]

    def getInternalDate(self) -> str:
        return formatdate(0)

    def getHeaders(self, negate: bool, *names: str) -> dict[str, str]:
        wanted = {name.lower() for name in names}
        return {
            name.lower(): str(value)
            for name, value in self._parsed.items()
            if (name.lower() in wanted) is not negate
        }

    def getBodyFile(self) -> io.BytesIO:
        return io.BytesIO(self._content.partition(b"\r\n\r\n")[2])

    def getSize(self) -> int:
        return len(self._content)

    def isMultipart(self) -> bool:
        return self._parsed.is_multipart()

    def getSubPart(self, part: int) -> Message:
        payload = self._parsed.get_payload()
        assert isinstance(payload, list)
        child = payload[part]
        assert isinstance(child, email.message.Message)
        return Message(0, child.as_bytes(), child)


@implementer(IMailboxIMAP)
class Mailbox:
    """A mailbox of which nothing changes."""

    def __init__(self, folder: Path) -> None:
        files = sorted(path for name in ("cur", "new") for path in (folder / name).glob("*"))
        contents = (path.read_bytes() for path in files)
        self._messages = [
            Message(uid, content if b"\r\n" in content else content.replace(b"\n", b"\r\n"))
            for uid, content in enumerate(contents, 1)
        ]

    def getFlags(self) -> list[str]:
        return ["\\Seen", "\\Deleted"]

    def getHierarchicalDelimiter(self) -> str:
        return "/"

    def getUIDValidity(self) -> int:
        return 1

    def getUIDNext(self) -> int:
        return len(self._messages) + 1

    def getUID(self, message: int) -> int:
        return message

    def getMessageCount(self) -> int:
        return len(self._messages)

    def getRecentCount(self) -> int:
        return 0

    def getUnseenCount(self) -> int:
        return 0

    def isWriteable(self) -> bool:
        return True

    def requestStatus(self, names: list[str]) -> dict[str, int]:
        values = {"MESSAGES": len(self._messages), "UIDNEXT": self.getUIDNext(), "UIDVALIDITY": 1}
        return {name: values.get(name.upper(), 0) for name in names}

    def addListener(self, _: object) -> None:
        pass

    removeListener = addListener

    def _unsupported(self, *_: object) -> None:
        raise NotImplementedError

    addMessage = destroy = expunge = store = _unsupported

    def fetch(self, messages: MessageSet, uid: bool) -> Iterator[tuple[int, Message]]:
        messages.last = len(self._messages)
        for number in messages:
            if 1 <= number <= len(self._messages):
                yield number, self._messages[number - 1]


@implementer(IRealm)
class Realm:
    """Accounts with all folders of their Maildirs; the files are read once."""

    def __init__(self, root: Path) -> None:
        self._accounts = {}
        for home in root.iterdir():
            account = MemoryAccount(home.name)
            account.addMailbox("INBOX", Mailbox(home))
            for folder in home.glob(".*"):
                account.addMailbox(folder.name[1:], Mailbox(folder))
            self._accounts[home.name.encode()] = account

    def requestAvatar(self, name: bytes | tuple[()], *_: object) -> tuple[Any, Any, Any]:
        assert name
        return IAccountIMAP, self._accounts[name], lambda: None


class StockFactory(ServerFactory):
    """Makes the protocols of connections."""

    noisy = False

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def buildProtocol(self, _: object) -> IMAP4Server:
        protocol = IMAP4Server()
        protocol.portal = self._portal  # type: ignore[assignment]
        return protocol


def main() -> None:
    """Serve until a signal arrives."""
    port, root, password = sys.argv[1:]
    realm = Realm(Path(root))
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    for home in Path(root).iterdir():
        checker.addUser(home.name.encode(), password.encode())
    factory = StockFactory(Portal(realm, [checker]))
    reactor.listenTCP(int(port), factory, interface=HOST)
    reactor.run()


if __name__ == "__main__":
    main()
