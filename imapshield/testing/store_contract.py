"""What every store must do, as tests: mix `StoreContract` into a TestCase and make the store.

A store test overrides `make_store`; `reopen` if the mail outlives the store object; `deliver` if mail can arrive from
outside. The tests use nothing but `IStore`.
"""

from datetime import date
from typing import Any

from zope.interface.verify import verifyObject

from imapshield.errors import (
    BadMailboxName,
    MailboxExists,
    MessageExpunged,
    NoSuchMailbox,
    NotAllowed,
    StoreError,
)
from imapshield.mailbox.storage import IStore
from imapshield.mailbox.values import Blob, NewMessage
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, Preview, Section
from imapshield.wire.commands.search import (
    DateKey,
    EnvelopeKey,
    HeaderKey,
    ObjectIdKey,
    TextKey,
)

NOW = 1_700_000_000.0
MAIL = b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Lunch\r\nDate: Mon, 13 Nov 2023 10:00:00 +0100\r\n\r\nAt noon?\r\n"
SECOND = b"From: Zo\xc3\xab <zoe@example.org>\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\nX-Tag: blue\r\n\r\nSee you there.\r\n"

ENVELOPE = Attribute(b"ENVELOPE")
STRUCTURE = Attribute(b"BODYSTRUCTURE")
EMAILID = Attribute(b"EMAILID")
WHOLE = BodySection(Section())
SEEN, DELETED, FLAGGED = b"\\Seen", b"\\Deleted", b"\\Flagged"
BUDGET = 1 << 20


