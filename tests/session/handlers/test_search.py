"""SEARCH (RFC 9051), ESEARCH (RFC 4731), SEARCHRES (RFC 5182), PARTIAL (RFC 9394) and WITHIN (RFC 5032)."""

from imapshield.testing import MAIL, Client
from tests.session.session_case import SessionTestCase, lines


class Searching(SessionTestCase):
    def test_search(self) -> None:
        """SEARCH answers numbers, UID SEARCH UIDs, and always a line."""
        client = self.select_inbox(3)
        client(b"a STORE 1 +FLAGS (\\Deleted)")
        client(b"b EXPUNGE")
        self.assertIn(b"* SEARCH 1 2\r\n", client(b"c SEARCH ALL"))
        self.assertIn(b"* SEARCH 2 3\r\n", client(b"d UID SEARCH UNSEEN"))
        self.assertIn(b"* SEARCH\r\n", client(b"e SEARCH SEEN"))

    def test_literal(self) -> None:
        """A search text may be a literal, and is then asked for."""
        client = self.select_inbox(1)
        self.assertEqual(client(b"a SEARCH SUBJECT {5}"), b"+ Go ahead\r\n")
        self.assertIn(b"* SEARCH 1\r\n", client(b"lunch"))

    def test_charset(self) -> None:
        """An unknown charset is NO [BADCHARSET]."""
        client = self.select_inbox(1)
        self.assertIn(b"a NO [BADCHARSET", client(b"a SEARCH CHARSET x-unknown ALL"))

    def test_extended(self) -> None:
        """RETURN answers with ESEARCH and the command's tag."""
        client = self.select_inbox(3)
        self.assertIn(
            b'* ESEARCH (TAG "a") UID MIN 1 MAX 3 ALL 1:3 COUNT 3',
            client(b"a UID SEARCH RETURN (MIN MAX ALL COUNT) ALL"),
        )

    def test_search_gone(self) -> None:
        """SEARCH leaves it out too, and says so (RFC 5530, EXPUNGEISSUED)."""
        client = self.select_inbox(3)
        other = self.second_client()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        for command, found in (
            (b"SEARCH ALL", b"* SEARCH 1 3"),
            (b"SORT (ARRIVAL) UTF-8 ALL", b"* SORT 1 3"),
            (b"THREAD REFERENCES UTF-8 ALL", b"* THREAD ((1)(3))"),
        ):
            answer = lines(client(b"c " + command))
            self.assertEqual(answer[0], found)
            self.assertRegex(answer[-1], rb"^c OK \[EXPUNGEISSUED\]")

    def test_within(self) -> None:
        """YOUNGER and OLDER count from now, and of the very second both are (RFC 5032 section 2)."""
        self.select_inbox(1)
        session = self.client.protocol._session
        session.now = lambda: 1_700_000_000.9 + 3600
        for key, found in (
            (b"YOUNGER 3600", b" 1"),
            (b"YOUNGER 3599", b""),
            (b"OLDER 3600", b" 1"),
            (b"OLDER 3601", b""),
            (b"OLDER 3599", b" 1"),
            (b"YOUNGER 10", b""),
        ):
            self.assertEqual(lines(self.client(b"a SEARCH " + key))[0], b"* SEARCH" + found, key)


