"""npm's imap, which most of npm's mail readers stand on; what it does is in nodeimap.js."""

from __future__ import annotations

import os
import sys

from system_tests.cases import PASSWORD, USER, ServerCase, letters, tool
from system_tests.server import HERE

MODULES = os.path.join(sys.prefix, "npm", "node_modules")


class NodeImapTests(ServerCase):
    def prepare(self) -> None:
        self.link(1000, ".Thousand")

    def test_day(self) -> None:
        """Everything in nodeimap.js, and its end as it lies on disk."""
        self.assertTrue(os.path.isdir(f"{MODULES}/imap"), "no imap: run system_tests/install")
        said = self.run_it(
            tool("node", "nodejs"), f"{HERE}/system_tests/nodeimap.js", str(self.port), USER, PASSWORD, self.maildir(),
            timeout=90, env={"NODE_PATH": MODULES, "NODE_NO_WARNINGS": "1"},
        )  # fmt: skip
        self.assertEqual(said.strip(), b"done")
        self.assertEqual(
            set(letters(self.maildir())), {b"=?utf-8?q?K=C3=B6ln?=", b"c", b"e", b"late"}
        )
        self.assertEqual(set(letters(self.maildir(".Kept"))), {b"a", b"b", b"c", b"d"})
