"""QRESYNC (RFC 7162), after the examples of the RFC."""

import re

from imapshield.mailbox.values import NewMessage
from imapshield.testing import MAIL, NOW, Client, MemoryRealm, MemoryStore, Server, SlowWorker
from imapshield.wire.commands.base import MemoryLiteral
from tests.session.session_case import SessionTestCase, highest_modseq, lines, without_text


class QresyncTests(SessionTestCase):
    def disconnected(self) -> tuple[Client, int, int]:
        """Return a client that knew 9 messages, of which 2 and 7 to 9 were expunged and 3 changed, its UIDVALIDITY and
        MODSEQ."""
        client = self.select_inbox(9)
        response = client(b"s SELECT INBOX")
        uidvalidity = int(re.findall(rb"UIDVALIDITY (\d+)", response)[0])
        client(b"u UNSELECT")
        other = self.second_client()
        other(b"a STORE 2,7:9 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        other(b"c UID STORE 3 +FLAGS.SILENT (\\Seen)")
        other(b"d LOGOUT")
        client(b"e ENABLE QRESYNC")
        return client, uidvalidity, highest_modseq(response)

    def test_select_returns_changes(self) -> None:
        """SELECT (QRESYNC) returns VANISHED (EARLIER), then changed messages, before its OK (section 3.2.5)."""
        client, uidvalidity, since = self.disconnected()
        response = lines(client(b"A02 SELECT INBOX (QRESYNC (%d %d))" % (uidvalidity, since)))
        index = response.index(b"* VANISHED (EARLIER) 2,7:9")
        self.assertRegex(
            response[index + 1], rb"^\* 2 FETCH \(UID 3 FLAGS \(\\Seen\) MODSEQ \(\d+\)\)$"
        )
        self.assertEqual(len(response), index + 3)

    def test_known_uids_restrict_the_changes_of_select(self) -> None:
        """Known UIDs restrict the changes that SELECT (QRESYNC) returns."""
        client, uidvalidity, since = self.disconnected()
        response = client(b"A02 SELECT INBOX (QRESYNC (%d %d 4:8))" % (uidvalidity, since))
        self.assertIn(b"* VANISHED (EARLIER) 7:8\r\n", response)
        self.assertNotIn(b"FETCH", response)

    def test_known_sequence_numbers_shorten_vanished(self) -> None:
        """VANISHED omits UIDs before a message that the client knows by its correct sequence number (section
        3.2.5.2)."""
        client, uidvalidity, since = self.disconnected()  # 1 and 3 to 6 exist
        for known, vanished in (
            (b"(1,3 1,4)", b"7:9"),
            (b"(1:5 1,3:6)", b"7:9"),
            (b"(1,4 1,4)", b"2,7:9"),
            (b"(1:4000000000 1:4000000000)", b"2,7:9"),
            (b"(6,9 6,9)", b"2,7:9"),
            (b"(5 6,9)", b"7:9"),
        ):
            select = b"a SELECT INBOX (QRESYNC (%d %d %b))" % (uidvalidity, since, known)
            response = client(select)
            self.assertIn(b"* VANISHED (EARLIER) %b\r\n" % vanished, response, known)
            self.assertIn(b"* 2 FETCH (UID 3 ", response)
        response = client(b"a SELECT INBOX (QRESYNC (%d %d 1:6 (5 6)))" % (uidvalidity, since))
        self.assertNotIn(b"VANISHED", response)

    def test_highestmodseq_stays_below_a_waiting_vanished(self) -> None:
        """HIGHESTMODSEQ stays below the MODSEQ of a VANISHED that has to wait (sections 3.2 and 6)."""
        client = self.select_inbox(3)
        other = self.second_client()
        client(b"e ENABLE QRESYNC")
        before = highest_modseq(client(b"s SELECT INBOX"))
        other(b"a STORE 3 +FLAGS.SILENT (\\Deleted)")
        between = highest_modseq(client(b"a STATUS INBOX (HIGHESTMODSEQ)"))
        self.assertGreater(between, before)
        other(b"b EXPUNGE")
        for command in (
            b"STORE 1 +FLAGS (\\Seen)",
            b"STORE 2 +FLAGS.SILENT (\\Seen)",
            b"FETCH 1 FLAGS",
        ):
            response = client(b"b " + command)
            self.assertEqual(highest_modseq(response), between, response)
            self.assertNotIn(b"VANISHED", response)
        response = client(b"c NOOP")
        self.assertIn(b"* VANISHED 3\r\n", response)
        self.assertNotIn(b"HIGHESTMODSEQ", response)
        self.assertNotIn(b"HIGHESTMODSEQ", client(b"d FETCH 1 FLAGS"))

    def test_search_by_number_defers_vanished(self) -> None:
        """VANISHED waits for UID SEARCH, SORT and THREAD only if they use sequence numbers (section 3.2.10.2)."""
        for command in (b"SEARCH", b"SORT (ARRIVAL) UTF-8", b"THREAD REFERENCES UTF-8"):
            client = self.select_inbox(2)
            client(b"e ENABLE QRESYNC")
            other = self.second_client()
            other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
            other(b"b EXPUNGE")
            self.assertNotIn(b"VANISHED", client(b"a UID %b OR SEEN 1:2" % command))
            self.assertIn(b"VANISHED", client(b"a UID %b UID 1:2" % command))
            self.setUp()

    def test_setmetadata_raises_modseq(self) -> None:
        """SETMETADATA raises HIGHESTMODSEQ (section 3.2)."""
        before = highest_modseq(self.select_inbox(1)(b"a STATUS INBOX (HIGHESTMODSEQ)"))
        self.client(b'b SETMETADATA INBOX (/private/comment "x")')
        self.assertEqual(highest_modseq(self.client(b"c STATUS INBOX (HIGHESTMODSEQ)")), before + 1)

    def test_other_uidvalidity_returns_no_changes(self) -> None:
        """With another UIDVALIDITY, SELECT (QRESYNC) returns no changes."""
        client, uidvalidity, since = self.disconnected()
        response = client(b"A02 SELECT INBOX (QRESYNC (%d %d))" % (uidvalidity + 1, since))
        self.assertNotIn(b"VANISHED", response)
        self.assertNotIn(b"FETCH", response)

    def test_qresync_without_enable_is_bad(self) -> None:
        """QRESYNC and VANISHED without ENABLE QRESYNC are BAD and leave the mailbox selected."""
        client = self.select_inbox(1)
        self.assertIn(b"a BAD", client(b"a SELECT INBOX (QRESYNC (1 1))"))
        self.assertIn(b"b BAD", client(b"b UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)"))
        self.assertIn(b"c OK", client(b"c FETCH 1 FLAGS"))

    def test_uid_fetch_vanished_precedes_changed_messages(self) -> None:
        """UID FETCH (CHANGEDSINCE VANISHED) returns VANISHED before changed messages (section 3.2.6)."""
        client, _, since = self.disconnected()
        client(b"s SELECT INBOX")
        response = lines(client(b"s100 UID FETCH 2:8 (FLAGS) (CHANGEDSINCE %d VANISHED)" % since))
        self.assertEqual(response[0], b"* VANISHED (EARLIER) 2,7:8")
        self.assertTrue(response[1].startswith(b"* 2 FETCH (UID 3 FLAGS (\\Seen) MODSEQ ("))

    def test_expunge_returns_vanished(self) -> None:
        """VANISHED replaces EXPUNGE, and the OK has HIGHESTMODSEQ (sections 3.2.7 and 3.2.10)."""
        client = self.select_inbox(4)
        other = self.second_client()
        client(b"e ENABLE QRESYNC")
        client(b"a STORE 1,3 +FLAGS.SILENT (\\Deleted)")
        response = client(b"A202 UID EXPUNGE 1:2")
        self.assertEqual(lines(response)[0], b"* VANISHED 1")
        self.assertRegex(response, rb"A202 OK \[HIGHESTMODSEQ \d+\]")
        other(b"b STORE 3 +FLAGS (\\Deleted)")
        other(b"c EXPUNGE")
        self.assertIn(b"* VANISHED 3\r\n", client(b"d NOOP"))
        client(b"f STORE 1 +FLAGS.SILENT (\\Deleted)")
        # CLOSE reported no VANISHED, so the client must not get a HIGHESTMODSEQ (section 3.2.8).
        self.assertEqual(without_text(client(b"g CLOSE")), b"g OK\r\n")

    def test_unsolicited_fetch_has_uid_and_modseq(self) -> None:
        """Unsolicited FETCH responses contain UID and MODSEQ."""
        client = self.select_inbox(1)
        client(b"e ENABLE QRESYNC")
        self.second_client()(b"a STORE 1 +FLAGS (\\Seen)")
        self.assertRegex(
            client(b"b NOOP"), rb"\* 1 FETCH \(UID 1 FLAGS \(\\Recent \\Seen\) MODSEQ \(\d+\)\)"
        )

    def test_pending_vanished_is_not_earlier(self) -> None:
        """VANISHED (EARLIER) does not report a message that a pending VANISHED reports."""
        client = self.select_inbox(3)
        since = highest_modseq(client(b"s SELECT INBOX"))
        client(b"e ENABLE QRESYNC")
        other = self.second_client()
        other(b"b STORE 2 +FLAGS (\\Deleted)")
        other(b"c EXPUNGE")
        response = client(b"d UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)" % since)
        self.assertNotIn(b"EARLIER", response)
        self.assertIn(b"* VANISHED 2\r\n", response)

    def test_changes_during_select_come_with_the_next_command(self) -> None:
        """Changes that happen while SELECT (QRESYNC) runs are reported by the next command: clients combine EXISTS,
        VANISHED and FETCH of one SELECT."""
        worker, store = SlowWorker(), MemoryStore(lambda: NOW)
        key = store.mailbox_key("INBOX")
        for _ in range(3):
            store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        uidvalidity = store.open("INBOX", True).uidvalidity
        client = Server(realm=MemoryRealm(worker, lambda: store)).login()
        client(b"e ENABLE QRESYNC")
        client(b"s SELECT INBOX (QRESYNC (%d 1))" % uidvalidity)
        worker.step()
        self.assertIn(b"* 3 EXISTS\r\n", client.read())
        store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        store.store_flags(key, [2], b"+", [b"\\Deleted"], None, 0)
        store.expunge(key, [2], 0)
        worker.step()
        responses = lines(client.read())
        self.assertEqual([line.split()[2] for line in responses[:-2]], [b"FETCH", b"FETCH"])
        self.assertTrue(responses[-2].startswith(b"* OK [HIGHESTMODSEQ 4]"))
        self.assertTrue(responses[-1].startswith(b"s OK [READ-WRITE]"))
        client(b"n NOOP")
        worker.step()
        responses = lines(client.read())
        self.assertEqual(responses[:2], [b"* VANISHED 2", b"* 3 EXISTS"])
