"""CONDSTORE and QRESYNC (RFC 7162), after the examples of the RFC."""

import re

from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL, NOW, Client, MemoryRealm, Server, SlowWorker
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.commands.base import MemoryLiteral
from tests.session.test_commands import Case, lines


def modseq(answer: bytes) -> int:
    """The HIGHESTMODSEQ of an answer."""
    found = re.findall(rb"HIGHESTMODSEQ (\d+)", answer)
    assert found, answer
    return int(found[-1])


class Condstore(Case):
    def test_enabling(self) -> None:
        """Each command that shows knowledge of MODSEQ has HIGHESTMODSEQ told, and MODSEQ and UID in FETCH responses from
        then on (RFC 7162 sections 3.1 and 3.2.4)."""
        for command in (
            b"FETCH 1 MODSEQ",
            b"FETCH 1 (FLAGS) (CHANGEDSINCE 1)",
            b"STORE 1 (UNCHANGEDSINCE 99) +FLAGS.SILENT (\\Answered)",
            b"SEARCH MODSEQ 1",
            b"STATUS INBOX (HIGHESTMODSEQ)",
            b"ENABLE CONDSTORE",
            b"ENABLE QRESYNC",
        ):
            with self.subTest(command):
                self.setUp()
                client = self.filled(1)
                other = self.other()
                other(b"a STORE 1 +FLAGS (\\Flagged)")
                self.assertNotIn(b"MODSEQ", client(b"a NOOP"))
                answer = client(b"b " + command)
                self.assertEqual(answer.count(b"* OK [HIGHESTMODSEQ"), 1)
                other(b"a STORE 1 -FLAGS (\\Flagged)")
                self.assertRegex(
                    client(b"c NOOP"), rb"\* 1 FETCH \(UID 1 FLAGS \(.*\) MODSEQ \(\d+\)\)"
                )
                self.assertRegex(client(b"d STORE 1 +FLAGS.SILENT (\\Draft)"), rb"\(UID 1 MODSEQ")
                self.assertRegex(client(b"e FETCH 1 BODY[]"), rb"\(UID 1 FLAGS \(.*\) MODSEQ")

    def test_select(self) -> None:
        """SELECT (CONDSTORE) enables it, and tells HIGHESTMODSEQ once."""
        self.client.append()
        answer = self.client(b"A142 SELECT INBOX (CONDSTORE)")
        self.assertEqual(answer.count(b"HIGHESTMODSEQ"), 1)
        self.assertIn(b"MODSEQ (", self.client(b"b FETCH 1 FLAGS"))

    def test_unchangedsince(self) -> None:
        """STORE (UNCHANGEDSINCE) leaves alone what others changed, and says which (RFC 7162 section 3.1.3, example 5)."""
        client = self.filled(9)
        other = self.other()
        before = modseq(client(b"s SELECT INBOX (CONDSTORE)"))
        other(b"a STORE 7,9 +FLAGS.SILENT ($Other)")
        answer = client(b"d105 STORE 7,5,9 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Deleted)" % before)
        self.assertRegex(answer, rb"\* 5 FETCH \(UID 5 MODSEQ \(\d+\)\)\r\n")
        self.assertIn(b"d105 OK [MODIFIED 7,9]", answer)
        self.assertRegex(answer, rb"\* 7 FETCH \(UID 7 FLAGS \(\$Other\) MODSEQ \(\d+\)\)")
        self.assertIn(
            b"e OK [MODIFIED 7,9]",
            client(b"e UID STORE 7,9 (UNCHANGEDSINCE 1) +FLAGS (\\Deleted)"),
        )

    def test_all_pass(self) -> None:
        """Every message that was stored has its MODSEQ told, .SILENT or not, named twice or not (examples 3 and 4)."""
        client = self.filled(9)
        for command, uids in (
            (b"UID STORE 6,4,8", b"4 6 8"),
            (b"STORE *", b"9"),
            (b"STORE 7,3:9", b"3 4 5 6 7 8 9"),
        ):
            answer = client(
                b"a %b (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)" % command
            )
            told = re.findall(rb"FETCH \(UID (\d+) MODSEQ \(\d+\)\)", answer)
            self.assertEqual(told, uids.split(), answer)
            self.assertIn(b"a OK STORE completed\r\n", answer)

    def test_absent_keyword(self) -> None:
        """UNCHANGEDSINCE 0 sets a keyword where there is none, and never a system flag (section 3.1.3, examples 7 and 8)."""
        client = self.filled(3)
        self.other()(b"a STORE 2 +FLAGS ($mdnsent)")
        command = b"a102 STORE 1:3 (UNCHANGEDSINCE 0) +FLAGS.SILENT ($MDNSent)"
        answer = client(command)
        self.assertRegex(answer, rb"\* 3 FETCH \(UID 3 MODSEQ")
        self.assertIn(b"a102 OK [MODIFIED 2]", answer)
        self.assertIn(b"a102 OK [MODIFIED 1:3]", client(command))
        for flags in (b"+FLAGS (\\Seen)", b"+FLAGS ($New \\Seen)", b"FLAGS ($New)", b"-FLAGS ($x)"):
            answer = client(b"a STORE 1 (UNCHANGEDSINCE 0) " + flags)
            self.assertIn(b"a OK [MODIFIED 1]", answer, flags)

    def test_silent_is_not_deaf(self) -> None:
        """A .SILENT store that hit upon another's change tells the flags, not only the MODSEQ."""
        client = self.filled(1)
        client(b"a ENABLE CONDSTORE")
        self.other()(b"b STORE 1 +FLAGS (\\Flagged)")
        answer = client(b"c STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertRegex(answer, rb"\* 1 FETCH \(UID 1 FLAGS \(\\Recent \\Flagged \\Seen\) MODSEQ")

    def test_changedsince(self) -> None:
        """FETCH (CHANGEDSINCE) tells only what changed, with MODSEQ (RFC 7162 section 3.1.4.1)."""
        client = self.filled(5)
        since = modseq(client(b"s SELECT INBOX"))
        client(b"a STORE 2,4 +FLAGS.SILENT (\\Seen)")
        answer = lines(client(b"s100 UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)" % since))
        self.assertEqual(
            [one[:9] for one in answer if b"FETCH (" in one], [b"* 2 FETCH", b"* 4 FETCH"]
        )
        self.assertRegex(answer[1], rb"^\* 2 FETCH \(UID 2 FLAGS \(\\Seen\) MODSEQ \(\d+\)\)$")

    def test_search(self) -> None:
        """SEARCH MODSEQ is answered with the highest MODSEQ found, and with none if nothing was (section 3.1.5)."""
        client = self.filled(3)
        since = modseq(client(b"s SELECT INBOX (CONDSTORE)"))
        client(b"a STORE 2:3 +FLAGS.SILENT (\\Seen)")
        highest = modseq(client(b"b STATUS INBOX (HIGHESTMODSEQ)"))
        answer = client(b'c SEARCH MODSEQ "/flags/\\\\draft" all %d' % (since + 1))
        self.assertIn(b"* SEARCH 2 3 (MODSEQ %d)\r\n" % highest, answer)
        self.assertIn(b"* SEARCH\r\n", client(b"d SEARCH NOT ALL MODSEQ %d" % (highest + 1)))
        self.assertIn(
            b'* ESEARCH (TAG "e") ALL 2:3 MODSEQ %d\r\n' % highest,
            client(b"e SEARCH RETURN (ALL) MODSEQ %d" % (since + 1)),
        )
        nothing = b"t SEARCH OR NOT MODSEQ 1 LARGER 50000"  # example 16
        self.assertEqual(lines(client(nothing))[0], b"* SEARCH")
        for answer, command in (
            (b'* ESEARCH (TAG "e") ALL 2:3 MODSEQ %d\r\n', b"RETURN (ALL) (ARRIVAL)"),
            (b"* SORT 2 3 (MODSEQ %d)\r\n", b"(ARRIVAL)"),
        ):
            found = client(b"e SORT %b UTF-8 MODSEQ %d" % (command, since + 1))
            self.assertIn(answer % highest, found)
        self.assertIn(b"* SORT\r\n", client(b"e SORT (ARRIVAL) UTF-8 MODSEQ %d" % (highest + 1)))
        self.assertIn(
            b'* ESEARCH (TAG "f") MIN 2 MODSEQ %d\r\n' % (highest - 1),
            client(b"f SEARCH RETURN (MIN) MODSEQ %d" % (since + 1)),
        )

    def test_all_gone(self) -> None:
        """STORE on messages that are all gone is NO [EXPUNGEISSUED], OK with .SILENT or by UID (RFC 2180 section 4.2)."""
        client = self.filled(2)
        other = self.other()
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"c NO [EXPUNGEISSUED]", client(b"c STORE 1 +FLAGS (\\Seen)"))
        silent = client(b"d STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertIn(b"d OK [EXPUNGEISSUED]", silent)
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"e OK", client(b"e UID STORE 2 +FLAGS (\\Seen)"))

    def test_some_gone(self) -> None:
        """Where only some are gone the others are changed and told, with NO (RFC 2180, 4.2.3; RFC 7162 section 3.1.3)."""
        client = self.filled(4)
        other = self.other()
        other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        answer = client(b"c STORE 1:3 +FLAGS ($Label)")
        self.assertEqual(re.findall(rb"\* (\d) FETCH \(FLAGS", answer), [b"1", b"3"])
        self.assertIn(b"c NO [EXPUNGEISSUED]", answer)
        highest = modseq(other(b"s STATUS INBOX (HIGHESTMODSEQ)"))
        other(b"d STORE 2 +FLAGS.SILENT ($Other)")
        answer = client(b"e STORE 1:4 (UNCHANGEDSINCE %d) +FLAGS (\\Seen)" % highest)
        self.assertIn(b"e NO [MODIFIED 3]", answer)
        self.assertEqual(re.findall(rb"\* (\d) FETCH .*Seen", answer), [b"1", b"4"])
        self.assertIn(b"f OK [EXPUNGEISSUED]", client(b"f STORE 1:3 +FLAGS.SILENT ($Label)"))
        self.assertIn(b"g OK [EXPUNGEISSUED]", client(b"g UID STORE 1:3 +FLAGS ($Label)"))


class Qresync(Case):
    def away(self) -> tuple[Client, int, int]:
        """A client that knows 9 messages, of which then 2 and 7 to 9 go and 3 changes; UIDVALIDITY and its MODSEQ."""
        client = self.filled(9)
        answer = client(b"s SELECT INBOX")
        validity = int(re.findall(rb"UIDVALIDITY (\d+)", answer)[0])
        client(b"u UNSELECT")
        other = self.other()
        other(b"a STORE 2,7:9 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        other(b"c UID STORE 3 +FLAGS.SILENT (\\Seen)")
        other(b"d LOGOUT")
        client(b"e ENABLE QRESYNC")
        return client, validity, modseq(answer)

    def test_select(self) -> None:
        """SELECT (QRESYNC) tells what went, then what changed, before its OK (section 3.2.5)."""
        client, validity, since = self.away()
        answer = lines(client(b"A02 SELECT INBOX (QRESYNC (%d %d))" % (validity, since)))
        at = answer.index(b"* VANISHED (EARLIER) 2,7:9")
        self.assertRegex(answer[at + 1], rb"^\* 2 FETCH \(UID 3 FLAGS \(\\Seen\) MODSEQ \(\d+\)\)$")
        self.assertEqual(len(answer), at + 3)

    def test_known_uids(self) -> None:
        """Known UIDs narrow that down."""
        client, validity, since = self.away()
        answer = client(b"A02 SELECT INBOX (QRESYNC (%d %d 4:8))" % (validity, since))
        self.assertIn(b"* VANISHED (EARLIER) 7:8\r\n", answer)
        self.assertNotIn(b"FETCH", answer)

    def test_match_data(self) -> None:
        """What is up to a message that the client has under its right number is not told as gone (section 3.2.5.2), only
        what changed there."""
        client, validity, since = self.away()  # 1,3:6 are there
        for given, gone in (
            (b"(1,3 1,4)", b"7:9"),
            (b"(1:5 1,3:6)", b"7:9"),
            (b"(1,4 1,4)", b"2,7:9"),
            (b"(1:4000000000 1:4000000000)", b"2,7:9"),
            (b"(6,9 6,9)", b"2,7:9"),
            (b"(5 6,9)", b"7:9"),
        ):
            select = b"a SELECT INBOX (QRESYNC (%d %d %b))" % (validity, since, given)
            answer = client(select)
            self.assertIn(b"* VANISHED (EARLIER) %b\r\n" % gone, answer, given)
            self.assertIn(b"* 2 FETCH (UID 3 ", answer)
        answer = client(b"a SELECT INBOX (QRESYNC (%d %d 1:6 (5 6)))" % (validity, since))
        self.assertNotIn(b"VANISHED", answer)

    def test_delayed(self) -> None:
        """While VANISHED has to wait, HIGHESTMODSEQ stays below it, whatever MODSEQ is told (sections 3.2 and 6)."""
        client = self.filled(3)
        other = self.other()
        client(b"e ENABLE QRESYNC")
        before = modseq(client(b"s SELECT INBOX"))
        other(b"a STORE 3 +FLAGS.SILENT (\\Deleted)")
        between = modseq(client(b"a STATUS INBOX (HIGHESTMODSEQ)"))
        self.assertGreater(between, before)
        other(b"b EXPUNGE")
        for command in (
            b"STORE 1 +FLAGS (\\Seen)",
            b"STORE 2 +FLAGS.SILENT (\\Seen)",
            b"FETCH 1 FLAGS",
        ):
            answer = client(b"b " + command)
            self.assertEqual(modseq(answer), between, answer)
            self.assertNotIn(b"VANISHED", answer)
        answer = client(b"c NOOP")
        self.assertIn(b"* VANISHED 3\r\n", answer)
        self.assertNotIn(b"HIGHESTMODSEQ", answer)
        self.assertNotIn(b"HIGHESTMODSEQ", client(b"d FETCH 1 FLAGS"))

    def test_search_by_number(self) -> None:
        """VANISHED waits for UID SEARCH, SORT and THREAD with message numbers too, and for no others (section 3.2.10.2)."""
        for command in (b"SEARCH", b"SORT (ARRIVAL) UTF-8", b"THREAD REFERENCES UTF-8"):
            client = self.filled(2)
            client(b"e ENABLE QRESYNC")
            other = self.other()
            other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
            other(b"b EXPUNGE")
            self.assertNotIn(b"VANISHED", client(b"a UID %b OR SEEN 1:2" % command))
            self.assertIn(b"VANISHED", client(b"a UID %b UID 1:2" % command))
            self.setUp()

    def test_metadata(self) -> None:
        """SETMETADATA raises HIGHESTMODSEQ (section 3.2)."""
        before = modseq(self.filled(1)(b"a STATUS INBOX (HIGHESTMODSEQ)"))
        self.client(b'b SETMETADATA INBOX (/private/comment "x")')
        self.assertEqual(modseq(self.client(b"c STATUS INBOX (HIGHESTMODSEQ)")), before + 1)

    def test_other_uidvalidity(self) -> None:
        """Under another UIDVALIDITY nothing is told."""
        client, validity, since = self.away()
        answer = client(b"A02 SELECT INBOX (QRESYNC (%d %d))" % (validity + 1, since))
        self.assertNotIn(b"VANISHED", answer)
        self.assertNotIn(b"FETCH", answer)

    def test_not_enabled(self) -> None:
        """QRESYNC and VANISHED without ENABLE QRESYNC are BAD, and leave the mailbox selected."""
        client = self.filled(1)
        self.assertIn(b"a BAD", client(b"a SELECT INBOX (QRESYNC (1 1))"))
        self.assertIn(b"b BAD", client(b"b UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)"))
        self.assertIn(b"c OK", client(b"c FETCH 1 FLAGS"))

    def test_vanished_fetch(self) -> None:
        """UID FETCH (CHANGEDSINCE VANISHED) tells what went before what changed (section 3.2.6)."""
        client, _, since = self.away()
        client(b"s SELECT INBOX")
        answer = lines(client(b"s100 UID FETCH 2:8 (FLAGS) (CHANGEDSINCE %d VANISHED)" % since))
        self.assertEqual(answer[0], b"* VANISHED (EARLIER) 2,7:8")
        self.assertTrue(answer[1].startswith(b"* 2 FETCH (UID 3 FLAGS (\\Seen) MODSEQ ("))

    def test_expunge(self) -> None:
        """VANISHED takes the place of EXPUNGE, and the OK has HIGHESTMODSEQ (sections 3.2.7 and 3.2.10)."""
        client = self.filled(4)
        other = self.other()
        client(b"e ENABLE QRESYNC")
        client(b"a STORE 1,3 +FLAGS.SILENT (\\Deleted)")
        answer = client(b"A202 UID EXPUNGE 1:2")
        self.assertEqual(lines(answer)[0], b"* VANISHED 1")
        self.assertRegex(answer, rb"A202 OK \[HIGHESTMODSEQ \d+\]")
        other(b"b STORE 3 +FLAGS (\\Deleted)")
        other(b"c EXPUNGE")
        self.assertIn(b"* VANISHED 3\r\n", client(b"d NOOP"))
        client(b"f STORE 1 +FLAGS.SILENT (\\Deleted)")
        # nobody was told what went: the client must not believe itself up to date (section 3.2.8)
        self.assertEqual(client(b"g CLOSE"), b"g OK CLOSE completed\r\n")

    def test_unasked(self) -> None:
        """Unasked FETCH responses have UID and MODSEQ."""
        client = self.filled(1)
        client(b"e ENABLE QRESYNC")
        self.other()(b"a STORE 1 +FLAGS (\\Seen)")
        self.assertRegex(
            client(b"b NOOP"), rb"\* 1 FETCH \(UID 1 FLAGS \(\\Recent \\Seen\) MODSEQ \(\d+\)\)"
        )

    def test_still_untold(self) -> None:
        """What went and is still to be told by VANISHED is not told by VANISHED (EARLIER) as well."""
        client = self.filled(3)
        since = modseq(client(b"s SELECT INBOX"))
        client(b"e ENABLE QRESYNC")
        other = self.other()
        other(b"b STORE 2 +FLAGS (\\Deleted)")
        other(b"c EXPUNGE")
        answer = client(b"d UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)" % since)
        self.assertNotIn(b"EARLIER", answer)
        self.assertIn(b"* VANISHED 2\r\n", answer)

    def test_one_picture(self) -> None:
        """What happens while SELECT (QRESYNC) answers is told by the next command: clients count EXISTS, VANISHED and
        FETCH together."""
        worker, store = SlowWorker(), MemoryStore(lambda: NOW)
        key = store.key("INBOX")
        for _ in range(3):
            store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        validity = store.open("INBOX", True).uidvalidity
        client = Server(realm=MemoryRealm(worker, lambda: store)).login()
        client(b"e ENABLE QRESYNC")
        client(b"s SELECT INBOX (QRESYNC (%d 1))" % validity)
        worker.step()
        self.assertIn(b"* 3 EXISTS\r\n", client.read())
        store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        store.store_flags(key, [2], b"+", [b"\\Deleted"], None, 0)
        store.expunge(key, [2], 0)
        worker.step()
        told = lines(client.read())
        self.assertEqual([line.split()[2] for line in told[:-2]], [b"FETCH", b"FETCH"])
        self.assertTrue(told[-2].startswith(b"* OK [HIGHESTMODSEQ 4]"))
        self.assertTrue(told[-1].startswith(b"s OK [READ-WRITE]"))
        client(b"n NOOP")
        worker.step()
        told = lines(client.read())
        self.assertEqual(told[:2], [b"* VANISHED 2", b"* 3 EXISTS"])
