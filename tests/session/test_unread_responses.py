"""A client that does not read holds no more unsent bytes than the limit, whatever it asks for and whatever happens.

Each command of the table and each unsolicited response is sent to a client that reads only when nothing else is left to
do, with a mailbox that makes the response much longer than the limit.
"""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from imapshield.session.table import TABLE
from imapshield.testing import Client, Server, in_process
from imapshield.testing.in_process import MAIL, NOW, MemoryRealm, Transport
from imapshield.testing.memory_mailbox import StoredMessage
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.pieces import PIECE_SIZE

MAX_UNSENT = 8 << 10
BOUND = MAX_UNSENT + 2 * PIECE_SIZE
MESSAGES = 5000
FIRST_UID = 4_000_000_001
LAST_UID = FIRST_UID + 2 * (MESSAGES - 1)
MAILBOXES = 400

LONG = b"C"
"""The tag of commands whose response is longer than the bound."""

AFTER_LOGIN = {
    b"ENABLE": [b"c ENABLE QRESYNC IMAP4rev2 UTF8=ACCEPT"],
    b"NAMESPACE": [b"c NAMESPACE"],
    b"SELECT": [b"a ENABLE QRESYNC", b"C SELECT INBOX (QRESYNC (%d 1))"],
    b"EXAMINE": [b"a ENABLE QRESYNC", b"C EXAMINE INBOX (QRESYNC (%d 1))"],
    b"CREATE": [b"c CREATE new"],
    b"RENAME": [b"c RENAME new renamed"],
    b"DELETE": [b"c DELETE renamed"],
    b"SUBSCRIBE": [b"c SUBSCRIBE INBOX"],
    b"UNSUBSCRIBE": [b"c UNSUBSCRIBE INBOX"],
    b"LIST": [
        b'C LIST "" *',
        b'C LIST (SUBSCRIBED RECURSIVEMATCH) "" * RETURN (STATUS (MESSAGES UIDNEXT))',
    ],
    b"LSUB": [b'C LSUB "" *'],
    b"STATUS": [b"c STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN SIZE)"],
    b"APPEND": [b"c APPEND INBOX" + b" {9+}\r\nA: b\r\n\r\nc" * 1000],
    b"GETQUOTA": [b'c GETQUOTA ""'],
    b"GETQUOTAROOT": [b"c GETQUOTAROOT " + b"x" * 8000],
    b"SETQUOTA": [b'c SETQUOTA "" ()'],
    b"GETMETADATA": [
        b"C GETMETADATA (DEPTH infinity) INBOX /private/v",
        b"C GETMETADATA INBOX (%b)" % b" ".join(b"/private/%d" % i for i in range(3000)),
    ],
    b"SETMETADATA": [b"c SETMETADATA INBOX (/private/1 NIL)"],
    b"NOTIFY": [b"C NOTIFY SET STATUS (PERSONAL (MessageNew MessageExpunge FlagChange))"],
    b"ESEARCH": [b"C ESEARCH IN (personal) RETURN (ALL COUNT) ALL"],
    b"COMPRESS": [b"c COMPRESS DEFLATE"],
    b"UNAUTHENTICATE": [b"c UNAUTHENTICATE"],
    b"IDLE": [b"c IDLE\r\nDONE"],
    b"LOGOUT": [b"c LOGOUT"],
}
SELECTED = {
    b"NOOP": [b"C NOOP"],
    b"CHECK": [b"C CHECK"],
    b"SEARCH": [
        b"C UID SEARCH ALL",
        b"C UID SEARCH RETURN (ALL) ALL",
        b"C UID SEARCH RETURN (PARTIAL 1:5000) ALL",
        b"C SEARCH RETURN (UPDATE) FLAGGED",
    ],
    b"CANCELUPDATE": [b'C CANCELUPDATE "C"'],
    b"SORT": [b"C UID SORT (ARRIVAL) UTF-8 ALL"],
    b"THREAD": [b"C UID THREAD ORDEREDSUBJECT UTF-8 ALL"],
    b"FETCH": [
        b"C FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE)",
        b"C FETCH 1:500 (UID ENVELOPE BODYSTRUCTURE BODY.PEEK[])",
        b"C FETCH * BODY[]",
    ],
    b"STORE": [
        b"C STORE 1:* +FLAGS (again)",
        b"C UID STORE 1:* (UNCHANGEDSINCE 1) +FLAGS.SILENT (never)",
    ],
    b"COPY": [b"C UID COPY 1:* target"],
    b"REPLACE": [b"C REPLACE 1 INBOX {9+}\r\nA: b\r\n\r\nc"],
    b"MOVE": [b"C MOVE 1:4000 target"],
    b"EXPUNGE": [b"a STORE 1:* +FLAGS.SILENT (\\Deleted)", b"C EXPUNGE"],
    b"UNSELECT": [b"c UNSELECT"],
    b"CLOSE": [b"c CLOSE"],
}
BEFORE_LOGIN = {
    b"CAPABILITY": [b"c CAPABILITY"],
    b"ID": [b'c ID ("name" "x")'],
    b"STARTTLS": [b"c STARTTLS"],
    b"AUTHENTICATE": [b"c AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA=="],
    b"LOGIN": [b"c LOGIN alice secret"],
}


