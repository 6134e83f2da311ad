"""`imapshield export-uids` and `imapshield check-mail`: output, exit status, and which Maildirs are found."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

import imapshield
from imapshield import cli, mail_commands
from imapshield.cred.realm import MailRoot
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.store import MaildirStore
from imapshield.wire.commands.base import MemoryLiteral
from tests.maildir.disk import failing


def command(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.multiple(sys, stdout=out, stderr=err):
        status = cli.main(arguments)
    return status, out.getvalue(), err.getvalue()


def paths_in(directory: str) -> list[str]:
    """Return the paths of a directory and of everything in it."""
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in [".", *names]
    ]


def owners_in(directory: str) -> set[tuple[int, int]]:
    """Return owner and group of everything in a directory."""
    return {(status.st_uid, status.st_gid) for status in map(os.lstat, paths_in(directory))}


def give(directory: str, uid: int, gid: int) -> None:
    """Give a directory and everything in it to another user."""
    for path in paths_in(directory):
        os.lchown(path, uid, gid)


CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(imapshield.__file__)))


class MailCommandCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        for user in ("alice", "bob"):
            for part in ("cur", "new", "tmp"):
                os.makedirs(f"{self.root}/{user}/{part}")
        os.mkdir(f"{self.root}/other")

    def index(self, user: str, directory: str | None = None) -> int:
        """Make the index of a user's Maildir; return the UIDVALIDITY of INBOX."""
        store = MaildirStore(
            f"{self.root}/{user}",
            now=lambda: 1_800_000_000.0,
            log_warning=self.fail,
            index_directory=directory,
        )
        uidvalidity = store.open("INBOX", False).uidvalidity
        store.close()
        return uidvalidity

    def put(self, path: str, content: bytes = b"Subject: x\r\n\r\nhi\r\n") -> None:
        with open(f"{self.root}/{path}", "wb") as file:
            file.write(content)


