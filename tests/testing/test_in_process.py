"""The server and clients in memory that `imapshield.testing` offers to tests of other programs."""

import re
import textwrap

from twisted.trial.unittest import SynchronousTestCase

import imapshield.testing
from imapshield.events import BadCommandReceived, ConnectionOpened, LoggedIn
from imapshield.testing import MAIL, NOW, InlineWorker, MemoryRealm, MemoryStore, Server, SlowWorker


class DocumentationTests(SynchronousTestCase):
    def test_examples_run(self) -> None:
        """The examples in the documentation of `imapshield.testing` run unchanged."""
        documentation = imapshield.testing.__doc__
        assert documentation is not None
        blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", documentation)
        self.assertEqual(len(blocks), 4)
        for block in blocks[:2]:
            self.assertIn("assert", block)
            exec(compile(textwrap.dedent(block), "imapshield.testing", "exec"), {})  # noqa: S102, text of this repository

    def test_every_exported_name_is_documented(self) -> None:
        """Every exported name is explained in the documentation of the package."""
        documentation = imapshield.testing.__doc__
        assert documentation is not None
        for name in imapshield.testing.__all__:
            self.assertIn(f"`{name}`", documentation)


class ServerTests(SynchronousTestCase):
    def test_users_have_different_accounts(self) -> None:
        """Alice and bob can log in, with different accounts. Other users cannot."""
        server = Server()
        server.login().append()
        self.assertIn(b"* 1 EXISTS", server.login(b"alice", b"secret")(b"a SELECT INBOX"))
        self.assertIn(b"* 0 EXISTS", server.login(b"bob", b"word")(b"a SELECT INBOX"))
        self.assertRaises(AssertionError, server.login, b"carol", b"secret")

    def test_events_of_returns_the_events_of_one_class(self) -> None:
        """`events_of` returns the events of one class."""
        server = Server()
        server.login()(b"a NONSENSE")
        for kind in (ConnectionOpened, LoggedIn, BadCommandReceived):
            self.assertEqual(len(server.events_of(kind)), 1)

    def test_keyword_arguments_set_limits(self) -> None:
        """Keyword arguments set limits."""
        client = Server(preauth_bad_commands=1).connect()
        self.assertIn(b"* BYE", client(b"a NONSENSE"))
        self.assertTrue(client.transport.disconnecting)

    def test_time_passes_only_with_advance(self) -> None:
        """Time passes only when the test advances the clock."""
        server = Server(preauth_seconds=60)
        client = server.connect()
        server.clock.advance(59)
        self.assertEqual(client.read(), b"")
        server.clock.advance(1)
        self.assertIn(b"* BYE", client.read())


class WorkerTests(SynchronousTestCase):
    def test_inline_worker_returns_at_once(self) -> None:
        """`InlineWorker` returns the result or the exception immediately."""
        worker = InlineWorker()
        self.assertEqual(self.successResultOf(worker.run(int, "7")), 7)
        self.failureResultOf(worker.run(int, "x"), ValueError)

    def test_slow_worker_runs_calls_in_step(self) -> None:
        """A command waits until `SlowWorker.step` has run the store's calls."""
        worker = SlowWorker()
        client = Server(realm=MemoryRealm(worker)).login()
        self.assertEqual(client(b"a STATUS INBOX (MESSAGES)"), b"")
        while worker.jobs:
            worker.step()
        self.assertIn(b"* STATUS INBOX (MESSAGES 0)", client.read())
        failed = worker.run(int, "x")
        worker.step()
        self.failureResultOf(failed, ValueError)

    def test_memory_realm_takes_a_store_function(self) -> None:
        """`MemoryRealm` takes a function that makes the store."""
        store = MemoryStore(lambda: NOW, max_bytes=len(MAIL))
        client = Server(realm=MemoryRealm(open_store=lambda: store)).login()
        self.assertIn(b"app OK", client.append())
        self.assertIn(b"app NO [OVERQUOTA]", client.append())
        self.assertEqual(store.quota().octets, len(MAIL))