class Saved(SessionTestCase):
    def searched(self) -> Client:
        """Five messages, of which 2 and 4 are flagged, and the search for those saved."""
        client = self.select_inbox(5)
        client(b"a STORE 2,4 +FLAGS.SILENT (\\Flagged)")
        self.assertEqual(client(b"A282 SEARCH RETURN (SAVE) FLAGGED"), b"A282 OK Searched\r\n")
        return client

    def test_everywhere(self) -> None:
        """``$`` is what was found, in FETCH, STORE, COPY, MOVE, SEARCH and UID EXPUNGE (section 2.1)."""
        client = self.searched()
        client(b"b CREATE other")
        self.assertEqual(
            [one[:9] for one in lines(client(b"A283 FETCH $ (UID)"))[:2]],
            [b"* 2 FETCH", b"* 4 FETCH"],
        )
        self.assertIn(b"* SEARCH 4", client(b"c SEARCH $ 3:5"))
        self.assertIn(b"* SEARCH 2", client(b"d UID SEARCH UID $ SMALLER 9999 1:3"))
        self.assertRegex(client(b"e COPY $ other"), rb"e OK \[COPYUID \d+ 2,4 1:2\]")
        self.assertIn(b"* 2 FETCH", client(b"f STORE $ +FLAGS (\\Deleted)"))
        self.assertEqual(lines(client(b"g UID EXPUNGE $"))[:2], [b"* 4 EXPUNGE", b"* 2 EXPUNGE"])
        self.assertEqual(client(b"h FETCH $ FLAGS"), b"h OK Fetched\r\n")
        self.assertIn(b"i OK There was nothing", client(b"i MOVE $ other"))

    def test_expunged(self) -> None:
        """What is expunged drops out, and numbers stay those of their messages."""
        client = self.searched()
        client(b"b STORE 1:2 +FLAGS.SILENT (\\Deleted)")
        client(b"c EXPUNGE")
        self.assertEqual(lines(client(b"d FETCH $ UID"))[0], b"* 2 FETCH (UID 4)")

    def test_emptied(self) -> None:
        """A search that found nothing or failed, and another SELECT, empty it; a BAD one does not (section 2.1)."""
        client = self.searched()
        self.assertIn(b"b BAD", client(b"b SEARCH RETURN (SAVE) NONSENSE"))
        self.assertIn(b"* 4 FETCH", client(b"c FETCH $ UID"))
        self.assertIn(b"c1 NO [BADCHARSET", client(b"c1 SEARCH CHARSET X-NONE (OR $ 1) TEXT x"))
        self.assertIn(b"* 4 FETCH", client(b"c2 FETCH $ UID"))
        for command in (
            b"SEARCH RETURN (SAVE) CHARSET X-NONE ALL",
            b"SORT RETURN (SAVE) (DATE) X-NONE ALL",
        ):
            client(b"c3 SEARCH RETURN (SAVE) FLAGGED")
            self.assertIn(b"c4 NO [BADCHARSET", client(b"c4 " + command))
            self.assertEqual(client(b"c5 FETCH $ UID"), b"c5 OK Fetched\r\n")
        client(b"c6 SEARCH RETURN (SAVE) ALL")
        client(b"d SEARCH RETURN (SAVE) ANSWERED")
        self.assertEqual(client(b"e FETCH $ UID"), b"e OK Fetched\r\n")
        client(b"f SEARCH RETURN (SAVE) ALL")
        client(b"g SELECT INBOX")
        self.assertEqual(client(b"h FETCH $ UID"), b"h OK Fetched\r\n")

    def test_what_is_saved(self) -> None:
        """With MIN, MAX or PARTIAL alone only those are saved, with ALL or COUNT everything (section 2.4)."""
        client = self.select_inbox(9)
        for returns, saved in (
            (b"SAVE MIN", b"1"),
            (b"SAVE MAX", b"9"),
            (b"SAVE MIN MAX", b"1,9"),
            (b"SAVE MIN COUNT", b"1:9"),
            (b"SAVE MIN ALL", b"1:9"),
            (b"SAVE", b"1:9"),
            (b"SAVE PARTIAL 2:4", b"2:4"),
            (b"SAVE PARTIAL 2:4 MAX", b"2:4,9"),
            (b"SAVE PARTIAL 2:4 COUNT", b"1:9"),
        ):
            client(b"a SEARCH RETURN (%b) ALL" % returns)
            self.assertIn(b"ALL " + saved + b"\r\n", client(b"b SEARCH RETURN (ALL) $"), returns)

    def test_kept_while_it_is_used(self) -> None:
        """A search may save what it took from what was saved (section 2.3)."""
        client = self.searched()
        client(b"b SEARCH RETURN (SAVE) $ 3:5")
        self.assertEqual(lines(client(b"c FETCH $ UID"))[0], b"* 4 FETCH (UID 4)")


