"""FETCH: items, partials, large bodies, and messages that another session expunged."""

import re

from imapshield.events import CommandFailed
from imapshield.testing import MAIL, MemoryRealm, Server, SlowWorker
from tests.session.session_case import SessionTestCase, lines, without_text


class FetchTests(SessionTestCase):
    def test_items_are_in_the_order_of_the_request(self) -> None:
        """Items are returned in the order of the request. UID FETCH returns UID first."""
        client = self.select_inbox(1)
        response = client(b"a UID FETCH 1 (FLAGS RFC822.SIZE INTERNALDATE)")
        self.assertTrue(
            response.startswith(
                b'* 1 FETCH (UID 1 FLAGS (\\Recent) RFC822.SIZE %d INTERNALDATE "14-Nov-2023'
                % len(MAIL)
            ),
            response,
        )

    def test_body_sets_seen(self) -> None:
        r"""BODY[] sets \Seen and returns the flags in the same response. BODY.PEEK[] does neither."""
        client = self.select_inbox(1)
        self.assertNotIn(b"Seen", client(b"a FETCH 1 BODY.PEEK[]"))
        body = b"BODY[] {%d}\r\n%b)\r\n" % (len(MAIL), MAIL)
        self.assertEqual(
            without_text(client(b"a FETCH 1 BODY[]")),
            b"* 1 FETCH (FLAGS (\\Recent \\Seen) " + body + b"a OK\r\n",
        )
        self.assertEqual(
            without_text(client(b"b UID FETCH 1 BODY[]")), b"* 1 FETCH (UID 1 " + body + b"b OK\r\n"
        )

    def test_impossible_field_name_selects_no_field(self) -> None:
        """A string that cannot be a field name selects no field, and the response repeats it unchanged."""
        client = self.select_inbox(1)
        response = client(b'a FETCH 1 BODY.PEEK[HEADER.FIELDS ("X Y%" "" subject)]')
        self.assertIn(
            b'BODY[HEADER.FIELDS ("X Y%" "" subject)] {18}\r\nSubject: Lunch\r\n\r\n)', response
        )
        self.assertIn(b"* SEARCH\r\n", client(b'b SEARCH HEADER "Subject:" ""'))

    def test_partial_returns_the_requested_bytes(self) -> None:
        """A partial returns the requested bytes, labelled with their offset. It is empty past the end."""
        client = self.select_inbox(1)
        self.assertIn(b"BODY[]<3> {4}\r\n" + MAIL[3:7], client(b"a FETCH 1 BODY.PEEK[]<3.4>"))
        self.assertIn(b"BODY[]<9999> {0}\r\n", client(b"a FETCH 1 BODY.PEEK[]<9999.4>"))

    def test_missing_part_is_empty(self) -> None:
        """A part or section that does not exist is an empty string, because some clients fail on NIL."""
        client = self.select_inbox(1)
        client(b"s STORE 1 +FLAGS (\\Seen)")
        for item in (
            b"BODY[7]", b"BODY[7.MIME]", b"BODY[7.HEADER]", b"BODY[1.HEADER]", b"BODY[1.TEXT]", b"BODY[7.TEXT]",
            b"BODY[7.HEADER.FIELDS (X)]", b"BODY[1.1]", b"BINARY[7]",
        ):  # fmt: skip
            self.assertIn(b'(UID 1 %b "")' % item, client(b"a FETCH 1 (UID %b)" % item))
            self.assertIn(b'%b<5> "")' % item, client(b"a FETCH 1 (UID %b<5.9>)" % item))
        self.assertIn(b"BINARY.SIZE[7] 0)", client(b"a FETCH 1 BINARY.SIZE[7]"))

    def test_large_body_is_streamed(self) -> None:
        """A body that is too large for memory is streamed unchanged, between its neighbours."""
        big = MAIL + bytes(range(1, 256)) * 4000
        self.client.append()
        self.client.append(big)
        self.client.append()
        self.client(b"s SELECT INBOX")
        response = self.client(b"a FETCH 1:3 (UID BODY.PEEK[])")
        self.assertEqual(
            without_text(response),
            b"".join(
                b"* %d FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (i, i, len(m), m)
                for i, m in ((1, MAIL), (2, big), (3, MAIL))
            )
            + b"a OK\r\n",
        )

    def test_large_mailbox_is_fetched_completely(self) -> None:
        """The responses of a mailbox with 2,500 messages are complete and in order."""
        client = self.select_inbox(2500)
        response = lines(client(b"a FETCH 1:* (FLAGS)"))
        self.assertEqual(len(response), 2501)
        self.assertEqual([int(line.split()[1]) for line in response[:-1]], list(range(1, 2501)))

    def test_set_is_fetched_in_mailbox_order(self) -> None:
        """The messages of a set in any order are returned in the order of the mailbox."""
        client = self.select_inbox(10)
        response = lines(client(b"a UID FETCH 9,1:3,7 (UID)"))
        self.assertEqual(
            [re.findall(rb"\d+", line) for line in response[:-1]],
            [[b"%d" % n] * 2 for n in (1, 2, 3, 7, 9)],
        )

    def test_fetch_omits_a_message_expunged_by_another(self) -> None:
        """FETCH omits a message that another session expunged, is NO [EXPUNGEISSUED], and EXPUNGE follows when it
        is allowed."""
        client = self.select_inbox(3)
        other = self.second_client()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        response = client(b"a FETCH 1:3 (UID ENVELOPE)")
        self.assertIn(b"a NO [EXPUNGEISSUED]", response)
        self.assertIn(b"* 3 FETCH (UID 3", response)
        self.assertNotIn(b"* 2 EXPUNGE", response)
        self.assertIn(b"* 2 EXPUNGE", client(b"b NOOP"))
        self.assertIn(b"* 2 FETCH (UID 3", client(b"c FETCH 2 UID"))

    def test_uid_fetch_of_an_expunged_message_is_ok(self) -> None:
        """UID FETCH of a message that does not exist any more is OK (RFC 9051 section 6.4.9)."""
        client = self.select_inbox(3)
        other = self.second_client()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        response = lines(client(b"a UID FETCH 2:9 (ENVELOPE)"))
        self.assertRegex(response[0], rb"^\* 3 FETCH \(UID 3 ")
        self.assertRegex(response[-1], rb"^a OK \[EXPUNGEISSUED\]")

    def test_lost_connection_causes_no_internal_error(self) -> None:
        """A connection that ends while its command waits for the store causes no internal error."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker=worker))
        for command in (b"FETCH 1 ENVELOPE", b"THREAD REFERENCES UTF-8 ALL", b"SEARCH BODY x"):
            client = server.login()
            for line in (b"a APPEND INBOX {3+}\r\na: ", b"s SELECT INBOX", b"c " + command):
                client(line)
                if not line.startswith(b"c"):
                    worker.step()
                    client.read()
            client.lose_connection()
            worker.step()
        self.assertEqual(server.events_of(CommandFailed), [])

    def test_number_beyond_the_last_message_is_bad(self) -> None:
        """A sequence number beyond the last message is BAD. A UID that does not exist is ignored."""
        client = self.select_inbox(1)
        self.assertIn(b"a BAD", client(b"a FETCH 2 FLAGS"))
        self.assertEqual(without_text(client(b"a UID FETCH 2 FLAGS")), b"a OK\r\n")