class UnreadTransport(Transport):
    """A transport with the buffer of a TCP connection whose peer reads only when `deliver` is called.

    Attributes:
        peak: the largest number of bytes that were in the buffer at the same time.
    """

    _tempDataLen = 0
    peak = 0

    def write(self, data: bytes) -> None:
        """Keep `data`, and pause the producer if that is too much."""
        super().write(data)
        self._tempDataLen += len(data)
        self.peak = max(self.peak, self._tempDataLen)
        if self._tempDataLen > self.bufferSize and self.producer is not None:
            self.producer.pauseProducing()

    def deliver(self) -> None:
        """Let the peer read everything in the buffer."""
        self._tempDataLen = 0
        if self.producer is not None:
            self.producer.resumeProducing()


def unread(client: Client) -> UnreadTransport:
    """Return the transport of `client`."""
    assert isinstance(client.transport, UnreadTransport)
    return client.transport


def large_store() -> MemoryStore:
    """Return a store whose INBOX, mailbox names, subscriptions and metadata have long responses."""
    store = MemoryStore(lambda: NOW)
    for i in range(MAILBOXES):
        name = f"folder/{'x' * 200}{i}"
        store.create(name, ())
        store.set_subscribed(name, True)
    store.create("target", ())
    store.set_metadata(
        "INBOX", {b"/private/v/%d" % i: bytes([65 + i % 26]) * 32768 for i in range(20)}
    )
    inbox = store._mailboxes["INBOX"]
    for i in range(MESSAGES):
        content = MAIL if i < MESSAGES - 1 else MAIL + b"x" * 1_000_000
        uid = FIRST_UID + 2 * i
        inbox.messages[uid] = StoredMessage(
            uid, b"", 2 + i, int(NOW), int(NOW), content, b"M%d" % i
        )
    inbox.modseq = 2 + MESSAGES
    inbox.uidnext = inbox.recent_from = LAST_UID + 1
    return store


class UnreadCase(SynchronousTestCase):
    """A server with one large account, and clients that do not read by themselves."""

    def setUp(self) -> None:
        self.patch(in_process, "Transport", UnreadTransport)
        self.store = large_store()
        self.server = Server(
            realm=MemoryRealm(open_store=lambda: self.store),
            max_unsent_bytes=MAX_UNSENT,
            preauth_unsent_bytes=4096,
        )

    def login(self, *commands: bytes) -> Client:
        """Return a client that has logged in and has read the responses to `commands`."""
        client = self.server.login()
        unread(client).deliver()
        for command in commands:
            self.run_command(client, command)
        return client

    def run_command(self, client: Client, command: bytes) -> bytes:
        """Send `command` and return everything that the server sends until nothing is left to send."""
        client.protocol.dataReceived(command + b"\r\n")
        return self.read_slowly(client)

    def read_slowly(self, client: Client) -> bytes:
        """Return what the server sends, each buffer of which is read only when the server waits for that."""
        response = b""
        while True:
            received = client.read()
            unread(client).deliver()
            if not received:
                return response
            response += received

    def assert_bounded(self, client: Client, what: bytes) -> None:
        """Fail if the transport of `client` has ever held more unsent bytes than allowed."""
        self.assertLessEqual(unread(client).peak, BOUND, what[:80])
        unread(client).peak = 0


