"""CONTEXT=SEARCH and CONTEXT=SORT (RFC 5267): results are kept up to date with valid sequence numbers."""

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing import Client, MemoryRealm, Server, SlowWorker
from imapshield.wire.commands.search import SearchKey
from tests.session.session_case import SessionTestCase, lines, without_text

UPDATE = re.compile(
    rb'\* ESEARCH \(TAG "(\w+)"\)( UID)?( REMOVEFROM \(([^)]*)\))?( ADDTO \(([^)]*)\))?'
)


def expand_set(octets: bytes) -> list[int]:
    """Return the numbers of a sequence set, in the order of the set."""
    numbers: list[int] = []
    for item in octets.split(b","):
        first, _, last = item.partition(b":")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


class SearchResult:
    """A client's copy of a search result, which `update` keeps up to date with the server's responses."""

    def __init__(self, command: bytes, tag: bytes) -> None:
        self.command, self.tag, self.numbers = command, tag, list[int]()

    def update(self, response: bytes) -> None:
        """Apply EXPUNGE and the ESEARCH responses for this search; fail if one contradicts the result."""
        for line in lines(response):
            if (
                expunged := re.fullmatch(rb"\* (\d+) EXPUNGE", line)
            ) and b"UID" not in self.command:
                number = int(expunged[1])
                assert number not in self.numbers, (line, self.numbers)
                self.numbers = [n - (n > number) for n in self.numbers]
            update = UPDATE.match(line)
            if update is None or update[1] != self.tag:
                continue
            if complete := re.search(rb" ALL (\S+)", line):
                self.numbers = expand_set(complete[1])
            for position, value in self._pairs(update[4]):
                for number in expand_set(value):
                    assert position in (0, self.numbers.index(number) + 1), (line, self.numbers)
                    self.numbers.remove(number)
            for position, value in self._pairs(update[6]):
                for i, number in enumerate(expand_set(value)):
                    assert number not in self.numbers, (line, self.numbers)
                    self.numbers.insert(position - 1 + i if position else 0, number)
                if not position:
                    self.numbers.sort()

    def _pairs(self, value: bytes | None) -> list[tuple[int, bytes]]:
        words = (value or b"").split()
        return [
            (int(position), uids) for position, uids in zip(words[::2], words[1::2], strict=True)
        ]


