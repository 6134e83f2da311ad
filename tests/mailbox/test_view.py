"""One client's picture is always right, whatever others do."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.mailbox.view import View
from imapshield.wire.sequence import SequenceSet


class Mailbox:
    """Columns with views that hear of every change."""

    def __init__(self, count: int) -> None:
        self.columns = Columns()
        self.modseq = 1
        self.views: list[View] = []
        self.add(count)

    def _apply(self, rows: list[MessageRow], vanished: list[int]) -> None:
        uidnext = self.columns.uidnext if not rows else max(r.uid for r in rows) + 1
        change = self.columns.apply(
            Delta(
                rows,
                SequenceSet.from_uids(sorted(vanished)),
                self.modseq,
                max(uidnext, self.columns.uidnext),
            )
        )
        for view in self.views:
            view.on_change(change)

    def add(self, count: int) -> None:
        self.modseq += 1
        start = self.columns.uidnext
        self._apply(
            [MessageRow(uid, b"", self.modseq, 1, 0) for uid in range(start, start + count)], []
        )

    def flag(self, uid: int, flags: bytes) -> None:
        self.modseq += 1
        self._apply([MessageRow(uid, flags, self.modseq, 1, 0)], [])

    def expunge(self, *uids: int) -> None:
        self.modseq += 1
        self._apply([], list(uids))

    def view(self) -> View:
        view = View(self.columns)
        self.views.append(view)
        return view


class Telling(SynchronousTestCase):
    def test_nothing(self) -> None:
        """A client that knows everything costs nothing: it shares the mailbox's own array."""
        mailbox = Mailbox(3)
        view = mailbox.view()
        self.assertIs(view.uids, mailbox.columns.uids)
        self.assertFalse(view.has_pending_updates)
        self.assertIsNone(view.take_updates(expunge=True))

    def test_new(self) -> None:
        """New messages are told at any time."""
        mailbox = Mailbox(3)
        view = mailbox.view()
        mailbox.add(2)
        updates = view.take_updates(expunge=False)
        assert updates is not None
        self.assertEqual((updates.exists, updates.expunged), (5, []))
        self.assertIs(view.uids, mailbox.columns.uids)

    def test_expunge_waits(self) -> None:
        """An EXPUNGE waits until it may be told; until then numbers keep their messages."""
        mailbox = Mailbox(5)
        view = mailbox.view()
        mailbox.expunge(2, 4)
        updates = view.take_updates(expunge=False)
        self.assertTrue(updates is None or not updates.expunged)
        self.assertEqual(view.number(5), 5)
        mailbox.add(1)
        updates = view.take_updates(expunge=False)
        assert updates is not None
        self.assertEqual(updates.exists, 6)
        updates = view.take_updates(expunge=True)
        assert updates is not None
        self.assertEqual(
            (updates.expunged, updates.vanished, updates.exists), ([4, 2], [2, 4], None)
        )
        self.assertEqual(list(view.uids), [1, 3, 5, 6])

    def test_came_and_went(self) -> None:
        """What came and went between two looks is never told."""
        mailbox = Mailbox(1)
        view = mailbox.view()
        mailbox.add(1)
        mailbox.expunge(2)
        updates = view.take_updates(expunge=True)
        self.assertTrue(updates is None or (updates.exists is None and not updates.expunged))

    def test_flags(self) -> None:
        """Changed flags are told with the number that the message has then, unless it went or the client knows."""
        mailbox = Mailbox(4)
        view = mailbox.view()
        mailbox.flag(2, b"\\Seen")
        mailbox.flag(3, b"\\Seen")
        mailbox.flag(4, b"\\Seen")
        mailbox.expunge(1, 3)
        view.forget_flag_changes([2])
        updates = view.take_updates(expunge=True)
        assert updates is not None
        self.assertEqual(list(updates.flags), [(2, 4)])

    def test_recent(self) -> None:
        """RECENT is told when it changes, and goes when its messages are told to go."""
        mailbox = Mailbox(2)
        view = View(mailbox.columns, [1, 2])
        mailbox.views.append(view)
        mailbox.expunge(1)
        updates = view.take_updates(expunge=False)
        assert updates is not None
        self.assertIsNone(updates.recent)
        updates = view.take_updates(expunge=True)
        assert updates is not None
        self.assertEqual(updates.recent, 1)
        self.assertEqual(view.flags(2), b"\\Recent")


