"""Which states of messages after a power cut are faults, and of which operation."""

from __future__ import annotations

from benchmarks.powercut_messages import Append, Copy, Expunge, Fetch, Move, Replace, Store
from benchmarks.powercut_model import Flags, Message
from tests.benchmarks.power_case import NONE, SEEN, PowerCase, found_mailbox


class AcknowledgedTests(PowerCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = self.append(self.inbox, 1, SEEN)
        self.second = self.append(self.inbox, 2)

    def test_what_was_acknowledged_is_no_fault(self) -> None:
        """A server that serves exactly what it acknowledged has no faults."""
        self.assert_faults(self.verify({1: ("m1-200", SEEN), 2: ("m2-200", NONE)}))

    def test_missing_message_is_lost(self) -> None:
        """A missing message is lost by the operation that stored it."""
        self.assert_faults(self.verify({1: ("m1-200", SEEN)}), ("lost", "APPEND"))

    def test_message_under_another_uid_is_renumbered(self) -> None:
        """A message with another UID is renumbered, and neither lost nor duplicated."""
        faults = self.verify({1: ("m1-200", SEEN), 5: ("m2-200", NONE)})
        self.assert_faults(faults, ("renumbered", "APPEND"))

    def test_new_uidvalidity_is_one_fault(self) -> None:
        """A new UIDVALIDITY is one fault of the operation that named the mailbox, whatever the UIDs are."""
        served = found_mailbox({8: ("m1-200", SEEN), 9: ("m2-200", NONE)}, uidvalidity=9)
        self.assert_faults(self.verify(served), ("renumbered", "CREATE"))

    def test_second_copy_is_duplicated(self) -> None:
        """A message that is there twice is duplicated."""
        served = {1: ("m1-200", SEEN), 2: ("m2-200", NONE), 3: ("m2-200", NONE)}
        self.assert_faults(self.verify(served), ("duplicated", "APPEND"))

    def test_other_content_is_changed(self) -> None:
        """A UID with a content that was never sent is a changed message."""
        served = found_mailbox({1: ("m1-200", SEEN), 2: ("", NONE)})
        faults = self.verify(served)
        self.assertEqual((faults[0].kind, faults[0].operation), ("changed", "APPEND"))

    def test_other_flags_are_lost_by_the_last_store(self) -> None:
        """Other flags are a fault of the operation that last set them."""
        self.acknowledge(Store(self.account, self.inbox, [self.second], "+", SEEN))
        faults = self.verify({1: ("m1-200", SEEN), 2: ("m2-200", NONE)})
        self.assert_faults(faults, ("flags lost", "STORE"))

    def test_expunged_message_that_is_back_is_a_lost_expunge(self) -> None:
        """A message that is back is a fault of the EXPUNGE."""
        self.acknowledge(Expunge(self.account, self.inbox, [self.second], by_uid=True))
        self.assert_faults(self.verify({1: ("m1-200", SEEN)}))
        faults = self.verify({1: ("m1-200", SEEN), 2: ("m2-200", NONE)})
        self.assert_faults(faults, ("lost", "UID EXPUNGE"))

    def test_acknowledged_move_must_not_leave_the_original(self) -> None:
        """A message that is back in its old mailbox is a fault of the acknowledged MOVE."""
        self.acknowledge(Move(self.account, self.inbox, [self.second], self.box), "COPYUID 7 2 1")
        faults = self.verify({1: ("m1-200", SEEN), 2: ("m2-200", NONE)}, {1: ("m2-200", NONE)})
        self.assert_faults(faults, ("lost", "MOVE"))

    def test_delivery_must_survive(self) -> None:
        """A delivered message gets any new UID, which is final once a client has seen it."""
        name = "d-200"
        self.box.delivered.append(Message(name, NONE, None, "delivery", "delivery"))
        inbox = {1: ("m1-200", SEEN), 2: ("m2-200", NONE)}
        self.assert_faults(self.verify(inbox, {4: (name, NONE)}))
        self.assert_faults(self.verify(inbox, {5: (name, NONE)}), ("renumbered", "delivery"))
        self.assert_faults(self.verify(inbox, {}), ("lost", "delivery"))

    def test_announced_uid_never_means_another_message(self) -> None:
        """A UID that was announced, even of a message that is gone, must not mean another message."""
        self.acknowledge(Expunge(self.account, self.inbox, [self.second], by_uid=True))
        other = Append(self.account, self.inbox, ["other-200"], NONE)
        faults = list(other.announce([], b"1 OK [APPENDUID 7 2] completed\r\n"))
        self.assert_faults(faults, ("UID twice", "APPEND"))

    def test_lower_uidnext_and_modseq_are_faults(self) -> None:
        """A UIDNEXT or HIGHESTMODSEQ below an announced one will be announced twice."""
        fetch = Fetch(self.account, self.inbox)
        line = b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (5000))\r\n"
        self.acknowledge(fetch, untagged=[[line]])
        served = found_mailbox({1: ("m1-200", SEEN), 2: ("m2-200", NONE)}, uidnext=2)
        self.assert_faults(self.verify(served), ("UID twice", "APPEND"), ("MODSEQ twice", "FETCH"))

    def test_modseq_never_means_other_flags(self) -> None:
        """A MODSEQ that was announced with flags must not mean other flags."""
        fetch = Fetch(self.account, self.inbox)
        served = found_mailbox({1: ("m1-200", SEEN), 2: ("m2-200", NONE)})
        line = b"* 1 FETCH (UID 1 FLAGS (\\Draft) MODSEQ (%d))\r\n" % served.messages[1].modseq
        self.acknowledge(fetch, untagged=[[line]])
        faults = self.verify(served)
        self.assert_faults(faults, ("MODSEQ twice", "verification"))


