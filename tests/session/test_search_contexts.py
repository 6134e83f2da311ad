"""CONTEXT=SEARCH and CONTEXT=SORT (RFC 5267): results that are kept up to date, and never with a wrong number."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing import Client, MemoryRealm, Server, SlowWorker
from tests.session.session_case import SessionTestCase, lines

UPDATE = re.compile(
    rb'\* ESEARCH \(TAG "(\w+)"\)( UID)?( REMOVEFROM \(([^)]*)\))?( ADDTO \(([^)]*)\))?'
)


def numbers(octets: bytes) -> list[int]:
    found: list[int] = []
    for item in octets.split(b","):
        first, _, last = item.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


class Results:
    """A client's list of what it searched for, kept by what it is told."""

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


class SearchContexts(SessionTestCase):
    def test_rfc(self) -> None:
        """What comes is ADDTO, what goes REMOVEFROM, before EXPUNGE; CANCELUPDATE ends it (sections 4.3 to 4.3.5)."""
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

    def test_numbers(self) -> None:
        """Message numbers are those that count when they are told: after EXISTS, before EXPUNGE."""
        client, other = self.select_inbox(3), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) UNDELETED")
        other.append()
        other(b"s STORE 1,3 +FLAGS (\\Deleted)")
        other(b"e EXPUNGE")
        answer = lines(client(b"b NOOP"))
        self.assertEqual(answer[0], b'* ESEARCH (TAG "a") REMOVEFROM (0 1,3)')
        self.assertEqual(answer[1:4], [b"* 3 EXPUNGE", b"* 1 EXPUNGE", b"* 2 EXISTS"])
        self.assertEqual(answer[-2], b'* ESEARCH (TAG "a") ADDTO (0 2)')

    def test_no_expunge_yet(self) -> None:
        """A command that may not tell of an EXPUNGE tells of what the message leaves, by its old number."""
        client, other = self.select_inbox(3), self.second_client()
        client(b"a SEARCH RETURN (UPDATE) UNDELETED")
        other(b"s STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"e EXPUNGE")
        self.assertIn(b'* ESEARCH (TAG "a") REMOVEFROM (0 2)', client(b"b FETCH 1 UID"))
        self.assertEqual(lines(client(b"c NOOP"))[0], b"* 2 EXPUNGE")

    def test_numbers_in_the_search(self) -> None:
        """Messages that were searched for by number or as ``$`` stay the same; ``2:*`` goes on."""
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

    def test_sorted(self) -> None:
        """Results of SORT have positions: the last goes first, the first comes first."""
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

    def test_at_once(self) -> None:
        """IDLE and NOTIFY have it told without being asked."""
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
        """CONTEXT is a hint, and other options do not change what is told (section 4.3)."""
        client = self.select_inbox(3)
        self.assertIn(b'"a") COUNT 3\r\n', client(b"a SEARCH RETURN (CONTEXT COUNT) UNSEEN"))
        self.assertIn(
            b'"b") PARTIAL (1:1 1)', client(b"b SEARCH RETURN (UPDATE PARTIAL 1:1) UNSEEN")
        )
        self.assertIn(b"REMOVEFROM (0 2:3)", client(b"c STORE 2:3 +FLAGS (\\Seen)"))

    def test_items(self) -> None:
        """UPDATE's FETCH items are told of what is new and matches, not of what comes to match (RFC 5465 section 7)."""
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

    def test_items_combined(self) -> None:
        """NOTIFY's items and UPDATE's are one FETCH response, behind EXISTS and ADDTO (RFC 5465 section 5.2)."""
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
        """Too many, or too large a SORT, are answered and not kept up to date (section 4.3.1)."""
        self.server = Server(max_search_contexts=2, max_sort_context_results=2)
        self.client = self.server.login()
        client = self.select_inbox(3)
        sort = b" SORT RETURN (UPDATE COUNT) (SIZE) UTF-8 "
        answer = lines(client(b"B02" + sort + b"ALL"))
        self.assertEqual(answer[0], b'* NO [NOUPDATE "B02"] Too large to be kept in order')
        self.assertEqual(answer[1], b'* ESEARCH (TAG "B02") COUNT 3')
        for tag in (b"a", b"b"):
            self.assertNotIn(b"NOUPDATE", client(tag + sort + b"1:2"))
        self.assertIn(b'* NO [NOUPDATE "c"]', client(b"c SEARCH RETURN (UPDATE) ALL"))
        client(b'd CANCELUPDATE "a"')
        self.assertNotIn(b"NOUPDATE", client(b"c SEARCH RETURN (UPDATE) ALL"))

    def test_lifetime(self) -> None:
        """A tag is not used twice (section 4.3); all ends with the mailbox."""
        client = self.select_inbox(1)
        client(b"B01 SEARCH RETURN (UPDATE) SEEN")
        self.assertIn(b"B01 BAD", client(b"B01 SEARCH RETURN (UPDATE) UNSEEN"))
        self.assertIn(b"B01 OK", client(b"B01 SEARCH UNSEEN"))
        client(b"s SELECT INBOX")
        self.assertNotIn(b"ESEARCH", client(b"t STORE 1 +FLAGS (\\Seen)"))
        client(b"B01 SEARCH RETURN (UPDATE) SEEN")
        self.assertIn(b"REMOVEFROM", client(b"u STORE 1 -FLAGS (\\Seen)"))

    def test_malformed(self) -> None:
        """CANCELUPDATE names tags in quotes."""
        client = self.select_inbox(1)
        for command in (b"CANCELUPDATE", b"CANCELUPDATE B01", b'CANCELUPDATE "a"x'):
            self.assertIn(b"a BAD", client(b"a " + command), command)

    def test_while_it_searches(self) -> None:
        """What changes while the search runs, and after it looked, is told."""
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

    def test_static(self) -> None:
        """Of what cannot change with flags only new messages are searched."""
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

    def test_deleted(self) -> None:
        """When the mailbox is gone, so are its contexts."""
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


class Pair:
    """Two clients of a mailbox whose store is slow: jobs are done when `work` is told to. One keeps lists."""

    def __init__(self) -> None:
        self.worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker=self.worker))
        self.client, self.other = server.connect(), server.connect()
        self.mail = (b"Subject: %d\r\n\r\n" % (i * 7 % 5) for i in range(1000))
        self.every = [Results(command, b"t%d" % i) for i, command in enumerate(SEARCHES)]
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


class Law(SynchronousTestCase):
    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.booleans(), ACTIONS, st.integers(1, 6), st.integers(0, 5)), max_size=25
        ),
        NOTIFIED,
    )
    def test_lists_stay_right(
        self, actions: list[tuple[bool, bytes, int, int]], notify: bytes
    ) -> None:
        """Whatever two clients do, and whenever, a list kept by what is told is what would be found."""
        pair = Pair()
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

    def test_not_in_between(self) -> None:
        """A search that nobody asked for writes nothing while a command runs; the command's end has it told."""
        pair = Pair()
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
