"""The pages of the documentation, as files of the repository."""

import glob
import os
import re

from twisted.trial.unittest import SynchronousTestCase

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LINK = re.compile(r"`[^`]*<([^>`]*)>`__?")


def pages() -> list[str]:
    """Return the paths of all pages, relative to the repository."""
    patterns = ("*.rst", "docs/*.rst", "benchmarks/*.rst")
    return sorted(path for each in patterns for path in glob.glob(each, root_dir=REPOSITORY))


def read(path: str) -> str:
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        return file.read()


class LinkTests(SynchronousTestCase):
    def test_links_between_files_lead_to_a_file(self) -> None:
        """A link on a page is of another site, or is the path of a file, as a viewer of the repository needs it."""
        for page in pages():
            for target in LINK.findall(" ".join(read(page).split())):
                if "://" not in target:
                    path = os.path.join(REPOSITORY, os.path.dirname(page), target.partition("#")[0])
                    self.assertTrue(os.path.isfile(path), f"{page}: {target}")

    def test_index_links_every_page(self) -> None:
        """The index of the documentation, which is its table of contents too, links every page once."""
        targets = LINK.findall(read("docs/index.rst"))
        linked = sorted(os.path.normpath(os.path.join("docs", target)) for target in targets)
        self.assertEqual(linked, [page for page in pages() if page != "docs/index.rst"])
