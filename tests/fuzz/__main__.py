"""Fuzzes one target with atheris: ``python -m tests.fuzz TARGET [libFuzzer options]``.

Needs ``pip install 'imapshield[fuzz]'``. The corpus in ``tests/fuzz/corpus/TARGET`` is where it begins. Useful options
are ``-runs=100000``, ``-max_total_time=60``, ``-seed=1``, and a directory for the inputs that reach new code. A failing
input is written to a file; ``python -m tests.fuzz TARGET FILE`` runs it again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris


def main() -> None:
    """Fuzz the target of the command line."""
    with atheris.instrument_imports(include=["imapshield"]):
        from tests.fuzz.targets import TARGETS, corpus

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [libFuzzer options]")
    name, options = sys.argv[1], sys.argv[2:]
    with TemporaryDirectory() as found:
        if not any(Path(option).is_file() for option in options):
            if not any(Path(option).is_dir() for option in options):
                options.append(found)  # libFuzzer writes to the first folder
            options.append(str(corpus(name)))
        atheris.Setup([sys.argv[0], *options], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