class InFlightTests(PowerCase):
    def setUp(self) -> None:
        super().setUp()
        self.messages = [self.append(self.inbox, 1), self.append(self.inbox, 2, SEEN)]

    def unchanged(self) -> dict[int, tuple[str, Flags]]:
        """Return INBOX without the effect of any command in flight."""
        return {1: ("m1-200", NONE), 2: ("m2-200", SEEN)}

    def test_append_may_be_done_or_not(self) -> None:
        """An APPEND in flight may be done or not; what is done is acknowledged from then on."""
        append = Append(self.account, self.box, ["new-200"], SEEN)
        self.assert_faults(self.verify(self.unchanged(), {}, [append]))
        self.assert_faults(self.verify(self.unchanged(), {1: ("new-200", SEEN)}, [append]))
        self.assert_faults(self.verify(self.unchanged(), {}), ("lost", "APPEND"))

    def test_append_and_copy_keep_all_flags(self) -> None:
        """A message that an APPEND or a COPY in flight stored has all its flags."""
        append = Append(self.account, self.box, ["new-200"], SEEN)
        faults = self.verify(self.unchanged(), {1: ("new-200", NONE)}, [append])
        self.assert_faults(faults, ("flags lost", "APPEND, in flight"))
        self.setUp()
        copy = Copy(self.account, self.inbox, [self.messages[1]], self.box)
        faults = self.verify(self.unchanged(), {1: ("m2-200", NONE)}, [copy])
        self.assert_faults(faults, ("flags lost", "COPY, in flight"))

    def test_multiappend_and_copy_are_all_or_nothing(self) -> None:
        """A MULTIAPPEND or COPY in flight that stored some of its messages is a fault in flight."""
        append = Append(self.account, self.box, ["a-200", "b-200"], NONE)
        faults = self.verify(self.unchanged(), {1: ("a-200", NONE)}, [append])
        self.assert_faults(faults, ("lost", "MULTIAPPEND, in flight"))
        copy = Copy(self.account, self.inbox, self.messages, self.box)
        served = {1: ("a-200", NONE), 2: ("m2-200", SEEN)}
        faults = self.verify(self.unchanged(), served, [copy])
        self.assert_faults(faults, ("lost", "COPY, in flight"))

    def test_moved_message_is_in_exactly_one_mailbox(self) -> None:
        """A MOVE in flight is done or not; no message may be in both mailboxes or in none."""
        move = Move(self.account, self.inbox, self.messages, self.box)
        faults = self.verify({2: ("m2-200", SEEN)}, {1: ("m1-200", NONE)}, [move])
        self.assert_faults(faults, ("in part", "MOVE, in flight"))
        move = Move(self.account, self.inbox, [self.messages[1]], self.box)
        both = {1: ("m1-200", NONE), 2: ("m2-200", SEEN)}
        faults = self.verify({2: ("m2-200", SEEN)}, both, [move])
        self.assert_faults(faults, ("duplicated", "MOVE, in flight"))
        faults = self.verify({}, {1: ("m1-200", NONE)}, [move])
        self.assert_faults(faults, ("lost", "APPEND"))

    def test_flags_of_a_moved_message_survive(self) -> None:
        """A message that a MOVE in flight has moved keeps its flags."""
        move = Move(self.account, self.inbox, self.messages, self.box)
        faults = self.verify({}, {1: ("m1-200", NONE), 2: ("m2-200", NONE)}, [move])
        self.assert_faults(faults, ("flags lost", "MOVE, in flight"))

    def test_store_is_done_or_not(self) -> None:
        """A STORE in flight may be done for some messages, but flags between old and new ones are a fault."""
        store = Store(self.account, self.inbox, self.messages, "+", frozenset({"a", "b"}))
        both = SEEN | {"a", "b"}
        self.assert_faults(self.verify({1: ("m1-200", NONE), 2: ("m2-200", both)}, {}, [store]))
        store = Store(self.account, self.inbox, [self.messages[0]], "+", frozenset({"a", "b"}))
        served = {1: ("m1-200", frozenset({"a"})), 2: ("m2-200", both)}
        faults = self.verify(served, {}, [store])
        self.assert_faults(faults, ("flags lost", "STORE, in flight"))

    def test_store_does_not_excuse_flags_that_it_does_not_change(self) -> None:
        """Flags that a STORE in flight does not change are a fault of the operation that set them."""
        store = Store(self.account, self.inbox, [self.messages[1]], "+", frozenset({"a"}))
        faults = self.verify({1: ("m1-200", NONE), 2: ("m2-200", NONE)}, {}, [store])
        self.assert_faults(faults, ("flags lost", "APPEND"))

    def test_replace_keeps_one_of_both_messages(self) -> None:
        """A REPLACE in flight leaves the old message or the new one: both is in part, and with neither the old one is lost."""
        in_part = ("in part", "REPLACE across mailboxes, in flight")
        for inbox, box, expected in (
            ({1: ("m1-200", NONE)}, {}, ()),
            ({1: ("m1-200", NONE)}, {1: ("new-200", NONE)}, (in_part,)),
            ({}, {1: ("new-200", NONE)}, ()),
            ({}, {}, (("lost", "APPEND"),)),
        ):
            with self.subTest(inbox=inbox, box=box):
                self.setUp()
                replace = Replace(
                    self.account, self.inbox, self.messages[0], self.box, "new-200", NONE
                )
                faults = self.verify({**inbox, 2: ("m2-200", SEEN)}, box, [replace])
                self.assert_faults(faults, *expected)

    def test_what_was_in_flight_is_acknowledged_after_the_verification(self) -> None:
        """What was done by a command in flight, and was served after one cut, must survive the next one."""
        move = Move(self.account, self.inbox, self.messages, self.box)
        moved = {1: ("m1-200", NONE), 2: ("m2-200", SEEN)}
        self.assert_faults(self.verify({}, moved, [move]))
        faults = self.verify({}, {1: ("m1-200", SEEN)})
        self.assert_faults(faults, ("flags lost", "MOVE"), ("lost", "MOVE"))
