"""Answers of a service are remembered, a service that fails is asked seldom, and nothing grows without a bound."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.front.user_map import Answer, EntryWrong, LookUpFailed, Query, UserMap
from imapshield.limits import Limits
from tests.front.node_case import FakeService


class UserMapCase(SynchronousTestCase):
    limits: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock, self.service = Clock(), FakeService()
        self.map = UserMap(self.service, self.clock, lambda: Limits(**self.limits))

    def look_up(self, user: str) -> Deferred[Answer]:
        """Look up a user."""
        return Deferred.fromCoroutine(self.map.look_up(Query(user)))

    def learn(self, user: str, node: str, **more: Any) -> None:
        """Have the service say which node a user has."""
        found = self.look_up(user)
        self.service.answer(node, **more)
        self.assertEqual(self.successResultOf(found).node, node)


class CacheTests(UserMapCase):
    def test_answer_counts_for_some_time(self) -> None:
        """Within map_cache_seconds nobody is asked, also about an unknown user."""
        for user, node in (("alice", "mail1"), ("nobody", "")):
            self.learn(user, node)
            self.clock.advance(59)
            self.assertEqual(self.successResultOf(self.look_up(user)).node, node)
            self.assertEqual(self.map.known(user), Answer(node))
            self.clock.advance(1)
            self.assertIsNone(self.map.known(user))
        self.assertEqual(len(self.service.queries), 2)

    def test_logins_that_come_together_ask_once(self) -> None:
        """Many logins of one user wait for one answer."""
        found = [self.look_up("alice") for _ in range(50)]
        self.assertEqual(len(self.service.queries), 1)
        self.service.answer("mail1")
        self.assertEqual([self.successResultOf(each).node for each in found], ["mail1"] * 50)
        self.assertEqual(self.map._asking, {})

    def test_text_of_a_service(self) -> None:
        """What a service has said is a short line in the log and in the status, without control characters."""
        found = self.look_up("alice")
        with capturedLogs() as logged:
            self.service.fail(ValueError("a\nbanned peer=192.0.2.1\x1b[1m" + "x" * 10000))
        error = self.failureResultOf(found, LookUpFailed).value
        for text in (formatEvent(logged[0]), self.map.problem, str(error)):
            self.assertIn(r"a\nbanned peer=192.0.2.1\x1b[1mxxx", text)
            self.assertTrue(text.isprintable())
            self.assertLess(len(text), 500)

    def test_wait_that_the_service_wants(self) -> None:
        """An unknown user stays so for longer if the service says so (Auth-Wait)."""
        self.learn("nobody", "", seconds=300.0)
        self.clock.advance(299)
        self.assertEqual(self.map.known("nobody"), Answer("", 300.0))

    def test_refresh(self) -> None:
        """What is known is forgotten, and an answer on its way is not remembered."""
        self.learn("alice", "mail1")
        self.successResultOf(Deferred.fromCoroutine(self.map.refresh("alice")))
        late = self.look_up("alice")
        self.successResultOf(Deferred.fromCoroutine(self.map.refresh("alice")))
        new = self.look_up("alice")
        self.service.answer("mail2")
        self.service.answer("mail1", number=-2)
        self.assertEqual(self.successResultOf(late).node, "mail1")
        self.assertEqual(self.successResultOf(new).node, "mail2")
        self.assertEqual(self.map.known("alice"), Answer("mail2"))

    def test_service_that_checks_passwords(self) -> None:
        """It is asked at each login, because its answer is about a password."""
        self.service.caches = False
        self.learn("alice", "mail1")
        self.learn("alice", "mail1")
        self.assertIsNone(self.map.known("alice"))
        self.assertEqual(len(self.service.queries), 2)

    def test_start_and_stop(self) -> None:
        """The service is stopped with the map."""
        self.map.start()
        self.map.stop()
        self.assertTrue(self.service.stopped)


class BoundTests(UserMapCase):
    limits = {"max_map_entries": 3}

    def test_names_that_nobody_has_push_out_no_user(self) -> None:
        """Both tables have a maximum size; what was used last stays."""
        for user in ("alice", "bob", "carol"):
            self.learn(user, "mail1")
        for number in range(10):
            self.learn(f"nobody{number}", "")
        self.assertEqual(len(self.map._unknown), 3)
        self.map.known("alice")
        self.learn("dave", "mail1")
        self.assertEqual([*self.map._users], ["carol", "alice", "dave"])
        self.learn("nobody9x", "mail2")
        self.assertEqual(len(self.map._users), 3)


class FailureTests(UserMapCase):
    limits = {"backend_failures": 2}

    def fail_once(self, user: str, error: Exception) -> Deferred[Answer]:
        """Have the service fail."""
        found = self.look_up(user)
        self.service.fail(error)
        return found

    def test_last_known_answer(self) -> None:
        """While the service fails, the last known node counts for map_stale_seconds; then nothing is known."""
        self.learn("alice", "mail1")
        self.clock.advance(100)
        found = self.fail_once("alice", LookUpFailed("down"))
        self.assertEqual(self.successResultOf(found).node, "mail1")
        self.clock.advance(86400)
        self.failureResultOf(self.fail_once("alice", OSError()), LookUpFailed)

    def test_unknown_user_is_not_kept(self) -> None:
        """That a user was unknown counts no longer than map_cache_seconds."""
        self.learn("nobody", "")
        self.clock.advance(61)
        self.failureResultOf(self.fail_once("nobody", LookUpFailed("down")), LookUpFailed)

    def test_service_that_does_not_answer(self) -> None:
        """A question has a maximum time."""
        found = self.look_up("alice")
        self.clock.advance(5)
        error = self.failureResultOf(found, LookUpFailed).value
        self.assertEqual(str(error), "no answer in 5 seconds")

    def test_service_that_fails_is_asked_seldom(self) -> None:
        """After some failures one login in two seconds asks; the first answer ends that."""
        for user in ("a", "b"):
            self.failureResultOf(self.fail_once(user, LookUpFailed("down")), LookUpFailed)
        for user in ("c", "d"):
            self.failureResultOf(self.look_up(user), LookUpFailed)
        self.assertEqual(len(self.service.queries), 2)
        self.clock.advance(2)
        self.learn("alice", "mail1")
        self.learn("bob", "mail1")

    def test_known_user_does_not_wait_for_a_service_that_fails(self) -> None:
        """The last known node counts at once. One login in two seconds asks behind it, so the end is noticed."""
        self.learn("alice", "mail1")
        for user in ("a", "b"):
            self.failureResultOf(self.fail_once(user, LookUpFailed("down")), LookUpFailed)
        self.clock.advance(61)
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.look_up("alice")).node, "mail1")
        self.assertEqual(len(self.service.queries), 4)
        self.service.fail(OSError("down"))
        self.assertEqual(self.successResultOf(self.look_up("alice")).node, "mail1")
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(self.look_up("alice")).node, "mail1")
        self.service.answer("mail2")
        self.assertEqual(self.successResultOf(self.look_up("alice")).node, "mail2")
        self.assertEqual(len(self.service.queries), 5)

    def test_user_who_was_released_waits_for_the_service(self) -> None:
        """The last known node may be the one that the user has left."""
        self.learn("alice", "mail1")
        for user in ("a", "b"):
            self.failureResultOf(self.fail_once(user, LookUpFailed("down")), LookUpFailed)
        self.successResultOf(Deferred.fromCoroutine(self.map.refresh("alice")))
        self.clock.advance(2)
        found = self.look_up("alice")
        self.assertNoResult(found)
        self.service.answer("mail2")
        self.assertEqual(self.successResultOf(found).node, "mail2")

    def test_entry_that_is_wrong(self) -> None:
        """It is remembered as all answers, and does not count as a failure of the service."""
        for user in ("a", "b", "c"):
            found = self.fail_once(user, EntryWrong("no such node"))
            self.assertEqual(self.successResultOf(found), Answer("", problem="no such node"))
        self.assertEqual(len(self.service.queries), 3)
        self.assertEqual(self.map.known("a"), Answer("", problem="no such node"))