class CommandTests(UnreadCase):
    def run_all(self, client: Client, commands: Sequence[bytes]) -> None:
        """Run commands, and check how much was unsent at once."""
        uidvalidity = b"%d" % self.store._mailboxes["INBOX"].uidvalidity
        for command in (command.replace(b"%d", uidvalidity) for command in commands):
            response = self.run_command(client, command)
            tag = command[:2]
            self.assertIn(b"\r\n" + tag, b"\r\n" + response, command[:80])
            if tag.startswith(LONG):
                self.assertGreater(len(response), BOUND, command[:80])
            self.assert_bounded(client, command)

    def test_every_command_has_a_case(self) -> None:
        """Each command of the table is sent by one of the other tests."""
        self.assertEqual({*BEFORE_LOGIN, *AFTER_LOGIN, *SELECTED}, set(TABLE))

    def test_commands_before_login(self) -> None:
        """No command before login exceeds the bound."""
        for commands in BEFORE_LOGIN.values():
            client = self.server.connect()
            unread(client).deliver()
            self.run_all(client, commands)

    def test_commands_after_login(self) -> None:
        """No command that needs no selected mailbox exceeds the bound."""
        for commands in AFTER_LOGIN.values():
            self.run_all(self.login(), commands)

    def test_commands_in_a_mailbox(self) -> None:
        """No command exceeds the bound in a mailbox, together with updates of all its messages."""
        other = self.login(b"s SELECT INBOX")
        for enable in (b"CONDSTORE", b"QRESYNC IMAP4rev2"):
            keyword = 0
            for name, commands in SELECTED.items():
                if name in (b"MOVE", b"EXPUNGE") and b"QRESYNC" not in enable:
                    continue  # the messages are needed again
                client = self.login(b"e ENABLE " + enable, b"s SELECT INBOX")
                for command in commands:
                    keyword += 1
                    self.run_command(other, b"x STORE 1:* FLAGS.SILENT (k%d)" % keyword)
                    self.run_all(client, [command])
                client.lose_connection()


