"""The command ``imapshield check-config``: takes the options of ``twistd imapshield`` and checks what they would do."""

import sys
from collections.abc import Sequence
from typing import Any

from twisted.python.util import uidFromString

from imapshield.check_findings import ERROR
from imapshield.command_output import note_if_slow
from imapshield.tap import Options, run_check


def _uid(name: str) -> int:
    """Return the number of a user."""
    find: Any = uidFromString  # it has no annotations
    try:
        return int(find(name))
    except KeyError:
        # Twisted's parser takes other exceptions than ValueError for bugs.
        raise ValueError(f"there is no user {name!r} on this machine") from None


class CheckOptions(Options):
    """The options of the server, and the user that ``twistd --uid`` would name."""

    synopsis = "Usage: imapshield check-config [--config FILE] [options of twistd imapshield]"
    longdesc = (
        "Check the options, certificates, users and Maildirs of the server, without starting it. The exit status is"
        " 0 if all is well, 1 if there are warnings, and 2 if there are errors."
    )
    optParameters: Any = [["uid", "u", None, "The user of the server, as of twistd", _uid]]


def run(arguments: Sequence[str]) -> int:
    """Check a configuration, print what was found, and return the exit status."""
    make_options: Any = CheckOptions  # Twisted's class has no annotations
    options = make_options()
    try:
        options.parseOptions(list(arguments))
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        print(error.code, file=sys.stderr)
        return ERROR
    with note_if_slow("still checking"):
        return run_check(options, options)
