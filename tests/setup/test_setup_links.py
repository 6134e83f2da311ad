"""Root's ``imapshield setup`` where another user may have put links: it changes nothing that is not below the paths."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.setup import plan, steps
from imapshield.setup.answers import Answers
from imapshield.setup.directory_entry import RefusedLink, open_entry
from imapshield.setup.installation import Installation
from imapshield.setup.steps import ActingAs, Directory, File, Owner, StepError
from imapshield.setup.undo import NotUndone, Undo, undone_on_error
from tests.setup.setup_case import ME

NOBODY = 65534
OWNER = Owner(ME, ME)


class LinkCase(SynchronousTestCase):
    """`folder` has a directory ``mail`` of another user, with a link ``mail/link`` to a directory ``roots``."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o711)  # noqa: S103  other users pass
        for name in ("mail", "roots"):
            os.mkdir(f"{self.folder}/{name}", 0o755)
        os.symlink("../roots", f"{self.folder}/mail/link")
        self.give(f"{self.folder}/mail")
        self.give(f"{self.folder}/mail/link")
        self.roots = f"{self.folder}/roots"

    def give(self, path: str) -> None:
        """Give a path to another user than root. Tests of another user own it already."""
        if os.geteuid() == 0:
            os.lchown(path, NOBODY, NOBODY)