class Selecting(SynchronousTestCase):
    def test_numbers(self) -> None:
        """Numbers name rows; ``*`` is the last."""
        view = Mailbox(5).view()
        for text, spans in (
            (b"1:*", [(0, 5)]),
            (b"*", [(4, 5)]),
            (b"2,4:5", [(1, 2), (3, 5)]),
            (b"*:1", [(0, 5)]),
        ):
            self.assertEqual(view.rows_of(SequenceSet.parse(text), uid=False), spans)

    def test_beyond(self) -> None:
        """A number beyond the last message is malformed, also in a range to ``*``; a UID beyond is nobody's."""
        view = Mailbox(5).view()
        for text in (b"6", b"6:*", b"*:6,1"):
            self.assertRaises(BadCommand, view.rows_of, SequenceSet.parse(text), uid=False)
        self.assertEqual(view.rows_of(SequenceSet.parse(b"6:9"), uid=True), [])
        self.assertEqual(view.rows_of(SequenceSet.parse(b"6:*"), uid=True), [(4, 5)])

    def test_empty(self) -> None:
        """In an empty mailbox ``*`` is a number beyond the last, and no UID."""
        view = Mailbox(0).view()
        self.assertRaises(BadCommand, view.rows_of, SequenceSet.parse(b"*"), uid=False)
        self.assertEqual(view.rows_of(SequenceSet.parse(b"1:*"), uid=True), [])

    def test_gather(self) -> None:
        """All of them are the array itself."""
        view = Mailbox(5).view()
        self.assertIs(view.uids_of([(0, 5)]), view.uids)
        self.assertEqual(list(view.uids_of([(0, 1), (3, 5)])), [1, 4, 5])


class Model:
    """A client that believes what it is told."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.uids = list(view.uids)

    def told(self, expunge: bool) -> None:
        updates = self.view.take_updates(expunge=expunge)
        if updates is None:
            return
        for number in updates.expunged:
            del self.uids[number - 1]
        if updates.exists is not None:
            new = list(self.view.uids[len(self.uids) :])
            self.uids += new
            assert len(self.uids) == updates.exists
        for number, uid in updates.flags:
            assert self.uids[number - 1] == uid


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("expunge"), st.integers(0, 20)),
        st.tuples(st.just("flag"), st.integers(0, 20)),
        st.tuples(st.just("tell"), st.integers(0, 1)),
        st.tuples(st.just("tell expunges"), st.integers(0, 1)),
    ),
    max_size=40,
)


class Law(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(steps)
    def test_model(self, script: list[tuple[str, int]]) -> None:
        """A client that does as it is told agrees with its view at every step, and with the mailbox at the end."""
        mailbox = Mailbox(4)
        models = [Model(mailbox.view()), Model(mailbox.view())]
        for step, value in script:
            uids = mailbox.columns.uids
            if step == "add":
                mailbox.add(value)
            elif step == "tell":
                models[value].told(False)
            elif step == "tell expunges":
                models[value].told(True)
            elif uids and step == "expunge":
                mailbox.expunge(uids[value % len(uids)])
            elif uids:
                mailbox.flag(uids[value % len(uids)], b"\\Seen $k%d" % mailbox.modseq)
            for model in models:
                self.assertEqual(model.uids, list(model.view.uids))
        for model in models:
            model.told(True)
            self.assertEqual(model.uids, list(mailbox.columns.uids))
            self.assertIs(model.view.uids, mailbox.columns.uids)
            self.assertFalse(model.view.has_pending_updates)
