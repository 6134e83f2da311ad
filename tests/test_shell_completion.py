"""The completion scripts, in a real bash and, for the other shells, as text."""

import argparse
import json
import shutil
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from imapshield import cli, shell_completion
from imapshield.command_definitions import parser_commands
from tests.test_cli import CommandCase


class BashTests(SynchronousTestCase):
    def complete(self, line: str) -> tuple[list[str], bool]:
        """Return what bash offers after `line`, and whether it offers files too."""
        script = shell_completion.script("bash", cli.command_definitions())
        words = line.split(" ")
        program = (
            "compopt() { offered=no; }\n"  # bash has it only while it completes
            f"{script}\noffered=yes\nCOMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)})\n"
            f"COMP_CWORD={len(words) - 1}\n_imapshield\n"
            'echo "$offered"; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            [shutil.which("bash") or "/bin/bash", "-c", program],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        self.assertEqual(done.stderr, "")
        files, *found = done.stdout.splitlines()
        return [each for each in found if each], files == "yes"

    def test_first_word_is_a_command(self) -> None:
        """The first word is completed to a command, or an option of the program itself."""
        self.assertEqual(self.complete("imapshield pas"), (["passwd"], False))
        self.assertEqual(self.complete("imapshield --v"), (["--version"], False))
        self.assertIn("completion", self.complete("imapshield ")[0])

    def test_options_and_values(self) -> None:
        """Options of the command are completed, and values if the possible ones are known."""
        self.assertEqual(self.complete("imapshield passwd --s"), (["--scram"], False))
        self.assertEqual(self.complete("imapshield export-uids --to d"), (["dovecot"], False))
        self.assertEqual(self.complete("imapshield completion "), (["bash", "fish", "zsh"], False))
        self.assertEqual(self.complete("imapshield top --period t"), (["ten\\ minutes"], False))
        self.assertIn("--mail-root", self.complete("imapshield check-config --m")[0])

    def test_files(self) -> None:
        """Files are offered where the command expects one, and no users or addresses."""
        self.assertEqual(self.complete("imapshield users "), ([], True))
        self.assertEqual(self.complete("imapshield check-mail --index "), ([], True))
        self.assertEqual(self.complete("imapshield kick "), ([], False))
        self.assertEqual(self.complete("imapshield ban 192.0.2.7 --for "), ([], False))


class ScriptTests(CommandCase):
    def test_every_command_and_option_is_in_every_script(self) -> None:
        """The command prints a script for each shell, which has all commands and all options."""
        for shell in ("bash", "fish", "zsh"):
            status, out, err = self.command("completion", shell)
            self.assertEqual((status, err), (0, ""))
            for command in cli.command_definitions():
                self.assertIn(command.name, out)
                for option in command.options:
                    for flag in option.flags:
                        self.assertIn(flag.lstrip("-"), out, f"{shell}: {command.name}")

    def test_definitions_are_those_of_the_parsers(self) -> None:
        """The definitions have the arguments, values and choices of the parsers; for check-config, of the server."""
        definitions = {command.name: command for command in cli.command_definitions()}
        (to,) = (option for option in definitions["export-uids"].options if "--to" in option.flags)
        self.assertEqual((to.value, to.choices), ("courier|dovecot", ("courier", "dovecot")))
        (who,) = definitions["who"].arguments
        self.assertTrue(who.is_optional)
        self.assertIn("backlog", json.dumps([o.flags for o in definitions["check-config"].options]))

    def test_arguments_that_may_be_omitted(self) -> None:
        """An argument is optional if none of it is enough for the parser, and then it is optional in zsh, too."""
        parser = argparse.ArgumentParser()
        child = parser.add_subparsers().add_parser("x")
        numbers = (("a", None), ("b", "?"), ("c", "+"), ("d", 2), ("e", "*"), ("f", "..."))
        for name, nargs in numbers:
            child.add_argument(name, nargs=nargs)
        (command,) = parser_commands(parser)
        optional = [each.name for each in command.arguments if each.is_optional]
        self.assertEqual(optional, ["B", "E", "F"])
        self.assertIn("::E:", shell_completion.script("zsh", [command]))
