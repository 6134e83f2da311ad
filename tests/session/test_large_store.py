"""STORE of many messages, which costs neither others their turn nor more memory than their flags."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.session.handlers import mailboxes, store_copy
from imapshield.testing import Server
from tests.session.session_case import without_text


class LargeStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()
        for _ in range(5):
            self.client.append()
        self.client(b"s SELECT INBOX")

    def test_expected_flags_are_shared(self) -> None:
        """Messages with the same flags share one expected flag list: 500 keywords take 32 KiB."""
        session: Any = self.client.protocol._session
        words = [b"k%d" % i for i in range(100)]
        expected = store_copy._expected(session, [1, 2, 3, 4, 5], b"+", words)
        self.assertEqual(len(expected), 5)
        self.assertEqual(len({id(one) for one in expected.values()}), 1)
        answer = self.client(b"a STORE 1:5 +FLAGS.SILENT (" + b" ".join(words) + b")")
        self.assertTrue(without_text(answer).endswith(b"a OK\r\n"))
        self.assertNotIn(b"FETCH", answer)

    def test_responses_in_batches(self) -> None:
        """Many FETCH responses are sent in batches, and changes by others in between follow them."""
        self.patch(store_copy, "TOLD_AT_ONCE", 2)
        session: Any = self.client.protocol._session
        pause = session.pause

        async def other(*args: int) -> None:
            await session.mailbox.store_flags([1, 5], b"+", [b"other"], None)
            await pause(*args)

        session.pause = other
        answer = self.client(b"a STORE 1:5 +FLAGS (mine)").splitlines()
        told = [line.split()[1] for line in answer if b"FETCH" in line]
        self.assertEqual(told, [b"1", b"2", b"3", b"4", b"5", b"1"])
        for line in answer[-3:-1]:
            self.assertIn(b"mine other", line)

    def test_idle_sessions_are_scheduled(self) -> None:
        """Idle sessions get their updates when they are scheduled, with all changes until then."""
        idle = [self.server.login() for _ in range(3)]
        for one in idle:
            one(b"s SELECT INBOX")
            one(b"i IDLE")
        session: Any = self.client.protocol._session
        for word in (b"a", b"b"):
            done = session.mailbox.store_flags([1, 2], b"+", [word], None)
            self.assertRaises(StopIteration, done.send, None)
        self.assertEqual([one.transport.value() for one in idle], [b"", b"", b""])
        for one in idle:
            self.assertEqual(one.read().count(b"FETCH (FLAGS"), 2)

    def test_list_in_batches(self) -> None:
        """LIST of many mailboxes is sent in batches, complete and in order."""
        self.patch(mailboxes, "LISTED_AT_ONCE", 3)
        for i in range(10):
            self.client(b"c CREATE m%d" % i)
        writes: list[bytes] = []
        self.client.transport.write = writes.append  # type: ignore[method-assign]
        self.client(b'a LIST "" *')
        self.assertGreater(len(writes), 3)
        lines = b"".join(writes).splitlines()
        self.assertEqual(
            [line.split()[-1] for line in lines[1:-1]], [b"m%d" % i for i in range(10)]
        )
