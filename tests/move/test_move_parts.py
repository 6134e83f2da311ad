"""The parts of a move: the file of the nodes, the journal, the map, and what the target refuses."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from typing import Any
from unittest import mock

from imapshield.errors import AccountMoved, StoreBusy, StoreError
from imapshield.maildir import index_handover
from imapshield.maildir.index_check import check_index
from imapshield.maildir.index_handover import Mark
from imapshield.move import manifest, places, source_side
from imapshield.move.agent import LocalAgent
from imapshield.move.journal import DONE, KEPT_SECONDS, MAX_EARLIER, Journal, new_entry
from imapshield.move.nodes_file import Node, parse_nodes
from imapshield.move.old_copies import OldCopies
from imapshield.move.places import MoveError, Places
from imapshield.move.rights import check_parents, make_for_owner
from imapshield.move.source_side import SourceSide
from imapshield.move.target_side import TargetSide
from imapshield.move.user_switch import UserSwitch
from tests.move.move_case import MoveCase


class NodesFileTests(MoveCase):
    def test_example(self) -> None:
        nodes = parse_nodes(
            'map = "/m"\n[shields]\ns = { control = "/c", ssh = "root@s" }\n[nodes.one]\nmail-root = "/srv"\n'
            'index-root = "/i"\nssh = "root@one"\ncontrol = "/k"\ncommand = "/opt/i"\n',
            "f",
        )
        self.assertEqual(nodes.nodes["one"], Node("one", "/srv", "/i", "root@one", "/k", "/opt/i"))
        self.assertEqual((nodes.map, nodes.shields[0].ssh), ("/m", "root@s"))

    def test_errors(self) -> None:
        for text, expected in (
            ("nodes =", "f: "),
            ("maps = 1", "unknown maps"),
            ("nodes = 1", "must be a table, such as [nodes.one]"),
            ("[nodes]\none = 1", "must be a table with mail-root"),
            ('[nodes.one]\nmail-root = "srv"', "absolute path"),
            ('[nodes.one]\nmail_root = "srv"', "unknown mail_root"),
            ("[nodes.one]\nmail-root = 1", "must be a text"),
            ('[shields.s]\nssh = "s"', "needs control"),
            ("map = 1", "are texts"),
        ):
            with self.subTest(text=text):
                self.assertIn(expected, str(self.assertRaises(MoveError, parse_nodes, text, "f")))


class JournalTests(MoveCase):
    def test_damaged_entry(self) -> None:
        os.makedirs(f"{self.base}/journal")
        for text in (
            "{",
            "{}",
            "[]",
            "[{}]",
            "1",
            '[{"user": "a", "source": "b", "target": "c", "move": "d", "phase": "e"}]',
            '[{"user": "a", "source": "b", "target": "c", "move": 1, "phase": "done"}]',
        ):
            with open(f"{self.base}/journal/alice.json", "w", encoding="utf-8") as file:
                file.write(text)
            self.assertIn(
                "is damaged", str(self.assertRaises(MoveError, self.journal.read, "alice"))
            )

    def test_earlier_moves(self) -> None:
        """The last moves of a user are kept for some days, and at most some of them."""
        journal = Journal(f"{self.base}/journal", self.clock)
        for user in ("bob", "carol"):
            journal.write(new_entry(user, "one", "two"))
        for number in range(MAX_EARLIER + 5):
            entry = journal.write(new_entry("alice", f"n{number}", "two"))
            journal.write(entry._replace(phase=DONE))
        moves = journal.moves("alice")
        self.assertEqual((len(moves), moves[0].source), (MAX_EARLIER + 1, f"n{MAX_EARLIER + 4}"))
        recent = journal.recent()
        self.assertEqual(len(recent), MAX_EARLIER + 3)
        self.assertEqual([entry.user for entry in recent[-3:]], ["alice", "bob", "carol"])
        self.clock.offset = KEPT_SECONDS + 1
        self.assertEqual([entry.user for entry in journal.recent()], ["bob", "carol"])
        journal.write(new_entry("alice", "one", "two"))
        self.assertEqual(len(journal.moves("alice")), 1)

    def test_no_directory(self) -> None:
        self.assertEqual(Journal(f"{self.base}/none").recent(), [])


class MapTests(MoveCase):
    def test_map_that_has_gone(self) -> None:
        nodes = parse_nodes(f'map = "{self.base}/none"', "f")
        error = self.assertRaises(MoveError, UserSwitch(nodes).switch, "alice", "two")
        self.assertIn("No such file", str(error))

    def test_map_that_is_wrong(self) -> None:
        """Nothing of a map is changed that no shield would read."""
        path = f"{self.base}/users.map"
        with open(path, "w", encoding="utf-8") as file:
            file.write("bob\n")
        switch = UserSwitch(parse_nodes(f'map = "{path}"', "f"))
        for call in (switch.check, switch.switch):
            error = self.assertRaises(MoveError, call, "alice", "two")
            self.assertIn("line 1: has 1 words", str(error))
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "bob\n")

    def test_command_that_does_not_exist(self) -> None:
        nodes = parse_nodes('switch-command = "/nowhere/switch"', "f")
        self.assertRaises(MoveError, UserSwitch(nodes).switch, "alice", "two")


class SideTests(MoveCase):
    def places(self, node: str) -> Places:
        return Places(os.fsencode(self.maildir(node)), os.fsencode(self.index(node)))

    def source(self) -> SourceSide:
        return SourceSide(self.places("one"), f"{self.base}/one/mail")

    def prepare(self, octets: int = 1, count: int = 1, uid: int = -1) -> Any:
        uid = os.geteuid() if uid == -1 else uid
        above = (os.geteuid(), os.getegid(), 0o710)
        return TargetSide(self.places("two"), "m").prepare(octets, count, uid, os.getegid(), above)

    def test_target_without_space(self) -> None:
        self.assertIn(
            "are needed; free space", str(self.assertRaises(MoveError, self.prepare, 1 << 60))
        )
        self.assertIn("inodes free", str(self.assertRaises(MoveError, self.prepare, 1, 1 << 60)))
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])

    def test_target_without_rights(self) -> None:
        self.patch(os, "geteuid", lambda: 12345)
        self.assertIn(
            "as that user, or as root", str(self.assertRaises(MoveError, self.prepare, 1, 1, 0))
        )
        self.assertIn("as root", str(self.assertRaises(MoveError, self.prepare, 1, 1, 98765)))

    def test_target_whose_file_system_ignores_case(self) -> None:
        self.patch(os, "listdir", lambda _: [])
        self.assertIn("letter case", str(self.assertRaises(MoveError, self.prepare)))

    def test_links_in_the_place_of_new_directories(self) -> None:
        """The owner of the mail cannot lead root elsewhere."""
        incoming = f"{self.base}/two/mail/.imapshield-incoming-m-alice"
        os.mkdir(f"{self.base}/other", 0o700)
        os.symlink(f"{self.base}/other", incoming)
        self.assertRaises(MoveError, make_for_owner, os.fsencode(incoming), os.geteuid(), 0)
        self.assertEqual(os.listdir(f"{self.base}/other"), [])

    def test_directory_of_another_user(self) -> None:
        path = os.fsencode(f"{self.base}/other")
        os.mkdir(path, 0o700)
        status = os.stat(path)
        with (
            mock.patch.object(os, "geteuid", return_value=0),
            mock.patch.object(os, "fchown") as chown,
        ):
            for owner in (0, 7):
                found = os.stat_result((*status[:4], owner, *status[5:]))
                with mock.patch.object(os, "fstat", return_value=found):
                    make_for_owner(path, 7, 8)
            found = os.stat_result((*status[:4], 9, *status[5:]))
            with mock.patch.object(os, "fstat", return_value=found):
                error = self.assertRaises(MoveError, make_for_owner, path, 7, 8)
        self.assertIn("belongs to another user", str(error))
        self.assertEqual(chown.call_count, 2)

    def test_parents_that_users_can_change(self) -> None:
        """Root moves no mail there; the owner of the mail does."""
        path, top = os.fsencode(f"{self.base}/home/alice/Maildir"), f"{self.base}/home"
        os.makedirs(path)
        for each in (top, f"{top}/alice"):
            os.chmod(each, 0o700)
        with mock.patch.object(os, "geteuid", return_value=0):
            check_parents(path, top)
            os.chmod(f"{top}/alice", 0o702)  # noqa: S103
            error = self.assertRaises(MoveError, check_parents, path, top)
        self.assertIn("home/alice can be changed by users", str(error))
        with mock.patch.object(os, "geteuid", return_value=7):
            check_parents(path, top)

    def test_pipes_are_no_mail(self) -> None:
        """A pipe is neither read nor waited for, wherever it is."""
        os.mkfifo(self.maildir("one", "new", "pipe"))
        os.mkfifo(self.maildir("one", "imapshield.moved"))
        maildir = os.fsencode(self.maildir("one"))
        self.assertNotIn(b"new/pipe", [*manifest.delivered_mail(maildir)])
        self.assertTrue(places.sync_tree(maildir, 0.0))
        self.assertEqual(places.stub_text(maildir), "")

    def test_closed_account_is_announced_to_logins(self) -> None:
        """An empty file lets logins ask the index. It goes with the mark, and is not what an old copy is taken for."""
        path = self.maildir("one", "imapshield.moved")
        for _ in range(2):
            self.source().close("m", "two", 60.0)
            self.assertEqual(os.stat(path).st_size, 0)
            self.assertEqual(self.source().state("m"), "closed")
            self.assertTrue(self.source().reopen("m"))
            self.assertFalse(os.path.exists(path))
        with open(path, "w") as file:
            file.write("moved")
        self.source().reopen("m")
        self.assertTrue(os.path.exists(path))

    def test_reserve(self) -> None:
        """Space is reserved once, and given back; a full disk is an error, and a file system that cannot is none."""
        path = os.fsencode(self.maildir("one"))
        name = os.path.join(path, b"imapshield.reserve.tmp")
        with open(name, "wb"):
            pass  # of a move that was killed
        for _ in range(2):
            places.reserve_space(path)
            self.assertEqual(os.stat(name).st_size, places.RESERVE_BYTES)
        self.assertNotIn(b"imapshield.reserve.tmp", dict(manifest.copied_files(self.places("one"))))
        for _ in range(2):
            places.free_reserve(path)
            self.assertFalse(os.path.exists(name))
        for number in (errno.ENOSPC, errno.EOPNOTSUPP):
            error = OSError(number, os.strerror(number))
            with mock.patch.object(os, "posix_fallocate", side_effect=error):
                if number == errno.ENOSPC:
                    self.assertRaises(OSError, places.reserve_space, path)
                else:
                    places.reserve_space(path)
            self.assertFalse(os.path.exists(name))
        os.mkdir(name)  # the owner can do that, and keeps nobody from ending the move
        places.reserve_space(path)
        places.free_reserve(path)

    def test_target_without_mail_root(self) -> None:
        os.rmdir(f"{self.base}/two/mail")
        os.rmdir(f"{self.base}/two")
        self.assertIn("create it", str(self.assertRaises(MoveError, self.prepare)))

    def test_directory_of_a_domain(self) -> None:
        """A missing directory above the Maildir is as that of the source."""
        os.rmdir(f"{self.base}/two/mail")
        self.prepare()
        self.assertEqual(os.stat(f"{self.base}/two/mail").st_mode & 0o777, 0o710)

    def test_damaged_manifest(self) -> None:
        self.source().close("m", "two", 60.0)
        with open(f"{self.index('one')}/imapshield.manifest", "ab") as file:
            file.write(b"\0x new/1")
        error = self.assertRaises(MoveError, manifest.Manifest.read, self.places("one"))
        self.assertIn("imapshield.manifest is damaged", str(error))

    def test_mail_root_that_is_wrong(self) -> None:
        """A pattern that is none is an error that names it."""
        agent = LocalAgent(Node("one", "/srv/{usr}"), "alice")
        error = self.assertRaises(MoveError, agent.call, "source", "inspect")
        self.assertIn("/srv/{usr}: unknown {usr}", str(error))

    def test_links_are_refused(self) -> None:
        os.symlink("/nowhere", self.maildir("one", ".Link"))
        self.assertIn("symbolic link", str(self.assertRaises(MoveError, self.source().inspect)))
        os.unlink(self.maildir("one", ".Link"))
        os.rename(self.maildir("one"), self.maildir("one") + "2")
        os.symlink(self.maildir("one") + "2", self.maildir("one"))
        self.assertIn("symbolic link", str(self.assertRaises(MoveError, self.source().inspect)))

    def test_only_a_copy_that_was_given_up_is_deleted(self) -> None:
        os.rename(self.maildir("one"), f"{self.base}/one/mail/.imapshield-moved-m1-alice")
        copies = OldCopies(self.places("one"))
        error = self.assertRaises(MoveError, copies.delete, "moved", "m1")
        self.assertIn("nothing is deleted", str(error))
        copies.delete("moved", "m2")
        self.assertEqual([copy["move"] for copy in copies.listed()], ["m1"])
        self.assertEqual(OldCopies(Places(b"/nowhere/a", b"/nowhere/a")).listed(), [])

    def test_unfinished_copies_are_deleted_unless_they_may_be_complete(self) -> None:
        """A copy whose index has the mark of a move may be the only one."""
        copies = OldCopies(self.places("two"))
        self.prepare()
        os.makedirs(f"{self.base}/two/mail/.imapshield-late-m-alice/new")
        self.source().close("m", "two", 60.0)
        for part in {self.maildir("one"), self.index("one")}:
            name = os.path.dirname(part).replace("/one/", "/two/")
            self.copier.copy(part, f"{name}/.imapshield-incoming-m-alice", is_last=True)
        error = self.assertRaises(MoveError, copies.delete, "incoming", "m")
        self.assertIn("only copy: look with `imapshield move USER two`", str(error))
        self.assertEqual([each["kind"] for each in copies.listed()], ["incoming", "late"])
        self.prepare()
        self.source().reopen("m")
        for part in {self.maildir("one"), self.index("one")}:
            name = os.path.dirname(part).replace("/one/", "/two/")
            self.copier.copy(part, f"{name}/.imapshield-incoming-m-alice", is_last=False)
        for kind in ("incoming", "late"):
            copies.delete(kind, "m")
        self.assertEqual(os.listdir(f"{self.base}/two/mail"), [])

    def test_account_that_is_not_given_up_is_not_retired(self) -> None:
        self.assertIn(
            "is not given up", str(self.assertRaises(MoveError, self.source().retire, "m", "two"))
        )

    def test_close_waits_for_commands_in_flight(self) -> None:
        """A command that holds the lock may end; if it does not, the account stays open."""
        self.patch(source_side, "CLOSE_SECONDS", 0.05)
        with mock.patch.object(index_handover, "close", side_effect=StoreBusy):
            error = self.assertRaises(MoveError, self.source().close, "m", "two", 60.0)
        self.assertIn("another process uses the index", str(error))
        self.assertFalse(self.refuses("one"))

    def test_time_of_a_mark(self) -> None:
        """After its time, a mark is no obstacle, and cannot be made permanent."""
        source = self.source()
        source.close("m", "two", -1.0)
        self.assertEqual((source.state("m"), source.give_up("m")), ("open", False))
        self.assertEqual(self.dump("one"), self.before)
        self.assertFalse(source.give_up("m"))

    def test_mark_of_another_move(self) -> None:
        source = self.source()
        source.close("m", "two", 60.0)
        self.assertEqual(
            (source.state("n"), source.reopen("n"), source.state("m")), ("other", False, "closed")
        )
        directory = os.fsencode(self.index("one"))
        self.assertRaises(StoreError, index_handover.close, directory, Mark("n", "two", 1.0, False))
        self.assertRaises(StoreError, index_handover.seal, directory, "n", "two")
        findings = [*check_index(os.fsencode(self.maildir("one")), 0.0, directory)]
        self.assertIn("is being moved to the node 'two'", findings[0].problem)
        self.assertTrue(self.refuses("one"))
        self.assertIn("continues that", self.warnings[-1])

    def test_target_accepts_only_what_was_copied(self) -> None:
        target = TargetSide(self.places("two"), "m")
        self.assertIn("has gone", str(self.assertRaises(MoveError, target.accept, "two")))
        self.prepare()
        self.assertEqual(target.verify("", [0.0, 0.0], 1.0), "the manifest is missing")
        with open(f"{self.base}/two/mail/.imapshield-incoming-m-alice/imapshield.manifest", "wb"):
            pass
        self.assertEqual(
            target.verify("", [0.0, 0.0], 1.0), "the manifest is not that of the source"
        )

    def test_copy_that_another_command_uses(self) -> None:
        """Two machines that move the same user to the same node do not share the copy."""
        self.prepare()
        target = TargetSide(self.places("two"), "m")
        incoming = f"{self.base}/two/mail/.imapshield-incoming-m-alice"
        self.prepare()
        os.rename(incoming, incoming + "2")
        os.mkdir(incoming)
        fd = os.open(incoming, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        for call in (self.prepare, target.discard, lambda: target.accept("two")):
            self.assertIn("another command", str(self.assertRaises(MoveError, call)))
        other = TargetSide(self.places("two"), "n")
        error = self.assertRaises(MoveError, other.prepare, 1, 1, os.geteuid(), 0, (0, 0, 448))
        self.assertIn("another command", str(error))
        os.close(fd)
        other.prepare(1, 1, os.geteuid(), os.getegid(), (0, 0, 448))
        self.prepare()
        target.discard()
        self.assertFalse(os.path.exists(incoming))

    def test_slow_disk(self) -> None:
        """A copy that cannot be put on stable storage in time is not complete."""
        source, target = self.source(), TargetSide(self.places("two"), "m")
        self.prepare()
        digest = source.close("m", "two", 60.0)
        for part in {self.maildir("one"), self.index("one")}:
            incoming = os.path.join(os.path.dirname(part), ".imapshield-incoming-m-alice").replace(
                "/one/", "/two/"
            )
            self.copier.copy(part, incoming, is_last=True)
        self.assertEqual(target.verify(digest, [0.0, 0.0], 60.0), "")
        self.assertIn("the disk", target.verify(digest, [0.0, 0.0], -1.0))

    def test_time_that_was_set_back(self) -> None:
        """What was written after the clock was set back counts as written later."""
        ahead = time.time() - time.monotonic()
        self.assertLess(TargetSide._since([100.0, ahead + 5.0]), 95.0)
        self.assertGreater(TargetSide._since([100.0, ahead - 5.0]), 99.0)

    def test_long_names(self) -> None:
        """A user name that fills a file name has other names for its directories."""
        beside = Places(b"/m/" + b"u" * 255, b"/i/u").beside("incoming")
        self.assertLess(len(os.path.basename(beside.maildir)), 120)

    def test_systems_without_linux_calls(self) -> None:
        with mock.patch.object(ctypes, "CDLL") as library:
            library.return_value = object()
            with mock.patch.object(os, "sync") as sync:
                places.sync_file_system(b"/")
            sync.assert_called_once_with()
            self.assertFalse(places.exchange(b"/a", b"/b"))
            self.mover().run()
        self.assertEqual(self.dump("two"), self.before)

    def test_stub_tells_the_server(self) -> None:
        self.mover().run()
        with self.store("one") as store:
            self.assertRaises(AccountMoved, store.mailboxes)
            self.assertRaises(AccountMoved, store.mailboxes)
        self.assertIn("correct the map", self.warnings[-1])
