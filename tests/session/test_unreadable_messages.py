"""A message that cannot be read or changed stops no command: the others are processed, and the response is NO."""

from __future__ import annotations

import os
import re
from typing import Any

from imapshield.errors import MessageExpunged, StoreIOError
from imapshield.events import CommandFailed
from imapshield.mailbox import sort_order
from imapshield.mailbox.values import FetchResult
from imapshield.maildir.store import MaildirStore
from imapshield.message import headers
from imapshield.testing import MAIL, NOW, MemoryRealm, MemoryStore, Server
from tests.session.session_case import SessionTestCase, lines, without_text

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 40_000


def numbers(response: bytes) -> list[int]:
    """Return the sequence numbers of the FETCH responses."""
    return [int(number) for number in re.findall(rb"^\* (\d+) FETCH ", response, re.MULTILINE)]


class UnreadableMessageTests(SessionTestCase):
    """Four messages in INBOX, of which the second is damaged."""

    def setUp(self) -> None:
        self.store = MemoryStore(lambda: NOW)
        self.server = Server(realm=MemoryRealm(open_store=lambda: self.store))
        self.client = self.server.login()
        self.select_inbox(4)
        self.store.damaged.add(2)

    def seen(self) -> bytes:
        return lines(self.client(b"seen SEARCH SEEN"))[0]

    def test_fetch_sends_the_others(self) -> None:
        """FETCH sends the other messages, and then NO with the number of those that it could not read."""
        for items in (b"BODY.PEEK[]", b"(FLAGS ENVELOPE)", b"PREVIEW", b"(BINARY.PEEK[1] UID)"):
            response = self.client(b"a FETCH 1:4 " + items)
            self.assertEqual(numbers(response), [1, 3, 4], items)
            self.assertIn(b"a NO [CONTACTADMIN] Failed for 1 message; ", response)
        self.store.damaged.add(4)
        response = self.client(b"b UID FETCH 1:* (BODY.PEEK[HEADER])")
        self.assertEqual(numbers(response), [1, 3])
        self.assertIn(b"b NO [CONTACTADMIN] Failed for 2 messages; ", response)
        self.assertIn(b"c OK", self.client(b"c FETCH 1:4 (UID FLAGS RFC822.SIZE INTERNALDATE)"))
        self.assertEqual(self.server.events_of(CommandFailed), [])

    def test_only_messages_that_were_sent_become_seen(self) -> None:
        r"""FETCH BODY[] sets \Seen on the messages that it sends, in the same response, and on no other."""
        response = self.client(b"a FETCH 1:4 BODY[]")
        self.assertEqual(numbers(response), [1, 3, 4])
        self.assertEqual(response.count(b"\\Seen"), 3)
        self.assertEqual(self.seen(), b"* SEARCH 1 3 4")
        self.assertIn(b"b NO [CONTACTADMIN]", self.client(b"b FETCH 2 BODY[]"))
        self.store.damaged.clear()
        self.assertIn(b"\\Seen", self.client(b"c FETCH 2 BODY[]"))

    def test_message_that_cannot_become_seen_is_sent(self) -> None:
        r"""A message whose flags cannot be changed is sent, without \Seen."""
        read, store = self.store.fetch, self.store

        def fetch(*args: Any) -> FetchResult:
            damaged, store.damaged = store.damaged, set()
            try:
                return read(*args)
            finally:
                store.damaged = damaged

        self.patch(store, "fetch", fetch)
        response = self.client(b"a FETCH 1:4 BODY[]")
        self.assertEqual(numbers(response), [1, 2, 3, 4])
        self.assertIn(b"a OK", response)
        self.assertEqual(self.seen(), b"* SEARCH 1 3 4")

    def test_search_finds_the_others(self) -> None:
        """SEARCH finds the others. It is unknown whether a damaged message matches, so neither a key nor NOT finds it."""
        for key, expected in (
            (b"SUBJECT lunch", b" 1 3 4"),
            (b"NOT SUBJECT x", b" 1 3 4"),
            (b"NOT TEXT noon", b""),
            (b"OR SUBJECT x TEXT noon", b" 1 3 4"),
        ):
            response = self.client(b"a SEARCH " + key)
            self.assertEqual(lines(response)[0], b"* SEARCH" + expected, key)
            self.assertIn(b"a NO [CONTACTADMIN] Failed for 1 message;", response)
        self.assertEqual(
            without_text(self.client(b"b SEARCH OR UID 1:4 SUBJECT x")),
            b"* SEARCH 1 2 3 4\r\nb OK\r\n",
        )
        self.assertIn(b"* SEARCH 2 3\r\n", self.client(b"c SEARCH 2:3 NOT (KEYWORD x SUBJECT x)"))

    def test_failed_search_saves_nothing(self) -> None:
        """After a SEARCH with SAVE that could not read every message, $ is empty (RFC 5182 section 2.1)."""
        self.client(b"a SEARCH RETURN (SAVE) ALL")
        response = self.client(b"b SEARCH RETURN (SAVE COUNT) SUBJECT lunch")
        self.assertIn(b"COUNT 3\r\nb NO [CONTACTADMIN]", response)
        self.assertIn(b"* SEARCH\r\n", self.client(b"c SEARCH $"))

    def test_sort_and_thread_leave_it_out(self) -> None:
        """SORT and THREAD process the others. SORT by what the mailbox knows contains all."""
        response = self.client(b"a SORT (REVERSE SUBJECT) UTF-8 ALL")
        self.assertIn(b"* SORT 1 3 4\r\na NO [CONTACTADMIN] Failed for 1 message;", response)
        response = self.client(b"b THREAD REFERENCES UTF-8 ALL")
        self.assertNotIn(b"2", lines(response)[0])
        self.assertIn(b"b NO [CONTACTADMIN] Failed for 1 message;", response)
        self.assertIn(b"c OK", self.client(b"c SORT (ARRIVAL) UTF-8 ALL"))

    def test_sort_key_that_fails_leaves_one_message_out(self) -> None:
        """A message whose sort key cannot be made is left out, and the traceback is logged once per command."""
        self.store.damaged.clear()
        self.client.append(MAIL.replace(b"Lunch", b"poison"))
        self.client.append(MAIL.replace(b"Lunch", b"poison"))
        self.client(b"n NOOP")
        real = headers.decode_header

        def decode_header(body: bytes) -> str:
            if b"poison" in body:
                raise LookupError("secret text")
            return real(body)

        self.patch(sort_order, "decode_header", decode_header)
        for command in (b"SORT (SUBJECT)", b"THREAD ORDEREDSUBJECT"):
            response = self.client(b"a " + command + b" UTF-8 ALL")
            self.assertIn(b"a NO [CONTACTADMIN] Failed for 2 messages;", response)
            self.assertNotIn(b"5", lines(response)[0])
            self.assertNotIn(b"secret", response)
        events = self.server.events_of(CommandFailed)
        self.assertEqual(len(events), 2)
        self.assertIn("secret text", events[0].traceback)

    def test_store_changes_the_others(self) -> None:
        """STORE changes the others and returns their flags."""
        response = self.client(b"a STORE 1:4 +FLAGS (\\Flagged)")
        self.assertEqual(numbers(response), [1, 3, 4])
        self.assertIn(b"a NO [CONTACTADMIN] Failed for 1 message;", response)
        self.assertEqual(lines(self.client(b"b SEARCH FLAGGED"))[0], b"* SEARCH 1 3 4")
        response = self.client(b"c UID STORE 2 -FLAGS.SILENT (\\Flagged)")
        self.assertEqual(without_text(response), b"c NO [CONTACTADMIN]\r\n")

    def test_store_keeps_the_code_modified(self) -> None:
        """If UNCHANGEDSINCE excludes other messages, the code of the tagged response is MODIFIED (RFC 7162)."""
        self.client(b"a STORE 1 +FLAGS (\\Flagged)")
        response = self.client(b"b STORE 1:4 (UNCHANGEDSINCE 5) +FLAGS (\\Seen)")
        self.assertEqual(lines(without_text(response))[-2:], [b"* NO [CONTACTADMIN]", b"b NO [MODIFIED 1]"])  # fmt: skip

    def test_copy_is_no_although_others_were_copied(self) -> None:
        """COPY and MOVE return COPYUID in an untagged OK, and then NO. MOVE leaves the damaged message in the source."""
        self.client(b"a CREATE there")
        response = without_text(self.client(b"b COPY 1:3 there"))
        self.assertRegex(
            response, rb"\A\* OK \[COPYUID \d+ 1,3 1:2\]\r\nb NO \[CONTACTADMIN\]\r\n\Z"
        )
        response = without_text(self.client(b"c COPY 2 there"))
        self.assertEqual(response, b"c NO [CONTACTADMIN]\r\n")
        response = without_text(self.client(b"d MOVE 2:3 there"))
        self.assertRegex(response, rb"\A\* OK \[COPYUID \d+ 3 3\]\r\n\* NO \[CONTACTADMIN\]\r\n")
        self.assertIn(b"* 3 EXPUNGE\r\n", response)
        self.assertRegex(response, rb"\r\nd NO \[HIGHESTMODSEQ \d+\]\r\n\Z")
        self.assertIn(b"* 3 EXISTS", self.client(b"e SELECT INBOX"))

    def test_expunged_and_damaged_messages_are_both_reported(self) -> None:
        """If other messages no longer exist, the tagged response is about those."""
        other = self.second_client()
        other(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        response = lines(without_text(self.client(b"a FETCH 1:3 ENVELOPE")))
        self.assertEqual(response[-2:], [b"* NO [CONTACTADMIN]", b"a NO [EXPUNGEISSUED]"])

    def test_notify_skips_it(self) -> None:
        """A new message that cannot be read gets no FETCH response for NOTIFY, and the others get theirs."""
        self.store.damaged.add(5)
        notify = b"NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge))"
        self.client(b"a " + notify)
        other = self.server.login()
        other.append()
        other.append()
        response = self.client(b"b NOOP") + self.client.read()
        self.assertEqual(numbers(response), [6])
        self.assertIn(b"b OK", response)

    def test_search_context_keeps_its_results(self) -> None:
        """A result of a search with UPDATE that can no longer be read stays a result."""
        self.store.damaged.clear()
        self.client(b"a SEARCH RETURN (UPDATE ALL) OR ANSWERED SUBJECT lunch")
        self.store.damaged.add(1)
        other = self.second_client()
        self.patch(self.store, "damaged", set())
        other(b"b STORE 1 +FLAGS (\\Flagged)")
        self.store.damaged.add(1)
        self.assertNotIn(b"REMOVEFROM", self.client(b"c NOOP") + self.client.read())

    def test_catenate_of_a_damaged_message_is_an_error(self) -> None:
        """An APPEND that needs the damaged message fails."""
        response = self.client(b'a APPEND INBOX CATENATE (URL "/INBOX/;UID=2")')
        self.assertIn(b"a NO [SERVERBUG] Mail store error", response)


class LargeMessageTests(SessionTestCase):
    """Messages that are read while they are sent."""

    def setUp(self) -> None:
        self.store = MemoryStore(lambda: NOW)
        self.server = Server(realm=MemoryRealm(open_store=lambda: self.store))
        self.client = self.server.login()
        self.client.append()
        self.client.append(LARGE)
        self.client.append()
        self.client(b"s SELECT INBOX")

    def test_large_message_becomes_seen_after_it_was_sent(self) -> None:
        r"""A streamed message becomes \Seen when it was sent; a response with its flags follows."""
        for command, uid in ((b"FETCH", b""), (b"UID FETCH", b"UID 2 ")):
            self.client(b"b STORE 1:3 -FLAGS.SILENT (\\Seen)")
            response = self.client(b"a " + command + b" 1:3 (BODY[])")
            self.assertEqual(numbers(response), [1, 2, 2, 3])
            self.assertIn(LARGE + b")\r\n* 2 FETCH (" + uid + b"FLAGS (\\Recent \\Seen)", response)
            self.assertTrue(without_text(response).endswith(b")\r\na OK\r\n"))
        self.assertIn(b"* SEARCH 1 2 3\r\n", self.client(b"c SEARCH SEEN"))

    def test_message_that_fails_in_the_middle_resets_the_connection(self) -> None:
        r"""If a literal cannot be completed, the connection is reset, and the message is not \Seen."""
        for error in (None, ValueError("secret text")):
            client = self.server.login()
            client(b"s SELECT INBOX")
            self.store.damaged.clear()
            read, calls = self.store.read, list[int]()

            def fail_later(*args: Any, e: Any = error, r: Any = read, c: Any = calls) -> bytes:
                c.append(1)
                if len(c) > 1:
                    self.store.damaged.add(2)
                    if e is not None:
                        raise e
                return bytes(r(*args))

            self.patch(self.store, "read", fail_later)
            response = client(b"a FETCH 1:3 BODY[]")
            self.patch(self.store, "read", read)
            self.assertTrue(client.transport.aborted)
            self.assertEqual(len(self.server.events_of(CommandFailed)), int(error is not None))
            self.assertNotIn(b"a NO", response)
            self.assertNotIn(b"secret", response)
            self.assertIn(b"BODY[] {%d}" % len(LARGE), response)
            other = self.second_client()
            self.assertIn(b"* SEARCH 1\r\n", other(b"b SEARCH SEEN"))

    def test_message_that_is_gone_when_its_turn_comes(self) -> None:
        """A message that is expunged, or unreadable, when its first bytes are read is left out; no other one is."""
        for error, answer in (
            (MessageExpunged, b"a NO [EXPUNGEISSUED]"),
            (StoreIOError, b"a NO"),
        ):

            def fail(*_: object, e: type[Exception] = error) -> bytes:
                raise e

            self.patch(self.store, "read", fail)
            response = self.client(b"a FETCH 1:3 (FLAGS BODY[])")
            self.assertEqual(numbers(response), [1, 3])
            self.assertIn(answer, response)
            self.assertFalse(self.client.transport.aborted)


class MaildirTests(SessionTestCase):
    """The same with files."""

    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        self.warnings: list[str] = []

        def open_store() -> MaildirStore:
            return MaildirStore(self.root, now=lambda: NOW, log_warning=self.warnings.append)

        self.server = Server(realm=MemoryRealm(open_store=open_store))
        self.client = self.server.login()

    def damage(self, number: int) -> None:
        """Replace a message by a symbolic link to it."""
        names = os.listdir(self.root + "/cur")
        name = sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])[
            number - 1
        ]
        os.rename(f"{self.root}/cur/{name}", f"{self.root}/{number}")
        os.symlink(f"../{number}", f"{self.root}/cur/{name}")

    def test_every_command_serves_the_others(self) -> None:
        """STATUS and LIST count all messages, and FETCH and SEARCH serve the readable ones, in several chunks."""
        self.select_inbox(150)
        for number in (2, 3, 140):
            self.damage(number)
        readable = [n for n in range(1, 151) if n not in (2, 3, 140)]
        self.assertIn(b"(MESSAGES 150)", self.client(b"a STATUS INBOX (MESSAGES)"))
        self.assertIn(b"(MESSAGES 150)", self.client(b'b LIST "" INBOX RETURN (STATUS (MESSAGES))'))
        for command in (
            b"FETCH 1:* BODY.PEEK[]",
            b"FETCH 1:* (FLAGS ENVELOPE)",
            b"FETCH 1:* BODY[]",
        ):
            response = self.client(b"c " + command)
            self.assertEqual(numbers(response), readable)
            self.assertIn(b"c NO [CONTACTADMIN] Failed for 3 messages;", response)
        found = lines(self.client(b"d SEARCH TEXT noon"))[0]
        self.assertEqual([int(n) for n in found.split()[2:]], readable)
        found = lines(self.client(b"e SEARCH SEEN"))[0]
        self.assertEqual([int(n) for n in found.split()[2:]], readable)
        self.assertEqual(len(self.warnings), 3)

    def test_pipelined_commands_are_answered_in_order(self) -> None:
        """A failure does not put the responses of pipelined commands out of order."""
        self.select_inbox(3)
        self.damage(1)
        response = self.client.send(
            b"a FETCH 1 BODY[]\r\nb FETCH 2:3 BODY[]<3.4>\r\nc SEARCH TEXT noon\r\nd NOOP\r\n"
        )
        tagged = re.findall(rb"^([a-d] \w+)", response, re.MULTILINE)
        self.assertEqual(tagged, [b"a NO", b"b OK", b"c NO", b"d OK"])
        self.assertEqual(numbers(response), [2, 3])

    def test_damaged_large_message_does_not_reset_the_connection(self) -> None:
        """A large message that cannot be opened is left out like any other, and the connection stays."""
        for content in (MAIL, LARGE, MAIL):
            self.client.append(content)
        self.client(b"s SELECT INBOX")
        self.damage(2)
        response = self.client(b"a FETCH 1:3 BODY[]")
        self.assertEqual(numbers(response), [1, 3])
        self.assertIn(b"a NO [CONTACTADMIN]", response)

    def test_message_with_a_huge_character_reference_has_a_preview(self) -> None:
        """A message of a long character reference does not make PREVIEW of the mailbox fail."""
        self.client.append()
        self.client.append(b"Content-Type: text/html\r\n\r\n&#" + b"9" * 5000 + b";\r\n")
        self.client(b"s SELECT INBOX")
        response = self.client(b"a FETCH 1:* (UID PREVIEW)")
        self.assertEqual(numbers(response), [1, 2])
        self.assertIn(b"a OK", response)
