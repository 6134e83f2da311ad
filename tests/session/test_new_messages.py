"""FETCH responses for new messages that the store cannot read."""

from imapshield.errors import StoreBusy
from imapshield.mailbox.values import FetchResult
from tests.session.session_case import SessionTestCase, session_of, without_text


class UnreadableMessageTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.server.login()

    def test_items_of_new_messages_after_a_store_error(self) -> None:
        """If the store cannot read a new message now, its FETCH response follows the next command."""
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected (MessageNew (UID PREVIEW) MessageExpunge))")
        mailbox = session_of(self.client).mailbox

        async def fetch(*_: object) -> FetchResult:
            raise StoreBusy

        patch = self.patch(mailbox, "fetch", fetch)
        self.other.append()
        self.assertIn(b"* 1 EXISTS\r\n", self.client.read())
        patch.restore()
        self.assertIn(b"* 1 FETCH (UID 1 PREVIEW", self.client(b"b NOOP"))

    def test_new_message_that_cannot_be_decoded(self) -> None:
        """A new message without a FETCH response, because BINARY cannot decode it, does not end the connection."""
        self.client(b"s SELECT INBOX")
        self.client(b"a NOTIFY SET (selected (MessageNew (UID BINARY.PEEK[1]) MessageExpunge))")
        undecodable = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: x-unknown\r\n\r\ntext\r\n"
        self.other.append(undecodable)
        self.assertIn(b"* 1 EXISTS\r\n", self.client.read())
        self.assertEqual(without_text(self.client(b"b NOOP")), b"b OK\r\n")
        self.other.append(b"Subject: x\r\n\r\ntext\r\n")
        self.assertIn(b"* 2 FETCH (UID 2 BINARY[1] {6}", self.client.read())
