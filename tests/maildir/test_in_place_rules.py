"""Calls run in the reactor's thread while they are known to be short, and not while a disk is slow."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.in_place_rules import (
    HANGING_SECONDS,
    MAX_KINDS,
    MAX_OPERATIONS,
    MAX_SKIPPED,
    REPORTED_SECONDS,
    SHORT_SECONDS,
    SHORT_WRITE_SECONDS,
    SLOW_CALLS_PER_VOLUME,
    SLOW_SECONDS_IN_PLACE,
    THREADS_ONLY_SECONDS,
    WARM_SECONDS,
    CallHistory,
    CallKind,
    InPlaceRules,
    Waits,
    has_waited,
)

DISK, OTHER = (1,), (2,)
KIND, RARE = CallKind("fetch", 1), CallKind("search", 1)
SLOW = 1.5 * SLOW_SECONDS_IN_PLACE
LATER = THREADS_ONLY_SECONDS + 1


class InPlaceRulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rules = InPlaceRules()
        self.history = self.warm_history()

    def warm_history(self, now: float = 0.0) -> CallHistory:
        history = CallHistory()
        self.rules.ended_in_thread(history, KIND, DISK, 0.0, now)
        return history

    def may_run(
        self, now: float = 0.0, history: CallHistory | None = None, volumes: tuple[int, ...] = DISK
    ) -> bool:
        return self.rules.may_run(history or self.history, KIND, volumes, now)

    def test_first_call_of_an_operation_runs_in_a_thread(self) -> None:
        """A call runs in place if one of its kind was short before, within the time for which memory is warm."""
        self.assertTrue(self.may_run(WARM_SECONDS))
        self.assertFalse(self.may_run(WARM_SECONDS + 1))
        self.assertFalse(self.rules.may_run(self.history, RARE, DISK, 0.0))

    def test_first_call_of_an_account(self) -> None:
        """It runs in place while the operation is short in other accounts of the file system, if its account is in use."""
        self.rules.ended_in_thread(self.history, RARE, DISK, 0.0, 0.0)
        history = self.warm_history()
        self.assertTrue(self.rules.may_run(history, RARE, DISK, 0.0))
        self.assertTrue(self.rules.may_run(history, CallKind("fetch", 2), DISK, 0.0))
        self.assertFalse(self.rules.may_run(history, RARE, OTHER, 0.0))
        self.assertFalse(self.rules.may_run(CallHistory(), RARE, DISK, 0.0))
        self.rules.ended_in_thread(self.history, RARE, DISK, 0.0, 1.0)
        self.assertFalse(self.rules.may_run(history, RARE, DISK, WARM_SECONDS + 1))
        self.rules.ended_in_thread(self.history, RARE, DISK, 2 * SHORT_SECONDS, 0.0)
        self.assertFalse(self.rules.may_run(history, RARE, DISK, 0.1))

    def test_first_calls_that_need_a_thread_after_all(self) -> None:
        """The more first calls were tried in vain, the fewer are tried, however many mailboxes a client uses."""
        tried = 0
        for number in range(1000):
            kind = CallKind("fetch", number)
            if self.rules.may_run(self.history, kind, DISK, 0.0):
                tried += 1
                self.rules.needed_thread(self.history, kind, DISK)
        self.assertLess(tried, 1000 / MAX_SKIPPED + 10)

    def test_user_with_many_cold_mailboxes(self) -> None:
        """First calls that one user makes in vain do not send those of others to threads; those of many users do."""
        tried = 0
        for number in range(1000):
            kind = CallKind("fetch", number + 2)
            if self.rules.may_run(self.history, kind, DISK, 0.0):
                tried += 1
                self.rules.needed_thread(self.history, kind, DISK)
            self.rules.ended_in_thread(self.history, kind, DISK, 0.0, 0.0)
        self.assertLess(tried, 1000 / MAX_SKIPPED + 10)
        first = CallKind("fetch", 2)
        others = [self.warm_history() for _ in range(100)]
        found = [self.rules.may_run(each, first, DISK, 0.0) for each in others]
        self.assertTrue(all(found))
        tried = 0
        for each in others:
            if self.rules.may_run(each, first, DISK, 0.0):
                tried += 1
                self.rules.needed_thread(each, first, DISK)
        self.assertLess(tried, 20)

    def test_first_calls_that_wait_for_a_disk(self) -> None:
        """After one, those of all accounts of the file system run in threads for a minute, and other calls in place."""
        slow = 0
        for number in range(100):
            now, kind = number / 2, CallKind("fetch", number + 2)
            history = self.warm_history(now)
            if self.rules.may_run(history, kind, DISK, now):
                slow += 1
                self.rules.was_slow(history, DISK, SLOW, now, is_first=True)
            self.assertTrue(self.may_run(now, self.warm_history(now)))
        self.assertEqual(slow, 1)
        first = CallKind("fetch", 2)
        self.rules.ended_in_thread(CallHistory(), KIND, OTHER, 0.0, 0.0)
        self.assertTrue(self.rules.may_run(self.history, first, OTHER, 0.0))
        self.assertTrue(self.rules.may_run(self.warm_history(LATER), first, DISK, LATER))

    def test_first_call_that_hangs(self) -> None:
        """It sends all accounts of its file system to threads, as any other call does."""
        found = self.rules.was_slow(CallHistory(), DISK, 2 * HANGING_SECONDS, 0.0, is_first=True)
        self.assertEqual(found, list(DISK))
        self.assertFalse(self.may_run())

    def test_number_of_operations_is_limited(self) -> None:
        """Each user may have a file system. Then the operations of some are forgotten, the oldest ones first."""
        for volume in range(MAX_OPERATIONS + 5):
            self.rules.ended_in_thread(CallHistory(), KIND, (volume,), 0.0, 0.0)
        self.assertEqual(len(self.rules._operations), MAX_OPERATIONS)
        first, last = CallKind("fetch", 2), MAX_OPERATIONS + 4
        self.assertFalse(self.rules.may_run(self.history, first, (0,), 0.0))
        self.assertTrue(self.rules.may_run(self.history, first, (last,), 0.0))

    def test_remote_file_system(self) -> None:
        """Without a local file system, nothing runs in history."""
        self.assertFalse(self.may_run(volumes=()))

    def test_kind_that_was_long(self) -> None:
        """After a call that was not short, in a thread or in history, the next of its kind runs in a thread."""
        self.rules.ended_in_thread(self.history, KIND, DISK, 2 * SHORT_SECONDS, 0.0)
        self.assertFalse(self.may_run(0.1))
        self.rules.ended_in_thread(self.history, KIND, DISK, SHORT_SECONDS, 0.1)
        self.assertTrue(self.may_run(0.2))
        self.rules.succeeded(self.history, KIND, DISK, 2 * SHORT_SECONDS, 0.2)
        self.assertFalse(self.may_run(0.3))

    def test_slow_account(self) -> None:
        """An account whose call in place has waited for a disk uses threads for a minute; others do not."""
        self.rules.was_slow(self.history, DISK, SLOW, 0.0)
        self.assertFalse(self.may_run(THREADS_ONLY_SECONDS - 1))
        self.assertTrue(self.may_run(0.0, self.warm_history()))
        self.rules.ended_in_thread(self.history, KIND, DISK, 0.0, THREADS_ONLY_SECONDS)
        self.assertTrue(self.may_run(THREADS_ONLY_SECONDS))

    def test_sick_disk(self) -> None:
        """However many accounts a file system has, few of their calls wait for it in a minute; other disks are as before."""
        slow = 0
        for second in range(100):
            history = self.warm_history(float(second) / 2)
            if self.may_run(second / 2, history):
                slow += 1
                self.rules.was_slow(history, DISK, SLOW, second / 2)
        self.assertEqual(slow, SLOW_CALLS_PER_VOLUME)
        self.assertTrue(self.may_run(1.0, self.warm_history(1.0), OTHER))
        self.assertFalse(self.may_run(1.0, self.warm_history(1.0), DISK + OTHER))
        self.assertTrue(self.may_run(LATER + 2, self.warm_history(LATER + 2)))

    def test_disk_that_hangs(self) -> None:
        """One call that hangs sends all accounts of its file system to threads."""
        self.rules.was_slow(CallHistory(), DISK, 2 * HANGING_SECONDS, 0.0)
        self.assertFalse(self.may_run())
        self.assertTrue(self.may_run(volumes=OTHER))

    def test_slow_disk_is_reported(self) -> None:
        """A file system whose accounts all use threads is reported, and not again within an hour."""
        reported = [
            second
            for second in range(0, int(2 * REPORTED_SECONDS), 10)
            if self.rules.was_slow(self.history, DISK, SLOW, second) == list(DISK)
        ]
        self.assertEqual(reported, [20, 20 + REPORTED_SECONDS])
        hanging = self.rules.was_slow(self.history, DISK + OTHER, 2 * HANGING_SECONDS, 30.0)
        self.assertEqual(hanging, list(OTHER))

    def test_what_counts_as_waiting_for_a_disk(self) -> None:
        """Reading blocks counts. Any other wait counts alone, and beside other threads if it was long and nothing computed."""
        before = Waits(3, 5, 1.0)
        for after, seconds, with_others, expected in (
            (Waits(4, 5, 1.0), SLOW, True, True),
            (Waits(3, 5, 1.0), 1.0, False, False),
            (Waits(3, 6, 1.0), SLOW, False, True),
            (Waits(3, 6, 1.0), SLOW, True, False),
            (Waits(3, 6, 1.0), 1.0, True, True),
            (Waits(3, 6, 1.9), 1.0, True, False),
        ):
            found = has_waited(before, after, seconds, with_others=with_others)
            self.assertEqual(found, expected, (after, seconds, with_others))

    def test_slow_calls_now_and_then(self) -> None:
        """Slow calls with long times between them do not add up."""
        for minute in range(2 * SLOW_CALLS_PER_VOLUME):
            now = minute * LATER
            history = self.warm_history(now)
            self.assertTrue(self.may_run(now, history))
            self.rules.was_slow(history, DISK, SLOW, now)

    def test_calls_that_need_a_thread_after_all(self) -> None:
        """The more calls in a row were tried in vain, the fewer are tried; one that ends in place starts again."""
        tried = 0
        for _ in range(1000):
            if self.may_run():
                tried += 1
                self.rules.needed_thread(self.history, KIND, DISK)
        self.assertLess(tried, 1000 / MAX_SKIPPED + 10)
        while not self.may_run():
            pass
        self.rules.succeeded(self.history, KIND, DISK, 0.0, 0.0)
        self.assertTrue(self.may_run())

    def test_waiting_for_calls_that_write(self) -> None:
        """On a slow disk, the reactor waits for few calls, however many accounts there are; one in time starts again."""
        waited = 0
        for _ in range(1000):
            history = CallHistory()
            self.rules.ended_in_thread(history, KIND, DISK, SHORT_WRITE_SECONDS, 0.0, writes=True)
            if self.rules.may_await(history, KIND, DISK, 0.0):
                waited += 1
                self.rules.was_awaited(history, KIND, DISK, in_vain=True)
        self.assertLess(waited, 1000 / MAX_SKIPPED + 10)
        while not self.rules.may_await(self.history, KIND, DISK, 0.0):
            pass
        self.rules.was_awaited(self.history, KIND, DISK, in_vain=False)
        self.assertTrue(self.rules.may_await(self.history, KIND, DISK, 0.0))

    def test_waiting_for_a_disk(self) -> None:
        """The reactor waits for few calls that wait for a slow disk. It still waits while calls compute."""
        waited = 0
        for _ in range(1000):
            if self.rules.may_await_disk(DISK):
                waited += 1
                self.rules.disk_was_awaited(DISK, in_vain=True)
        self.assertLess(waited, 1000 / MAX_SKIPPED + 10)
        self.rules.ended_in_thread(self.history, KIND, DISK, 0.0, 0.0, writes=True)
        self.assertTrue(self.rules.may_await(self.history, KIND, DISK, 0.0))
        while not self.rules.may_await_disk(DISK):
            pass
        self.rules.disk_was_awaited(DISK, in_vain=False)
        self.assertTrue(self.rules.may_await_disk(DISK))

    def test_kind_in_use_is_remembered(self) -> None:
        """A kind that is used in place is not forgotten, however many others there are."""
        for kind in range(2, 2 * MAX_KINDS):
            self.rules.succeeded(self.history, KIND, DISK, 0.0, 0.0)
            self.rules.ended_in_thread(self.history, CallKind("fetch", kind), DISK, 0.0, 0.0)
        self.assertTrue(self.may_run())

    def test_number_of_kinds_is_limited(self) -> None:
        """The kind that was used in a thread least recently is forgotten."""
        for kind in range(2, MAX_KINDS + 7):
            self.rules.ended_in_thread(self.history, CallKind("fetch", kind), DISK, 0.0, 0.0)
        self.assertEqual(len(self.history.kinds), MAX_KINDS)
        self.assertNotIn(KIND, self.history.kinds)
