"""MULTISEARCH (RFC 7377): a search of several mailboxes."""

import re

from tests.session.session_case import SessionTestCase, lines


class MultisearchTests(SessionTestCase):
    def setUp(self) -> None:
        """Store three messages in folder1, two of them unseen, and one in each of three mailboxes below folder2."""
        super().setUp()
        for name in (b"folder1", b"folder2/banana", b"folder2/peach", b"folder2/salmon/x"):
            self.client(b"c CREATE " + name)
        for name, flags in (
            (b"folder1", b"()"),
            (b"folder1", b"(\\Seen)"),
            (b"folder1", b"()"),
            (b"folder2/banana", b"()"),
            (b"folder2/peach", b"(\\Seen)"),
            (b"folder2/salmon/x", b"()"),
        ):
            self.client.append(mailbox=name, flags=flags)

    def search(self, command: bytes) -> list[bytes]:
        """Return the untagged responses to ESEARCH with the tag ``tag1``, with 1 for each UIDVALIDITY."""
        return [
            re.sub(rb"UIDVALIDITY \d+", b"UIDVALIDITY 1", line)
            for line in lines(self.client(b"tag1 ESEARCH " + command))[:-1]
        ]

    def test_esearch_searches_mailboxes_and_subtrees(self) -> None:
        """ESEARCH searches mailboxes and subtrees, and returns nothing for mailboxes without a match (example of
        section 2.1)."""
        self.assertEqual(
            self.search(b'IN (mailboxes "folder1" subtree-one "folder2") unseen'),
            [
                b'* ESEARCH (TAG "tag1" MAILBOX folder1 UIDVALIDITY 1) UID ALL 1,3',
                b'* ESEARCH (TAG "tag1" MAILBOX folder2/banana UIDVALIDITY 1) UID ALL 1',
            ],
        )
        self.assertEqual(len(self.search(b'IN (mailboxes "folder1" subtree "folder2") unseen')), 3)
        self.assertEqual(len(self.search(b"IN (mailboxes (folder1 nowhere folder2/peach)) ALL")), 2)
        self.assertEqual(len(self.search(b"IN (inboxes) ALL")), 4)  # RFC 5465 section 6.3

    def test_return_options_apply_to_each_mailbox(self) -> None:
        """RETURN selects the result items for each mailbox."""
        self.assertEqual(
            self.search(b"IN (personal) RETURN (COUNT MAX) UNSEEN SUBJECT lunch")[0],
            b'* ESEARCH (TAG "tag1" MAILBOX folder1 UIDVALIDITY 1) UID MAX 3 COUNT 2',
        )

    def test_esearch_searches_subscribed_mailboxes(self) -> None:
        """ESEARCH IN (subscribed) searches the subscribed mailboxes that exist."""
        self.client(b"s SUBSCRIBE folder1")
        self.client(b"s SUBSCRIBE gone")
        self.assertEqual(len(self.search(b"IN (subscribed) ALL")), 1)

    def test_selected_mailbox_is_the_default(self) -> None:
        """The selected mailbox is the default. SAVE and `$` are allowed only if no other mailbox is searched."""
        for command in (b"ESEARCH ALL", b"ESEARCH IN (selected personal) ALL",
                        b"ESEARCH IN (personal) RETURN (UPDATE) ALL"):  # fmt: skip
            self.assertIn(b"a BAD", self.client(b"a " + command), command)
        self.client(b"s SELECT folder1")
        self.assertEqual(
            self.search(b"RETURN (SAVE ALL) 2:3"),
            [b'* ESEARCH (TAG "tag1" MAILBOX folder1 UIDVALIDITY 1) UID ALL 2:3'],
        )
        self.assertEqual(len(self.search(b"IN (selected) $")), 1)
        for command in (b"$", b"UID $", b"NOT OR SEEN $"):
            self.assertIn(
                b"BAD", self.client(b"a ESEARCH IN (selected personal) " + command), command
            )
        self.assertIn(b"BAD", self.client(b"a ESEARCH IN (inboxes) RETURN (SAVE) ALL"))
        self.assertIn(b"BAD", self.client(b"a ESEARCH IN (selected-delayed) ALL"))
        self.assertEqual(len(self.search(b"IN (personal) UID 1:2")), 4)

    def test_sequence_numbers_count_in_each_mailbox(self) -> None:
        """Sequence numbers count in each mailbox, and no number is too high (section 2)."""
        self.assertEqual(len(self.search(b"IN (personal) FROM ann 1:100")), 4)
        self.assertEqual(
            self.search(b"IN (personal) 2:200"),
            [b'* ESEARCH (TAG "tag1" MAILBOX folder1 UIDVALIDITY 1) UID ALL 2:3'],
        )
        self.client(b"s SELECT folder1")
        self.assertEqual(
            [
                len(lines(self.client(b"tag1 UID ESEARCH FROM ann " + n)))
                for n in (b"1:100", b"4:9")
            ],
            [2, 1],
        )

    def test_update_applies_to_the_selected_mailbox(self) -> None:
        """CONTEXT is a hint. UPDATE applies to the selected mailbox, and each update names it (section 2.2)."""
        self.assertEqual(len(self.search(b"IN (personal) RETURN (CONTEXT COUNT) ALL")), 4)
        self.client(b"s SELECT folder1")
        mailbox = rb'"tag1" MAILBOX folder1 UIDVALIDITY \d+\) UID '
        response = self.client(b"tag1 ESEARCH IN (personal) RETURN (UPDATE COUNT) UNSEEN")
        self.assertRegex(response, mailbox + b"COUNT 2")
        self.assertRegex(self.client.append(mailbox=b"folder1"), mailbox + rb"ADDTO \(0 4\)")
        self.assertIn(b"tag1 BAD", self.client(b"tag1 ESEARCH RETURN (UPDATE) SEEN"))
        self.client(b'c CANCELUPDATE "tag1"')
        self.assertIn(
            b'* NO [NOUPDATE "d"]',
            self.client(b"d ESEARCH IN (mailboxes folder2/peach) RETURN (UPDATE ALL) SEEN"),
        )

    def test_search_of_another_mailbox_has_no_side_effects(self) -> None:
        r"""A search of another mailbox neither claims \Recent nor keeps the mailbox open."""
        self.search(b"IN (personal) TEXT noon")
        self.assertIn(b"* 3 RECENT", self.client(b"s SELECT folder1"))
        self.assertFalse(
            [
                m
                for m in self.server.realm.account()._open.values()
                if m.is_selected and m.name != "folder1"
            ]
        )
