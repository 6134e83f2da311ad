"""Which states of mailboxes after a power cut are faults, and of which operation."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.powercut_compare import Snapshot
from benchmarks.powercut_mailboxes import Create, Delete, Rename, SetMetadata, Subscribe
from benchmarks.powercut_model import Fault
from benchmarks.powercut_operation import Operation
from tests.benchmarks.power_case import NONE, PowerCase, found_mailbox


class MailboxTests(PowerCase):
    def setUp(self) -> None:
        super().setUp()
        self.child = self.mailbox("Box/a")
        self.append(self.box, 1)

    def served(
        self, *names: str, in_flight: Iterable[Operation] = (), refused: str = ""
    ) -> list[Fault]:
        """Return the faults if these mailboxes exist, each with the message of Box or without one."""
        with_message = {"Box", "New"} & {*names}
        mailboxes = {
            name: found_mailbox({1: ("m1-200", NONE)} if name in with_message else {})
            for name in ("INBOX", *names)
        }
        texts = {refused: "NO"} if refused else {}
        return self.faults(Snapshot(mailboxes, refused=texts), in_flight)

    def test_missing_mailbox_is_lost_with_its_messages(self) -> None:
        """A missing mailbox is lost, and so is each of its messages."""
        self.assert_faults(self.served("Box/a"), ("lost", "CREATE"), ("lost", "APPEND"))

    def test_deleted_mailbox_that_is_back_is_a_lost_delete(self) -> None:
        """A mailbox that is back is a fault of the DELETE; one that was never acknowledged, of a CREATE."""
        self.acknowledge(Delete(self.account, self.child))
        self.assert_faults(self.served("Box"))
        self.assert_faults(self.served("Box", "Box/a"), ("lost", "DELETE"))
        self.assert_faults(self.served("Box", "x"), ("lost", "CREATE"))

    def test_create_may_be_done_or_not(self) -> None:
        """A CREATE in flight may be done or not."""
        self.assert_faults(self.served("Box", "Box/a", in_flight=[Create(self.account, "x")]))
        self.assert_faults(self.served("Box", "Box/a", "x", in_flight=[Create(self.account, "x")]))
        self.assert_faults(self.served("Box", "Box/a"), ("lost", "CREATE"))

    def test_rename_takes_the_mailboxes_below(self) -> None:
        """After RENAME a mailbox and those below it have new names, and keep their UIDs."""
        self.acknowledge(Rename(self.account, self.box, "New"))
        self.assert_faults(self.served("New", "New/a"))
        self.assertEqual(self.child.name, "New/a")

    def test_rename_is_all_or_nothing(self) -> None:
        """A RENAME in flight that renamed only some mailboxes is a fault; none may have neither name."""
        for names, expected in (
            (("Box", "Box/a"), ()),
            (("New", "New/a"), ()),
            (("New", "Box/a"), (("lost", "RENAME of a parent, in flight"),)),
        ):
            with self.subTest(names=names):
                self.setUp()
                rename = Rename(self.account, self.box, "New")
                self.assert_faults(self.served(*names, in_flight=[rename]), *expected)
        rename = Rename(self.account, self.child, "x")
        faults = self.served("New", in_flight=[rename])
        self.assert_faults(faults, ("lost", "RENAME, in flight"), ("lost", "CREATE"))

    def test_renamed_mailbox_keeps_its_uidvalidity(self) -> None:
        """A new UIDVALIDITY after a RENAME in flight is a fault in flight, after an acknowledged one it is not."""
        rename = Rename(self.account, self.child, "x")
        mailboxes = {
            "INBOX": found_mailbox({}),
            "Box": found_mailbox({1: ("m1-200", NONE)}),
            "x": found_mailbox({}, uidvalidity=8),
        }
        faults = self.faults(Snapshot(mailboxes), [rename])
        self.assert_faults(faults, ("renumbered", "RENAME, in flight"))

    def test_uidvalidity_of_a_removed_mailbox_is_used_again_only_with_higher_uids(self) -> None:
        """A new mailbox may have the name and UIDVALIDITY of a removed one, but not its UIDs."""
        for uidnext, expected in ((2, ()), (1, (("UID twice", "APPEND"),))):
            with self.subTest(uidnext=uidnext):
                self.setUp()
                self.acknowledge(Delete(self.account, self.box))
                self.acknowledge(Create(self.account, "Box"))
                mailboxes = {name: found_mailbox({}) for name in ("INBOX", "Box/a")}
                mailboxes["Box"] = found_mailbox({}, uidnext=uidnext)
                self.assert_faults(self.faults(Snapshot(mailboxes)), *expected)

    def test_delete_removes_all_messages_or_none(self) -> None:
        """A mailbox that a DELETE in flight left without a message is a fault of the DELETE."""
        delete = Delete(self.account, self.box)
        self.assert_faults(self.served("Box/a", in_flight=[delete]))
        self.setUp()
        delete = Delete(self.account, self.box)
        mailboxes = {name: found_mailbox({}) for name in ("INBOX", "Box", "Box/a")}
        faults = self.faults(Snapshot(mailboxes), [delete])
        self.assert_faults(faults, ("lost", "DELETE, in flight"))

    def test_mailbox_that_cannot_be_read_is_one_fault(self) -> None:
        """A refused SELECT is one fault: of the mailbox's creation, or of the command in flight that changes it."""
        self.assert_faults(self.served("Box/a", refused="Box"), ("refused", "CREATE"))
        delete = Delete(self.account, self.box)
        faults = self.served("Box/a", in_flight=[delete], refused="Box")
        self.assert_faults(faults, ("refused", "DELETE, in flight"))

    def test_lost_subscriptions_and_metadata_are_faults(self) -> None:
        """A lost SUBSCRIBE, UNSUBSCRIBE or SETMETADATA is a fault."""
        self.acknowledge(Subscribe(self.account, self.box, wanted=True))
        self.acknowledge(Subscribe(self.account, self.child, wanted=False))
        self.acknowledge(SetMetadata(self.account, self.box, "x"))
        served = {name: found_mailbox({}) for name in ("INBOX", "Box/a")}
        served["Box"] = found_mailbox({1: ("m1-200", NONE)})
        self.assert_faults(self.faults(Snapshot(served, ["Box"], {"Box": "x"})))
        self.assert_faults(
            self.faults(Snapshot(served, ["Box/a"], {})),
            ("lost", "SUBSCRIBE"),
            ("lost", "UNSUBSCRIBE"),
            ("lost", "SETMETADATA"),
        )
