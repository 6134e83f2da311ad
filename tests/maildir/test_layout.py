"""Mailbox names are directories of the Maildir, each its own, and none is outside."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadMailboxName
from imapshield.maildir.layout import MAX_LEVELS, folder_name, mailbox_name
from imapshield.wire.names import parent_names


class LayoutTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Levels are dots, modified UTF-7 is Dovecot's and Courier's, a dot inside a level is escaped."""
        for name, wanted in (
            ("A", b".A"),
            ("Lists/Café", b".Lists.Caf&AOk-"),
            ("a.b/c", b".a&AC4-b.c"),
            ("&", b".&-"),
            ("a&.b", b".a&-&AC4-b"),
            ("é.é", b".&AOk-&AC4-&AOk-"),
            ("INBOX/x", b".INBOX.x"),
            ("...", b".&AC4-&AC4-&AC4-"),
            ("cur", b".cur"),
            ("日本", b".&ZeVnLA-"),
        ):
            self.assertEqual(folder_name(name), wanted)
            self.assertEqual(mailbox_name(wanted), name)
        self.assertEqual((folder_name("INBOX"), folder_name("inbox")), (b"", b""))
        self.assertEqual(folder_name("inbox/x"), b".INBOX.x")

    def test_refused(self) -> None:
        """What could leave the Maildir, confuse a reader or not be stored is no name."""
        for name in (
            "", "/", "/a", "a/", "a//b", ".", "..", "../x", "a/../b", "a/.", "a\0b", "a\nb", "\x7f",
            "a\x85", "a\u2028b", "\ud800", "x" * 255, "é" * 100, "/".join("a" * (MAX_LEVELS + 1)),
        ):  # fmt: skip
            self.assertRaises(BadMailboxName, folder_name, name)
        self.assertEqual(len(folder_name("x" * 254)), 255)

    def test_not_ours(self) -> None:
        """A directory that no name gives is no mailbox."""
        for name in (
            b"", b".", b"..", b"...", b"A", b"cur", b".A..B", b".A.", b".INBOX", b".inbox", b".Inbox.x",
            b".b&d", b".&AC8-", b".&AGE-", b".Entw\xc3\xbcrfe", b".\xff", b".&AC4-", b".a\x01",
        ):  # fmt: skip
            self.assertIsNone(mailbox_name(name), name)

    @given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_round_trip(self, levels) -> None:
        """A name that has a directory is what that directory is read as, and the directory is in the Maildir."""
        name = "/".join(levels)
        try:
            found = folder_name(name)
        except BadMailboxName:
            return
        if found:
            self.assertEqual(folder_name(mailbox_name(found)), found)
            self.assertTrue(found.startswith(b".") and b"/" not in found and b".." not in found)
            self.assertTrue(found.isascii() and len(found) <= 255)

    @given(st.binary(max_size=12))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_any_directory(self, name) -> None:
        """Any directory name is read as nothing or as a mailbox that is that directory."""
        found = mailbox_name(b"." + name)
        if found is not None:
            self.assertEqual(folder_name(found), b"." + name)

    def test_parents(self) -> None:
        """Superiors, the topmost first."""
        self.assertEqual(parent_names("a/b/c"), ["a", "a/b"])
        self.assertEqual(parent_names("a"), [])
