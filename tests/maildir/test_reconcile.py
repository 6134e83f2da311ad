"""Comparing a listing with the index neither loses nor duplicates a message."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.filename import base
from imapshield.maildir.folder_listing import Listing
from imapshield.maildir.paths import CUR, NEW
from imapshield.maildir.reconcile import IndexedFile, is_unchanged, reconcile

NAMES = [
    b"%c%b" % (letter, info) for letter in b"abcd" for info in (b"", b":2,", b":2,S", b":2,ST")
]


def listing(new: set[bytes], cur: set[bytes]) -> Listing:
    return Listing(frozenset(new), frozenset(cur))


class ReconcileTests(SynchronousTestCase):
    def test_new_renamed_moved_and_missing_files_are_distinguished(self) -> None:
        """New, renamed, moved and missing files are distinguished."""
        known = [
            IndexedFile(1, b"a:2,", CUR, b""),
            IndexedFile(2, b"b:2,S", CUR, b"\\Seen"),
            IndexedFile(3, b"c", NEW, b""),
            IndexedFile(4, b"d:2,", CUR, b""),
        ]
        plan = reconcile(known, listing({b"e"}, {b"a:2,", b"b:2,ST", b"c:2,"}))
        self.assertEqual(plan.added, [(NEW, b"e")])
        self.assertEqual(plan.renamed, [(known[1], CUR, b"b:2,ST"), (known[2], CUR, b"c:2,")])
        self.assertEqual(plan.missing, [known[3]])

    def test_listing_of_new_ignores_messages_in_cur(self) -> None:
        """If only new/ is listed, messages in cur/ do not matter."""
        known = [IndexedFile(3, b"c", NEW, b"")]
        plan = reconcile(known, Listing(frozenset([b"c", b"x"]), None))
        self.assertEqual(plan, ([(NEW, b"x")], [], []))
        self.assertTrue(is_unchanged([(NEW, b"c")], Listing(frozenset([b"c"]), None)))

    def test_known_file_wins_over_its_duplicate(self) -> None:
        """If two files in cur/ have one base name, the known file is the message; if none is known, one of them is."""
        both = listing(set(), {b"a:2,S", b"a:2,T"})
        for name in (b"a:2,S", b"a:2,T"):
            self.assertEqual(reconcile([IndexedFile(1, name, CUR, b"")], both), ([], [], []))
        self.assertEqual(len(reconcile([], both).added), 1)

    @given(
        st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(NAMES)),
    )
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_every_base_name_has_one_message(
        self, new: set[bytes], cur: set[bytes], before: set[bytes]
    ) -> None:
        """After a plan is executed, exactly the base names on the disk have a message, and each has one."""
        names = {base(name): name for name in sorted(before)}
        known = [IndexedFile(i, name, CUR, b"") for i, name in enumerate(names.values())]
        plan = reconcile(known, listing(new, cur))
        remaining = [base(row.name) for row in known if row not in plan.missing]
        bases = [*remaining, *(base(name) for _, name in plan.added)]
        self.assertEqual(sorted(bases), sorted({base(name) for name in new | cur}))
        for row, directory, name in plan.renamed:
            self.assertEqual(base(row.name), base(name))
            self.assertIn(name, cur if directory == CUR else new)
        if is_unchanged([(CUR, row.name) for row in known], listing(new, cur)):
            self.assertEqual(plan, ([], [], []))