class CheckMailTests(MailCommandCase):
    def test_exit_status_says_whether_there_is_damage(self) -> None:
        """The status is 0 without damage and 1 with damage, also if it was repaired."""
        self.assertEqual(command("check-mail", self.root), (0, "0 findings in 2 Maildirs\n", ""))
        self.put("bob/cur/1.x:2,:2,S")
        status, out, _ = command("check-mail", self.root)
        self.assertEqual(status, 1)
        self.assertIn(
            "bob/cur/1.x:2,:2,S' has flags after a second colon; --repair would rename", out
        )
        status, out, _ = command("check-mail", "--repair", self.root)
        self.assertEqual(status, 1)
        self.assertIn("; repaired: renamed it to 1.x:2,S", out)
        self.assertEqual(os.listdir(f"{self.root}/bob/cur"), ["1.x:2,S"])
        self.assertEqual(command("check-mail", self.root)[0], 0)

    def test_maildirs_are_those_of_the_mail_root(self) -> None:
        """A Maildir, a mail root and a pattern are accepted; without a Maildir, the status is 2."""
        alice, bob = f"{self.root}/alice", f"{self.root}/bob"
        self.assertEqual(mail_commands.find_maildirs(alice), [alice])
        self.assertEqual(mail_commands.find_maildirs(self.root), [alice, bob])
        self.assertEqual(mail_commands.find_maildirs(self.root + "/{user}"), [alice, bob])
        for where in (f"{self.root}/other", f"{self.root}/missing", self.root + "/x/{local}"):
            status, out, err = command("check-mail", where)
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))

    def test_indexes_of_an_index_root_are_checked(self) -> None:
        """--index finds the index of each Maildir as --index-root does, and no other index is used or made."""
        for user in ("alice", "bob"):
            self.index(user, f"{self.root}/indexes/{user}")
        path = f"{self.root}/indexes/bob/imapshield.sqlite"
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE account SET messages = 9")
        self.assertEqual(command("check-mail", self.root)[0], 0)
        for where, index in (
            (self.root, f"{self.root}/indexes"),
            (self.root + "/{local}", self.root + "/indexes/{user}/"),
            (f"{self.root}/bob", f"{self.root}/indexes/bob"),
        ):
            status, out, _ = command("check-mail", where, "--index", index)
            self.assertEqual((status, len(out.splitlines())), (1, 2))
            self.assertIn(f"{path!r} the number or size of all messages", out)
        command("check-mail", self.root, "--index", f"{self.root}/indexes", "--repair", "--moved")
        self.assertEqual(
            command("check-mail", self.root, "--index", f"{self.root}/indexes")[:2],
            (0, "0 findings in 2 Maildirs\n"),
        )
        self.assertEqual(sorted(os.listdir(f"{self.root}/alice")), ["cur", "new", "tmp"])

    def test_index_option_is_checked(self) -> None:
        """An --index without any index, or with a field that the mail root does not tell, is an error of one line."""
        for index in (f"{self.root}/indexes", self.root + "/{domain}/{local}"):
            status, out, err = command("check-mail", self.root, "--index", index)
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))

    def test_index_directory_is_that_of_the_server(self) -> None:
        """The directory of an index is the one that the server gives the user of the Maildir."""
        for root, index, user in (
            ("/m", "/i", "alice@example.org"),
            ("/m/{domain}/{local}/mail", "/i/{user}", "alice@example.org"),
            ("/m/{user}/", "/i/{domain}/{local}", "a@b@example.org"),
            ("/home/{local}/Maildir", "/i", "alice"),
            ("/m/{domain}/{local}@{domain}", "/i", "alice@example.org"),
        ):
            maildir, expected = MailRoot(root).maildir(user), MailRoot(index).maildir(user)
            self.assertEqual(mail_commands.index_directory(root, index, maildir), expected)

    def test_symbolic_links_are_followed_if_the_server_follows_them(self) -> None:
        """With --follow-symlinks a folder that is a symbolic link is checked like any other."""
        os.rename(f"{self.root}/bob", f"{self.root}/other/bob")
        os.symlink(f"{self.root}/other/bob", f"{self.root}/alice/.A")
        self.put("other/bob/cur/1.x:2,:2,S")
        alice = f"{self.root}/alice"
        self.assertIn("is a symbolic link", command("check-mail", alice)[1])
        out = command("check-mail", alice, "--follow-symlinks", "--repair")[1]
        self.assertIn("alice/.A/cur/1.x:2,:2,S' has flags after a second colon", out)
        self.assertEqual(os.listdir(f"{self.root}/other/bob/cur"), ["1.x:2,S"])

    def test_long_run_prints_progress(self) -> None:
        """A run that takes longer than two seconds prints lines of progress."""
        self.patch(mail_commands, "PROGRESS_SECONDS", 0.0)
        _, _, err = command("check-mail", self.root)
        self.assertIn("1 of 2 Maildirs so far", err)

    def test_file_with_two_kinds_of_damage_is_repaired(self) -> None:
        """Of a file that a repair renames, all other damage is repaired too; each is one line, with what was done."""
        self.put("bob/cur/1.x,S=9:2,:2,S")
        os.chmod(f"{self.root}/bob/cur/1.x,S=9:2,:2,S", 0o040)
        self.put("bob/new/1.x,S=9")
        os.rmdir(f"{self.root}/bob/tmp")
        status, out, _ = command("check-mail", "--repair", f"{self.root}/bob")
        self.assertEqual(status, 1)
        for text in ("created it", "gave it mode 0640", "renamed it", "gave it another name"):
            self.assertIn(f"; repaired: {text}", out)
        self.assertNotIn("; not repaired", out)
        out = command("check-mail", "--repair", f"{self.root}/bob")[1]
        self.assertNotIn("repaired:", out)
        self.assertEqual(len(out.splitlines()), 3)  # the sizes in the names

    def test_names_are_shown_with_escapes(self) -> None:
        """Bytes of a name that are no printable text are shown as escapes, in every encoding of the terminal."""
        with open(os.fsencode(self.root) + b"/bob/cur/\xff\x1b\xc3\xa9:2,:2,S", "wb"):
            pass
        out = command("check-mail", self.root)[1]
        self.assertIn("/bob/cur/\\xff\\x1bé:2,:2,S' has", out)
        self.assertIn("would rename it to \\xff\\x1bé:2,S", out)

    def test_failing_repair_is_reported(self) -> None:
        """If a repair fails, the line says why, and the others go on."""
        self.put("bob/cur/1.x:2,:2,S")
        with mock.patch("os.rename", side_effect=PermissionError(13, "Permission denied")):
            status, out, _ = command("check-mail", "--repair", self.root)
        self.assertEqual(status, 1)
        self.assertIn("; not repaired: Permission denied", out)

    def test_unreadable_maildir_does_not_hide_the_others(self) -> None:
        """A Maildir that cannot be read is one line, and the others are checked; if none can be read, the status is 2."""
        self.put("bob/cur/1.x:2,:2,S")
        error = PermissionError(13, "Permission denied", f"{self.root}/alice")
        with failing("scandir", error):
            status, out, _ = command("check-mail", self.root)
        self.assertEqual(status, 1)
        self.assertIn("alice' cannot be read: Permission denied; run", out)
        self.assertIn("1 findings in 1 Maildirs", out)
        with failing("scandir", error):
            self.assertEqual(command("check-mail", f"{self.root}/alice")[0], 2)

    def test_missing_permission_is_said(self) -> None:
        """Without permission for a Maildir, mail root or pattern, the status is 2, and the output says so."""
        alice = f"{self.root}/alice"
        for arguments in (
            ("check-mail", alice),
            ("check-mail", self.root),
            ("check-mail", self.root + "/{domain}/{local}"),
            ("check-mail", alice, "--index", f"{self.root}/indexes"),
            ("export-uids", "--to", "dovecot", alice),
        ):
            with self.without_permission():
                status, out, err = command(*arguments)
            self.assertEqual((status, len(err.splitlines())), (2, 1), arguments)
            self.assertIn("Permission denied; run this command as its owner or as root", out + err)

    @contextmanager
    def without_permission(self) -> Iterator[None]:
        """Take the right to look into the mail root from this process."""
        os.chmod(self.root, 0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            os.chmod(self.root, 0o700)

    def test_directory_with_tmp_is_no_maildir(self) -> None:
        """A directory with tmp alone, such as /, is not taken for a Maildir."""
        os.mkdir(f"{self.root}/other/tmp")
        self.assertEqual(len(mail_commands.find_maildirs(self.root)), 2)
        os.mkdir(f"{self.root}/other/new")
        self.assertEqual(len(mail_commands.find_maildirs(self.root)), 3)


class ExportTests(MailCommandCase):
    def test_advice_is_for_the_error(self) -> None:
        """On a read-only file system, and for a user without an index, the line says what to do about that."""
        alice = f"{self.root}/alice"
        err = command("export-uids", "--to", "dovecot", alice)[2]
        self.assertIn(
            "if the user has never logged in to imapshield, there is nothing to export", err
        )
        self.index("alice")
        error = OSError(errno.EROFS, "Read-only file system", f"{alice}/imapshield.sqlite")
        with mock.patch.object(mail_commands, "open_account", side_effect=error):
            status, _, err = command("export-uids", "--to", "dovecot", alice)
        self.assertEqual(status, 2)
        self.assertIn("Read-only file system; mount its file system so that it can be written", err)

    def test_files_of_both_servers_are_written(self) -> None:
        """The lists have the index's UIDs, and the subscriptions are those of imapshield."""
        alice = f"{self.root}/alice"
        for name in ("1.x:2,S", "2.x:2,"):
            self.put(f"alice/cur/{name}")
        store = MaildirStore(alice, now=lambda: 1_800_000_000.0, log_warning=self.fail)
        store.create("it's/A", ())
        store.set_subscribed("it's/A", True)
        uidvalidity = store.open("INBOX", False).uidvalidity
        store.close()
        status, out, err = command("export-uids", "--to", "dovecot", alice)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("2 messages in 3 mailboxes", out)
        self.assertRegex(out, r"--min-highest-modseq \d+ 'it'\"'\"'s\.A'\n")
        self.assertIn("prefix", out)
        with open(f"{alice}/dovecot-uidlist", "rb") as file:
            self.assertRegex(
                file.read(), rb"\A3 V%d N\d+ G[0-9a-f]{32}\n1 :1.x\n2 :2.x\n\Z" % uidvalidity
            )
        self.assertEqual(command("export-uids", "--to", "courier", alice)[0], 0)
        with open(f"{alice}/courierimapsubscribed", "rb") as file:
            self.assertEqual(file.read(), b"INBOX.it's.A\n")
        with open(f"{alice}/courierimapuiddb", "rb") as file:
            self.assertRegex(file.read(), rb"\A1 %d \d+\n1 1.x\n2 2.x\n\Z" % uidvalidity)
        self.assertEqual(command("check-mail", alice)[0], 0)

    def test_locked_list_is_refused(self) -> None:
        """While Dovecot holds the lock of a list, the command refuses, and says what to do."""
        self.index("alice")
        self.put("alice/dovecot-uidlist.lock", b"")
        status, _, err = command("export-uids", "--to", "dovecot", f"{self.root}/alice")
        self.assertEqual(status, 2)
        self.assertIn("stop the other IMAP servers", err)

    def test_index_outside_the_maildir_is_exported(self) -> None:
        """--index exports the index of another directory; without an index, nothing is written."""
        alice, index = f"{self.root}/alice", f"{self.root}/indexes/alice"
        self.put("alice/cur/1.x:2,S")
        uidvalidity = self.index("alice", index)
        status, out, err = command("export-uids", "--to", "dovecot", alice)
        self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))
        self.assertIn("--index", err)
        self.assertEqual(sorted(os.listdir(alice)), ["cur", "new", "tmp"])
        os.mkdir(f"{self.root}/other/A")
        os.mkdir(f"{self.root}/other/A/cur")
        os.symlink(f"{self.root}/other/A", f"{alice}/.A")
        arguments = ("--to", "dovecot", alice, "--index", index, "--follow-symlinks")
        status, out, err = command("export-uids", *arguments)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("1 messages in 2 mailboxes", out)
        with open(f"{alice}/dovecot-uidlist", "rb") as file:
            self.assertTrue(file.read().startswith(b"3 V%d N" % uidvalidity))
        self.assertNotIn("imapshield.sqlite", os.listdir(alice))

    def test_errors_are_one_line(self) -> None:
        """A directory that is no Maildir, and an index that cannot be used, are errors of one line."""
        self.put("alice/imapshield.sqlite", b"")
        for path in (f"{self.root}/other", f"{self.root}/missing"):
            status, out, err = command("export-uids", "--to", "courier", path)
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))


