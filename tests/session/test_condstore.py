"""CONDSTORE and QRESYNC (RFC 7162), after the examples of the RFC."""

import re

from tests.session.session_case import SessionTestCase, highest_modseq, lines, without_text


class CondstoreTests(SessionTestCase):
    def test_commands_with_modseq_enable_condstore(self) -> None:
        """Each command that uses MODSEQ enables CONDSTORE: HIGHESTMODSEQ is returned once, and FETCH responses have UID
        and MODSEQ from then on (RFC 7162 sections 3.1 and 3.2.4)."""
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
                client = self.select_inbox(1)
                other = self.second_client()
                other(b"a STORE 1 +FLAGS (\\Flagged)")
                self.assertNotIn(b"MODSEQ", client(b"a NOOP"))
                response = client(b"b " + command)
                self.assertEqual(response.count(b"* OK [HIGHESTMODSEQ"), 1)
                other(b"a STORE 1 -FLAGS (\\Flagged)")
                self.assertRegex(
                    client(b"c NOOP"), rb"\* 1 FETCH \(UID 1 FLAGS \(.*\) MODSEQ \(\d+\)\)"
                )
                self.assertRegex(client(b"d STORE 1 +FLAGS.SILENT (\\Draft)"), rb"\(UID 1 MODSEQ")
                self.assertRegex(client(b"e FETCH 1 BODY[]"), rb"\(UID 1 FLAGS \(.*\) MODSEQ")

    def test_select_condstore_enables_condstore(self) -> None:
        """SELECT (CONDSTORE) enables CONDSTORE and returns HIGHESTMODSEQ once."""
        self.client.append()
        response = self.client(b"A142 SELECT INBOX (CONDSTORE)")
        self.assertEqual(response.count(b"HIGHESTMODSEQ"), 1)
        self.assertIn(b"MODSEQ (", self.client(b"b FETCH 1 FLAGS"))

    def test_unchangedsince_protects_later_changes(self) -> None:
        """STORE (UNCHANGEDSINCE) leaves messages unchanged that changed later, and returns MODIFIED (RFC 7162 section
        3.1.3, example 5)."""
        client = self.select_inbox(9)
        other = self.second_client()
        before = highest_modseq(client(b"s SELECT INBOX (CONDSTORE)"))
        other(b"a STORE 7,9 +FLAGS.SILENT ($Other)")
        response = client(
            b"d105 STORE 7,5,9 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Deleted)" % before
        )
        self.assertRegex(response, rb"\* 5 FETCH \(UID 5 MODSEQ \(\d+\)\)\r\n")
        self.assertIn(b"d105 OK [MODIFIED 7,9]", response)
        self.assertRegex(response, rb"\* 7 FETCH \(UID 7 FLAGS \(\$Other\) MODSEQ \(\d+\)\)")
        self.assertIn(
            b"e OK [MODIFIED 7,9]",
            client(b"e UID STORE 7,9 (UNCHANGEDSINCE 1) +FLAGS (\\Deleted)"),
        )

    def test_every_stored_message_has_modseq(self) -> None:
        """The MODSEQ of every stored message is returned, with .SILENT too, also for a message named twice (examples 3
        and 4)."""
        client = self.select_inbox(9)
        for command, uids in (
            (b"UID STORE 6,4,8", b"4 6 8"),
            (b"STORE *", b"9"),
            (b"STORE 7,3:9", b"3 4 5 6 7 8 9"),
        ):
            response = client(
                b"a %b (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)" % command
            )
            stored = re.findall(rb"FETCH \(UID (\d+) MODSEQ \(\d+\)\)", response)
            self.assertEqual(stored, uids.split(), response)
            self.assertIn(b"a OK\r\n", without_text(response))

    def test_unchangedsince_zero_sets_an_absent_keyword(self) -> None:
        """UNCHANGEDSINCE 0 sets a keyword that is absent, and never a system flag (section 3.1.3, examples 7 and 8)."""
        client = self.select_inbox(3)
        self.second_client()(b"a STORE 2 +FLAGS ($mdnsent)")
        command = b"a102 STORE 1:3 (UNCHANGEDSINCE 0) +FLAGS.SILENT ($MDNSent)"
        response = client(command)
        self.assertRegex(response, rb"\* 3 FETCH \(UID 3 MODSEQ")
        self.assertIn(b"a102 OK [MODIFIED 2]", response)
        self.assertIn(b"a102 OK [MODIFIED 1:3]", client(command))
        for flags in (b"+FLAGS (\\Seen)", b"+FLAGS ($New \\Seen)", b"FLAGS ($New)", b"-FLAGS ($x)"):
            response = client(b"a STORE 1 (UNCHANGEDSINCE 0) " + flags)
            self.assertIn(b"a OK [MODIFIED 1]", response, flags)

    def test_silent_store_returns_flags_changed_by_another(self) -> None:
        """A .SILENT STORE returns the flags, not only MODSEQ, if another session changed them earlier."""
        client = self.select_inbox(1)
        client(b"a ENABLE CONDSTORE")
        self.second_client()(b"b STORE 1 +FLAGS (\\Flagged)")
        response = client(b"c STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertRegex(
            response, rb"\* 1 FETCH \(UID 1 FLAGS \(\\Recent \\Flagged \\Seen\) MODSEQ"
        )

    def test_changedsince_returns_only_changed_messages(self) -> None:
        """FETCH (CHANGEDSINCE) returns only messages that changed, with MODSEQ (RFC 7162 section 3.1.4.1)."""
        client = self.select_inbox(5)
        since = highest_modseq(client(b"s SELECT INBOX"))
        client(b"a STORE 2,4 +FLAGS.SILENT (\\Seen)")
        response = lines(client(b"s100 UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)" % since))
        self.assertEqual(
            [line[:9] for line in response if b"FETCH (" in line], [b"* 2 FETCH", b"* 4 FETCH"]
        )
        self.assertRegex(response[1], rb"^\* 2 FETCH \(UID 2 FLAGS \(\\Seen\) MODSEQ \(\d+\)\)$")

    def test_search_modseq_returns_the_highest_modseq(self) -> None:
        """SEARCH MODSEQ returns the highest MODSEQ of the result, and none if the result is empty (section 3.1.5)."""
        client = self.select_inbox(3)
        since = highest_modseq(client(b"s SELECT INBOX (CONDSTORE)"))
        client(b"a STORE 2:3 +FLAGS.SILENT (\\Seen)")
        highest = highest_modseq(client(b"b STATUS INBOX (HIGHESTMODSEQ)"))
        response = client(b'c SEARCH MODSEQ "/flags/\\\\draft" all %d' % (since + 1))
        self.assertIn(b"* SEARCH 2 3 (MODSEQ %d)\r\n" % highest, response)
        self.assertIn(b"* SEARCH\r\n", client(b"d SEARCH NOT ALL MODSEQ %d" % (highest + 1)))
        self.assertIn(
            b'* ESEARCH (TAG "e") ALL 2:3 MODSEQ %d\r\n' % highest,
            client(b"e SEARCH RETURN (ALL) MODSEQ %d" % (since + 1)),
        )
        no_match = b"t SEARCH OR NOT MODSEQ 1 LARGER 50000"  # example 16
        self.assertEqual(lines(client(no_match))[0], b"* SEARCH")
        for expected, command in (
            (b'* ESEARCH (TAG "e") ALL 2:3 MODSEQ %d\r\n', b"RETURN (ALL) (ARRIVAL)"),
            (b"* SORT 2 3 (MODSEQ %d)\r\n", b"(ARRIVAL)"),
        ):
            response = client(b"e SORT %b UTF-8 MODSEQ %d" % (command, since + 1))
            self.assertIn(expected % highest, response)
        self.assertIn(b"* SORT\r\n", client(b"e SORT (ARRIVAL) UTF-8 MODSEQ %d" % (highest + 1)))
        self.assertIn(
            b'* ESEARCH (TAG "f") MIN 2 MODSEQ %d\r\n' % (highest - 1),
            client(b"f SEARCH RETURN (MIN) MODSEQ %d" % (since + 1)),
        )

    def test_store_of_expunged_messages_is_expungeissued(self) -> None:
        """STORE of messages that are all expunged is NO [EXPUNGEISSUED], and OK with .SILENT or by UID (RFC 2180
        section 4.2)."""
        client = self.select_inbox(2)
        other = self.second_client()
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"c NO [EXPUNGEISSUED]", client(b"c STORE 1 +FLAGS (\\Seen)"))
        silent = client(b"d STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertIn(b"d OK [EXPUNGEISSUED]", silent)
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"e OK", client(b"e UID STORE 2 +FLAGS (\\Seen)"))

    def test_store_changes_messages_beside_expunged_ones(self) -> None:
        """If some messages are expunged, the others are changed and returned, with NO (RFC 2180 section 4.2.3, RFC 7162
        section 3.1.3)."""
        client = self.select_inbox(4)
        other = self.second_client()
        other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        response = client(b"c STORE 1:3 +FLAGS ($Label)")
        self.assertEqual(re.findall(rb"\* (\d) FETCH \(FLAGS", response), [b"1", b"3"])
        self.assertIn(b"c NO [EXPUNGEISSUED]", response)
        highest = highest_modseq(other(b"s STATUS INBOX (HIGHESTMODSEQ)"))
        other(b"d STORE 2 +FLAGS.SILENT ($Other)")
        response = client(b"e STORE 1:4 (UNCHANGEDSINCE %d) +FLAGS (\\Seen)" % highest)
        self.assertIn(b"e NO [MODIFIED 3]", response)
        self.assertEqual(re.findall(rb"\* (\d) FETCH .*Seen", response), [b"1", b"4"])
        self.assertIn(b"f OK [EXPUNGEISSUED]", client(b"f STORE 1:3 +FLAGS.SILENT ($Label)"))
        self.assertIn(b"g OK [EXPUNGEISSUED]", client(b"g UID STORE 1:3 +FLAGS ($Label)"))
