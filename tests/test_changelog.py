"""Each change since the last release is a file in changelog.d that a release can use."""

import os
import re
import tomllib

from twisted.trial.unittest import SynchronousTestCase

from tests.test_documentation import REPOSITORY, read

FOLDER = os.path.join(REPOSITORY, "changelog.d")


class FragmentTests(SynchronousTestCase):
    def test_names_and_texts(self) -> None:
        """A fragment is named after an issue, or begins with +, and has a kind that a release knows; it has no bullet."""
        kinds = [
            each["directory"]
            for each in tomllib.loads(read("pyproject.toml"))["tool"]["towncrier"]["type"]
        ]
        for name in os.listdir(FOLDER):
            if name != "README.rst":
                self.assertRegex(
                    name,
                    rf"^(\d+|\+[\w-]+)\.({'|'.join(kinds)})\.rst$",
                    "see changelog.d/README.rst",
                )
                text = read(os.path.join("changelog.d", name))
                self.assertTrue(
                    re.match(r"[^\s*-].*\.\n$", text, re.DOTALL),
                    f"{name}: sentences without a bullet",
                )

    def test_first_release_corrects_nothing(self) -> None:
        """The part of 0.1.0 is a short list of what there is: nobody had what was there before."""
        text = read("CHANGELOG.rst").partition("0.1.0 (")[2]
        self.assertLess(len(text.splitlines()), 100)
        for word in ("so far", "no longer", "until now", "before,", "any more", "development v"):
            self.assertNotIn(f" {word} ", text.lower().replace("\n", " ").replace("; ", " "))

    def test_readme_names_all_kinds(self) -> None:
        """The file that explains the names has the kinds of pyproject.toml."""
        kinds = [
            each["directory"]
            for each in tomllib.loads(read("pyproject.toml"))["tool"]["towncrier"]["type"]
        ]
        self.assertEqual(
            re.findall(r"^\* ``(\w+)``", read("changelog.d/README.rst"), re.MULTILINE), kinds
        )
