"""Every command of Twisted's IMAP4Client, over TCP on loopback and after STARTTLS."""

from __future__ import annotations

import io
from collections.abc import Awaitable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.mail.imap4 import IMAP4Client, IMAP4Exception, Not, Or, PLAINAuthenticator, Query
from twisted.python.failure import Failure

from tests.edge import test_loopback

NAMES = [
    "Köln",
    'a "b" c',
    "with space",
    "x&y",
    "Work/Sub",
    "日本",
    "{5}",
    "(p)",
    "100%",
    "]",
    "012",
    "NIL",
]
NESTED = (
    b'Subject: nested\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="o"\r\n\r\n'
    b"--o\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nh\xc3\xa4llo\r\n"
    b'--o\r\nContent-Type: application/octet-stream; name="x \\"y\\".bin"\r\n'
    b"Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n"
    b"--o\r\nContent-Type: message/rfc822\r\n\r\nFrom: inner@x\r\nSubject: inner\r\n\r\ndeep\r\n--o--\r\n"
)
EIGHT_BIT = (
    b"From: J\xfcrgen <j@example.org>\r\nSubject: latin Gr\xf6\xdfe {5}\r\n\r\n\xc4\xd6\xdc\r\n"
)


class Client(IMAP4Client):
    """A client that records unsolicited responses."""

    def __init__(self) -> None:
        super().__init__(CertificateOptions())  # login() does STARTTLS by itself
        self.greeted: Deferred[Any] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self.unsolicited: list[tuple[Any, ...]] = []
        self.timeout = 10

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        super().connectionLost(reason)
        self.closed.callback(None)

    def serverGreeting(self, caps: Any) -> None:
        self.greeted.callback(caps)

    def modeChanged(self, writeable: Any) -> None:
        self.unsolicited.append(("mode", writeable))

    def flagsChanged(self, newFlags: Any) -> None:
        self.unsolicited.append(("flags", newFlags))

    def newMessages(self, exists: Any, recent: Any) -> None:
        self.unsolicited.append(("new", exists, recent))


