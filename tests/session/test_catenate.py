"""CATENATE (RFC 4469): a message made of text from the client and of parts of stored messages."""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from imapshield.events import LimitTriggered
from imapshield.limits import Limits
from imapshield.mailbox.copy_rate import CopyRate
from imapshield.mailbox.values import AppendResult
from imapshield.maildir.store import MaildirStore
from imapshield.testing import MAIL, MemoryRealm, Server
from tests.session.session_case import SessionTestCase, session_of, without_text

BOUNDARY = b"------------030308070208000400050907"
DRAFT = (
    b'Subject: draft\r\nContent-Type: multipart/mixed; boundary="%b"\r\n\r\n'
    b"--%b\r\nContent-Type: text/plain\r\n\r\nfirst\r\n"
    b"--%b\r\nContent-Type: application/x-zip-compressed\r\n\r\nzip\r\n--%b--\r\n"
    % ((BOUNDARY[2:],) + (BOUNDARY[2:],) * 3)
)


def text(octets: bytes) -> bytes:
    """Return a TEXT part of CATENATE."""
    return b"TEXT {%d+}\r\n%b" % (len(octets), octets)


class CatenateTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.prepare(self.server)

    def prepare(self, server: Server) -> None:
        """Use `server`, and store the message `DRAFT` in the mailbox Drafts."""
        self.server, self.client = server, server.login()
        self.client(b"c CREATE Drafts")
        self.client.append(DRAFT, b"Drafts")

    def append(self, *parts: bytes, to: bytes = b"INBOX") -> bytes:
        """Append a message of `parts`, with three flags."""
        return self.client.send(
            b"A003 APPEND %b (\\Seen \\Draft $MDNSent) CATENATE (%b)\r\n" % (to, b" ".join(parts))
        )

    def stored(self, uid: int = 1) -> bytes:
        """Return the content of a message of INBOX."""
        self.client(b"s EXAMINE INBOX")
        response = self.client(b"f UID FETCH %d BODY.PEEK[]" % uid)
        self.client(b"u UNSELECT")
        return response.partition(b"}\r\n")[2].rpartition(b")\r\nf OK")[0]

    def test_attachment_can_be_replaced(self) -> None:
        """Example 1 of appendix A: a message gets the header and text of another message, and a new attachment."""
        self.client.append(MAIL, b"Drafts")
        validity = re.search(rb"\d+", self.client(b"a STATUS Drafts (UIDVALIDITY)"))
        assert validity is not None
        base = b'URL "/Drafts;UIDVALIDITY=%b/;UID=' % validity[0]
        line = b"\r\n--" + BOUNDARY[2:]
        response = self.append(
            base + b'1/;section=HEADER"',
            text(line + b"\r\n"),
            base + b'1/;section=1.MIME"',
            base + b'1/;section=1"',
            text(line + b"\r\n"),
            base + b'2"',
            text(line + b"--\r\n"),
        )
        self.assertRegex(response, rb"A003 OK \[APPENDUID \d+ 1\]")
        header = DRAFT[: DRAFT.index(b"\r\n\r\n") + 4]
        mime = b"Content-Type: text/plain\r\n\r\n"
        self.assertEqual(
            self.stored(),
            header + line + b"\r\n" + mime + b"first" + line + b"\r\n" + MAIL + line + b"--\r\n",
        )
        self.client(b"s SELECT Drafts")
        self.assertNotIn(b"\\Seen", self.client(b"f FETCH 1:* FLAGS"))

    def test_each_announced_text_literal_gets_a_continuation(self) -> None:
        """Each synchronizing TEXT literal gets a continuation request."""
        self.assertEqual(without_text(self.client(b"a APPEND INBOX CATENATE (TEXT {14}")), b"+\r\n")
        self.assertEqual(
            without_text(
                self.client.send(b'Subject: x\r\n\r\n URL "/Drafts/;UID=1/;SECTION=2" TEXT {2}\r\n')
            ),
            b"+\r\n",
        )
        self.assertIn(b"a OK", self.client.send(b"\r\n)\r\n"))
        self.assertEqual(self.stored(), b"Subject: x\r\n\r\nzip\r\n")

    def test_relative_url_uses_the_selected_mailbox(self) -> None:
        """A URL without a slash is relative to the selected mailbox (section 3). Names are percent-encoded UTF-8."""
        self.client(b"c CREATE Drafts/L&APY-we")
        self.client.append(DRAFT, b"Drafts/L&APY-we")
        self.assertIn(b"NO [BADURL ;UID=1]", self.append(b"URL ;UID=1"))
        self.client(b"s SELECT Drafts/L&APY-we")
        for url in (
            b";UID=1/;SECTION=2",
            b"L%C3%B6we/;UID=1/;SECTION=2",
            b"/Drafts%2FL%c3%b6we/;uid=1/;section=2",
        ):
            response = self.append(text(b"A: b\r\n\r\n"), b'URL "%b"' % url)
            self.assertIn(b"A003 OK", response, url)
        self.client(b"u UNSELECT")
        for uid in (1, 2, 3):
            self.assertIn(b"A: b\r\n\r\nzip", self.stored(uid))

    def test_partial_takes_a_range_of_bytes(self) -> None:
        """PARTIAL takes a range of bytes: to the end without a length, nothing past the end."""
        for url, octets in (
            (b"1.3", b"ubj"),
            (b"%d" % (len(DRAFT) - 4), b"--\r\n"),
            (b"9999.1", b""),
        ):
            self.append(text(b"X: "), b'URL "/Drafts/;UID=1/;PARTIAL=%b"' % url, to=b"Drafts")
            self.client(b"s EXAMINE Drafts")
            self.assertIn(
                b"{%d}\r\nX: %b)" % (3 + len(octets), octets), self.client(b"f FETCH * BODY.PEEK[]")
            )
            self.client(b"u UNSELECT")

    def test_large_part_is_copied_in_chunks(self) -> None:
        """A part that is too large for one read is copied in chunks."""
        large = b"X: y\r\n\r\n" + b"0123456789abcdef" * 40_000
        self.client.append(large, b"Drafts")
        self.assertIn(
            b"A003 OK",
            self.append(
                b'URL "/Drafts/;UID=2"',
                b'URL "/Drafts/;UID=2/;SECTION=TEXT/;PARTIAL=5.500000"',
                text(b"end"),
                b'URL "/Drafts/;UID=2/;SECTION=HEADER"',
            ),
        )
        self.assertEqual(self.stored(), large + large[13:500_013] + b"end" + large[:8])

    def test_multiappend_takes_catenated_messages(self) -> None:
        """MULTIAPPEND takes plain and catenated messages (RFC 3502) and stores all or none."""
        good, bad = b'CATENATE (URL "/Drafts/;UID=1")', b'CATENATE (URL "/Drafts/;UID=9")'
        plain = b"(\\Answered) {%d+}\r\n%b" % (len(MAIL), MAIL)
        for first, second in ((good, good), (good, plain), (plain, good)):
            self.assertRegex(
                self.client.send(b"a APPEND INBOX %b %b\r\n" % (first, second)), rb"a OK \[APPENDUID \d+ \d:\d\]"
            )  # fmt: skip
        for first, second in ((good, bad), (bad, plain)):
            self.assertIn(
                b"b NO [BADURL /Drafts/;UID=9]", self.client.send(b"b APPEND INBOX %b %b\r\n" % (first, second))
            )  # fmt: skip
        self.assertIn(b"MESSAGES 6", self.client(b"c STATUS INBOX (MESSAGES)"))

    def test_replace_takes_a_catenated_message(self) -> None:
        """REPLACE takes a catenated message (RFC 8508 section 3.1)."""
        self.client(b"s SELECT Drafts")
        response = self.client.send(
            b'r UID REPLACE 1 Drafts CATENATE (URL ";UID=1/;SECTION=HEADER" %b)\r\n' % text(b"new")
        )
        self.assertIn(b"* 1 EXPUNGE", response)
        self.assertIn(b"r OK", response)
        self.assertIn(b"new)", self.client(b"f FETCH 1 BODY[]"))

    def test_bad_url_is_refused_with_the_url(self) -> None:
        """A URL that names no message part of this account is NO [BADURL] with the first such URL (section 4.1)."""
        for url in (
            b"/Drafts/;UID=9", b"/Drafts;UIDVALIDITY=9/;UID=1", b"/nowhere/;UID=1", b"/Drafts/;UID=1/;SECTION=9",
            b"/Drafts/;UID=1/;SECTION=1.FOO", b"/Drafts/;UID=0", b"/Drafts", b"imap://localhost/Drafts/;UID=1",
            b"/Drafts/;UID=1/;SECTION=%ZZ", b"/%FF/;UID=1", b"/%07/;UID=1", b"/Drafts/;UID=1;URLAUTH=anonymous",
            b"/Drafts/;UID=1/;SECTION=HEADER%0D%0A", b"/Drafts/;UID=99999999999", b"/Drafts/;UID=1?SUBJECT",
        ):  # fmt: skip
            response = self.append(text(MAIL), b'URL "%b"' % url, b"URL /second/;UID=1")
            self.assertIn(b"A003 NO [BADURL %b] " % url, response)
        self.assertIn(b"NO [BADURL ?a?] ", self.append(b'URL "]a]"'))
        self.assertIn(b"MESSAGES 0", self.client(b"a STATUS INBOX (MESSAGES)"))

    def test_missing_mailbox_is_trycreate(self) -> None:
        """A missing mailbox is NO [TRYCREATE], whatever the parts are."""
        for parts in ([text(MAIL)], [b'URL "/Drafts/;UID=1"'], [b'URL "/Drafts/;UID=9"']):
            self.assertIn(b"NO [TRYCREATE]", self.append(*parts, to=b"nowhere"))

    def test_message_over_the_limit_is_toobig(self) -> None:
        """A message that becomes larger than the limit is NO [TOOBIG] before any part is read (section 4.2)."""
        self.prepare(Server(realm=self.server.realm, max_message_size=2 * len(DRAFT)))
        url = b'URL "/Drafts/;UID=1"'
        self.assertIn(b"A003 OK", self.append(url, url))
        self.assertIn(b"A003 NO [TOOBIG]", self.append(url, url, text(b"x")))

    def test_messages_of_one_append_are_limited_together(self) -> None:
        """All messages of one APPEND are NO [TOOBIG] together above the limit, with the parts of stored messages."""
        size = len(DRAFT)
        self.prepare(Server(realm=self.server.realm, max_append_size=3 * size))
        stored = b'CATENATE (URL "/Drafts/;UID=1")'
        plain = b"{%d+}\r\n%b" % (size, DRAFT)
        for messages, answer in (
            ([stored] * 3, b"a OK"),
            ([stored] * 4, b"a NO [TOOBIG]"),
            ([plain, stored, plain], b"a OK"),
            ([plain, stored, plain, stored], b"a NO [TOOBIG]"),
        ):
            response = self.client.send(b"a APPEND INBOX %b\r\n" % b" ".join(messages))
            self.assertIn(answer, response)
        self.assertIn(b"MESSAGES 6", self.client(b"s STATUS INBOX (MESSAGES)"))

    def test_copied_bytes_of_an_account_have_a_rate(self) -> None:
        """All sessions of a user share a rate for what CATENATE copies; the refusal is logged. Text is free."""
        size = len(DRAFT)
        self.prepare(
            Server(
                realm=self.server.realm,
                catenate_burst_bytes=2 * size,
                catenate_bytes_per_second=size,
            )
        )
        url = b'URL "/Drafts/;UID=1"'
        second = self.server.login()
        now = [100.0]
        for client in self.client, second:
            session_of(client).monotonic = lambda: now[0]
        self.assertIn(b"A003 OK", self.append(url, text(MAIL * 10)))
        self.client = second
        self.assertIn(b"A003 OK", self.append(url))
        response = self.append(url, url)
        self.assertIn(b"A003 NO [LIMIT] CATENATE has copied too much", response)
        self.assertIn(b"try again in 2 seconds", response)
        (event,) = self.server.events_of(LimitTriggered)
        self.assertEqual(
            (event.limit, event.value, event.observed, event.action, event.user),
            ("catenate_burst_bytes", 2 * size, 4 * size, "refused", "alice"),
        )
        self.assertIn(b"A003 OK", self.append(text(MAIL)))
        now[0] += 2
        self.assertIn(b"A003 OK", self.append(url, url))
        self.assertIn(b"MESSAGES 4", self.client(b"s STATUS INBOX (MESSAGES)"))

    def test_saving_a_draft_every_minute_is_never_limited(self) -> None:
        """A client that saves a draft with 25 MB of attachments every minute is far below the rate."""
        limits, rate = Limits(), CopyRate()
        for minute in range(1000):
            for _ in range(4):  # four clients of one user at the same moment
                args = 25 << 20, minute * 60.0
                self.assertEqual(
                    rate.seconds_until_allowed(
                        *args, limits.catenate_burst_bytes, limits.catenate_bytes_per_second
                    ),
                    0,
                )
                rate = rate.after(*args, limits.catenate_bytes_per_second)

    def test_empty_message_is_refused(self) -> None:
        """An empty message is refused."""
        self.assertIn(b"A003 NO", self.append(b'URL "/Drafts/;UID=1/;PARTIAL=99999.1"'))

    def test_invalid_parts_are_bad(self) -> None:
        """No parts, unknown kinds of parts and more than 250 URLs are BAD."""
        for parts in (
            b"()",
            b"(MAIL /x)",
            b"(TEXT x)",
            b"(URL)",
            b"(URL a",
            b"",
            b"(" + b" ".join([b"URL a"] * 251) + b")",
        ):
            self.assertIn(b"a BAD", self.client(b"a APPEND INBOX CATENATE " + parts), parts)

    def test_expunged_part_stores_nothing(self) -> None:
        """If a part is expunged before it is copied, nothing is stored."""
        account = self.server.realm.account()
        append = account.append

        async def expunge_first(name: str, messages: Sequence[Any]) -> AppendResult:
            mailbox, _ = await account.open("Drafts", False)
            await mailbox.store_flags([1], b"+", [b"\\Deleted"], None)
            await mailbox.expunge([1])
            appended: AppendResult = await append(name, messages)
            return appended

        self.patch(account, "append", expunge_first)
        self.assertIn(b"NO [EXPUNGEISSUED]", self.client.send(
            b"a APPEND INBOX {%d+}\r\n%b CATENATE (URL /Drafts/;UID=1)\r\n" % (len(MAIL), MAIL)
        ))  # fmt: skip
        self.assertIn(b"MESSAGES 0", self.client(b"b STATUS INBOX (MESSAGES)"))


class MaildirCatenateTests(CatenateTests):
    """The tests of `CatenateTests` with a Maildir store."""

    def prepare(self, server: Server) -> None:
        path = self.mktemp()
        super().prepare(
            Server(
                realm=MemoryRealm(
                    open_store=lambda: MaildirStore(path, now=time.time, log_warning=print)
                ),
                **asdict(server.factory.limits),
            )
        )
