"""CONTEXT=SEARCH and CONTEXT=SORT (RFC 5267): results that are kept up to date, and never with a wrong number."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing import Client, MemoryRealm, Server, SlowWorker
from tests.session.session_case import SessionTestCase, lines, without_text

UPDATE = re.compile(
    rb'\* ESEARCH \(TAG "(\w+)"\)( UID)?( REMOVEFROM \(([^)]*)\))?( ADDTO \(([^)]*)\))?'
)


def numbers(octets: bytes) -> list[int]:
    found: list[int] = []
    for item in octets.split(b","):
        first, _, last = item.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


class SearchResult:
    """A client's copy of a search result, kept up to date with the responses that it gets."""

    def __init__(self, command: bytes, tag: bytes) -> None:
        self.command, self.tag, self.list = command, tag, list[int]()

    def hear(self, answer: bytes) -> None:
        for line in lines(answer):
            if (gone := re.fullmatch(rb"\* (\d+) EXPUNGE", line)) and b"UID" not in self.command:
                number = int(gone[1])
                assert number not in self.list, (line, self.list)
                self.list = [n - (n > number) for n in self.list]
            found = UPDATE.match(line)
            if found is None or found[1] != self.tag:
                continue
            if everything := re.search(rb" ALL (\S+)", line):
                self.list = numbers(everything[1])
            for position, value in self.pairs(found[4]):
                for number in numbers(value):
                    assert position in (0, self.list.index(number) + 1), (line, self.list)
                    self.list.remove(number)
            for position, value in self.pairs(found[6]):
                for i, number in enumerate(numbers(value)):
                    assert number not in self.list, (line, self.list)
                    self.list.insert(position - 1 + i if position else 0, number)
                if not position:
                    self.list.sort()

    def pairs(self, value: bytes | None) -> list[tuple[int, bytes]]:
        words = (value or b"").split()
        return [(int(at), what) for at, what in zip(words[::2], words[1::2], strict=True)]


