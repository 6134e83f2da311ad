"""A move takes everything along, and whenever it is killed, one node has the whole account, and never both."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from typing import Any
from unittest import mock

from imapshield.errors import AccountMoved
from imapshield.mailbox.values import NewMessage
from imapshield.move import target_side
from imapshield.move.journal import DONE, new_entry
from imapshield.move.mover import APART_SECONDS
from imapshield.move.old_copies import OldCopies
from imapshield.move.places import MoveError, Places, TooSlow, sync_tree
from imapshield.move.target_side import TargetSide
from imapshield.testing.store_contract import MAIL
from imapshield.wire.commands.base import MemoryLiteral
from tests.move.move_case import Died, Mortal, MoveCase


class MoverTests(MoveCase):
    def test_everything_moves(self) -> None:
        """UIDs, UIDVALIDITYs, MODSEQs, flags, keywords, metadata, subscriptions and messages are the same."""
        self.mover().run()
        self.assertEqual(self.dump("two"), self.before)
        self.assertEqual(self.map, {"alice": "two"})
        self.assertEqual((self.shields.calls, self.shields.held), (["hold", "release"], 0))
        self.assertTrue(self.refuses("one"))
        self.assertEqual(self.journal.read("alice").phase, DONE)  # type: ignore[union-attr]

    def test_names_of_temporary_files(self) -> None:
        """A mailbox may be named tmp, and the name of a message may end with .tmp."""
        with self.store("one") as store:
            for name in ("tmp", "work/tmp"):
                store.create(name, [])
                store.append(name, [NewMessage((), None, MemoryLiteral(MAIL))])
        self.deliver("one", "5.host.tmp")
        before = self.dump("one")
        self.mover().run()
        self.assertEqual(self.dump("two"), before)
        self.assertIn(b"5.host.tmp", before["content"])

    def make_maildir(self) -> None:
        """Make a Maildir with a message on the new node, as a delivery agent does."""
        for name in ("cur", "new", "tmp"):
            os.makedirs(self.maildir("two", name), exist_ok=True)
        self.deliver("two", "early.mx")

    def test_maildir_that_appears_during_the_copy(self) -> None:
        """The account stays on the old node, and is open there."""
        self.copier.before_last = self.make_maildir
        error = self.assertRaises(MoveError, self.mover().run)
        self.assertIn("/two/mail/alice has mail of this user already", str(error))
        self.assertEqual(self.shields.held, 0)
        self.assertEqual(self.dump("one"), self.before)

    def test_maildir_that_appears_after_the_comparison(self) -> None:
        """The command says what to do; what was copied is kept until that is done."""
        verify = TargetSide.verify

        def verify_and_deliver(*args: Any) -> str:
            lacks = verify(*args)
            self.make_maildir()
            return lacks

        with mock.patch.object(TargetSide, "verify", verify_and_deliver):
            for _ in range(2):
                error = self.assertRaises(MoveError, self.mover().run)
                self.assertIn("rename or remove it, and run the command again", str(error))
        os.rename(self.maildir("two"), f"{self.base}/two/other")
        self.mover().run()
        self.assertEqual(self.dump("two"), self.before)

    def test_maildir_that_appears_while_the_copy_is_renamed(self) -> None:
        """Its mail is delivered, whichever directory was renamed before."""
        sync, is_first = sync_tree, self.index_root

        def rename(old: bytes, new: bytes, **options: Any) -> None:
            nonlocal is_first
            if is_first and b"/mail/.imapshield-incoming-" in os.fsencode(old):
                is_first = False
                self.make_maildir()
                raise OSError(errno.EIO, "the machine loses power")
            os_rename(old, new, **options)

        def sync_and_deliver(path: bytes, *args: Any) -> bool:
            is_done = sync(path, *args)
            if not self.index_root and os.path.exists(f"{os.fsdecode(path)}/imapshield.arrived"):
                self.make_maildir()
            return is_done

        os_rename = os.rename
        self.patch(target_side, "sync_tree", sync_and_deliver)
        with mock.patch.object(os, "rename", rename):
            if self.index_root:
                self.assertRaises(MoveError, self.mover().run)
            self.mover().run()
        after = self.dump("two")["content"]
        self.assertIn(b"early.mx", after)
        del after[b"early.mx"]
        self.assertEqual(after, self.before["content"])
        self.assertTrue(self.refuses("one"))

    def test_there_and_back(self) -> None:
        """A user who comes back has everything, too, and what was done on the other node."""
        self.mover().run()
        self.deliver("one", "late.mx")
        with self.store("two") as store:
            store.append("INBOX", [NewMessage((), None, MemoryLiteral(MAIL))])
        before = self.dump("two")
        self.move_back()
        after = self.dump("one")
        self.assertIn(b"late.mx", after["content"])
        del after["content"][b"late.mx"]
        self.assertEqual(after["content"], before["content"])
        others = [[row for row in dump["rows"][0] if row[1] != "INBOX"] for dump in (before, after)]
        self.assertEqual(*others)
        self.assertTrue(self.refuses("two"))
        self.assertEqual(set(before["rows"][1]) - set(after["rows"][1]), set())

    def test_move_back_changes_nothing(self) -> None:
        self.mover().run()
        self.move_back()
        self.assertEqual(self.dump("one"), self.before)

    def move_back(self) -> None:
        """Move the user from two to one."""
        self.mover(self.journal.write(new_entry("alice", "two", "one"))).run()

    def deliver(self, node: str, name: str) -> None:
        """Deliver a message to a node, as a delivery agent does."""
        with open(self.maildir(node, "new", name), "wb") as file:
            file.write(MAIL)

    def test_late_mail_follows(self) -> None:
        """What is delivered to the old node between the last copy and the map, or later, gets to the new one, once."""
        self.copier.before_last = lambda: self.deliver("one", "during.mx")
        self.mover().run()
        self.deliver("one", "after.mx")
        self.assertEqual(self.mover().collect(), 1)
        self.assertEqual(self.mover().collect(), 0)
        names = sorted(self.dump("two")["content"])
        self.assertEqual(names.count(b"during.mx") + names.count(b"after.mx"), 2)
        self.assertEqual(len(names), len(self.before["content"]) + 2)

    def test_late_mail_that_was_expunged_stays_away(self) -> None:
        """A message that the new node got with the last copy does not come back after its user has removed it."""
        self.copier.before_last = lambda: self.deliver("one", "during.mx")
        mover = self.mover()
        mover.run()
        with self.store("two") as store:
            opened = store.open("INBOX", True)
            store.store_flags(opened.key, [opened.delta.uidnext - 1], b"+", [b"\\Deleted"], None, 0)
            store.expunge(opened.key, None, 0)
        self.assertEqual(self.mover().collect(), 0)
        self.assertNotIn(b"during.mx", self.dump("two")["content"])

    def test_changes_between_the_copies_move(self) -> None:
        """What a client does while its mail is copied is on the new node."""

        def work() -> None:
            with self.store("one") as store:
                opened = store.open("INBOX", True)
                store.append("INBOX", [NewMessage((b"\\Flagged",), None, MemoryLiteral(MAIL))])
                store.store_flags(opened.key, [2], b"", [b"\\Seen"], None, 0)
            self.before = self.dump("one")

        self.shields.during_hold = work
        self.mover().run()
        self.assertEqual(self.dump("two"), self.before)

    def test_closed_account_refuses_writers_that_are_open(self) -> None:
        """A server that has the index open while it is closed cannot write into it."""
        with self.store("one") as store:
            store.open("INBOX", True)
            self.before = self.dump("one")

            def write() -> None:
                message = NewMessage((), None, MemoryLiteral(MAIL))
                self.assertRaises(AccountMoved, store.append, "INBOX", [message])

            self.copier.before_last = write
            self.mover().run()
        self.assertEqual(self.dump("two"), self.before)

    def test_slow_pause_is_undone(self) -> None:
        """If the pause takes too long, the user is released and has everything where it was."""
        times = iter(range(10000))
        mover = self.mover(clock=lambda: float(next(times)), max_pause=2.6)
        self.assertRaises(TooSlow, mover.run)
        self.assertEqual((self.dump("one"), self.shields.held), (self.before, 0))
        self.assertEqual(self.map, {"alice": "one"})

    def test_slow_pause_is_tried_again_later(self) -> None:
        """The user works for some seconds between two pauses, so that no command waits for both."""

        def be_slow_once() -> None:
            self.copier.before_last = lambda: None
            raise TooSlow("slow")

        self.copier.before_last = be_slow_once
        self.mover().run()
        self.assertEqual(self.slept, [APART_SECONDS])
        self.assertEqual(self.shields.calls, ["hold", "release"] * 2)
        self.assertEqual(self.dump("two"), self.before)

    def test_slow_copy_does_not_begin_a_pause(self) -> None:
        times = iter(range(10000))
        mover = self.mover(clock=lambda: float(next(times)), max_pause=2)
        self.assertIn("--max-pause 3", str(self.assertRaises(TooSlow, mover.run)))
        self.assertEqual(self.shields.calls, [])

    def test_incomplete_copy_is_not_accepted(self) -> None:
        """A copy that lacks a message is noticed, and the account stays."""

        def lose() -> None:
            folder = self.maildir("one", "cur")
            name = next(iter(os.listdir(folder)))
            copy = self.copier.copy

            def copy_less(source: str, target: str, **rest: Any) -> None:
                copy(source, target, **rest)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{target}/cur/{name}")

            self.copier.copy = copy_less  # type: ignore[method-assign]

        self.copier.before_last = lose
        with contextlib.suppress(AttributeError):
            lose()
        error = self.assertRaises(MoveError, self.mover().run)
        self.assertIn("is missing", str(error))
        self.assertEqual((self.dump("one"), self.shields.held), (self.before, 0))

    def test_other_files_are_compared_too(self) -> None:
        """A file whose content differs and whose size does not, such as the subscriptions, is noticed."""
        copy = self.copier.copy

        def copy_wrong(source: str, target: str, **rest: Any) -> None:
            copy(source, target, **rest)
            if os.path.exists(f"{target}/subscriptions"):
                with open(f"{target}/subscriptions", "r+b") as file:
                    file.write(b"~")

        self.copier.copy = copy_wrong  # type: ignore[method-assign]
        self.assertIn("differs", str(self.assertRaises(MoveError, self.mover().run)))
        self.assertEqual((self.dump("one"), self.shields.held), (self.before, 0))

    def test_abort(self) -> None:
        """A move that is given up leaves the account as it was, and nothing on the other node."""
        mover = self.mover()
        mover._prepare()
        mover._copy(is_last=False)
        self.mover().abort()
        self.assertEqual(self.dump("one"), self.before)
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])
        self.assertIsNone(self.journal.read("alice"))
        self.assertEqual([entry.phase for entry in self.journal.moves("alice")], ["aborted"])

    def test_abort_is_refused_after_the_account_was_given_up(self) -> None:
        self.mover().run()
        error = self.assertRaises(MoveError, self.mover().abort)
        self.assertIn("from one to two is done", str(error))

    def test_other_mail_on_the_target_is_not_touched(self) -> None:
        self.fill("two")
        before = self.dump("two")
        error = self.assertRaises(MoveError, self.mover().run)
        self.assertIn("has mail of this user already", str(error))
        self.assertEqual((self.dump("one"), self.dump("two")), (self.before, before))


class IndexRootTests(MoverTests):
    """The same with indexes outside the Maildirs."""

    index_root = True

    def test_copy_whose_index_is_in_its_place_is_not_deleted(self) -> None:
        """The index is put in place before the mail. Between these steps, the rest of the copy is no old one."""
        maildir, rename = os.fsencode(self.maildir("two")), os.rename

        def die(source: Any, target: Any, **more: Any) -> None:
            if target == maildir:
                raise Died
            rename(source, target, **more)

        with mock.patch.object(os, "rename", die), contextlib.suppress(Died):
            self.mover().run()
        copies = OldCopies(Places(maildir, os.fsencode(self.index("two"))))
        (copy,) = copies.listed()
        error = self.assertRaises(MoveError, copies.delete, "incoming", copy["move"])
        self.assertIn("may be complete", str(error))
        self.mover().run()
        self.assertEqual(self.dump("two"), self.before)


class KilledMoveTests(MoveCase):
    """The process dies before each step that changes anything."""

    def count_steps(self) -> int:
        mortal = Mortal(10**9)
        with mortal.at_work():
            self.mover().run()
        return mortal.steps

    def die_at(self, number: int) -> None:
        with Mortal(number).at_work(), contextlib.suppress(Died):
            self.mover().run()
        gc.collect()  # closes databases, as the end of a process does

    def test_killed_at_each_step(self) -> None:
        """After the death, at most one node serves the account, with everything, and a second run ends the move.

        If nobody continues the move for a minute, one node serves it all the same, unless it died while the source had
        given the account up and the target had not accepted it.
        """
        steps, neither = self.count_steps(), 0
        self.assertGreater(steps, 30)
        for number in range(steps):
            with self.subTest(step=number):
                self.start_again()
                self.die_at(number)
                is_forgotten = number % 2
                self.clock.offset = 61.0 * is_forgotten
                served = [node for node in ("one", "two") if self.is_served(node)]
                self.assertLessEqual(len(served), 1)
                for node in served:
                    self.assertEqual(self.dump(node), self.before)
                if not served and is_forgotten:
                    neither += 1
                    self.assertIn(self.journal.read("alice")[4], ("giving up", "given up"))  # type: ignore[index]
                self.mover().run()
                self.assertEqual(self.dump("two"), self.before)
                self.assertTrue(self.refuses("one"))
                self.assertEqual(self.map, {"alice": "two"})
        self.assertGreater(neither, 0)

    def is_served(self, node: str) -> bool:
        """Whether a node has the Maildir, and its server would open it."""
        return os.path.isdir(self.maildir(node, "cur")) and not self.refuses(node)


class KilledMoveWithIndexRootTests(KilledMoveTests):
    """The same with indexes outside the Maildirs."""

    index_root = True
