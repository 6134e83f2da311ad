"""imapflow (npm): imapflow.js uses most of its functions against one server."""

from __future__ import annotations

from system_tests.maildirs import flags_by_subject
from system_tests.node_case import NodeCase
from system_tests.server_case import FAULTS


class ImapflowTests(NodeCase):
    forbidden_log_texts = (
        FAULTS  # the script opens an absent folder and logs in with a wrong password
    )

    def test_imapflow_script_succeeds_and_changes_the_disk(self) -> None:
        """imapflow.js succeeds, and its changes are on disk."""
        self.run_node("imapflow", "imapflow.js")
        self.assertEqual(set(flags_by_subject(self.maildir())), {b"a", b"b", b"c", b"d", b"late"})
        self.assertEqual(set(flags_by_subject(self.maildir(".Kept"))), {b"a", b"b", b"e"})
