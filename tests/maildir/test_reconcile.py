"""A listing and the index are compared without losing or doubling a message."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.filename import base
from imapshield.maildir.layout import CUR, NEW
from imapshield.maildir.reconcile import Known, Listing, is_unchanged, reconcile

NAMES = [
    b"%c%b" % (letter, info) for letter in b"abcd" for info in (b"", b":2,", b":2,S", b":2,ST")
]


def listing(new: set[bytes], cur: set[bytes]) -> Listing:
    return Listing(frozenset(new), frozenset(cur))


class ReconcileTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """New, renamed, moved and missing files are told apart."""
        known = [
            Known(1, b"a:2,", CUR, b""),
            Known(2, b"b:2,S", CUR, b"\\Seen"),
            Known(3, b"c", NEW, b""),
            Known(4, b"d:2,", CUR, b""),
        ]
        plan = reconcile(known, listing({b"e"}, {b"a:2,", b"b:2,ST", b"c:2,"}))
        self.assertEqual(plan.added, [(NEW, b"e")])
        self.assertEqual(plan.renamed, [(known[1], CUR, b"b:2,ST"), (known[2], CUR, b"c:2,")])
        self.assertEqual(plan.missing, [known[3]])

    def test_only_new(self) -> None:
        """With new/ alone listed, messages in cur/ are nobody's business."""
        known = [Known(3, b"c", NEW, b"")]
        plan = reconcile(known, Listing(frozenset([b"c", b"x"]), None))
        self.assertEqual(plan, ([(NEW, b"x")], [], []))
        self.assertTrue(is_unchanged([(NEW, b"c")], Listing(frozenset([b"c"]), None)))

    def test_twins(self) -> None:
        """Of two files of one base in cur/ the known one is the message; unknown, one of them is."""
        both = listing(set(), {b"a:2,S", b"a:2,T"})
        for name in (b"a:2,S", b"a:2,T"):
            self.assertEqual(reconcile([Known(1, name, CUR, b"")], both), ([], [], []))
        self.assertEqual(len(reconcile([], both).added), 1)

    @given(
        st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(NAMES)),
        st.sets(st.sampled_from(NAMES)),
    )
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_law(self, new, cur, before) -> None:
        """After a plan is carried out every base that is on disk has one message, and no other has any."""
        once = {base(name): name for name in sorted(before)}
        known = [Known(i, name, CUR, b"") for i, name in enumerate(once.values())]
        plan = reconcile(known, listing(new, cur))
        after = {row.uid: base(row.name) for row in known if row not in plan.missing}
        bases = [*after.values(), *(base(name) for _, name in plan.added)]
        self.assertEqual(sorted(bases), sorted({base(name) for name in new | cur}))
        for row, place, name in plan.renamed:
            self.assertEqual(base(row.name), base(name))
            self.assertIn(name, cur if place == CUR else new)
        if is_unchanged([(CUR, row.name) for row in known], listing(new, cur)):
            self.assertEqual(plan, ([], [], []))
