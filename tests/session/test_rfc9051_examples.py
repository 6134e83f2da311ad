"""Transcripts of RFC 9051 section 6 that no other test covers, with the delimiter and attributes of this server."""

from tests.session.session_case import SessionTestCase, lines


class ExampleTests(SessionTestCase):
    def replay(self, script: str) -> None:
        """Send the `C:` lines and compare the responses with the `S:` lines. Of tagged
        responses, compare only the status and the code."""
        expected: list[bytes] = []
        received: list[bytes] = []
        for line in script.strip().splitlines():
            sender, _, text = line.strip().partition(": ")
            if sender == "C":
                self.assertEqual(received, expected, script)
                expected, received = [], []
                for response in lines(self.client(text.encode())):
                    words = response.split(b" ", 2)
                    coded = words[-1].partition(b"]")[0] + b"]" if words[-1][:1] == b"[" else b""
                    tagged = words[0] == text.split()[0].encode()
                    received.append(b" ".join([*words[:2], coded]).strip() if tagged else response)
            else:
                expected.append(text.encode())
        self.assertEqual(received, expected, script)

    def test_enable_does_not_change_the_capabilities(self) -> None:
        """Section 6.3.1: ENABLE does not change the capabilities."""
        before = self.client(b"t1 CAPABILITY")
        self.client(b"t2 ENABLE IMAP4rev2 UTF8=ACCEPT QRESYNC X-GOOD-IDEA")
        self.assertEqual(self.client(b"t1 CAPABILITY"), before)

    def test_deleted_mailbox_with_inferiors_is_noselect(self) -> None:
        r"""Section 6.3.5: a deleted mailbox with inferiors is \Noselect until the last inferior is deleted."""
        for name in (b"blurdybloop", b"foo/bar"):
            self.client(b"a CREATE " + name)
        self.replay(
            r"""
            C: A82 LIST "" *
            S: * LIST (\HasNoChildren) "/" INBOX
            S: * LIST (\HasNoChildren) "/" blurdybloop
            S: * LIST (\HasChildren) "/" foo
            S: * LIST (\HasNoChildren) "/" foo/bar
            S: A82 OK
            C: A83 DELETE blurdybloop
            S: A83 OK
            C: A84 DELETE foo
            S: A84 OK
            C: A86 LIST "" %
            S: * LIST (\HasNoChildren) "/" INBOX
            S: * LIST (\Noselect \HasChildren) "/" foo
            S: A86 OK
            C: A684 DELETE foo
            S: A684 NO [HASCHILDREN]
            C: A685 DELETE foo/bar
            S: A685 OK
            C: A686 LIST "" *
            S: * LIST (\HasNoChildren) "/" INBOX
            S: A686 OK
            """
        )

    def test_rename_renames_inferiors_too(self) -> None:
        r"""Section 6.3.6: inferiors are renamed too, even inferiors of a \Noselect name, but not those of INBOX."""
        for name in (b"blurdybloop", b"foo/bar", b"INBOX/bar"):
            self.client(b"a CREATE " + name)
        self.client(b"a DELETE foo")
        self.replay(
            r"""
            C: A683 RENAME blurdybloop sarasoop
            S: A683 OK
            C: A684 RENAME foo zowie
            S: A684 OK
            C: Z433 RENAME INBOX old-mail
            S: Z433 OK
            C: Z434 LIST "" *
            S: * LIST (\HasChildren) "/" INBOX
            S: * LIST (\HasNoChildren) "/" INBOX/bar
            S: * LIST (\HasNoChildren) "/" old-mail
            S: * LIST (\HasNoChildren) "/" sarasoop
            S: * LIST (\Noselect \HasChildren) "/" zowie
            S: * LIST (\HasNoChildren) "/" zowie/bar
            S: Z434 OK
            """
        )

    def test_rename_keeps_subscriptions(self) -> None:
        """Section 6.3.6: RENAME does not change subscriptions. The client's commands 1002 and 1003 do."""
        self.client(b"a CREATE X")
        self.client(b"a SUBSCRIBE X")
        self.replay(
            r"""
            C: 1001 RENAME X Y
            S: 1001 OK
            C: 1002 SUBSCRIBE Y
            S: 1002 OK
            C: l LIST (SUBSCRIBED) "" *
            S: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" X
            S: * LIST (\HasNoChildren \Subscribed) "/" Y
            S: l OK
            C: 1003 UNSUBSCRIBE X
            S: 1003 OK
            C: l LSUB "" *
            S: * LSUB () "/" Y
            S: l OK
            """
        )

    def test_idle_reports_added_and_expunged_messages(self) -> None:
        """Section 6.3.13: messages are added and expunged during A002 and A004, and sequence numbers follow."""
        client = self.select_inbox(3)
        other = self.second_client()
        client(b"A002 IDLE")
        other.append()
        self.assertIn(b"* 4 EXISTS\r\n", client.read())
        client(b"DONE")
        other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertRegex(client(b"A003 FETCH 4 UID"), rb"^\* 4 FETCH \(UID 4\)\r\nA003 OK")
        self.assertIn(b"* 2 EXPUNGE\r\n", client(b"A004 IDLE"))
        other(b"c STORE 3 +FLAGS.SILENT (\\Deleted)")
        client.read()
        other(b"d EXPUNGE")
        self.assertIn(b"* 3 EXPUNGE\r\n", client.read())
        other.append()
        self.assertIn(b"* 3 EXISTS\r\n", client.read())
        client(b"DONE")
        self.assertIn(b"* 3 FETCH (UID 5)\r\n", client(b"A005 FETCH 3 UID"))

    def test_absent_uids_are_ok_and_change_nothing(self) -> None:
        """Sections 6.3.12 and 6.4.9: commands with UIDs that do not exist are OK and change nothing."""
        self.select_inbox(1)
        self.replay(
            r"""
            C: A005 UID COPY 305:310 meeting
            S: A005 OK
            C: A006 UID MOVE 305:310 meeting
            S: A006 OK
            C: A007 UID STORE 305:310 +FLAGS (\Seen)
            S: A007 OK
            C: A008 UID SEARCH UID 559:*
            S: * SEARCH 1
            S: A008 OK
            """
        )