class TwistedClientTests(test_loopback.LoopbackCase):
    async def connect(self) -> Any:
        client = await connectProtocol(
            clientFromString(reactor, f"tcp:127.0.0.1:{self.port}"), Client()
        )
        self.addCleanup(lambda: (client.transport.abortConnection(), client.closed)[1])
        await client.greeted
        return client

    async def log_in_client(self) -> Any:
        client = await self.connect()
        await client.login(b"alice", b"secret")
        return client

    async def select_inbox_with(self, *messages: bytes) -> Any:
        """Return a client that has selected INBOX with these messages."""
        client = await self.log_in_client()
        for message in messages:
            await client.append("INBOX", io.BytesIO(message))
        await client.select("INBOX")
        return client

    async def assert_rejected(self, command: Awaitable[Any], text: bytes) -> None:
        try:
            self.fail(f"not rejected: {await command!r}")
        except IMAP4Exception as error:
            self.assertIn(text, error.args[0])

    async def test_login_and_authenticate_work(self) -> None:
        """login() and authenticate() work; the greeting has the capabilities, which change after STARTTLS."""
        client = await self.connect()
        self.assertIn(b"STARTTLS", await client.getCapabilities())
        await self.assert_rejected(client.login(b"alice", b'wr"o\\ng'), b"[AUTHENTICATIONFAILED]")
        self.assertTrue(client.startedTLS)
        self.assertNotIn(b"STARTTLS", await client.getCapabilities())
        await client.login(b"alice", b"secret")
        self.assertEqual(await client.namespace(), [[["", "/"]], [], []])
        await client.logout()
        client = await self.connect()
        client.registerAuthenticator(PLAINAuthenticator(b"alice"))
        await self.assert_rejected(client.authenticate(b"wrong"), b"[AUTHENTICATIONFAILED]")
        await client.authenticate(b"secret")
        await client.noop()

    async def test_mailboxes_with_unusual_names_work(self) -> None:
        """Mailboxes with unusual names are created, subscribed, listed, filled, selected, renamed and deleted."""
        client = await self.log_in_client()
        for name in NAMES:
            await client.create(name)
            await client.subscribe(name)
            date = "01-Jan-2020 10:00:00 +0000"
            await client.append(name, io.BytesIO(NESTED), ("\\Seen", "$kw"), date)
            status = await client.status(
                name, "MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "RECENT"
            )
            self.assertEqual(
                (status["MESSAGES"], status["UNSEEN"], status["UIDNEXT"]), (1, 0, b"2")
            )
            opened = await client.examine(name)
            self.assertEqual((opened["EXISTS"], opened["READ-WRITE"]), (1, False))
            opened = await client.select(name)
            self.assertIn("$kw", opened["PERMANENTFLAGS"])
            self.assertTrue(opened["READ-WRITE"])
            self.assertEqual(opened["UIDVALIDITY"], int(status["UIDVALIDITY"]))
            dates = await client.fetchInternalDate("1")
            self.assertEqual(dates[1]["INTERNALDATE"], "01-Jan-2020 10:00:00 +0000")
        listed = {name for _, _, name in await client.list("", "*")}
        self.assertEqual(listed, {"INBOX", "Work", *NAMES})
        self.assertEqual({name for _, _, name in await client.lsub("", "*")}, set(NAMES))
        self.assertEqual(await client.list("", ""), [(("\\Noselect",), "/", "")])
        await client.rename("Köln", 'Bönn "q"')
        await client.unsubscribe("Köln")
        await client.delete('Bönn "q"')
        await self.assert_rejected(client.select('Bönn "q"'), b"[NONEXISTENT]")
        await self.assert_rejected(client.append("Köln", io.BytesIO(NESTED)), b"[TRYCREATE]")

    async def test_each_kind_of_fetch_works(self) -> None:
        """Each kind of fetch works, by sequence number and by UID, for nested and for 8-bit messages."""
        client = await self.select_inbox_with(NESTED, EIGHT_BIT)
        for uid in (0, 1):
            messages = "1:2"
            self.assertEqual(
                await client.fetchUID(messages, uid), {1: {"UID": "1"}, 2: {"UID": "2"}}
            )
            found = await client.fetchBodyStructure(messages, uid)
            mixed = found[1]["BODYSTRUCTURE"]
            self.assertEqual(mixed[1][2], ["name", 'x "y".bin'])
            self.assertEqual(mixed[2][7][1], "inner")
            found = await client.fetchSimplifiedBody(messages, uid)
            self.assertEqual(found[1]["BODY"][-1], "mixed")
            found = await client.fetchEnvelope(messages, uid)
            self.assertEqual(found[2]["ENVELOPE"][1], "latin Größe {5}")  # as Latin-1
            self.assertEqual(found[2]["ENVELOPE"][2], [["Jürgen", None, "j", "example.org"]])
            found = await client.fetchHeaders(messages, uid)
            self.assertEqual(found[1]["RFC822.HEADER"], NESTED[: NESTED.index(b"--o")].decode())
            found = await client.fetchBody(messages, uid)
            self.assertEqual(found[2]["RFC822.TEXT"], "ÄÖÜ\r\n")
            found = await client.fetchMessage(messages, uid)
            self.assertEqual(found[2]["RFC822"].encode("latin-1"), EIGHT_BIT)
            found = await client.fetchSize(messages, uid)
            self.assertEqual(int(found[2]["RFC822.SIZE"]), len(EIGHT_BIT))
            found = await client.fetchFlags(messages, uid)
            self.assertIn("\\Seen", found[1]["FLAGS"])
            for way, items in (("Fast", 3), ("All", 4), ("Full", 5)):
                found = await getattr(client, f"fetch{way}")(messages, uid)
                self.assertEqual({len(values) - uid for values in found.values()}, {items})

    async def test_fetch_specific_returns_parts_and_ranges(self) -> None:
        """FetchSpecific returns parts, headers of parts, header fields, and ranges of bytes."""
        client = await self.select_inbox_with(NESTED)
        for arguments, section, text in (
            ({"headerNumber": 1}, ["1"], "h\xc3\xa4llo"),
            ({"headerNumber": 9}, ["9"], ""),
            ({"headerNumber": (3, 1)}, ["3.1"], "deep"),
            ({"headerNumber": 3, "headerType": "HEADER"}, ["3.HEADER"], "From: inner@x\r\nSubject: inner\r\n\r\n"),
            (
                {"headerType": "HEADER.FIELDS", "headerArgs": ["Subject"], "peek": True},
                ["HEADER.FIELDS", ["Subject"]],
                "Subject: nested\r\n\r\n",
            ),
        ):  # fmt: skip
            found = await client.fetchSpecific("1", **arguments)
            self.assertEqual(found[1][0][:3], ["BODY", section, text])
        found = await client.fetchSpecific("1", headerType="TEXT", offset=2, length=3, uid=True)
        self.assertEqual(found[1][0][-4:], ["BODY", ["TEXT"], "<2>", "o\r\n"])

    async def test_all_kinds_of_queries_work(self) -> None:
        """Queries of all kinds work, and an invalid query is rejected."""
        client = await self.select_inbox_with(NESTED, EIGHT_BIT)
        for query, expected in (
            (Query(all=1), [1, 2]),
            (Query(subject="nested"), [1]),
            (Query(header=("Subject", "nested")), [1]),
            (Query(body="deep", unseen=1, recent=1), [1]),
            (Query(**{"from": "j@"}), [2]),
            (Query(uid="2:*"), [2]),
            (Query(since="01-Jan-2020", larger=10, smaller=10000, undeleted=1), [1, 2]),
            (Query(senton="01-Jan-2020"), []),
            (Query(keyword="$kw"), []),
            (Or(Query(subject="nested"), Query(flagged=1), Not(Query(unseen=1))), [1]),
        ):
            self.assertEqual(await client.search(query), expected, query)
            self.assertEqual(await client.search(query, uid=True), expected, query)
        await self.assert_rejected(client.search("NONSENSE"), b"Unknown search key")

    async def test_flag_and_message_commands_work(self) -> None:
        """setFlags, addFlags and removeFlags work, silent or not, and so do copy, expunge and close."""
        client = await self.select_inbox_with(NESTED, EIGHT_BIT, NESTED)
        for uid in (0, 1):
            found = await client.setFlags("1:2", ["\\Flagged"], silent=0, uid=uid)
            self.assertEqual(
                [set(found[n]["FLAGS"]) for n in (1, 2)], [{"\\Flagged", "\\Recent"}] * 2
            )
            self.assertEqual(await client.addFlags("1", ["$x", "\\Deleted"], uid=uid), {})
            found = await client.removeFlags("1", ["\\Flagged"], silent=0, uid=uid)
            self.assertEqual(set(found[1]["FLAGS"]), {"$x", "\\Deleted", "\\Recent"})
            await self.assert_rejected(client.copy("1:2", f"Copies{uid}", uid), b"[TRYCREATE]")
            await client.create(f"Copies{uid}")
            await client.copy("1:2", f"Copies{uid}", uid)
            self.assertEqual(await client.status(f"Copies{uid}", "MESSAGES"), {"MESSAGES": 2})
        await client.addFlags("3", ["\\Deleted"])
        self.assertEqual(await client.expunge(), [3, 1])
        await client.addFlags("1", ["\\Deleted"])
        await client.close()
        self.assertEqual(await client.status("INBOX", "MESSAGES"), {"MESSAGES": 0})

    async def test_unsolicited_responses_come_with_the_next_response(self) -> None:
        """Another client's changes come with the next response, and pipelined commands are answered in order."""
        client, other = await self.select_inbox_with(NESTED, EIGHT_BIT), await self.log_in_client()
        await other.select("INBOX")
        await other.append("INBOX", io.BytesIO(NESTED))
        await other.setFlags("2", ["\\Flagged"])
        self.assertEqual(
            sorted(line[1] for line in await client.noop()), [b"EXISTS", b"FETCH", b"RECENT"]
        )
        await other.addFlags("1", ["\\Deleted"])
        await client.fetchUID("1:*")
        self.assertEqual(client.unsolicited[-1], ("flags", {1: ["\\Recent", "\\Deleted"]}))
        await other.expunge()
        lines, _ = await client.check()
        self.assertIn([b"1", b"EXPUNGE"], lines)
        answers = await gatherResults(
            [client.fetchUID("1"), client.search(Query(all=1)), client.noop()]
        )
        self.assertEqual(answers, [{1: {"UID": "2"}}, [1, 2], []])