class SearchContextTests(SessionTestCase):
    def test_addto_and_removefrom(self) -> None:
        """New results are in ADDTO and old ones in REMOVEFROM, before EXPUNGE. CANCELUPDATE ends the updates (sections
        4.3 to 4.3.5)."""
        client = self.select_inbox(3)
        self.assertEqual(
            lines(client(b"B01 UID SEARCH RETURN (UPDATE COUNT) DELETED KEYWORD $Junk"))[0],
            b'* ESEARCH (TAG "B01") UID COUNT 0',
        )
        answer = lines(client(b"B02 STORE 2:3 +FLAGS (\\Deleted $Junk)"))
        self.assertEqual(answer[-2], b'* ESEARCH (TAG "B01") UID ADDTO (0 2:3)')
        answer = lines(client(b"B03 EXPUNGE"))
        self.assertEqual(
            answer[:2], [b'* ESEARCH (TAG "B01") UID REMOVEFROM (0 2:3)', b"* 3 EXPUNGE"]
        )
        self.assertIn(b"B04 OK", client(b'B04 CANCELUPDATE "B01" "nonsense"'))
        self.assertNotIn(b"ESEARCH", client(b"B05 STORE 1 +FLAGS (\\Deleted $Junk)"))

    def test_sequence_numbers(self) -> None:
        """Sequence numbers are valid where they are sent: ADDTO after EXISTS, REMOVEFROM before EXPUNGE."""
        client, other = self.select_inbox(3), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) UNDELETED")
        other.append()
        other(b"s STORE 1,3 +FLAGS (\\Deleted)")
        other(b"e EXPUNGE")
        answer = lines(client(b"b NOOP"))
        self.assertEqual(answer[0], b'* ESEARCH (TAG "a") REMOVEFROM (0 1,3)')
        self.assertEqual(answer[1:4], [b"* 3 EXPUNGE", b"* 1 EXPUNGE", b"* 2 EXISTS"])
        self.assertEqual(answer[-2], b'* ESEARCH (TAG "a") ADDTO (0 2)')

    def test_removed_before_expunge(self) -> None:
        """A command that must not send EXPUNGE sends REMOVEFROM with the old sequence number."""
        client, other = self.select_inbox(3), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) UNDELETED")
        other(b"s STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"e EXPUNGE")
        self.assertIn(b'* ESEARCH (TAG "a") REMOVEFROM (0 2)', client(b"b FETCH 1 UID"))
        self.assertEqual(lines(client(b"c NOOP"))[0], b"* 2 EXPUNGE")

    def test_sequence_numbers_in_the_search(self) -> None:
        """Sequence numbers and `$` in the search keep standing for the same messages. `2:*` includes new ones."""
        client = self.select_inbox(4)
        client(b"s SEARCH RETURN (SAVE) 4")
        client(b"a UID SEARCH RETURN (UPDATE) 1:2 UNSEEN")
        client(b"b UID SEARCH RETURN (UPDATE) $ UNSEEN")
        client(b"c UID SEARCH RETURN (UPDATE) OR 1 NOT NOT 3:* UNSEEN")
        client(b"d STORE 1 +FLAGS.SILENT (\\Deleted)")
        client(b"e EXPUNGE")
        answer = client(b"f STORE 1:3 +FLAGS.SILENT (\\Seen)")
        for tag, uids in ((b"a", b"2"), (b"b", b"4"), (b"c", b"3:4")):
            self.assertIn(b'* ESEARCH (TAG "%b") UID REMOVEFROM (0 %b)' % (tag, uids), answer)
        self.assertIn(b'"c") UID ADDTO (0 5)', client.append())

    def test_sort_positions(self) -> None:
        """Updates of SORT have positions: messages are removed from the end and added from the beginning."""
        client = self.client
        for subject in (b"b", b"d", b"a"):
            client.append(b"Subject: %b\r\n\r\n" % subject)
        client(b"s SELECT INBOX")
        client(b"a UID SORT RETURN (UPDATE) (SUBJECT) UTF-8 UNDELETED")
        answer = client.append(b"Subject: c\r\n\r\n")
        self.assertIn(b'* ESEARCH (TAG "a") UID ADDTO (3 4)', answer)
        self.assertIn(b"REMOVEFROM (4 2 1 3)", client(b"b STORE 2:3 +FLAGS (\\Deleted)"))
        self.assertIn(b"ADDTO (1 3 4 2)", client(b"c STORE 2:3 -FLAGS (\\Deleted)"))
        client(b"d STORE 1,4 +FLAGS.SILENT (\\Deleted)")
        self.assertNotIn(b"REMOVEFROM", client(b"e EXPUNGE"))

    def test_idle_and_notify(self) -> None:
        """IDLE and NOTIFY send updates at once."""
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

    def test_other_options(self) -> None:
        """CONTEXT is a hint, and other return options do not change the updates (section 4.3)."""
        client = self.select_inbox(3)
        self.assertIn(b'"a") COUNT 3\r\n', client(b"a SEARCH RETURN (CONTEXT COUNT) UNSEEN"))
        self.assertIn(
            b'"b") PARTIAL (1:1 1)', client(b"b SEARCH RETURN (UPDATE PARTIAL 1:1) UNSEEN")
        )
        self.assertIn(b"REMOVEFROM (0 2:3)", client(b"c STORE 2:3 +FLAGS (\\Seen)"))

    def test_fetch_items(self) -> None:
        """The FETCH items of UPDATE are sent for new messages that match, and not for old ones (RFC 5465 section 7)."""
        client, other = self.select_inbox(1), self.second_client()
        header = b"BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
        client(b"a00 SEARCH RETURN (COUNT UPDATE (UID %b)) FROM ann" % header)
        client(b"a01 UID SEARCH RETURN (UPDATE (UID FLAGS)) UNSEEN")
        client(b"a02 SEARCH RETURN (UPDATE (RFC822.SIZE)) FROM nobody")
        other.append()
        answer = client(b"b NOOP")
        self.assertLess(answer.index(b"* 2 EXISTS"), answer.index(b'"a00") ADDTO (0 2)'))
        self.assertIn(
            b"* 2 FETCH (UID 2 FLAGS (\\Recent) BODY[HEADER.FIELDS (SUBJECT)] {18}", answer
        )
        self.assertEqual(answer.count(b"FETCH"), 1)
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
            [re.sub(rb'"[^"]*"', b'"-"', one) for one in lines(client.read())],
            [b"* 2 EXISTS", b"* 2 RECENT", b'* ESEARCH (TAG "-") ADDTO (0 2)',
             b'* 2 FETCH (UID 2 INTERNALDATE "-" FLAGS (\\Recent))'],
        )  # fmt: skip

    def test_limits(self) -> None:
        """A search over the limits is answered and not kept up to date: NO [NOUPDATE] (section 4.3.1)."""
        self.server = Server(max_search_contexts=2, max_sort_context_results=2)
        self.client = self.server.login()
        client = self.select_inbox(3)
        sort = b" SORT RETURN (UPDATE COUNT) (SIZE) UTF-8 "
        answer = lines(without_text(client(b"B02" + sort + b"ALL")))
        self.assertEqual(answer[0], b'* NO [NOUPDATE "B02"]')
        self.assertEqual(answer[1], b'* ESEARCH (TAG "B02") COUNT 3')
        for tag in (b"a", b"b"):
            self.assertNotIn(b"NOUPDATE", client(tag + sort + b"1:2"))
        self.assertIn(b'* NO [NOUPDATE "c"]', client(b"c SEARCH RETURN (UPDATE) ALL"))
        client(b'd CANCELUPDATE "a"')
        self.assertNotIn(b"NOUPDATE", client(b"c SEARCH RETURN (UPDATE) ALL"))

    def test_lifetime(self) -> None:
        """A tag cannot be used twice (section 4.3). SELECT ends all contexts."""
        client = self.select_inbox(1)
        client(b"B01 SEARCH RETURN (UPDATE) SEEN")
        self.assertIn(b"B01 BAD", client(b"B01 SEARCH RETURN (UPDATE) UNSEEN"))
        self.assertIn(b"B01 OK", client(b"B01 SEARCH UNSEEN"))
        client(b"s SELECT INBOX")
        self.assertNotIn(b"ESEARCH", client(b"t STORE 1 +FLAGS (\\Seen)"))
        client(b"B01 SEARCH RETURN (UPDATE) SEEN")
        self.assertIn(b"REMOVEFROM", client(b"u STORE 1 -FLAGS (\\Seen)"))

    def test_malformed(self) -> None:
        """CANCELUPDATE takes quoted tags."""
        client = self.select_inbox(1)
        for command in (b"CANCELUPDATE", b"CANCELUPDATE B01", b'CANCELUPDATE "a"x'):
            self.assertIn(b"a BAD", client(b"a " + command), command)

    def test_change_during_search(self) -> None:
        """A change that happens while the search runs is reported as an update."""
        client = self.select_inbox(2)
        account = self.server.realm.account()
        mailbox = next(iter(account._open.values()))
        before = mailbox.search

        async def late(uids, leaf):  # type: ignore[no-untyped-def]
            await mailbox.store_flags([1], b"+", [b"\\Seen"], None)
            return await before(uids, leaf)

        self.patch(mailbox, "search", late)
        answer = client(b"a SEARCH RETURN (UPDATE ALL) UNSEEN SUBJECT lunch")
        self.assertIn(b"REMOVEFROM (0 1)", answer)

    def test_flags_do_not_matter(self) -> None:
        """If flags cannot change the result, only new messages are searched."""
        client = self.select_inbox(2)
        client(b"a SEARCH RETURN (UPDATE COUNT) SUBJECT lunch")
        mailbox = next(iter(self.server.realm.account()._open.values()))
        asked: list[list[int]] = []
        before = mailbox.search

        async def counted(uids, leaf):  # type: ignore[no-untyped-def]
            asked.append(list(uids))
            return await before(uids, leaf)

        self.patch(mailbox, "search", counted)
        client(b"b STORE 1:2 +FLAGS (\\Seen)")
        self.assertIn(b"ADDTO (0 3)", client.append())
        self.assertEqual(asked, [[3]])

    def test_mailbox_deleted(self) -> None:
        """When the mailbox is deleted, its contexts end with NO [NOUPDATE]."""
        self.client(b"c CREATE x")
        self.client.append(mailbox=b"x")
        self.client(b"s SELECT x")
        self.client(b"a SEARCH RETURN (UPDATE ALL) OR SEEN SUBJECT x")
        other = self.server.login()
        other(b"s SELECT x")
        other(b"t STORE 1 +FLAGS (\\Flagged)")
        other(b"d DELETE x")
        self.assertIn(b'* NO [NOUPDATE "a"]', self.client(b"b CAPABILITY"))