class Extended(SessionTestCase):
    def test_nothing_found(self) -> None:
        """MIN, MAX and ALL of nothing are left out, COUNT is 0 (RFC 4731 section 3.1)."""
        client = self.select_inbox(2)
        self.assertEqual(
            lines(client(b"A285 SEARCH RETURN (MIN MAX COUNT ALL) FLAGGED"))[0],
            b'* ESEARCH (TAG "A285") COUNT 0',
        )

    def test_empty_mailbox(self) -> None:
        """An empty mailbox can be searched."""
        self.client(b"s SELECT INBOX")
        self.assertEqual(
            lines(self.client(b"a UID SEARCH RETURN () 1:*"))[0], b'* ESEARCH (TAG "a") UID'
        )


class Partial(SessionTestCase):
    def test_search(self) -> None:
        """PARTIAL cuts the result from either end, NIL where nothing is left, and tells its range (RFC 9394 section 3.1)."""
        client = self.select_inbox(10)
        client(b"d STORE 3 +FLAGS.SILENT (\\Deleted)")
        client(b"e EXPUNGE")
        for part, told in (
            (b"1:3", b"1:3 1:2,4"),
            (b"-1:-3", b"-1:-3 8:10"),
            (b"-3:-1", b"-1:-3 8:10"),
            (b"3:2", b"2:3 2,4"),
            (b"8:500", b"8:500 9:10"),
            (b"-8:-500", b"-8:-500 1:2"),
            (b"500:600", b"500:600 NIL"),
        ):
            self.assertEqual(
                lines(client(b"A01 UID SEARCH RETURN (PARTIAL %b) ALL" % part))[0],
                b'* ESEARCH (TAG "A01") UID PARTIAL (%b)' % told,
            )

    def test_fetch(self) -> None:
        """UID FETCH (PARTIAL) takes a part of the messages that the set names (RFC 9394 section 3.3)."""
        client = self.select_inbox(10)
        for part, uids in (
            (b"1:2", [3, 5]),
            (b"-1:-2", [9, 8]),
            (b"2:9", [5, 8, 9]),
            (b"-4:-9", [3]),
            (b"7:9", []),
        ):
            answer = lines(client(b"a UID FETCH 3,5,8:9 (UID) (PARTIAL %b)" % part))
            self.assertEqual(
                answer[:-1], [b"* %d FETCH (UID %d)" % (u, u) for u in sorted(uids)], part
            )

    def test_fetch_after_changedsince(self) -> None:
        """With CHANGEDSINCE it is what changed of the part, in whatever order they are written (RFC 9394 section 3.4)."""
        client = self.select_inbox(4)
        client(b"a STORE 2:4 +FLAGS.SILENT (\\Seen)")
        for modifiers in (b"PARTIAL -3:-4 CHANGEDSINCE 5", b"CHANGEDSINCE 5 PARTIAL -4:-3"):
            answer = lines(client(b"b UID FETCH 1:* (UID) (%b)" % modifiers))
            self.assertEqual([one[:9] for one in answer if b"FETCH (" in one], [b"* 2 FETCH"])

    def test_streamed(self) -> None:
        """A part of large messages is streamed like any other."""
        big = MAIL + b"x" * 300_000
        for _ in range(3):
            self.client.append(big)
        self.client(b"s SELECT INBOX")
        answer = self.client(b"a UID FETCH 1:* (BODY.PEEK[]) (PARTIAL -1:-1)")
        self.assertTrue(answer.startswith(b"* 3 FETCH (UID 3 BODY[] {%d}\r\n" % len(big)))
