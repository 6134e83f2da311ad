"""imap (npm), the base of most of npm's mail readers: nodeimap.js uses most of its functions against one server."""

from __future__ import annotations

from system_tests.maildirs import flags_by_subject
from system_tests.node_case import NodeCase


class NodeImapTests(NodeCase):
    def prepare(self) -> None:
        self.fill_with_links(1000, ".Thousand")

    def test_node_script_succeeds_and_changes_the_disk(self) -> None:
        """nodeimap.js succeeds, and its changes are on disk."""
        self.run_node("imap", "nodeimap.js")
        self.assertEqual(
            set(flags_by_subject(self.maildir())), {b"=?utf-8?q?K=C3=B6ln?=", b"c", b"e", b"late"}
        )
        self.assertEqual(set(flags_by_subject(self.maildir(".Kept"))), {b"a", b"b", b"c", b"d"})