ACTIONS = st.sampled_from(
    [b"STORE %d +FLAGS (\\Seen)", b"STORE %d -FLAGS (\\Seen)", b"STORE %d +FLAGS.SILENT (\\Deleted)", b"EXPUNGE",
     b"append", b"STORE 1:%d FLAGS ()", b"FETCH %d FLAGS", b"NOOP", b"MOVE %d other", b"IDLE"]
)  # fmt: skip


NOTIFIED = st.sampled_from(
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
    """Two clients of one mailbox with a slow store, which works only when `work` is called. The first keeps search
    results."""

    def __init__(self) -> None:
        self.worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker=self.worker))
        self.client, self.other = server.connect(), server.connect()
        self.mail = (b"Subject: %d\r\n\r\n" % (i * 7 % 5) for i in range(1000))
        self.every = [SearchResult(command, b"t%d" % i) for i, command in enumerate(SEARCHES)]
        for one in (self.client, self.other):
            self.say(one, b"l LOGIN alice secret")
        self.say(self.client, b"c CREATE other")
        for _ in range(4):
            self.append(self.client)
        for one in (self.client, self.other):
            self.say(one, b"s SELECT INBOX")
        self.search(b"(UPDATE ALL)")

    def work(self, steps: int = 1000) -> None:
        self.other.read()
        told = self.client.read()
        while self.worker.jobs and steps:
            self.worker.step()
            steps -= 1
            self.other.read()
            told += self.client.read()
        for results in self.every:
            results.hear(told)

    def say(self, one: Client, line: bytes) -> None:
        one.protocol.dataReceived(line + b"\r\n")

    def append(self, one: Client) -> None:
        self.say(one, b"a APPEND INBOX {14+}\r\n" + next(self.mail))

    def search(self, returns: bytes) -> None:
        for results in self.every:
            self.say(self.client, results.tag + b" " + results.command % returns)
        self.work()

    def act(self, mine: bool, action: bytes, number: int, steps: int) -> None:
        one = self.client if mine else self.other
        if action == b"append":
            self.append(one)
        elif action == b"IDLE":
            self.say(self.client, b"a IDLE")
            self.work(steps)
            self.append(self.other)
            self.say(self.other, b"b STORE %d FLAGS (\\Seen)" % number)
            self.say(self.other, b"c EXPUNGE")
            self.work(steps)
            self.say(self.client, b"DONE")
        else:
            self.say(one, b"a " + (action % number if b"%d" in action else action))
        self.work(steps)


