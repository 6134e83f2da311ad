"""SEARCH (RFC 9051), ESEARCH (RFC 4731), SEARCHRES (RFC 5182), PARTIAL (RFC 9394) and WITHIN (RFC 5032)."""

from imapshield.testing import MAIL, Client, Server
from tests.session.session_case import SessionTestCase, lines, session_of, without_text


class SearchTests(SessionTestCase):
    def test_search_returns_numbers_and_uid_search_uids(self) -> None:
        """SEARCH returns sequence numbers, UID SEARCH returns UIDs, and both return a line if nothing matches."""
        client = self.select_inbox(3)
        client(b"a STORE 1 +FLAGS (\\Deleted)")
        client(b"b EXPUNGE")
        self.assertIn(b"* SEARCH 1 2\r\n", client(b"c SEARCH ALL"))
        self.assertIn(b"* SEARCH 2 3\r\n", client(b"d UID SEARCH UNSEEN"))
        self.assertIn(b"* SEARCH\r\n", client(b"e SEARCH SEEN"))

    def test_search_string_may_be_a_literal(self) -> None:
        """A search string can be a literal, which gets a continuation request."""
        client = self.select_inbox(1)
        self.assertEqual(without_text(client(b"a SEARCH SUBJECT {5}")), b"+\r\n")
        self.assertIn(b"* SEARCH 1\r\n", client(b"lunch"))

    def test_unknown_charset_is_badcharset(self) -> None:
        """An unknown charset is NO [BADCHARSET]."""
        client = self.select_inbox(1)
        self.assertIn(b"a NO [BADCHARSET", client(b"a SEARCH CHARSET x-unknown ALL"))

    def test_search_return_is_answered_with_esearch(self) -> None:
        """SEARCH RETURN is answered with ESEARCH and the tag of the command."""
        client = self.select_inbox(3)
        self.assertIn(
            b'* ESEARCH (TAG "a") UID MIN 1 MAX 3 ALL 1:3 COUNT 3',
            client(b"a UID SEARCH RETURN (MIN MAX ALL COUNT) ALL"),
        )

    def test_search_omits_a_message_expunged_by_another(self) -> None:
        """SEARCH, SORT and THREAD omit an expunged message and are OK [EXPUNGEISSUED] (RFC 5530)."""
        client = self.select_inbox(3)
        other = self.second_client()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        for command, expected in (
            (b"SEARCH ALL", b"* SEARCH 1 3"),
            (b"SORT (ARRIVAL) UTF-8 ALL", b"* SORT 1 3"),
            (b"THREAD REFERENCES UTF-8 ALL", b"* THREAD ((1)(3))"),
        ):
            response = lines(client(b"c " + command))
            self.assertEqual(response[0], expected)
            self.assertRegex(response[-1], rb"^c OK \[EXPUNGEISSUED\]")

    def test_younger_and_older_both_include_the_limit(self) -> None:
        """YOUNGER and OLDER count back from the current second, and both include the limit (RFC 5032 section 2)."""
        self.select_inbox(1)
        session = session_of(self.client)
        session.now = lambda: 1_700_000_000.9 + 3600
        for key, expected in (
            (b"YOUNGER 3600", b" 1"),
            (b"YOUNGER 3599", b""),
            (b"OLDER 3600", b" 1"),
            (b"OLDER 3601", b""),
            (b"OLDER 3599", b" 1"),
            (b"YOUNGER 10", b""),
        ):
            self.assertEqual(lines(self.client(b"a SEARCH " + key))[0], b"* SEARCH" + expected, key)

    def test_raised_limit_of_texts(self) -> None:
        """A search text may be as long as `max_literal_size`."""
        client = Server(max_literal_size=100_000).login()
        client.append()
        client(b"s SELECT INBOX")
        response = client.send(b"a SEARCH SUBJECT {80000+}\r\n" + b"x" * 80_000 + b"\r\n")
        self.assertEqual(without_text(response), b"* SEARCH\r\na OK\r\n")


