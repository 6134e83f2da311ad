"""Every command in README.rst and docs/ is one that exists. ``system_tests/test_documented_commands.py`` runs them."""

import contextlib
import glob
import importlib.util
import io
import os
import re
from typing import Any

from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from imapshield.check_command import CheckOptions
from imapshield.cli import CHECK, make_parser
from imapshield.command_definitions import Option, parser_commands, usage_options
from imapshield.tap import Options
from tests import documented_commands as documented


class Parsed(Options):
    """Parses the options of the server, and reads no file."""

    def parseOptions(self, options: Any = None) -> None:
        usage.Options.parseOptions(self, options)

    def postOptions(self) -> None:
        pass


class ParsedByCheck(CheckOptions, Parsed):
    optParameters = [["uid", "u", None, "the user", str]]


def flags(options: tuple[Option, ...]) -> set[str]:
    return {flag for option in options for flag in option.flags}


def parse(words: list[str]) -> None:
    """Parse a complete command ``imapshield …`` or ``twistd … imapshield …``."""
    name = documented.program(words)
    if name == "twistd":
        at = words.index("imapshield")
        make_twistd: Any = ServerOptions
        usage.Options.parseOptions(make_twistd(), words[1:at] or ["--nodaemon"])
        make: Any = Parsed
        make().parseOptions(words[at + 1 :])
    elif words[1] == CHECK:
        make = ParsedByCheck
        make().parseOptions(words[2:])
    else:
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                make_parser().parse_args(words[1:])
        except SystemExit as error:
            if error.code:
                raise AssertionError(errors.getvalue()) from None


class BlockTests(SynchronousTestCase):
    def test_every_block_is_known(self) -> None:
        """Each literal block is a program, TOML, a known sample, or consists of commands that are run or cannot be."""
        known = documented.PROGRAMS_RUN | documented.PROGRAMS_NOT_RUN.keys()
        for page in documented.pages():
            for block in documented.literal_blocks(page):
                kind = documented.kind(block)
                self.assertNotEqual(
                    kind, "unknown", f"{block} is not in tests/documented_commands.py"
                )
                for words in documented.commands(block.text) if kind == "shell" else ():
                    name = documented.program(words)
                    self.assertIn(name, known, f"{block}: not in tests/documented_commands.py")

    def test_new_command_is_noticed(self) -> None:
        """A block with a program that is in no list is not taken for a sample."""
        block = documented.Block("page", 1, "frobnicate --all")
        self.assertEqual(documented.kind(block), "unknown")

    def test_every_sample_is_on_a_page(self) -> None:
        """The list of samples has none that is on no page."""
        texts = [
            block.text for page in documented.pages() for block in documented.literal_blocks(page)
        ]
        for start in documented.OTHER_BLOCKS:
            self.assertTrue(any(text.startswith(start) for text in texts), start)


class CommandTests(SynchronousTestCase):
    def test_commands_of_blocks_are_accepted(self) -> None:
        """Our parsers accept each command of a block, with and without what is in brackets."""
        count = 0
        for block in documented.shell_blocks():
            for words in documented.documented(block.text):
                count += 1
                try:
                    parse(words)
                except (usage.UsageError, AssertionError) as error:
                    self.fail(f"{block}: {' '.join(words)}: {error}")
        self.assertGreater(count, 20)

    def test_modules_exist(self) -> None:
        """Each ``python -m MODULE`` for developers names a module of ours that exists, with options that it has."""
        count = 0
        for page in (
            "README.rst",
            "CONTRIBUTING.rst",
            "benchmarks/README.rst",
            "docs/speed.rst",
            "docs/floods.rst",
        ):
            text = documented.read(page).replace("\\\n", " ")
            for name, rest in re.findall(
                r"-m ((?:benchmarks|tests)\.[\w.]*\w)((?: [^`#\n]*)?)", text
            ):
                spec = importlib.util.find_spec(name)
                self.assertIsNotNone(spec, f"{page}: {name}")
                assert spec is not None and spec.origin is not None
                files = [
                    spec.origin,
                    *glob.glob(os.path.join(os.path.dirname(spec.origin), "*.py")),
                ]
                source = "".join(documented.read(file) for file in files)
                for option in re.findall(r"(?<= )--[\w-]+", rest):
                    count += 1
                    self.assertIn(f'"{option}"', source, f"{page}: {name} {option}")
        self.assertGreater(count, 20)

    def test_commands_in_the_text_exist(self) -> None:
        """Each ``imapshield …`` in the text names a subcommand, with options that it has; so does ``twistd …``."""
        make: Any = CheckOptions
        console = {
            command.name: flags(command.options) for command in parser_commands(make_parser())
        }
        console[CHECK] = flags(usage_options(make()))
        make = Options
        server = flags(usage_options(make()))
        make = ServerOptions
        twistd = flags(usage_options(make()))
        for page in documented.pages():
            for words in documented.inline_commands(page):
                known = console.get(words[1])
                if words[0] == "twistd":
                    known = server | twistd if "imapshield" in words else twistd
                elif words[1].startswith("-"):
                    known = {"--version", "--help"}
                self.assertIsNotNone(known, f"{page}: {' '.join(words)}")
                given = {word.partition("=")[0] for word in words if word.startswith("-")}
                self.assertEqual(given - (known or set()), set(), f"{page}: {' '.join(words)}")

    def test_options_in_the_text_exist(self) -> None:
        """Each option between double backquotes is one of the server, of a subcommand, or of twistd."""
        make: Any = CheckOptions
        # of benchmarks.guard_states, benchmarks.moving_user, imapsync, rsync
        known = {"--limits", "--ssh", "--user1", "--copy-as"}
        known |= flags(usage_options(make()))
        make = ServerOptions
        known |= flags(usage_options(make()))
        for command in parser_commands(make_parser()):
            known |= flags(command.options)
        for page in documented.pages():
            given = set(re.findall(r"``(--[\w-]+)", documented.read(page)))
            self.assertEqual(given - known, set(), page)