class OwnerTests(MailCommandCase):
    def test_index_of_the_server_is_used_with_its_rights(self) -> None:
        """As root, an index that only the server can read is used, and files in the Maildir belong to its owner."""
        if os.geteuid() != 0:
            return
        base = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, base)
        os.chmod(base, 0o711)  # noqa: S103 - the owner of the index must be able to reach it
        alice, index = f"{self.root}/alice", f"{base}/alice"
        self.put("alice/cur/1.x:2,P")
        give(alice, 12345, 54321)
        store = MaildirStore(alice, now=time.time, log_warning=self.fail, index_directory=index)
        store.create("A", ())
        store.append("A", [NewMessage((b"$Work", b"$Forwarded"), None, MemoryLiteral(b"x"))])
        store.set_subscribed("A", True)
        store.close()
        os.makedirs(f"{alice}/.New/cur")
        give(f"{alice}/.New", 12345, 54321)
        for owner in (0, 23456):  # of the index
            give(index, owner, owner)
            for server in ("dovecot", "courier"):
                arguments = ("export-uids", "--to", server, alice, "--index", index)
                self.assertEqual(command(*arguments)[::2], (0, ""))
            self.assertEqual(owners_in(index), {(owner, owner)})
            self.assertEqual(owners_in(alice), {(12345, 54321)})
            os.makedirs(f"{alice}/.New{owner}/cur")
            give(f"{alice}/.New{owner}", 12345, 54321)
        written = {name for _, folders, names in os.walk(alice) for name in folders + names}
        self.assertLessEqual(
            {
                "dovecot-uidlist", "dovecot-keywords", "subscriptions",
                "courierimapuiddb", "courierimapkeywords", ":list", "courierimapsubscribed",
            },
            written,
        )  # fmt: skip

    def test_root_acts_as_the_owner(self) -> None:
        """As root, a command has the rights of the owner of the Maildir, and root's again afterwards."""
        if os.geteuid() != 0:
            return
        code = (
            "import os; from imapshield.mail_commands import acting_as_owner\n"
            f"with acting_as_owner({self.root!r}): print(os.geteuid(), os.getegid())\n"
            "print(os.geteuid(), os.getegid())"
        )
        os.chown(self.root, 12345, 54321)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
        )
        self.assertEqual(done.stdout, "12345 54321\n0 0\n")
