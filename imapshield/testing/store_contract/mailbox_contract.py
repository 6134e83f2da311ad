"""How a store creates, deletes, renames and lists mailboxes."""

from imapshield.errors import (
    BadMailboxName,
    MailboxExists,
    NoSuchMailbox,
    NotAllowed,
    StoreError,
)
from imapshield.mailbox.values import NewMessage
from imapshield.testing.in_process import MAIL
from imapshield.testing.store_contract.fixture import (
    BUDGET,
    ENVELOPE,
    SEEN,
    WHOLE,
    StoreFixture,
    literal,
)
from imapshield.wire.commands.base import MemoryLiteral


class MailboxContract(StoreFixture):
    """How a store creates, deletes, renames and lists mailboxes."""

    def test_new_account_has_inbox(self) -> None:
        """A new account has INBOX and no other mailbox."""
        self.assertEqual([info[:2] for info in self.store.mailboxes()], [("INBOX", True)])
        self.assertEqual(self.store.open("INBOX", True).delta.rows, [])

    def test_create_makes_missing_parents(self) -> None:
        """CREATE makes a mailbox and its missing parents, and returns the MAILBOXID."""
        made = self.store.create("Work/Reports", [])
        self.assertEqual(self.mailbox_names(), ["INBOX", "Work", "Work/Reports"])
        self.assertEqual(self.store.status("Work/Reports").mailbox_id, made)
        self.assertNotEqual(self.store.status("Work").mailbox_id, made)

    def test_existing_name_cannot_be_created(self) -> None:
        """A name that exists, INBOX included, cannot be created."""
        self.store.create("A", [])
        for name in ("A", "INBOX"):
            self.assertRaises(MailboxExists, self.store.create, name, [])

    def test_bad_name_cannot_be_created(self) -> None:
        """CREATE refuses names with empty levels or control characters, and makes nothing."""
        for name in ("", "/A", "A/", "A//B", "A\nB", "A\0B"):
            self.assertRaises(BadMailboxName, self.store.create, name, [])
        self.assertEqual(self.mailbox_names(), ["INBOX"])

    def test_bad_name_does_not_exist(self) -> None:
        """To every command that needs an existing mailbox, a bad name is a mailbox that does not exist."""
        key = self.key()
        self.append()
        for name in ("", "A//B", "A\nB"):
            for call in (
                lambda: self.store.open(name, True),  # noqa: B023
                lambda: self.store.status(name),  # noqa: B023
                lambda: self.store.delete(name),  # noqa: B023
                lambda: self.store.rename(name, "B"),  # noqa: B023
                lambda: self.append(name=name),  # noqa: B023
                lambda: self.store.copy(key, [1], name, True, 0),  # noqa: B023
            ):
                self.assertRaises(NoSuchMailbox, call)
            self.store.set_subscribed(name, False)

    def test_unusual_names_are_allowed(self) -> None:
        """Every other character is allowed in a name: dots, spaces, wildcards, any script."""
        names = [
            "a.b",
            "Ä ö",
            "日本語",
            "x & y",
            "100%",
            "a*b",
            "~tilde",
            "&-",
            "Entwürfe/2. Lesung",
            "INBOX/inner",
        ]
        for name in names:
            self.store.create(name, [])
        self.assertEqual(sorted(self.mailbox_names()), sorted(["INBOX", "Entwürfe", *names]))

    def test_special_use_is_listed(self) -> None:
        """Special-use attributes are listed for the mailbox created with them, and not for its parents."""
        self.store.create("Mail/Sent", [b"\\Sent"])
        uses = {info.name: info.special_use for info in self.store.mailboxes()}
        self.assertEqual(uses, {"INBOX": (), "Mail": (), "Mail/Sent": (b"\\Sent",)})

    def test_deleted_mailbox_does_not_exist(self) -> None:
        """DELETE removes the mailbox. Its name and its key no longer exist."""
        self.store.create("A", [])
        key = self.key("A")
        self.store.delete("A")
        self.assertEqual(self.mailbox_names(), ["INBOX"])
        for call in (
            lambda: self.store.mailbox_key("A"),
            lambda: self.store.open("A", True),
            lambda: self.store.status("A"),
            lambda: self.store.delete("A"),
            lambda: self.store.changes(key, 0, True),
            lambda: self.store.fetch(key, [1], [ENVELOPE], BUDGET),
            lambda: self.store.append("A", [NewMessage((), None, MemoryLiteral(MAIL))]),
            lambda: self.store.copy(self.key(), [self.append()], "A", False, 0),
        ):
            self.assertRaises(NoSuchMailbox, call)

    def test_delete_keeps_inferiors(self) -> None:
        """The inferiors of a deleted mailbox stay. Its name is listed as not selectable and can be created again."""
        self.store.create("A/B", [])
        self.store.delete("A")
        infos = {info.name: info.selectable for info in self.store.mailboxes()}
        self.assertEqual(infos, {"INBOX": True, "A": False, "A/B": True})
        self.assertRaises(StoreError, self.store.open, "A", False)
        self.assertRaises(StoreError, self.store.delete, "A")
        self.store.create("A", [])
        self.assertEqual(self.store.open("A", False).delta.rows, [])

    def test_inbox_cannot_be_deleted(self) -> None:
        """INBOX cannot be deleted."""
        self.assertRaises(NotAllowed, self.store.delete, "INBOX")

    def test_recreated_mailbox_is_new(self) -> None:
        """A mailbox that is deleted and created again has a larger UIDVALIDITY, and another MAILBOXID and key."""
        self.store.create("A", [])
        before, key = self.store.status("A"), self.key("A")
        self.append(name="A")
        self.store.delete("A")
        self.store.create("A", [])
        after = self.store.status("A")
        self.assertGreater(after.uidvalidity, before.uidvalidity)
        self.assertNotEqual(after.mailbox_id, before.mailbox_id)
        self.assertNotEqual(self.key("A"), key)
        self.assertEqual((after.messages, after.uidnext), (0, 1))

    def test_rename_keeps_identifiers(self) -> None:
        """RENAME renames the inferiors too, and keeps UIDs, UIDVALIDITY, MAILBOXID and key."""
        self.store.create("A/B", [])
        self.store.create("AB", [])
        self.append(SEEN, name="A/B")
        before, key = self.store.status("A/B"), self.key("A/B")
        self.store.rename("A", "X/Y")
        self.assertEqual(
            {n for n in self.mailbox_names() if n != "X"}, {"AB", "INBOX", "X/Y", "X/Y/B"}
        )
        self.assertEqual(self.store.status("X/Y/B"), before)
        self.assertEqual(self.key("X/Y/B"), key)
        self.assertEqual(self.fetch_item(1, WHOLE, "X/Y/B"), literal(MAIL))
        self.assertRaises(NoSuchMailbox, self.store.open, "A", False)
        self.store.delete("X/Y")  # the name stays, and is not selectable
        self.store.rename("X/Y", "Z")
        self.assertEqual(self.key("Z/B"), key)

    def test_refused_rename_changes_nothing(self) -> None:
        """RENAME changes nothing if the new name exists, is bad or is an inferior, or if the old one is missing."""
        self.store.create("A/C", [])
        self.store.create("B", [])
        before = self.mailbox_names()
        for error, old, new in (
            (MailboxExists, "A", "B"),
            (MailboxExists, "A", "INBOX"),
            (NoSuchMailbox, "none", "C"),
            (BadMailboxName, "A", "x//y"),
            (BadMailboxName, "A", "x\ny"),
            (BadMailboxName, "INBOX", "x\ny"),
            (StoreError, "A", "A/D"),
        ):
            self.assertRaises(error, self.store.rename, old, new)
        self.assertEqual(self.mailbox_names(), before)

    def test_rename_does_not_replace_an_inferior(self) -> None:
        """RENAME changes nothing if an inferior would get the name of another mailbox."""
        self.store.create("A/C", [])
        self.store.create("B/C", [])
        self.store.delete("B")
        key, other = self.key("A/C"), self.key("B/C")
        self.assertRaises(MailboxExists, self.store.rename, "A", "B")
        self.assertEqual((self.key("A/C"), self.key("B/C")), (key, other))

    def test_rename_inbox_moves_its_messages(self) -> None:
        """RENAME INBOX moves its messages to the new mailbox. INBOX and its inferiors stay."""
        self.store.create("INBOX/sub", [])
        self.append(SEEN)
        self.append()
        uidvalidity = self.store.status("INBOX").uidvalidity
        self.store.rename("INBOX", "Old")
        self.assertEqual(self.mailbox_names(), ["INBOX", "INBOX/sub", "Old"])
        status = self.store.status("INBOX")
        self.assertEqual((status.messages, status.uidvalidity, status.uidnext), (0, uidvalidity, 3))
        self.assertEqual(self.flags_by_uid("Old"), {1: {SEEN}, 2: set()})

    def test_subscriptions_survive_restart_and_mailbox(self) -> None:
        """A name can be subscribed whether or not it exists. Subscriptions survive a restart and the mailbox.

        A name that no mailbox can have cannot be subscribed; to unsubscribe it is no error.
        """
        self.store.create("Ünï/a.b", [])
        for name in ("INBOX", "Ünï/a.b", "none"):
            self.store.set_subscribed(name, True)
            self.store.set_subscribed(name, True)
        self.store.set_subscribed("other", False)
        self.assertEqual(self.store.subscriptions(), {"INBOX", "Ünï/a.b", "none"})
        for name in ("", "A//B", "A\nB"):
            self.assertRaises(BadMailboxName, self.store.set_subscribed, name, True)
        self.store.set_subscribed("none", False)
        self.store.delete("Ünï/a.b")
        self.assertEqual(self.reopen().subscriptions(), {"INBOX", "Ünï/a.b"})