class SearchContextLawTests(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.booleans(), ACTIONS, st.integers(1, 6), st.integers(0, 5)), max_size=25
        ),
        NOTIFIED,
    )
    def test_results_stay_right(
        self, actions: list[tuple[bool, bytes, int, int]], notify: bytes
    ) -> None:
        """Whatever two clients do and when, a result kept up to date equals the result of a new search."""
        pair = ClientPair()
        if notify:
            pair.say(pair.client, b"n NOTIFY " + notify)
            pair.work()
        for action in actions:
            pair.act(*action)
        for command in (b"NOOP", b"NOTIFY SET (selected (MessageNew MessageExpunge))"):
            pair.say(pair.client, b"n " + command)
            pair.work()
        kept = [results.list for results in pair.every]
        for results in pair.every:
            results.list = []
        pair.search(b"(ALL)")
        self.assertEqual([results.list for results in pair.every], kept)

    def test_not_during_a_command(self) -> None:
        """A search for an update writes nothing while a command runs. The update follows when the command completes."""
        pair = ClientPair()
        pair.say(pair.client, b"n NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
        pair.work()
        pair.append(pair.other)
        pair.other.run_due_calls()
        pair.worker.step()
        self.assertIn(b"* 5 EXISTS", pair.client.read())
        self.assertEqual(len(pair.worker.jobs), 1)
        pair.say(pair.client, b"f FETCH 1 BODY.PEEK[]")
        pair.client.run_due_calls()
        pair.worker.step()
        self.assertEqual(pair.client.read(), b"")
        answer = b""
        while pair.worker.jobs:
            pair.worker.step()
            answer += pair.client.read()
        self.assertLess(answer.index(b"* 1 FETCH"), answer.index(b"ESEARCH"))
        self.assertLess(answer.rindex(b"ESEARCH"), answer.index(b"f OK"))