class StoreContract:
    """The contract of `IStore`."""

    store: Any

    def make_store(self) -> Any:
        """Return an empty store; its clock may stand at `NOW` or go."""
        raise NotImplementedError

    def reopen(self) -> Any:
        """Return a store of the same mail, as after a restart; by default the one there is."""
        return self.store

    def deliver(self, mailbox: str, content: bytes) -> None:
        """Let mail arrive as from outside; by default as from another session."""
        self.store.append(mailbox, [NewMessage((), None, MemoryLiteral(content))])

    def setUp(self) -> None:
        self.store = self.make_store()

    def put(
        self, *flags: bytes, name: str = "INBOX", content: bytes = MAIL, at: int | None = None
    ) -> int:
        return self.store.append(name, [NewMessage(flags, at, MemoryLiteral(content))]).uids[0]

    def key(self, name: str = "INBOX") -> int:
        return self.store.key(name)

    def modseq(self, name: str = "INBOX") -> int:
        return self.store.status(name).highestmodseq

    def flags(self, name: str = "INBOX") -> dict[int, set[bytes]]:
        opened = self.store.open(name, False)
        return {row.uid: set(row.flags.split()) for row in opened.delta.rows}

    def names(self) -> list[str]:
        return [info.name for info in self.store.mailboxes()]

    def fetch(self, uid: int, item: Any, name: str = "INBOX") -> Any:
        fetched = self.store.fetch(self.key(name), [uid], [item], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([uid], []))
        return fetched.columns[0][0]

    def test_provides_istore(self) -> None:
        """A store provides `IStore`, signatures included."""
        verifyObject(IStore, self.store)

    # mailboxes

    def test_inbox_is_there(self) -> None:
        """A new account has INBOX, and nothing else."""
        self.assertEqual([info[:2] for info in self.store.mailboxes()], [("INBOX", True)])
        self.assertEqual(self.store.open("INBOX", True).delta.rows, [])

    def test_create(self) -> None:
        """CREATE makes a mailbox and its missing parents, and returns its MAILBOXID."""
        made = self.store.create("Work/Reports", [])
        self.assertEqual(self.names(), ["INBOX", "Work", "Work/Reports"])
        self.assertEqual(self.store.status("Work/Reports").mailbox_id, made)
        self.assertNotEqual(self.store.status("Work").mailbox_id, made)

    def test_create_twice(self) -> None:
        """A name that is taken, INBOX too, cannot be created."""
        self.store.create("A", [])
        for name in ("A", "INBOX"):
            self.assertRaises(MailboxExists, self.store.create, name, [])

    def test_bad_names(self) -> None:
        """Names with empty levels or control characters are refused and nothing is made."""
        for name in ("", "/A", "A/", "A//B", "A\nB", "A\0B"):
            self.assertRaises(BadMailboxName, self.store.create, name, [])
        self.assertEqual(self.names(), ["INBOX"])

    def test_bad_names_are_nobodys(self) -> None:
        """A name that cannot be is a mailbox that does not exist, to every command that needs one."""
        key = self.key()
        self.put()
        for name in ("", "A//B", "A\nB"):
            for call in (
                lambda: self.store.open(name, True),  # noqa: B023
                lambda: self.store.status(name),  # noqa: B023
                lambda: self.store.delete(name),  # noqa: B023
                lambda: self.store.rename(name, "B"),  # noqa: B023
                lambda: self.put(name=name),  # noqa: B023
                lambda: self.store.copy(key, [1], name, True, 0),  # noqa: B023
            ):
                self.assertRaises(NoSuchMailbox, call)
            self.store.set_subscribed(name, False)

    def test_any_other_name(self) -> None:
        """Every other character is somebody's folder: dots, spaces, wildcards, other scripts."""
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
        self.assertEqual(sorted(self.names()), sorted(["INBOX", "Entwürfe", *names]))

    def test_special_use(self) -> None:
        """Special-use attributes are told by LIST; parents that were made on the way have none."""
        self.store.create("Mail/Sent", [b"\\Sent"])
        uses = {info.name: info.special_use for info in self.store.mailboxes()}
        self.assertEqual(uses, {"INBOX": (), "Mail": (), "Mail/Sent": (b"\\Sent",)})

    def test_delete(self) -> None:
        """DELETE removes the mailbox; its key is nobody's from then on."""
        self.store.create("A", [])
        key = self.key("A")
        self.store.delete("A")
        self.assertEqual(self.names(), ["INBOX"])
        for call in (
            lambda: self.store.key("A"),
            lambda: self.store.open("A", True),
            lambda: self.store.status("A"),
            lambda: self.store.delete("A"),
            lambda: self.store.changes(key, 0, True),
            lambda: self.store.fetch(key, [1], [ENVELOPE], BUDGET),
            lambda: self.store.append("A", [NewMessage((), None, MemoryLiteral(MAIL))]),
            lambda: self.store.copy(self.key(), [self.put()], "A", False, 0),
        ):
            self.assertRaises(NoSuchMailbox, call)

    def test_delete_keeps_inferiors(self) -> None:
        """The inferiors of a deleted mailbox stay, and its name holds them without being selectable."""
        self.store.create("A/B", [])
        self.store.delete("A")
        infos = {info.name: info.selectable for info in self.store.mailboxes()}
        self.assertEqual(infos, {"INBOX": True, "A": False, "A/B": True})
        self.assertRaises(StoreError, self.store.open, "A", False)
        self.assertRaises(StoreError, self.store.delete, "A")
        self.store.create("A", [])
        self.assertEqual(self.store.open("A", False).delta.rows, [])

    def test_delete_inbox(self) -> None:
        """INBOX cannot be deleted."""
        self.assertRaises(NotAllowed, self.store.delete, "INBOX")

    def test_uidvalidity_is_new_after_delete(self) -> None:
        """A mailbox that is deleted and made again has another UIDVALIDITY, larger, and another MAILBOXID and key."""
        self.store.create("A", [])
        before, key = self.store.status("A"), self.key("A")
        self.put(name="A")
        self.store.delete("A")
        self.store.create("A", [])
        after = self.store.status("A")
        self.assertGreater(after.uidvalidity, before.uidvalidity)
        self.assertNotEqual(after.mailbox_id, before.mailbox_id)
        self.assertNotEqual(self.key("A"), key)
        self.assertEqual((after.messages, after.uidnext), (0, 1))

    def test_rename(self) -> None:
        """RENAME takes inferiors along and changes neither UIDs, UIDVALIDITY, MAILBOXID nor key."""
        self.store.create("A/B", [])
        self.store.create("AB", [])
        self.put(SEEN, name="A/B")
        before, key = self.store.status("A/B"), self.key("A/B")
        self.store.rename("A", "X/Y")
        self.assertEqual({n for n in self.names() if n != "X"}, {"AB", "INBOX", "X/Y", "X/Y/B"})
        self.assertEqual(self.store.status("X/Y/B"), before)
        self.assertEqual(self.key("X/Y/B"), key)
        self.assertEqual(self.fetch(1, WHOLE, "X/Y/B"), b"{%d}\r\n%b" % (len(MAIL), MAIL))
        self.assertRaises(NoSuchMailbox, self.store.open, "A", False)
        self.store.delete("X/Y")  # now it only holds another
        self.store.rename("X/Y", "Z")
        self.assertEqual(self.key("Z/B"), key)

    def test_rename_refused(self) -> None:
        """RENAME to a name that is taken or cannot be, into itself, or from nothing changes nothing."""
        self.store.create("A/C", [])
        self.store.create("B", [])
        before = self.names()
        for error, old, new in (
            (MailboxExists, "A", "B"),
            (MailboxExists, "A", "INBOX"),
            (NoSuchMailbox, "none", "C"),
            (BadMailboxName, "A", "x//y"),
            (StoreError, "A", "A/D"),
        ):
            self.assertRaises(error, self.store.rename, old, new)
        self.assertEqual(self.names(), before)

    def test_rename_inbox(self) -> None:
        """RENAME INBOX moves its messages away; INBOX and its inferiors stay."""
        self.store.create("INBOX/sub", [])
        self.put(SEEN)
        self.put()
        uidvalidity = self.store.status("INBOX").uidvalidity
        self.store.rename("INBOX", "Old")
        self.assertEqual(self.names(), ["INBOX", "INBOX/sub", "Old"])
        status = self.store.status("INBOX")
        self.assertEqual((status.messages, status.uidvalidity, status.uidnext), (0, uidvalidity, 3))
        self.assertEqual(self.flags("Old"), {1: {SEEN}, 2: set()})

    def test_subscriptions(self) -> None:
        """Names are subscribed whether such mailboxes exist or not; unsubscribing the unknown is no error."""
        self.store.create("Ünï/a.b", [])
        for name in ("INBOX", "Ünï/a.b", "none"):
            self.store.set_subscribed(name, True)
            self.store.set_subscribed(name, True)
        self.store.set_subscribed("other", False)
        self.assertEqual(self.store.subscriptions(), {"INBOX", "Ünï/a.b", "none"})
        self.store.set_subscribed("none", False)
        self.store.delete("Ünï/a.b")
        self.assertEqual(self.reopen().subscriptions(), {"INBOX", "Ünï/a.b"})

    # messages

    def test_append(self) -> None:
        """APPEND gives rising UIDs, keeps flags, date and octets, and tells UIDVALIDITY."""
        appended = self.store.append(
            "INBOX",
            [
                NewMessage((SEEN, b"$Junk"), 1_000_000_000, MemoryLiteral(MAIL)),
                NewMessage((), None, MemoryLiteral(SECOND)),
            ],
        )
        status = self.store.status("INBOX")
        self.assertEqual(appended, (status.uidvalidity, [1, 2]))
        self.assertEqual((status.messages, status.unseen, status.uidnext), (2, 1, 3))
        self.assertEqual(status.size, len(MAIL) + len(SECOND))
        rows = self.store.open("INBOX", False).delta.rows
        self.assertEqual([row.flags for row in rows], [b"\\Seen $Junk", b""])
        self.assertEqual(rows[0].internaldate, 1_000_000_000)
        self.assertEqual(
            self.store.sizes(self.key(), [1, 2, 3]), [(1, len(MAIL)), (2, len(SECOND))]
        )

    def test_octets_are_kept(self) -> None:
        """Whatever was stored comes back octet for octet: bare LF, bare CR, NUL-free binary, no line end, nothing."""
        for content in (
            b"",
            b"\n",
            b"a\nb\r\nc",
            b"a: b\n\nbare\n",
            b"x: y\r\n\r\nno end",
            b"\r\r\n\n\r",
            b"\xff\xfe: \x80\r\n\r\n",
        ):
            uid = self.put(content=content)
            self.assertEqual(self.fetch(uid, WHOLE), b"{%d}\r\n%b" % (len(content), content))
            self.assertEqual(self.store.sizes(self.key(), [uid]), [(uid, len(content))])

    def test_uids_are_never_given_twice(self) -> None:
        """A UID is gone for good when its message is, also after a restart."""
        self.put(DELETED)
        self.put(DELETED)
        self.store.expunge(self.key(), None, 0)
        self.store = self.reopen()
        self.assertEqual(self.store.status("INBOX").uidnext, 3)
        self.assertEqual(self.put(), 3)

    def test_flags_in_canonical_order(self) -> None:
        """Flags are told as system flags in their order, then keywords; \\Recent is nobody's to store."""
        self.put(
            b"zeta", b"$Forwarded", b"\\Draft", SEEN, DELETED, FLAGGED, b"\\Answered", b"Alpha"
        )
        (row,) = self.store.open("INBOX", False).delta.rows
        self.assertEqual(
            row.flags, b"\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded Alpha zeta"
        )

    def test_store_flags(self) -> None:
        """STORE adds, removes and replaces; what was so already keeps its MODSEQ."""
        for _ in range(3):
            self.put()
        key, since = self.key(), self.modseq()
        delta, failed = self.store.store_flags(key, [1, 2, 9], b"+", [SEEN, b"$Work"], None, since)
        self.assertEqual(
            [(row.uid, row.flags) for row in delta.rows],
            [(1, b"\\Seen $Work"), (2, b"\\Seen $Work")],
        )
        self.assertEqual(failed, [])
        self.assertTrue(all(row.modseq > since for row in delta.rows))
        since = delta.highestmodseq
        delta, _ = self.store.store_flags(key, [1, 2, 3], b"+", [SEEN], None, since)
        self.assertEqual([row.uid for row in delta.rows], [3])
        since = delta.highestmodseq
        delta, _ = self.store.store_flags(key, [1], b"-", [b"$WORK"], None, since)
        self.assertEqual([(row.uid, row.flags) for row in delta.rows], [(1, b"\\Seen")])
        self.store.store_flags(key, [2], b"", [FLAGGED], None, since)
        self.store.store_flags(key, [3], b"", [], None, since)
        self.assertEqual(self.flags(), {1: {SEEN}, 2: {FLAGGED}, 3: set()})

    def test_keywords_differ_by_more_than_case(self) -> None:
        """A keyword in another case is the same keyword."""
        self.put(b"$Work")
        self.store.store_flags(self.key(), [1], b"+", [b"$WORK"], None, 0)
        self.assertEqual(self.flags(), {1: {b"$Work"}})
        self.store.store_flags(self.key(), [1], b"-", [b"$work"], None, 0)
        self.assertEqual(self.flags(), {1: set()})

    def test_forty_keywords(self) -> None:
        """More keywords than there are letters are kept like the first."""
        keywords = {b"keyword%d" % i for i in range(40)}
        self.put(*keywords)
        self.store.store_flags(self.key(), [1], b"-", [b"keyword7", b"keyword39"], None, 0)
        self.store = self.reopen()
        self.assertEqual(self.flags(), {1: keywords - {b"keyword7", b"keyword39"}})

    def test_unchanged_since(self) -> None:
        """With UNCHANGEDSINCE messages that were changed later are left alone and named."""
        self.put()
        self.put()
        key, seen = self.key(), self.modseq()
        self.store.store_flags(key, [2], b"+", [FLAGGED], None, seen)
        delta, failed = self.store.store_flags(key, [1, 2], b"+", [SEEN], seen, seen)
        self.assertEqual(failed, [2])
        self.assertEqual(self.flags(), {1: {SEEN}, 2: {FLAGGED}})
        self.assertEqual([row.uid for row in delta.rows], [1, 2])

    def test_expunge(self) -> None:
        """EXPUNGE removes what has \\Deleted, of the given UIDs if any are given, and tells what went."""
        for flag in (DELETED, SEEN, DELETED, DELETED):
            self.put(flag)
        key, since = self.key(), self.modseq()
        delta = self.store.expunge(key, [2, 3], since)
        self.assertEqual([*delta.vanished], [3])
        self.assertGreater(delta.highestmodseq, since)
        delta = self.store.expunge(key, None, delta.highestmodseq)
        self.assertEqual([*delta.vanished], [1, 4])
        self.assertEqual([*self.store.expunge(key, None, delta.highestmodseq).vanished], [])
        self.assertEqual([*self.store.changes(key, since, False).vanished], [1, 3, 4])
        self.assertEqual(self.flags(), {2: {SEEN}})
        fetched = self.store.fetch(key, [1, 2, 3], [ENVELOPE], BUDGET)
        self.assertEqual((list(fetched.uids), list(fetched.missing)), ([2], [1, 3]))
        self.assertRaises(MessageExpunged, self.store.read, key, 1, WHOLE, 0, 10)

    def test_copy(self) -> None:
        """COPY keeps flags, INTERNALDATE, octets and EMAILID, and leaves the source as it was."""
        self.store.create("A", [])
        self.put(b"Other", name="A")
        self.put(SEEN, b"$Work", at=1_000_000_000)
        self.put(content=SECOND)
        key, since = self.key(), self.modseq()
        self.assertRaises(MessageExpunged, self.store.copy, key, [1, 2, 7], "A", False, since)
        copied = self.store.copy(key, [1, 2], "A", False, since)
        self.assertEqual(copied[:3], (self.store.status("A").uidvalidity, [1, 2], [2, 3]))
        self.assertEqual((copied.delta.rows, [*copied.delta.vanished]), ([], []))
        self.assertEqual(self.flags("A"), {1: {b"Other"}, 2: {SEEN, b"$Work"}, 3: set()})
        row = self.store.open("A", False).delta.rows[1]
        self.assertEqual(
            (row.internaldate, self.store.sizes(self.key("A"), [2])),
            (1_000_000_000, [(2, len(MAIL))]),
        )
        for item in (EMAILID, ENVELOPE, STRUCTURE, WHOLE):
            self.assertEqual(self.fetch(3, item, "A"), self.fetch(2, item))
        self.assertEqual(self.flags(), {1: {SEEN, b"$Work"}, 2: set()})

    def test_copy_to_itself(self) -> None:
        """A mailbox can be copied into itself; the delta tells the copies."""
        self.put(SEEN)
        copied = self.store.copy(self.key(), [1], "INBOX", False, self.modseq())
        self.assertEqual([row.uid for row in copied.delta.rows], [2])
        self.assertEqual(self.flags(), {1: {SEEN}, 2: {SEEN}})

    def test_copy_to_nowhere(self) -> None:
        """COPY to a mailbox that is not there copies nothing."""
        self.put()
        self.assertRaises(NoSuchMailbox, self.store.copy, self.key(), [1], "A", False, 0)

    def test_move(self) -> None:
        """MOVE is COPY and the source's messages vanish, with or without \\Deleted."""
        self.store.create("A", [])
        for flag in (SEEN, DELETED, FLAGGED):
            self.put(flag)
        known = self.fetch(3, EMAILID)
        moved = self.store.copy(self.key(), [1, 3, 7], "A", True, self.modseq())
        self.assertEqual((moved.source_uids, moved.target_uids), ([1, 3], [1, 2]))
        self.assertEqual([*moved.delta.vanished], [1, 3])
        self.assertEqual(self.flags(), {2: {DELETED}})
        self.assertEqual(self.flags("A"), {1: {SEEN}, 2: {FLAGGED}})
        self.assertEqual(self.fetch(2, EMAILID, "A"), known)

    def test_replace(self) -> None:
        """REPLACE is one step: the new message is in its mailbox, the old one is not, with or without \\Deleted."""
        self.store.create("A", [])
        for _ in range(3):
            self.put(SEEN)
        key, since = self.key(), self.modseq()
        new = NewMessage((FLAGGED,), 1_000_000_000, MemoryLiteral(SECOND))
        replaced = self.store.replace(key, 2, "INBOX", new, since)
        self.assertEqual(replaced.appended, (self.store.status("INBOX").uidvalidity, [4]))
        self.assertEqual([row.uid for row in replaced.delta.rows], [4])
        self.assertEqual([*replaced.delta.vanished], [2])
        self.assertEqual(self.flags(), {1: {SEEN}, 3: {SEEN}, 4: {FLAGGED}})
        replaced = self.store.replace(key, 3, "A", new, replaced.delta.highestmodseq)
        self.assertEqual((replaced.appended.uids, [*replaced.delta.vanished]), ([1], [3]))
        self.assertEqual(
            (self.flags(), self.flags("A")), ({1: {SEEN}, 4: {FLAGGED}}, {1: {FLAGGED}})
        )
        self.assertEqual(self.fetch(1, WHOLE, "A"), self.fetch(4, WHOLE))

    def test_replace_refused(self) -> None:
        """A REPLACE of what is gone, or into no mailbox, changes nothing."""
        self.put()
        new = NewMessage((), None, MemoryLiteral(SECOND))
        self.assertRaises(MessageExpunged, self.store.replace, self.key(), 7, "INBOX", new, 0)
        self.assertRaises(NoSuchMailbox, self.store.replace, self.key(), 1, "A", new, 0)
        self.assertEqual(self.flags(), {1: set()})

    def test_changes(self) -> None:
        """`changes` tells what changed since, once; nothing is told of what did not."""
        key = self.key()
        self.put()
        self.put()
        first = self.store.changes(key, 0, False)
        self.assertEqual([row.uid for row in first.rows], [1, 2])
        again = self.store.changes(key, first.highestmodseq, False)
        self.assertEqual((again.rows, [*again.vanished], again.uidnext), ([], [], 3))
        self.store.store_flags(key, [2], b"+", [DELETED], None, 0)
        self.deliver("INBOX", SECOND)
        delta = self.store.changes(key, first.highestmodseq, False)
        self.assertEqual([row.uid for row in delta.rows], [2, 3])
        self.store.expunge(key, None, 0)
        delta = self.store.changes(key, delta.highestmodseq, False)
        self.assertEqual((delta.rows, [*delta.vanished]), ([], [2]))

    def test_recent_is_told_once(self) -> None:
        """A new message is \\Recent to the first that claims it and to nobody after; who does not claim takes none."""
        self.deliver("INBOX", MAIL)
        self.store.open("INBOX", False)
        self.assertEqual(self.store.status("INBOX").recent, 1)
        self.assertEqual(self.store.open("INBOX", False).delta.recent, [1])
        opened = self.store.open("INBOX", True)
        self.assertEqual(opened.delta.recent, [1])
        self.deliver("INBOX", MAIL)
        self.assertEqual(
            self.store.changes(opened.key, opened.delta.highestmodseq, True).recent, [2]
        )
        self.store = self.reopen()
        self.assertEqual(self.store.open("INBOX", True).delta.recent, [])
        self.assertEqual(self.store.status("INBOX").recent, 0)

    def test_status(self) -> None:
        """STATUS counts without opening."""
        self.put(SEEN)
        self.put(DELETED)
        self.deliver("INBOX", MAIL)
        status = self.store.status("INBOX")
        self.assertEqual(status[:5], (3, 3, 2, 1, 4))
        self.assertEqual((status.size, status.deleted_size), (3 * len(MAIL), len(MAIL)))
        opened = self.store.open("INBOX", False)
        self.assertEqual(
            (status.uidvalidity, status.highestmodseq, status.mailbox_id),
            (opened.uidvalidity, opened.delta.highestmodseq, opened.mailbox_id),
        )

    def test_restart(self) -> None:
        """All that a client may hold on to outlives a restart."""
        self.store.create("A", [b"\\Archive"])
        self.put(SEEN, b"$Work", name="A")
        self.put(DELETED, name="A")
        self.store.expunge(self.key("A"), None, 0)
        known = self.fetch(1, EMAILID, "A")
        before, status = self.store.open("A", True), self.store.status("A")
        self.store = self.reopen()
        after = self.store.open("A", True)
        self.assertEqual(after[1:4], before[1:4])
        self.assertEqual(after.delta.rows, before.delta.rows)
        self.assertEqual(self.store.status("A"), status)
        self.assertEqual(self.fetch(1, EMAILID, "A"), known)

    # what is in messages

    def test_fetch_in_columns(self) -> None:
        """FETCH answers every item for every message, in the order asked, twice alike."""
        self.put()
        self.put(content=SECOND)
        items = [ENVELOPE, STRUCTURE, Attribute(b"BODY"), EMAILID, Attribute(b"THREADID"), WHOLE]
        first = self.store.fetch(self.key(), [1, 2], items, BUDGET)
        self.assertEqual(first.columns, self.store.fetch(self.key(), [1, 2], items, BUDGET).columns)
        self.assertEqual([len(column) for column in first.columns], [2] * len(items))
        self.assertIn(b'"Lunch"', first.columns[0][0])
        self.assertTrue(first.columns[3][0].startswith(b"(M"))
        self.assertEqual(first.columns[4], [b"NIL", b"NIL"])

    def test_header_fields(self) -> None:
        """Header fields are answered as the message spells them, whatever the order asked, twice alike."""
        self.put()
        for fields in ((b"Subject", b"FROM"), (b"from", b"subject"), (b"Subject", b"FROM")):
            item = BodySection(Section((), b"HEADER.FIELDS", fields), True)
            wanted = b"From: Ann <ann@example.org>\r\nSubject: Lunch\r\n\r\n"
            self.assertEqual(self.fetch(1, item), b"{%d}\r\n%b" % (len(wanted), wanted))
        others = BodySection(Section((), b"HEADER.FIELDS.NOT", (b"Subject", b"FROM")))
        self.assertNotIn(b"Lunch", self.fetch(1, others))
        self.assertIn(b"bob@example.org", self.fetch(1, others))

    def test_sections(self) -> None:
        """HEADER, TEXT, parts, partials, BINARY and PREVIEW; a part that is not there is NIL."""
        self.put()
        head, body = MAIL.split(b"\r\n\r\n")
        head += b"\r\n\r\n"
        for item, wanted in (
            (BodySection(Section((), b"HEADER")), head),
            (BodySection(Section((), b"TEXT")), body),
            (BodySection(Section((1,))), body),
            (BodySection(Section(), partial=(6, 3)), MAIL[6:9]),
            (BodySection(Section(), partial=(len(MAIL) - 2, 50)), MAIL[-2:]),
            (BodySection(Section(), partial=(5000, 50)), b""),
            (BodySection(Section((), b"TEXT"), partial=(3, 4)), body[3:7]),
            (Binary((1,)), body),
        ):
            self.assertEqual(self.fetch(1, item), b"{%d}\r\n%b" % (len(wanted), wanted), item)
        self.assertEqual(self.fetch(1, BodySection(Section((2,)))), b"NIL")
        self.assertEqual(self.fetch(1, Binary((1,), size_only=True)), b"%d" % len(body))
        self.assertEqual(self.fetch(1, Preview()), b'"At noon?"')

    def test_savedate(self) -> None:
        """SAVEDATE is when the message came here, whatever its INTERNALDATE."""
        self.put(at=1_000_000_000)
        self.assertRegex(
            self.fetch(1, Attribute(b"SAVEDATE")), rb'\A"[ 0-9][0-9]-[A-Z][a-z]{2}-20[0-9]{2} .*"\Z'
        )
        self.assertNotIn(b"2001", self.fetch(1, Attribute(b"SAVEDATE")))

    def test_budget(self) -> None:
        """A small budget still answers for one message; asking on gets the rest."""
        for _ in range(5):
            self.put(content=MAIL + b"x" * 1000)
        uids = [1, 2, 3, 4, 5]
        got: list[int] = []
        while len(got) < 5:
            fetched = self.store.fetch(self.key(), uids[len(got) :], [WHOLE], 1)
            self.assertEqual(len(fetched.uids), 1)
            got += fetched.uids
        self.assertEqual(got, uids)

    def test_large_strings(self) -> None:
        """A string over 256 KiB is a `Blob`, and reading it in pieces gives what it stands for."""
        body = b"".join(b"line %d\r\n" % i for i in range(60_000))
        content = b"Subject: large\r\n\r\n" + body
        self.put(content=content)
        for item, wanted in (
            (WHOLE, content),
            (BodySection(Section((), b"TEXT")), body),
            (BodySection(Section((1,))), body),
            (Binary((1,)), body),
            (BodySection(Section(), partial=(100, 400_000)), content[100:400_100]),
        ):
            blob = self.fetch(1, item)
            self.assertIsInstance(blob, Blob)
            self.assertEqual((blob.uid, blob.item, blob.size), (1, item, len(wanted)))
            step = 100_000
            pieces = [
                self.store.read(self.key(), 1, item, at, min(step, blob.size - at))
                for at in range(0, blob.size, step)
            ]
            self.assertTrue(b"".join(pieces) == wanted, item)

    def search(self, leaf: Any) -> list[int]:
        return self.store.search(self.key(), list(self.flags()), leaf)

    def test_search_headers(self) -> None:
        """Header searches find decoded text without case, also in fields nobody indexes."""
        self.put()
        self.put(content=SECOND)
        for leaf, wanted in (
            (EnvelopeKey(b"SUBJECT", "lunch"), [1]),
            (HeaderKey(b"subject", "CAFÉ"), [2]),
            (EnvelopeKey(b"FROM", "example.org"), [1, 2]),
            (EnvelopeKey(b"FROM", "zoë"), [2]),
            (EnvelopeKey(b"TO", ""), [1]),
            (EnvelopeKey(b"CC", ""), []),
            (HeaderKey(b"TO", ""), [1]),
            (HeaderKey(b"CC", ""), []),
            (HeaderKey(b"X-Tag", "BLUE"), [2]),
            (HeaderKey(b"X-Tag", ""), [2]),
            (TextKey("noon"), [1]),
            (TextKey("lunch"), []),
            (TextKey("lunch", headers=True), [1]),
            (DateKey(b"ON", date(2023, 11, 13), b"SENT"), [1]),
            (DateKey(b"BEFORE", date(2023, 11, 13), b"SENT"), []),
            (DateKey(b"SINCE", date(2023, 11, 13), b"SENT"), [1]),
            (DateKey(b"SINCE", date(2023, 1, 1), b"SAVED"), [1, 2]),
            (DateKey(b"BEFORE", date(2023, 1, 1), b"SAVED"), []),
            (ObjectIdKey(False, self.fetch(2, EMAILID)[1:-1]), [2]),
            (ObjectIdKey(True, b"T1"), []),
        ):
            self.assertEqual(self.search(leaf), wanted, leaf)
            self.assertEqual(self.search(leaf), wanted, leaf)

    def test_search_envelope(self) -> None:
        """FROM and the like find what ENVELOPE shows, HEADER what was written; however much there is, twice alike."""
        many = b",\r\n ".join(b"list%d@example.org" % i for i in range(5000))
        self.put(content=b"From: Ann (boss) <ann(x)@example.org>\r\nTo: %b\r\n\r\n" % many)
        self.put(content=b"From: ann@example.org (boss)\r\nTo: Team: bob@b;\r\n\r\n")
        for leaf, wanted in (
            (EnvelopeKey(b"FROM", "boss"), [2]),
            (HeaderKey(b"FROM", "BOSS"), [1, 2]),
            (EnvelopeKey(b"FROM", "ann <ANN@example.org>"), [1]),
            (EnvelopeKey(b"FROM", "ann@example"), [1, 2]),
            (HeaderKey(b"FROM", "ann@example"), [2]),
            (HeaderKey(b"FROM", "ann("), [1]),
            (EnvelopeKey(b"TO", "team"), [2]),
            (EnvelopeKey(b"TO", "team:"), []),
            (EnvelopeKey(b"TO", "list4999@"), [1]),
            (HeaderKey(b"TO", "list4999@"), [1]),
            (EnvelopeKey(b"TO", ""), [1, 2]),
        ):
            self.assertEqual(self.search(leaf), wanted, leaf)
            self.assertEqual(self.search(leaf), wanted, leaf)