class SearchContextTests(SessionTestCase):
    def test_addto_and_removefrom_report_changes(self) -> None:
        """ADDTO has new results, REMOVEFROM has old results, before EXPUNGE. CANCELUPDATE ends the updates (sections
        4.3 to 4.3.5)."""
        client = self.select_inbox(3)
        self.assertEqual(
            lines(client(b"B01 UID SEARCH RETURN (UPDATE COUNT) DELETED KEYWORD $Junk"))[0],
            b'* ESEARCH (TAG "B01") UID COUNT 0',
        )
        response = lines(client(b"B02 STORE 2:3 +FLAGS (\\Deleted $Junk)"))
        self.assertEqual(response[-2], b'* ESEARCH (TAG "B01") UID ADDTO (0 2:3)')
        response = lines(client(b"B03 EXPUNGE"))
        self.assertEqual(
            response[:2], [b'* ESEARCH (TAG "B01") UID REMOVEFROM (0 2:3)', b"* 3 EXPUNGE"]
        )
        self.assertIn(b"B04 OK", client(b'B04 CANCELUPDATE "B01" "nonsense"'))
        self.assertNotIn(b"ESEARCH", client(b"B05 STORE 1 +FLAGS (\\Deleted $Junk)"))

    def test_sequence_numbers_are_valid_where_they_are_sent(self) -> None:
        """Sequence numbers are valid where they are sent: ADDTO after EXISTS, REMOVEFROM before EXPUNGE."""
        client, other = self.select_inbox(3), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) UNDELETED")
        other.append()
        other(b"s STORE 1,3 +FLAGS (\\Deleted)")
        other(b"e EXPUNGE")
        response = lines(client(b"b NOOP"))
        self.assertEqual(response[0], b'* ESEARCH (TAG "a") REMOVEFROM (0 1,3)')
        self.assertEqual(response[1:4], [b"* 3 EXPUNGE", b"* 1 EXPUNGE", b"* 2 EXISTS"])
        self.assertEqual(response[-2], b'* ESEARCH (TAG "a") ADDTO (0 2)')

    def test_removefrom_precedes_a_deferred_expunge(self) -> None:
        """A command that must not send EXPUNGE sends REMOVEFROM with the old sequence number."""
        client, other = self.select_inbox(3), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) UNDELETED")
        other(b"s STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"e EXPUNGE")
        self.assertIn(b'* ESEARCH (TAG "a") REMOVEFROM (0 2)', client(b"b FETCH 1 UID"))
        self.assertEqual(lines(client(b"c NOOP"))[0], b"* 2 EXPUNGE")

    def test_numbers_in_the_search_keep_their_messages(self) -> None:
        """Sequence numbers and `$` in the search always mean the same messages. `2:*` includes new messages."""
        client = self.select_inbox(4)
        client(b"s SEARCH RETURN (SAVE) 4")
        client(b"a UID SEARCH RETURN (UPDATE) 1:2 UNSEEN")
        client(b"b UID SEARCH RETURN (UPDATE) $ UNSEEN")
        client(b"c UID SEARCH RETURN (UPDATE) OR 1 NOT NOT 3:* UNSEEN")
        client(b"d STORE 1 +FLAGS.SILENT (\\Deleted)")
        client(b"e EXPUNGE")
        response = client(b"f STORE 1:3 +FLAGS.SILENT (\\Seen)")
        for tag, uids in ((b"a", b"2"), (b"b", b"4"), (b"c", b"3:4")):
            self.assertIn(b'* ESEARCH (TAG "%b") UID REMOVEFROM (0 %b)' % (tag, uids), response)
        self.assertIn(b'"c") UID ADDTO (0 5)', client.append())

    def test_sort_updates_have_positions(self) -> None:
        """Updates of SORT have positions: messages are removed from the end and added from the beginning."""
        client = self.client
        for subject in (b"b", b"d", b"a"):
            client.append(b"Subject: %b\r\n\r\n" % subject)
        client(b"s SELECT INBOX")
        client(b"a UID SORT RETURN (UPDATE) (SUBJECT) UTF-8 UNDELETED")
        response = client.append(b"Subject: c\r\n\r\n")
        self.assertIn(b'* ESEARCH (TAG "a") UID ADDTO (3 4)', response)
        self.assertIn(b"REMOVEFROM (4 2 1 3)", client(b"b STORE 2:3 +FLAGS (\\Deleted)"))
        self.assertIn(b"ADDTO (1 3 4 2)", client(b"c STORE 2:3 -FLAGS (\\Deleted)"))
        client(b"d STORE 1,4 +FLAGS.SILENT (\\Deleted)")
        self.assertNotIn(b"REMOVEFROM", client(b"e EXPUNGE"))

    def test_idle_and_notify_send_updates_at_once(self) -> None:
        """IDLE and NOTIFY send updates immediately."""
        client, other = self.select_inbox(2), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) SEEN")
        client(b"b IDLE")
        other(b"c STORE 1 +FLAGS (\\Seen)")
        self.assertEqual(lines(client.read())[-1], b'* ESEARCH (TAG "a") ADDTO (0 1)')
        client(b"DONE")
        other(b"d STORE 2 +FLAGS (\\Seen)")
        self.assertEqual(client.read(), b"")
        self.assertIn(
            b"ADDTO (0 2)",
            client(b"e NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))"),
        )
        other(b"f STORE 1 -FLAGS (\\Seen)")
        self.assertEqual(lines(client.read())[-1], b'* ESEARCH (TAG "a") REMOVEFROM (0 1)')
        other(b"g STORE 2 +FLAGS (\\Deleted)")
        client.read()
        other(b"h EXPUNGE")
        self.assertEqual(
            lines(client.read())[:2], [b'* ESEARCH (TAG "a") REMOVEFROM (0 2)', b"* 2 EXPUNGE"]
        )

    def test_other_return_options_do_not_change_updates(self) -> None:
        """CONTEXT is only a hint, and other return options do not change the updates (section 4.3)."""
        client = self.select_inbox(3)
        self.assertIn(b'"a") COUNT 3\r\n', client(b"a SEARCH RETURN (CONTEXT COUNT) UNSEEN"))
        self.assertIn(
            b'"b") PARTIAL (1:1 1)', client(b"b SEARCH RETURN (UPDATE PARTIAL 1:1) UNSEEN")
        )
        self.assertIn(b"REMOVEFROM (0 2:3)", client(b"c STORE 2:3 +FLAGS (\\Seen)"))

    def test_fetch_items_are_sent_for_new_matches(self) -> None:
        """The FETCH items of UPDATE are sent for new messages that match, and for no others (RFC 5465 section 7)."""
        client, other = self.select_inbox(1), self.second_client()
        header = b"BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
        client(b"a00 SEARCH RETURN (COUNT UPDATE (UID %b)) FROM ann" % header)
        client(b"a01 UID SEARCH RETURN (UPDATE (UID FLAGS)) UNSEEN")
        client(b"a02 SEARCH RETURN (UPDATE (RFC822.SIZE)) FROM nobody")
        other.append()
        response = client(b"b NOOP")
        self.assertLess(response.index(b"* 2 EXISTS"), response.index(b'"a00") ADDTO (0 2)'))
        self.assertIn(
            b"* 2 FETCH (UID 2 FLAGS (\\Recent) BODY[HEADER.FIELDS (SUBJECT)] {18}", response
        )
        self.assertEqual(response.count(b"FETCH"), 1)
        other(b"c STORE 2 +FLAGS (\\Seen)")
        other(b"d STORE 2 -FLAGS (\\Seen)")
        self.assertNotIn(b"BODY", client(b"e NOOP"))
        self.assertNotIn(b"FETCH", client.append())

    def test_fetch_items_are_combined(self) -> None:
        """The FETCH items of NOTIFY and UPDATE are one response, after EXISTS and ADDTO (RFC 5465 section 5.2)."""
        client, other = self.select_inbox(1), self.second_client()
        client(b"a SEARCH RETURN (UPDATE (UID FLAGS)) FROM ann")
        client(b"n NOTIFY SET (selected (MessageNew (UID INTERNALDATE) MessageExpunge FlagChange))")
        other.append()
        self.assertEqual(
            [re.sub(rb'"[^"]*"', b'"-"', line) for line in lines(client.read())],
            [b"* 2 EXISTS", b"* 2 RECENT", b'* ESEARCH (TAG "-") ADDTO (0 2)',
             b'* 2 FETCH (UID 2 INTERNALDATE "-" FLAGS (\\Recent))'],
        )  # fmt: skip

    def test_search_over_the_limits_is_not_updated(self) -> None:
        """A search over the limits is answered and not kept up to date: NO [NOUPDATE] (section 4.3.1)."""
        self.server = Server(max_search_contexts=2, max_sort_context_results=2)
        self.client = self.server.login()
        client = self.select_inbox(3)
        sort = b" SORT RETURN (UPDATE COUNT) (SIZE) UTF-8 "
        response = lines(without_text(client(b"B02" + sort + b"ALL")))
        self.assertEqual(response[0], b'* NO [NOUPDATE "B02"]')
        self.assertEqual(response[1], b'* ESEARCH (TAG "B02") COUNT 3')
        for tag in (b"a", b"b"):
            self.assertNotIn(b"NOUPDATE", client(tag + sort + b"1:2"))
        self.assertIn(b'* NO [NOUPDATE "c"]', client(b"c SEARCH RETURN (UPDATE) ALL"))
        client(b'd CANCELUPDATE "a"')
        self.assertNotIn(b"NOUPDATE", client(b"c SEARCH RETURN (UPDATE) ALL"))

    def test_select_ends_all_contexts(self) -> None:
        """A tag cannot be used twice (section 4.3). SELECT ends all contexts."""
        client = self.select_inbox(1)
        client(b"B01 SEARCH RETURN (UPDATE) SEEN")
        self.assertIn(b"B01 BAD", client(b"B01 SEARCH RETURN (UPDATE) UNSEEN"))
        self.assertIn(b"B01 OK", client(b"B01 SEARCH UNSEEN"))
        client(b"s SELECT INBOX")
        self.assertNotIn(b"ESEARCH", client(b"t STORE 1 +FLAGS (\\Seen)"))
        client(b"B01 SEARCH RETURN (UPDATE) SEEN")
        self.assertIn(b"REMOVEFROM", client(b"u STORE 1 -FLAGS (\\Seen)"))

    def test_cancelupdate_takes_quoted_tags(self) -> None:
        """CANCELUPDATE takes quoted tags."""
        client = self.select_inbox(1)
        for command in (b"CANCELUPDATE", b"CANCELUPDATE B01", b'CANCELUPDATE "a"x'):
            self.assertIn(b"a BAD", client(b"a " + command), command)

    def test_change_during_a_search_is_an_update(self) -> None:
        """A change that happens while the search runs is reported as an update."""
        client = self.select_inbox(2)
        account = self.server.realm.account()
        mailbox = next(iter(account._open.values()))
        search = mailbox.search

        async def search_after_change(uids: Sequence[int], leaf: SearchKey) -> Any:
            await mailbox.store_flags([1], b"+", [b"\\Seen"], None)
            return await search(uids, leaf)

        self.patch(mailbox, "search", search_after_change)
        response = client(b"a SEARCH RETURN (UPDATE ALL) UNSEEN SUBJECT lunch")
        self.assertIn(b"REMOVEFROM (0 1)", response)

    def test_search_without_flags_searches_only_new_messages(self) -> None:
        """If flags cannot change the result, only new messages are searched."""
        client = self.select_inbox(2)
        client(b"a SEARCH RETURN (UPDATE COUNT) SUBJECT lunch")
        mailbox = next(iter(self.server.realm.account()._open.values()))
        searched: list[list[int]] = []
        search = mailbox.search

        async def recorded_search(uids: Sequence[int], leaf: SearchKey) -> Any:
            searched.append(list(uids))
            return await search(uids, leaf)

        self.patch(mailbox, "search", recorded_search)
        client(b"b STORE 1:2 +FLAGS (\\Seen)")
        self.assertIn(b"ADDTO (0 3)", client.append())
        self.assertEqual(searched, [[3]])

    def test_deleted_mailbox_ends_its_contexts(self) -> None:
        """When the mailbox is deleted, its contexts end with NO [NOUPDATE]."""
        self.client(b"c CREATE x")
        self.client.append(mailbox=b"x")
        self.client(b"s SELECT x")
        self.client(b"a SEARCH RETURN (UPDATE ALL) OR SEEN SUBJECT x")
        other = self.server.login()
        other(b"s SELECT x")
        other(b"t STORE 1 +FLAGS (\\Flagged)")
        self.server.realm.account()._store.delete("x")  # as another program does
        self.assertIn(b'* NO [NOUPDATE "a"]', self.client(b"b CAPABILITY"))


