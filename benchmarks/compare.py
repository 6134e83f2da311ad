"""Prints reports of several servers or versions side by side: ``python -m benchmarks.compare A.json B.json …``."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.report import Report, table


def main(arguments: list[str]) -> str | None:
    """Print the table. Return an error message or None, for `sys.exit`."""
    if not arguments:
        return "usage: python -m benchmarks.compare A.json B.json …"
    print(table([Report.load(Path(name)) for name in arguments]))
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
