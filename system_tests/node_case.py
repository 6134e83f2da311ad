"""The base class of the tests of npm's IMAP clients."""

from __future__ import annotations

import os
import sys

from system_tests.server import REPOSITORY
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program

MODULES = os.path.join(sys.prefix, "npm", "node_modules")


class NodeCase(ServerCase):
    def run_node(self, module: str, script: str) -> None:
        """Run a script of this folder that needs an npm module; it must print "done"."""
        installed = os.path.isdir(f"{MODULES}/{module}")
        self.assertTrue(installed, f"{module} not found: run system_tests/install")
        printed = self.run_client(
            find_program("node", "nodejs"), f"{REPOSITORY}/system_tests/{script}", str(self.port),
            USER, PASSWORD, self.maildir(), timeout=90,
            env={"NODE_PATH": MODULES, "NODE_NO_WARNINGS": "1"},
        )  # fmt: skip
        self.assertEqual(printed.strip(), b"done")
