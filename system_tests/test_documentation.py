"""The documentation, built by Sphinx, with every warning as an error."""

from __future__ import annotations

import functools
import glob
import os
import re
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from system_tests.server import REPOSITORY

LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"|url\(([^)]*)\)"""
)


@functools.cache
def built() -> tempfile.TemporaryDirectory[str]:
    """Build the documentation, once, and return its folder, which is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="imapshield-docs-")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-j2"]
    done = subprocess.run(
        [*command, os.path.join(REPOSITORY, "docs"), folder.name],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def page(name: str) -> str:
    with open(os.path.join(built().name, name), encoding="utf-8") as file:
        return file.read()


class DocumentationTests(SynchronousTestCase):
    def test_no_page_loads_anything_from_another_site(self) -> None:
        """Scripts, fonts, styles and images of all pages are files of the documentation."""
        pages = glob.glob("**/*.html", root_dir=built().name, recursive=True)
        styles = glob.glob("**/*.css", root_dir=built().name, recursive=True)
        self.assertGreater(len(pages), 15)
        for name in pages + styles:
            for match in LOADED.finditer(page(name)):
                self.assertNotRegex(
                    "".join(filter(None, match.groups())), r"^['\"]?(https?:)?//", name
                )

    def test_links_to_files_are_links_to_pages(self) -> None:
        """A page links to other pages, in docs/ and outside of it, and shows the images of included files."""
        self.assertIn('href="migration.html"', page("backup.html"))
        self.assertIn('href="included/benchmarks-readme.html"', page("speed.html"))
        readme = page("included/readme.html")
        self.assertIn('href="../running.html"', readme)
        self.assertIn('href="changelog.html"', readme)
        self.assertIn('src="../_images/status-page.png"', readme)
        for name in glob.glob("**/*.html", root_dir=built().name, recursive=True):
            self.assertNotRegex(page(name), r'href="[^":]*\.rst', name)

    def test_stable_names_have_entries(self) -> None:
        """The page of stable names describes classes, functions, exceptions and interfaces with their methods."""
        text = page("api.html")
        for name in (
            "Limits", "ShieldedIMAP4Factory", "errors.NoSpace", "events.LoggedIn", "cred.users.user_name",
            "mailbox.storage.IStore.append", "mailbox.account_api.IMailbox.uidvalidity",
        ):  # fmt: skip
            self.assertIn(f'id="imapshield.{name}"', text)

    def test_commands_and_options_are_described(self) -> None:
        """The page of commands has those of imapshield, and the options of the server."""
        text = page("commands.html")
        for part in (
            "imapshield check-mail",
            "--repair",
            "--mail-root",
            "~/.local/share/imapshield/control",
        ):
            self.assertIn(part, text)


class ChangelogTests(SynchronousTestCase):
    def test_release_can_use_the_fragments(self) -> None:
        """towncrier makes the part of a release from the files in changelog.d."""
        done = subprocess.run(
            [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\A9\.9\.9 \(\d{4}-\d\d-\d\d\)\n---")
