"""npm's imapflow, which Node's mail programs are made with; what it does is in imapflow.js."""

from __future__ import annotations

import os
import sys

from system_tests.cases import FAULTS, PASSWORD, USER, ServerCase, letters, tool
from system_tests.server import HERE

MODULES = os.path.join(sys.prefix, "npm", "node_modules")


class ImapflowTests(ServerCase):
    complaints = FAULTS  # it opens a folder that is not there, and logs in with a wrong password

    def test_day(self) -> None:
        """Everything in imapflow.js, and its end as it lies on disk."""
        self.assertTrue(
            os.path.isdir(f"{MODULES}/imapflow"), "no imapflow: run system_tests/install"
        )
        said = self.run_it(
            tool("node", "nodejs"), f"{HERE}/system_tests/imapflow.js", str(self.port), USER, PASSWORD, self.maildir(),
            timeout=90, env={"NODE_PATH": MODULES},
        )  # fmt: skip
        self.assertEqual(said.strip(), b"done")
        self.assertEqual(set(letters(self.maildir())), {b"a", b"b", b"c", b"d", b"late"})
        self.assertEqual(set(letters(self.maildir(".Kept"))), {b"a", b"b", b"e"})