class RefusedLinkTests(LinkCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "geteuid", lambda: 0)
        self.before = os.stat(self.roots)

    def refused(self, step: Directory | File, path: str) -> None:
        text = f"^{path}: is a link that root does not follow, .* use the path"
        with self.assertRaisesRegex(StepError, text):
            step.describe()
        with self.assertRaisesRegex(StepError, text):
            step.apply(Undo())
        self.assertEqual(os.listdir(self.roots), [])
        after = os.stat(self.roots)
        self.assertEqual(
            (after.st_mode, after.st_uid, after.st_mtime_ns),
            (self.before.st_mode, self.before.st_uid, self.before.st_mtime_ns),
        )

    def test_link_to_a_directory(self) -> None:
        """The directory behind a link of another user is not given to the server, and nothing is made in it."""
        link = f"{self.folder}/mail/link"
        self.refused(Directory(link, 0o700, OWNER), link)
        self.refused(Directory(f"{link}/a/b", 0o700, OWNER), link)

    def test_link_to_a_file(self) -> None:
        """No file is written through a link of another user."""
        link = f"{self.folder}/mail/link"
        self.refused(File(f"{link}/config.toml", b"x", 0o600, OWNER), link)
        target = f"{self.folder}/mail/config.toml"
        os.symlink("../roots/new", target)
        self.give(target)
        self.refused(File(target, b"x", 0o600, OWNER), target)

    def test_links_of_root(self) -> None:
        """Root follows the links that only root can make, such as those in /, also several."""
        status = os.stat_result([0o120777, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        folder = os.stat_result([0o40755, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        os.symlink(f"{self.folder}/mail/link", f"{self.folder}/second")
        os.symlink("loop", f"{self.folder}/loop")
        real = os.stat

        def root_owns_links(path: str, **options: object) -> os.stat_result:
            is_link = path in ("link", "second", "loop")
            return status if is_link else real(path, **options)  # type: ignore[arg-type]

        with (
            mock.patch("os.stat", root_owns_links),
            mock.patch("os.fstat", return_value=folder),
            ExitStack() as files,
        ):
            entry = open_entry(f"{self.folder}/second/x", files)
            self.assertTrue(os.path.samestat(real(entry.folder), real(self.roots)))
            self.assertEqual(
                (entry.name, entry.path), ("x", f"{self.roots.replace('roots', 'mail/../roots')}/x")
            )
            with self.assertRaisesRegex(OSError, "Too many levels"):
                open_entry(f"{self.folder}/loop/x", files)
            self.assertEqual(open_entry("/", files).name, ".")
        writable = os.stat_result([0o40775, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        with (
            mock.patch("os.stat", root_owns_links),
            mock.patch("os.fstat", return_value=writable),
            ExitStack() as files,
            self.assertRaises(RefusedLink),
        ):
            open_entry(f"{self.folder}/second/x", files)


class SwapTests(LinkCase):
    def test_link_instead_of_a_new_directory(self) -> None:
        """A new directory that another user replaces by a link before it has its owner gives nothing away."""
        path, real = f"{self.folder}/mail/new", os.mkdir
        before = os.stat(self.roots)

        def swapped(name: str, mode: int, *, dir_fd: int) -> None:
            real(name, mode, dir_fd=dir_fd)
            os.rename(path, f"{path}.away")
            os.symlink("../roots", path)

        undo = Undo()
        with mock.patch("os.mkdir", swapped), self.assertRaises(OSError):
            Directory(path, 0o777, OWNER).apply(undo)
        after = os.stat(self.roots)
        self.assertEqual((after.st_mode, after.st_uid), (before.st_mode, before.st_uid))

    def test_directory_with_something_in_it(self) -> None:
        """A new directory that another user replaces by one with something in it is not given away by root."""
        path, real = f"{self.folder}/mail/new", os.mkdir

        def swapped(name: str, mode: int, *, dir_fd: int) -> None:
            real(name, mode, dir_fd=dir_fd)
            real(f"{name}/x", mode, dir_fd=dir_fd)

        with (
            mock.patch("os.mkdir", swapped),
            mock.patch("os.geteuid", return_value=0),
            self.assertRaisesRegex(FileExistsError, path),
        ):
            Directory(path, 0o777, OWNER).apply(Undo())
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)

    def test_link_in_front_of_an_undo(self) -> None:
        """A directory above that another user replaces by a link before the undo does not lead the undo elsewhere."""
        above = f"{self.folder}/mail/above"
        file = File(f"{above}/file", b"new", 0o600, OWNER)
        for name in (f"{self.roots}/file", f"{self.folder}/kept"):
            with open(name, "w") as out:
                out.write("old")
        os.mkdir(above)
        undo = Undo()
        with undo.files:
            file.apply(undo)
            os.rename(above, f"{above}.away")
            os.symlink("../roots", above)
            self.assertEqual(undo.run(), [])
        self.assertEqual(os.listdir(self.roots), ["file"])
        self.assertEqual(os.listdir(f"{above}.away"), [])

    def test_link_that_leads_nowhere(self) -> None:
        """A file is written where its link leads, and the undo removes that file. The link stays."""
        path = f"{self.folder}/config.toml"
        os.symlink("roots/new", path)
        undo = Undo()
        with undo.files:
            File(path, b"new", 0o600, OWNER).apply(undo)
            self.assertEqual(os.listdir(self.roots), ["new"])
            self.assertEqual(undo.run(), [])
        self.assertEqual((os.listdir(self.roots), os.readlink(path)), ([], "roots/new"))


class RightsTests(LinkCase):
    def test_steps_below_the_mail(self) -> None:
        """All steps below the directory above the Maildirs, and their undo, have the rights of the server's user."""
        answers = Answers(
            mail_root=f"{self.folder}/mail/{{domain}}/{{local}}", host="x", certificate=None, key=None,
            user="alice@example.org", password=None, start="hand", listen=(), server_user="nobody",
        )  # fmt: skip
        found = Installation(
            False, f"{self.folder}/c/config", f"{self.folder}/s", f"{self.folder}/u"
        )
        below = [
            step
            for step in plan.make_plan(answers, found)
            if f"{self.folder}/mail/" in step.describe() and not isinstance(step, Directory)
        ]
        self.assertEqual({type(step) for step in below}, {ActingAs})
        self.assertEqual(len(below), 6)
        acting: list[str] = []

        class Acting:
            @contextmanager
            def acting(self) -> Iterator[None]:
                acting.append("as the user")
                yield
                acting.append("as root")

        self.patch(steps, "acting_as", lambda _: Acting())
        with self.assertRaises(ZeroDivisionError), undone_on_error() as undo:
            for step in below:
                step.apply(undo)
            self.assertEqual(acting, ["as the user", "as root"] * 6)
            self.assertTrue(os.path.exists(f"{self.folder}/mail/example.org/alice/new"))
            raise ZeroDivisionError
        self.assertEqual(acting, ["as the user", "as root"] * 12)
        self.assertEqual(os.listdir(f"{self.folder}/mail"), ["link"])

    def test_missing_rights(self) -> None:
        """If the server's user lacks a right, the error names the user and the path, and says what to do."""
        step = mock.Mock(
            apply=mock.Mock(side_effect=PermissionError(13, "Permission denied", "/x"))
        )
        with self.assertRaisesRegex(
            StepError, f"^/x: Permission denied for the user {ME}, .*give that"
        ):
            ActingAs(ME, step).apply(Undo())

    def test_undo_with_missing_rights(self) -> None:
        """What an undo with the rights of the user leaves is named."""
        text = "^interrupted; this is left, reverse it yourself: .*created .*/mail/a/ .Directory not empty"
        with self.assertRaisesRegex(NotUndone, text), undone_on_error() as undo:
            ActingAs(ME, Directory(f"{self.folder}/mail/a", 0o700, OWNER)).apply(undo)
            os.mkdir(f"{self.folder}/mail/a/b")
            raise KeyboardInterrupt

    def test_rights_of_another_user(self) -> None:
        """The kernel refuses what the user may not do: a directory of root behind a link of the mail's owner stays."""
        step = ActingAs(
            "nobody", Directory(f"{self.folder}/mail/link/alice", 0o700, Owner("nobody", "nogroup"))
        )
        if os.geteuid() == 0:
            with self.assertRaisesRegex(StepError, "Permission denied for the user nobody"):
                step.apply(Undo())
            self.assertEqual((os.geteuid(), os.stat(self.roots).st_uid), (0, 0))
        self.assertEqual(os.listdir(self.roots), [])