class UnsolicitedTests(UnreadCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.login(b"s SELECT INBOX")

    def assert_response(self, client: Client, pattern: bytes, count: int) -> bytes:
        """Let `client` read slowly, and check how many lines it gets, and how many bytes were unsent at once."""
        self.assertLess(len(client.transport.value()), BOUND)
        response = self.read_slowly(client)
        self.assertEqual(len(re.findall(pattern, response)), count)
        self.assert_bounded(client, pattern)
        return response

    def test_flag_changes_during_idle(self) -> None:
        """Flag changes of all messages reach an idle client as fast as it reads, each of them once."""
        for enable in (b"c NOOP", b"c ENABLE QRESYNC"):
            client = self.login(enable, b"s SELECT INBOX", b"i IDLE")
            self.run_command(self.other, b"x STORE 1:* FLAGS.SILENT (%b)" % enable[2:6])
            self.assert_response(client, rb"\* \d+ FETCH ", MESSAGES)

    def test_expunges_during_idle(self) -> None:
        """EXPUNGE and VANISHED of all messages, and REMOVEFROM before them, reach an idle client as fast as it reads."""
        search = b"f UID SEARCH RETURN (UPDATE) ALL"
        clients = [
            self.login(enable, b"s SELECT INBOX", search, b"i IDLE")
            for enable in (b"c NOOP", b"c ENABLE QRESYNC")
        ]
        self.run_command(self.other, b"x STORE 1:* +FLAGS.SILENT (\\Deleted)")
        for client in clients:
            self.read_slowly(client)
        self.run_command(self.other, b"x EXPUNGE")
        self.assert_response(clients[0], rb"\* \d+ EXPUNGE\r\n", MESSAGES)
        vanished = self.assert_response(clients[1], rb"[:, ]4\d{9}(?=[,:\r)])", 2 * MESSAGES)
        self.assertIn(b"REMOVEFROM", vanished)

    def test_new_keywords_during_idle(self) -> None:
        """A command that arrives during a FLAGS response longer than the bound waits until the response is sent."""
        client = self.login(b"s SELECT INBOX")
        for i in range(20):
            keywords = b" ".join(b"%d-%d%b" % (i, j, b"k" * 110) for j in range(30))
            self.run_command(self.other, b"x STORE 1 FLAGS.SILENT (%b)" % keywords)
        client.protocol.dataReceived(b"i IDLE\r\n")
        client.run_due_calls()
        client.protocol.dataReceived(b"DONE\r\nn NOOP\r\n")
        lines = self.read_slowly(client).splitlines()
        beginnings = [line[:12] for line in lines]
        self.assertEqual(
            beginnings,
            [b"+ idling", b"* FLAGS (\\An", b"* 1 FETCH (F", b"i OK IDLE co", b"n OK NOOP co"],
        )
        self.assertGreater(len(lines[1]), BOUND)
        self.assert_bounded(client, b"FLAGS")

    def test_changes_of_a_search(self) -> None:
        """ADDTO and REMOVEFROM for all messages are sent as fast as the client reads."""
        client = self.login(b"s SELECT INBOX", b"f UID SEARCH RETURN (UPDATE) FLAGGED", b"i IDLE")
        for op in (b"+", b"-"):
            self.run_command(self.other, b"x STORE 1:* %bFLAGS.SILENT (\\Flagged)" % op)
            response = self.assert_response(client, rb" FETCH ", MESSAGES)
            self.assertIn(b"ADDTO" if op == b"+" else b"REMOVEFROM", response)

    def test_new_messages_with_notify(self) -> None:
        """FETCH responses for new messages are sent as fast as the client reads."""
        notify = b"n NOTIFY SET (SELECTED (MessageNew (UID BODY.PEEK[]) MessageExpunge FlagChange))"
        client = self.login(b"s SELECT INBOX", notify)
        message = b" {%d+}\r\n%b" % (len(MAIL) + 1000, MAIL + b"x" * 1000)
        self.run_command(self.other, b"x APPEND INBOX" + message * 300)
        self.assert_response(client, rb"FETCH \(UID ", 300)

    def test_events_of_notify(self) -> None:
        """STATUS and LIST responses of NOTIFY are sent as fast as the client reads."""
        events = b"(MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange)"
        client = self.login(b"n NOTIFY SET (PERSONAL %b)" % events)
        names = [info.name.encode() for info in self.store.mailboxes() if "x" in info.name]
        for name in names:
            self.run_command(self.other, b"x APPEND %b {9+}\r\nA: b\r\n\r\nc" % name)
        self.assert_response(client, rb"\* STATUS ", len(names))
        for name in names:
            self.run_command(self.other, b"x UNSUBSCRIBE " + name)
        self.assert_response(client, rb"\* LIST ", len(names))

    def test_done_does_not_wait_for_updates(self) -> None:
        """DONE ends IDLE although flag changes are pending; the client gets the rest with its next command."""
        client = self.login(b"c ENABLE QRESYNC", b"s SELECT INBOX", b"i IDLE")
        self.run_command(self.other, b"x STORE 1:* FLAGS.SILENT (a)")
        client.run_due_calls()
        client.protocol.dataReceived(b"DONE\r\n")
        response = self.read_slowly(client)
        self.assertLess(len(response), BOUND)
        self.assertRegex(response, rb"HIGHESTMODSEQ \d+\] [^\r]*\r\ni OK [^\r]*\r\n\Z")
        received = response.count(b" FETCH ")
        self.assertLess(received, MESSAGES)
        response = self.run_command(client, b"n NOOP")
        self.assertEqual(received + response.count(b" FETCH "), MESSAGES)
        self.assertNotIn(b"pending", response)

    def test_memory_of_pending_updates(self) -> None:
        """Flag changes that 50 clients do not read take less than 20 KiB each, besides the unsent bytes."""
        count = 50
        clients = [self.login(b"s SELECT INBOX", b"i IDLE") for _ in range(count)]
        self.run_command(self.other, b"x STORE 1:* FLAGS.SILENT (a)")
        for client in clients:
            self.read_slowly(client)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.run_command(self.other, b"x STORE 1:* FLAGS.SILENT (%b)" % (b"k" * 100))
        unsent = sum(client.protocol.write_buffer.unsent_bytes for client in clients)
        copies = sum(len(client.transport.value()) for client in clients)
        held = tracemalloc.get_traced_memory()[0] - copies
        self.assertGreater(unsent, count * MAX_UNSENT)
        self.assertLess(held, count * (20 << 10) + (4 << 20))  # the last term is the store itself
