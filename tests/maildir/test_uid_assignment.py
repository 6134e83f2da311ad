"""UIDs of Dovecot and Courier are kept when imapshield replaces them."""

from __future__ import annotations

import os

from imapshield.maildir.other_servers import COURIER, DOVECOT, parse_uid_list
from imapshield.testing.store_contract import SEEN
from tests.maildir.disk import DiskTestCase

DOVECOT_LIST = b"3 V1500000000 N31 G0123456789abcdef\n7 :one\n9 S20 W22 :two,S=20\n30 :gone\n"
COURIER_LIST = b"1 1500000000 31\n7 one\n9 two,S=20\n30 gone\n"


class UidImportTests(DiskTestCase):
    def setUp(self) -> None:
        super().setUp()
        for directory in ("cur", "new", "tmp"):
            os.makedirs(self.path(".A", directory))
        for name in ("one:2,S", "two,S=20:2,"):
            self.deliver(folder=".A", name=name, directory="cur")
        self.deliver(folder=".A", name="zfresh")

    def write(self, name: str, content: bytes) -> None:
        with open(self.path(".A", name), "wb") as file:
            file.write(content)

    def test_uids_of_another_server_are_kept(self) -> None:
        r"""UIDVALIDITY, UIDNEXT and UIDs are those of the other server; only messages that it did not have are \Recent."""
        for name, content in (
            ("dovecot-uidlist", DOVECOT_LIST),
            ("courierimapuiddb", COURIER_LIST),
        ):
            self.write(name, content)
            opened = self.store.open("A", True)
            self.assertEqual(opened.uidvalidity, 1_500_000_000)
            self.assertEqual(
                [row[:2] for row in opened.delta.rows], [(7, b"\\Seen"), (9, b""), (31, b"")]
            )
            self.assertEqual((opened.delta.uidnext, opened.delta.recent), (32, [31]))
            self.assertEqual(self.append(SEEN, name="A"), 32)
            self.store.delete("A")
            os.makedirs(self.path(".A", "cur"))
            self.store.open("A", True)
            self.store.delete("A")
            self.setUp()

    def test_uids_of_an_empty_folder_continue(self) -> None:
        """In an empty folder, UIDs continue where the other server stopped."""
        for directory in ("cur", "new"):
            for name in os.listdir(self.path(".A", directory)):
                os.unlink(self.path(".A", directory, name))
        self.write("dovecot-uidlist", DOVECOT_LIST)
        self.assertEqual(self.append(name="A"), 31)
        self.assertEqual(self.store.status("A").uidvalidity, 1_500_000_000)

    def test_uids_are_imported_only_once(self) -> None:
        """Nothing is imported after a loss of the index, because the other server's file is out of date then."""
        self.write("dovecot-uidlist", DOVECOT_LIST)
        self.store.open("A", True)
        self.store.close()
        for name in os.listdir(self.root):
            if name.startswith("imapshield.sqlite"):
                os.unlink(self.path(name))
        opened = self.open_store().open("A", True)
        self.assertGreater(opened.uidvalidity, 1_500_000_000)
        self.assertEqual([row.uid for row in opened.delta.rows], [1, 2, 3])

    def test_invalid_file_is_not_imported(self) -> None:
        """A file with another format or with contradictions is not imported; invalid lines are ignored."""
        for content in (
            b"",
            b"nonsense",
            b"1 1500000000 31 old version\n7 one\n",
            b"3 N31\n7 :one\n",
            b"3 V0 N31\n",
            b"3 V99999999999 N31\n",
            b"3 V1500000000 N31\n7 :one\n7 :two\n",
        ):
            for form in (DOVECOT, COURIER):
                self.assertIsNone(parse_uid_list(content, form), content)
        content = b"3 V5 N2\n9 :one\nx :two\n0 :three\n-1 :four\n5\n"
        uid_list = parse_uid_list(content, DOVECOT)
        self.assertEqual(uid_list, (5, 10, {b"one": 9}))
