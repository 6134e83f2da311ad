"""imapshield that admits more strangers than the limit of open files permits, for `benchmarks.stranger_cost`.

    python -m benchmarks.stranger_server OPTION...

The options are those of ``twistd imapshield``. Strangers get at most three eighths of the open files: the rest is for
accounts and for connections with a login (`ConnectionShares`), and there are none here. This server counts as one
whose process may open any number of files, so that 10,000 strangers fit into a limit of 20,000.
"""

from __future__ import annotations

import sys
from unittest import mock

from benchmarks.in_process import serve
from imapshield.service import ShieldService


def main() -> None:
    """Serve until a signal ends the process."""
    with mock.patch.object(ShieldService, "_raise_open_file_limit", lambda _: None):
        serve(sys.argv[1:], sys.stdout)


if __name__ == "__main__":
    main()
