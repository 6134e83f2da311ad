"""Every mailbox name is one folder of the Maildir, and no name leads outside it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadMailboxName
from imapshield.maildir.paths import MAX_LEVELS, check_new_name, folder_name, mailbox_name
from imapshield.wire.names import parent_names


class FolderNameTests(SynchronousTestCase):
    def test_folder_names_are_dotted_modified_utf7(self) -> None:
        """Each level begins with a dot and is modified UTF-7; a dot inside a level is escaped."""
        for name, folder in (
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
            self.assertEqual(folder_name(name), folder)
            self.assertEqual(mailbox_name(folder), name)
        self.assertEqual((folder_name("INBOX"), folder_name("inbox")), (b"", b""))
        self.assertEqual(folder_name("inbox/x"), b".INBOX.x")

    def test_invalid_mailbox_name_is_refused(self) -> None:
        """A name that would lead outside the Maildir, has control characters or is too long is refused."""
        for name in (
            "", "/", "/a", "a/", "a//b", ".", "..", "../x", "a/../b", "a/.", "a\0b", "a\nb", "\x7f",
            "a\x85", "a\u2028b", "\ud800", "x" * 255, "é" * 100,
        ):  # fmt: skip
            self.assertRaises(BadMailboxName, folder_name, name)
            self.assertRaises(BadMailboxName, check_new_name, name)
        self.assertEqual(len(folder_name("x" * 254)), 255)

    def test_only_new_mailboxes_have_a_limit_of_levels(self) -> None:
        """A new name has a limited number of levels; a folder that another program made has not."""
        check_new_name("/".join("a" * MAX_LEVELS))
        name = "/".join("a" * (MAX_LEVELS + 1))
        self.assertRaises(BadMailboxName, check_new_name, name)
        self.assertEqual(mailbox_name(folder_name(name)), name)

    def test_other_directory_is_no_mailbox(self) -> None:
        """A directory is not a mailbox if it is not the folder of any mailbox name."""
        for folder in (
            b"", b".", b"..", b"...", b"A", b"cur", b".A..B", b".A.", b".INBOX", b".inbox", b".Inbox.x",
            b".b&d", b".&AC8-", b".&AGE-", b".Entw\xc3\xbcrfe", b".\xff", b".&AC4-", b".a\x01",
        ):  # fmt: skip
            self.assertIsNone(mailbox_name(folder), folder)

    @given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_any_mailbox_name_is_inside_the_maildir(self, levels: list[str]) -> None:
        """The folder of any valid name is inside the Maildir, and decoding its name gives the same folder again."""
        try:
            folder = folder_name("/".join(levels))
        except BadMailboxName:
            return
        if folder:
            name = mailbox_name(folder)
            assert name is not None
            self.assertEqual(folder_name(name), folder)
            self.assertTrue(folder.startswith(b".") and b"/" not in folder and b".." not in folder)
            self.assertTrue(folder.isascii() and len(folder) <= 255)

    @given(st.binary(max_size=12))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_any_directory_is_no_mailbox_or_its_own_folder(self, suffix: bytes) -> None:
        """Any directory name is no mailbox, or is the folder of the mailbox that it decodes to."""
        name = mailbox_name(b"." + suffix)
        if name is not None:
            self.assertEqual(folder_name(name), b"." + suffix)

    def test_parents_are_returned_from_the_top(self) -> None:
        """The parents of a name are returned in order from the top level."""
        self.assertEqual(parent_names("a/b/c"), ["a", "a/b"])
        self.assertEqual(parent_names("a"), [])