class SavedResultTests(SessionTestCase):
    def save_flagged(self) -> Client:
        """Store five messages, flag 2 and 4, save the search for flagged messages, and return the client."""
        client = self.select_inbox(5)
        client(b"a STORE 2,4 +FLAGS.SILENT (\\Flagged)")
        self.assertEqual(without_text(client(b"A282 SEARCH RETURN (SAVE) FLAGGED")), b"A282 OK\r\n")
        return client

    def test_commands_take_the_saved_result(self) -> None:
        """FETCH, STORE, COPY, MOVE, SEARCH and UID EXPUNGE take `$`, the saved result (RFC 5182 section 2.1)."""
        client = self.save_flagged()
        client(b"b CREATE other")
        self.assertEqual(
            [line[:9] for line in lines(client(b"A283 FETCH $ (UID)"))[:2]],
            [b"* 2 FETCH", b"* 4 FETCH"],
        )
        self.assertIn(b"* SEARCH 4", client(b"c SEARCH $ 3:5"))
        self.assertIn(b"* SEARCH 2", client(b"d UID SEARCH UID $ SMALLER 9999 1:3"))
        self.assertRegex(client(b"e COPY $ other"), rb"e OK \[COPYUID \d+ 2,4 1:2\]")
        self.assertIn(b"* 2 FETCH", client(b"f STORE $ +FLAGS (\\Deleted)"))
        self.assertEqual(lines(client(b"g UID EXPUNGE $"))[:2], [b"* 4 EXPUNGE", b"* 2 EXPUNGE"])
        self.assertEqual(without_text(client(b"h FETCH $ FLAGS")), b"h OK\r\n")
        self.assertEqual(without_text(client(b"i MOVE $ other")), b"i OK\r\n")

    def test_expunged_messages_leave_the_saved_result(self) -> None:
        """Expunged messages are removed from the saved result, and the other numbers follow their messages."""
        client = self.save_flagged()
        client(b"b STORE 1:2 +FLAGS.SILENT (\\Deleted)")
        client(b"c EXPUNGE")
        self.assertEqual(lines(client(b"d FETCH $ UID"))[0], b"* 2 FETCH (UID 4)")

    def test_failed_search_empties_the_saved_result(self) -> None:
        """A SEARCH (SAVE) that finds nothing or fails empties the result, and so does SELECT. BAD does not (RFC 5182
        section 2.1)."""
        client = self.save_flagged()
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
            self.assertEqual(without_text(client(b"c5 FETCH $ UID")), b"c5 OK\r\n")
        client(b"c6 SEARCH RETURN (SAVE) ALL")
        client(b"d SEARCH RETURN (SAVE) ANSWERED")
        self.assertEqual(without_text(client(b"e FETCH $ UID")), b"e OK\r\n")
        client(b"f SEARCH RETURN (SAVE) ALL")
        client(b"g SELECT INBOX")
        self.assertEqual(without_text(client(b"h FETCH $ UID")), b"h OK\r\n")

    def test_partial_options_save_only_their_messages(self) -> None:
        """MIN, MAX or PARTIAL alone save those messages; ALL or COUNT save all that match (RFC 5182 section 2.4)."""
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

    def test_search_may_use_and_replace_the_saved_result(self) -> None:
        """A search can use the saved result and replace it (RFC 5182 section 2.3)."""
        client = self.save_flagged()
        client(b"b SEARCH RETURN (SAVE) $ 3:5")
        self.assertEqual(lines(client(b"c FETCH $ UID"))[0], b"* 4 FETCH (UID 4)")


class EsearchTests(SessionTestCase):
    def test_no_match_omits_min_max_and_all(self) -> None:
        """If nothing matches, MIN, MAX and ALL are omitted and COUNT is 0 (RFC 4731 section 3.1)."""
        client = self.select_inbox(2)
        self.assertEqual(
            lines(client(b"A285 SEARCH RETURN (MIN MAX COUNT ALL) FLAGGED"))[0],
            b'* ESEARCH (TAG "A285") COUNT 0',
        )

    def test_empty_mailbox_can_be_searched(self) -> None:
        """An empty mailbox can be searched."""
        self.client(b"s SELECT INBOX")
        self.assertEqual(
            lines(self.client(b"a UID SEARCH RETURN () 1:*"))[0], b'* ESEARCH (TAG "a") UID'
        )


class PartialTests(SessionTestCase):
    def test_partial_search_returns_a_range_of_the_result(self) -> None:
        """PARTIAL returns a range of the result from either end, and NIL if it is empty (RFC 9394 section 3.1)."""
        client = self.select_inbox(10)
        client(b"d STORE 3 +FLAGS.SILENT (\\Deleted)")
        client(b"e EXPUNGE")
        for part, expected in (
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
                b'* ESEARCH (TAG "A01") UID PARTIAL (%b)' % expected,
            )

    def test_partial_fetch_returns_a_range_of_the_messages(self) -> None:
        """UID FETCH (PARTIAL) returns a range of the messages that the set names (RFC 9394 section 3.3)."""
        client = self.select_inbox(10)
        for part, uids in (
            (b"1:2", [3, 5]),
            (b"-1:-2", [9, 8]),
            (b"2:9", [5, 8, 9]),
            (b"-4:-9", [3]),
            (b"7:9", []),
        ):
            response = lines(client(b"a UID FETCH 3,5,8:9 (UID) (PARTIAL %b)" % part))
            self.assertEqual(
                response[:-1], [b"* %d FETCH (UID %d)" % (u, u) for u in sorted(uids)], part
            )

    def test_partial_is_applied_before_changedsince(self) -> None:
        """PARTIAL is applied before CHANGEDSINCE, whatever their order in the command (RFC 9394 section 3.4)."""
        client = self.select_inbox(4)
        client(b"a STORE 2:4 +FLAGS.SILENT (\\Seen)")
        for modifiers in (b"PARTIAL -3:-4 CHANGEDSINCE 5", b"CHANGEDSINCE 5 PARTIAL -4:-3"):
            response = lines(client(b"b UID FETCH 1:* (UID) (%b)" % modifiers))
            self.assertEqual([line[:9] for line in response if b"FETCH (" in line], [b"* 2 FETCH"])

    def test_large_message_in_a_partial_range_is_streamed(self) -> None:
        """A large message in a PARTIAL range is streamed."""
        big = MAIL + b"x" * 300_000
        for _ in range(3):
            self.client.append(big)
        self.client(b"s SELECT INBOX")
        response = self.client(b"a UID FETCH 1:* (BODY.PEEK[]) (PARTIAL -1:-1)")
        self.assertTrue(response.startswith(b"* 3 FETCH (UID 3 BODY[] {%d}\r\n" % len(big)))
