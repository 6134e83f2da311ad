"""A prefix before all mailbox names but INBOX."""

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadMailboxName, MailboxExists, NoSuchMailbox
from imapshield.mailbox.prefixed_store import PrefixedStore
from imapshield.mailbox.storage import IMetadataStore, IStore
from imapshield.mailbox.values import Namespace
from imapshield.testing.in_process import NOW
from imapshield.testing.memory_store import MemoryStore


class PrefixedStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.inner = MemoryStore(lambda: NOW)
        self.store = self.prefixed("INBOX.")

    def prefixed(self, prefix: str) -> PrefixedStore:
        namespace = Namespace.as_shown(prefix, prefix[-1])
        return PrefixedStore(cast("IStore", self.inner), namespace)

    def test_every_method_with_a_name_is_wrapped(self) -> None:
        """Every method of a store that takes the name of a mailbox refuses a name without the prefix."""
        interfaces: list[Any] = [IStore, IMetadataStore]
        for interface in interfaces:
            for method in interface:
                parameters = interface[method].getSignatureInfo()["positional"]
                for name in {"name", "target", "old"} & set(parameters):
                    values = [self.arguments(parameter, name) for parameter in parameters]
                    with self.subTest(method=method, parameter=name):
                        self.assertIn(method, vars(PrefixedStore))
                        if method != "set_subscribed":
                            errors = NoSuchMailbox, BadMailboxName
                            call = getattr(self.store, method)
                            self.assertRaises(errors, call, *values)

    def arguments(self, parameter: str, outside: str) -> object:
        if parameter == outside:
            return "Sent"
        return 1 if parameter in ("key", "uid", "since") else ()

    def test_names_get_the_prefix(self) -> None:
        """All mailboxes but INBOX have the prefix; parents that exist only in the prefix are not selectable."""
        self.store.create("INBOX/Sent", ())
        self.store.create("INBOX/INBOX/x", ())
        self.store.set_subscribed("INBOX/Sent", True)
        self.assertEqual(sorted(self.inner._mailboxes), ["INBOX", "INBOX/x", "Sent"])
        self.assertEqual(
            {info.name: info.selectable for info in self.store.mailboxes()},
            {"INBOX": True, "INBOX/INBOX": False, "INBOX/INBOX/x": True, "INBOX/Sent": True},
        )
        self.assertEqual(self.store.subscriptions(), {"INBOX/Sent"})
        self.assertEqual(self.store.open("INBOX/Sent", False).name, "INBOX/Sent")
        names = {info.name: info.selectable for info in self.prefixed("Mail/a/").mailboxes()}
        self.assertEqual(
            (names["Mail"], names["Mail/a"], names["Mail/a/Sent"]), (False, False, True)
        )

    def test_directories_have_the_names_with_the_prefix(self) -> None:
        """The directories of mailboxes are found by the names that clients see."""
        self.patch(
            self.inner, "mailbox_paths", lambda names: {name: [f"/{name}"] for name in names}
        )
        self.assertEqual(
            self.store.mailbox_paths(["INBOX", "INBOX/Sent", "Sent"]),
            {"INBOX": ["/INBOX"], "INBOX/Sent": ["/Sent"]},
        )

    def test_other_names_are_no_mailboxes(self) -> None:
        """A name without the prefix cannot be created, and INBOX has only one name."""
        for name in (
            "Sent",
            "",
            "inbox/x",
            "INBOX.x",
            "INBOX/INBOX",
            "INBOX/inbox",
            "INBOX/inbox/x",
        ):
            with self.subTest(name=name):
                self.assertRaises(BadMailboxName, self.store.create, name, ())
                self.assertRaises(NoSuchMailbox, self.store.open, name, False)
                self.store.set_subscribed(name, False)
        error = self.assertRaises(BadMailboxName, self.store.create, "Sent", ())
        self.assertEqual(error.text, 'Mailbox names must begin with "INBOX."')
        self.assertRaises(MailboxExists, self.store.create, "INBOX", ())
        self.assertEqual(self.store.metadata(""), {})
