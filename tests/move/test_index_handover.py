"""The mark of an index that is handed over is removed only by a process that has read it under the lock."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any
from unittest import mock

from imapshield.errors import AccountMoved
from imapshield.maildir import index_handover
from imapshield.maildir.index_handover import Mark
from imapshield.move.places import Places
from imapshield.move.source_side import SourceSide
from tests.move.move_case import MoveCase


class MarkTests(MoveCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.fsencode(self.index("one"))
        places = Places(os.fsencode(self.maildir("one")), self.path)
        SourceSide(places, f"{self.base}/one/mail")._recover()
        # Its time is over at 100 seconds.
        index_handover.close(self.path, Mark("m", "two", 100.0, is_given_up=False))

    def give_up(self, now: float = 99.0) -> bool:
        return index_handover.give_up(self.path, "m", lambda: now)

    def usable_version(self, now: Any) -> int:
        with closing(index_handover._connect(self.path + b"/imapshield.sqlite")) as db:
            return index_handover.usable_version(db, now)

    def test_mark_is_removed_after_its_time(self) -> None:
        self.assertRaises(AccountMoved, self.usable_version, lambda: 99.0)
        self.usable_version(lambda: 100.0)
        self.assertIsNone(index_handover.mark_of(self.path))
        self.assertFalse(self.give_up())

    def test_account_that_is_given_up_while_a_login_waits(self) -> None:
        """A disk that stands still lets a mark become permanent after its time: a login that has seen it is refused."""

        def now() -> float:
            self.assertTrue(self.give_up())
            return 101.0

        self.assertRaises(AccountMoved, self.usable_version, now)
        mark = index_handover.mark_of(self.path)
        self.assertEqual(mark, ("m", "two", 100.0, True))

    def test_account_that_is_given_up_while_it_is_opened_again(self) -> None:
        change = index_handover._change

        def give_up_and_change(*arguments: Any) -> Any:
            with mock.patch.object(index_handover, "_change", change):
                self.assertTrue(self.give_up())
            return change(*arguments)

        with mock.patch.object(index_handover, "_change", give_up_and_change):
            self.assertFalse(index_handover.reopen(self.path, "m"))
        self.assertTrue(index_handover.mark_of(self.path))

    def test_wait_for_the_lock_counts(self) -> None:
        """The time at which an account is given up is that at which no other process can use it."""
        with closing(index_handover._connect(self.path + b"/imapshield.sqlite")) as other:

            def now() -> float:
                error = self.assertRaises(
                    sqlite3.OperationalError, other.execute, "BEGIN IMMEDIATE"
                )
                self.assertEqual(error.sqlite_errorcode, sqlite3.SQLITE_BUSY)
                return 100.0

            other.execute("PRAGMA busy_timeout = 0")
            self.assertFalse(index_handover.give_up(self.path, "m", now))

    def test_mark_that_cannot_be_read(self) -> None:
        """A disk that fails does not make an account usable; what its owner has written into the index does."""
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        version = mock.Mock(**{"fetchone.return_value": (index_handover.MARK + 1,)})
        db = mock.Mock(**{"execute.side_effect": [version, error]})
        self.assertRaises(sqlite3.OperationalError, index_handover._mark, db)
        with closing(index_handover._connect(self.path + b"/imapshield.sqlite")) as other:
            other.execute("DROP TABLE handover")
        self.usable_version(lambda: 0.0)
        self.assertIsNone(index_handover.mark_of(self.path))