ACTIONS = st.sampled_from(
    [b"STORE %d +FLAGS (\\Seen)", b"STORE %d -FLAGS (\\Seen)", b"STORE %d +FLAGS.SILENT (\\Deleted)", b"EXPUNGE",
     b"append", b"STORE 1:%d FLAGS ()", b"FETCH %d FLAGS", b"NOOP", b"MOVE %d other", b"IDLE"]
)  # fmt: skip

NOTIFY_ARGUMENTS = st.sampled_from(
    [b"", b"SET (selected (MessageNew MessageExpunge FlagChange))", b"SET (selected-delayed (MessageNew MessageExpunge))",
     b"NONE"]
)  # fmt: skip

SEARCHES = (
    b"SEARCH RETURN %b UNSEEN",
    b"UID SEARCH RETURN %b OR SEEN SUBJECT 3",
    b"SORT RETURN %b (SUBJECT) UTF-8 UNSEEN",
    b"UID SORT RETURN %b (REVERSE SUBJECT) UTF-8 SUBJECT 1",
)


class ClientPair:
    """Two clients of one mailbox. Their store works only in `work`. The first client keeps search results."""

    def __init__(self) -> None:
        self.worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker=self.worker))
        self.client, self.other = server.connect(), server.connect()
        self.messages = (b"Subject: %d\r\n\r\n" % (i * 7 % 5) for i in range(1000))
        self.results = [SearchResult(command, b"t%d" % i) for i, command in enumerate(SEARCHES)]
        for client in (self.client, self.other):
            self.send(client, b"l LOGIN alice secret")
        self.send(self.client, b"c CREATE other")
        for _ in range(4):
            self.append(self.client)
        for client in (self.client, self.other):
            self.send(client, b"s SELECT INBOX")
        self.search(b"(UPDATE ALL)")

    def work(self, steps: int = 1000) -> None:
        """Run at most `steps` of the store's jobs and update the results with the responses to the first client."""
        self.other.read()
        response = self.client.read()
        while self.worker.jobs and steps:
            self.worker.step()
            steps -= 1
            self.other.read()
            response += self.client.read()
        for results in self.results:
            results.update(response)

    def send(self, client: Client, line: bytes) -> None:
        """Send a line without running the store."""
        client.protocol.dataReceived(line + b"\r\n")

    def append(self, client: Client) -> None:
        """Send an APPEND; each call uses a different subject."""
        self.send(client, b"a APPEND INBOX {14+}\r\n" + next(self.messages))

    def search(self, returns: bytes) -> None:
        """Send each of the searches with the RETURN options `returns`."""
        for results in self.results:
            self.send(self.client, results.tag + b" " + results.command % returns)
        self.work()

    def act(self, first: bool, action: bytes, number: int, steps: int) -> None:
        """Execute an action of the first or the other client, and `steps` jobs of the store."""
        client = self.client if first else self.other
        if action == b"append":
            self.append(client)
        elif action == b"IDLE":
            self.send(self.client, b"a IDLE")
            self.work(steps)
            self.append(self.other)
            self.send(self.other, b"b STORE %d FLAGS (\\Seen)" % number)
            self.send(self.other, b"c EXPUNGE")
            self.work(steps)
            self.send(self.client, b"DONE")
        else:
            self.send(client, b"a " + (action % number if b"%d" in action else action))
        self.work(steps)


class SearchContextLawTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.booleans(), ACTIONS, st.integers(1, 6), st.integers(0, 5)), max_size=25
        ),
        NOTIFY_ARGUMENTS,
    )
    def test_updated_results_equal_new_searches(
        self, actions: list[tuple[bool, bytes, int, int]], notify: bytes
    ) -> None:
        """A result kept up to date equals the result of a new search, whatever two clients do and when."""
        pair = ClientPair()
        if notify:
            pair.send(pair.client, b"n NOTIFY " + notify)
            pair.work()
        for action in actions:
            pair.act(*action)
        for command in (b"NOOP", b"NOTIFY SET (selected (MessageNew MessageExpunge))"):
            pair.send(pair.client, b"n " + command)
            pair.work()
        updated = [results.numbers for results in pair.results]
        for results in pair.results:
            results.numbers = []
        pair.search(b"(ALL)")
        self.assertEqual([results.numbers for results in pair.results], updated)

    def test_no_update_is_written_during_a_command(self) -> None:
        """A search for an update writes nothing while a command runs. The update follows when the command completes."""
        pair = ClientPair()
        pair.send(pair.client, b"n NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        pair.work()
        pair.append(pair.other)
        pair.other.run_due_calls()
        pair.worker.step()
        self.assertIn(b"* 5 EXISTS", pair.client.read())
        self.assertEqual(len(pair.worker.jobs), 1)
        pair.send(pair.client, b"f FETCH 1 BODY.PEEK[]")
        pair.client.run_due_calls()
        pair.worker.step()
        self.assertEqual(pair.client.read(), b"")
        response = b""
        while pair.worker.jobs:
            pair.worker.step()
            response += pair.client.read()
        self.assertLess(response.index(b"* 1 FETCH"), response.index(b"ESEARCH"))
        self.assertLess(response.rindex(b"ESEARCH"), response.index(b"f OK"))
