"""A view always agrees with the responses that its client has received, whatever other clients do."""

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.mailbox.columns import Columns
from imapshield.mailbox.deltas import Delta, MessageRow
from imapshield.mailbox.view import View
from imapshield.wire.sequence import SequenceSet


class Mailbox:
    """Columns and their views, which are notified of every change."""

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
                SequenceSet.from_numbers(sorted(vanished)),
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


class UpdateTests(SynchronousTestCase):
    def test_up_to_date_view_has_no_updates(self) -> None:
        """A view that is up to date shares the mailbox's own array and has no updates."""
        mailbox = Mailbox(3)
        view = mailbox.view()
        self.assertIs(view.uids, mailbox.columns.uids)
        self.assertFalse(view.has_pending_updates)
        self.assertIsNone(view.take_updates(expunge=True))

    def test_new_messages_may_be_announced_at_any_time(self) -> None:
        """New messages may be announced at any time."""
        mailbox = Mailbox(3)
        view = mailbox.view()
        mailbox.add(2)
        updates = view.take_updates(expunge=False)
        assert updates is not None
        self.assertEqual((updates.exists, updates.expunged), (5, []))
        self.assertIs(view.uids, mailbox.columns.uids)

    def test_expunge_waits_until_it_may_be_sent(self) -> None:
        """EXPUNGE waits until it may be sent; until then, sequence numbers keep their messages."""
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

    def test_added_and_expunged_message_is_never_announced(self) -> None:
        """A message that is added and expunged between two updates is never announced."""
        mailbox = Mailbox(1)
        view = mailbox.view()
        mailbox.add(1)
        mailbox.expunge(2)
        updates = view.take_updates(expunge=True)
        self.assertTrue(updates is None or (updates.exists is None and not updates.expunged))

    def test_flag_update_has_the_current_sequence_number(self) -> None:
        """A flag update has the current sequence number; expunged messages and flags that the client
        knows cause no update."""
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

    def test_known_flags_cause_no_update(self) -> None:
        """Flags that the client knows, of adjacent or of scattered messages, cause no update; an EXPUNGE stays due."""
        for known, left in (([2, 3], [1, 4]), ([1, 4], [2])):
            mailbox = Mailbox(4)
            view = mailbox.view()
            for uid in (1, 2, 3, 4):
                mailbox.flag(uid, b"\\Seen")
            mailbox.expunge(3)
            view.forget_flag_changes(array("I", known))
            updates = view.take_updates(expunge=False)
            assert updates is not None
            self.assertEqual([uid for _, uid in updates.flags], left)
            self.assertTrue(view.has_pending_expunges)

    def test_recent_is_sent_when_it_changes(self) -> None:
        """RECENT is sent when it changes, and an expunged message counts until its EXPUNGE is sent."""
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
        self.assertEqual(view.recent, {2})


class SequenceTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.sets(st.integers(1, 30)), st.lists(st.integers(1, 32), unique=True), st.booleans())
    def test_numbers(self, expunged: set[int], uids: list[int], ascending: bool) -> None:
        """The sequence numbers of UIDs have the order of the UIDs; UIDs that the client does not know have none."""
        mailbox = Mailbox(30)
        mailbox.expunge(*expunged)
        view = mailbox.view()
        uids = sorted(uids) if ascending else uids
        expected = [number for uid in uids if (number := view.number(uid))]
        self.assertEqual(list(view.numbers(uids)), expected)

    def test_sequence_numbers_select_rows(self) -> None:
        """Sequence numbers select rows; ``*`` is the last message."""
        view = Mailbox(5).view()
        for text, spans in (
            (b"1:*", [(0, 5)]),
            (b"*", [(4, 5)]),
            (b"2,4:5", [(1, 2), (3, 5)]),
            (b"*:1", [(0, 5)]),
        ):
            self.assertEqual(view.rows_of(SequenceSet.parse(text), uid=False), spans)

    def test_number_beyond_the_last_message_is_an_error(self) -> None:
        """A sequence number beyond the last message is an error, also in a range to ``*``; such a UID is ignored."""
        view = Mailbox(5).view()
        for text in (b"6", b"6:*", b"*:6,1"):
            self.assertRaises(BadCommand, view.rows_of, SequenceSet.parse(text), uid=False)
        self.assertEqual(view.rows_of(SequenceSet.parse(b"6:9"), uid=True), [])
        self.assertEqual(view.rows_of(SequenceSet.parse(b"6:*"), uid=True), [(4, 5)])

    def test_asterisk_in_an_empty_mailbox_is_no_number(self) -> None:
        """In an empty mailbox, ``*`` is an error as a sequence number and matches nothing as a UID."""
        view = Mailbox(0).view()
        self.assertRaises(BadCommand, view.rows_of, SequenceSet.parse(b"*"), uid=False)
        self.assertEqual(view.rows_of(SequenceSet.parse(b"1:*"), uid=True), [])

    def test_uids_of_all_rows_are_not_copied(self) -> None:
        """The UIDs of all rows are the array itself, without a copy."""
        view = Mailbox(5).view()
        self.assertIs(view.uids_of([(0, 5)]), view.uids)
        self.assertEqual(list(view.uids_of([(0, 1), (3, 5)])), [1, 4, 5])


class ModelClient:
    """A client that applies the updates that it receives."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.uids = list(view.uids)

    def update(self, expunge: bool) -> None:
        updates = self.view.take_updates(expunge=expunge)
        if updates is None:
            return
        for number in updates.expunged:
            del self.uids[number - 1]
        if updates.exists is not None:
            self.uids += list(self.view.uids[len(self.uids) :])
            assert len(self.uids) == updates.exists
        for number, uid in updates.flags:
            assert self.uids[number - 1] == uid


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("expunge"), st.integers(0, 20)),
        st.tuples(st.just("flag"), st.integers(0, 20)),
        st.tuples(st.just("update"), st.integers(0, 1)),
        st.tuples(st.just("update with expunges"), st.integers(0, 1)),
    ),
    max_size=40,
)


class ModelTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(steps)
    def test_client_agrees_with_view(self, script: list[tuple[str, int]]) -> None:
        """A client agrees with its view after every step, and with the mailbox after the last update."""
        mailbox = Mailbox(4)
        clients = [ModelClient(mailbox.view()), ModelClient(mailbox.view())]
        for step, value in script:
            uids = mailbox.columns.uids
            if step == "add":
                mailbox.add(value)
            elif step == "update":
                clients[value].update(False)
            elif step == "update with expunges":
                clients[value].update(True)
            elif uids and step == "expunge":
                mailbox.expunge(uids[value % len(uids)])
            elif uids:
                mailbox.flag(uids[value % len(uids)], b"\\Seen $k%d" % mailbox.modseq)
            for client in clients:
                self.assertEqual(client.uids, list(client.view.uids))
        for client in clients:
            client.update(True)
            self.assertEqual(client.uids, list(mailbox.columns.uids))
            self.assertIs(client.view.uids, mailbox.columns.uids)
            self.assertFalse(client.view.has_pending_updates)
