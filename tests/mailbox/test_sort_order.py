"""Base subjects, sort keys and conversations are those of RFC 5256, for any mail and in time linear in it."""

from collections.abc import Coroutine, Iterator
from types import coroutine
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox import sort_order
from imapshield.mailbox.sort_order import (
    TURN,
    Threaded,
    address_key,
    base_subject,
    collated,
    date_key,
    display_key,
    message_ids,
    references,
)
from imapshield.wire import encode
from imapshield.wire.responses import ThreadNode

T = TypeVar("T")


def done(work: Coroutine[Any, Any, T], pauses: int = 0) -> T:
    """The result of `work`, which has paused at least so many times."""
    while True:
        try:
            work.send(None)
        except StopIteration as stopped:
            assert pauses <= 0, pauses
            return stopped.value
        pauses -= 1


@coroutine
def pause() -> Iterator[None]:
    """Let the caller of `done` count."""
    yield


def ordered(numbers: list[int], keys: list[Any]) -> Any:
    return done(sort_order.ordered(numbers, keys, pause))


def by_subject(messages: list[Threaded], pauses: int = 0) -> list[ThreadNode]:
    return done(sort_order.by_subject(messages, pause), pauses)


def by_references(messages: list[Threaded], pauses: int = 0) -> list[ThreadNode]:
    return done(sort_order.by_references(messages, pause), pauses)


class Subjects(SynchronousTestCase):
    def test_known(self) -> None:
        """Replies, forwards, lists' names and spaces do not count; what is left does."""
        for subject, base, reply in (
            ("Lunch", "Lunch", False),
            ("", "", False),
            ("  two \t\r\n words ", "two words", False),
            ("two\xa0\xa0words\u3000", "two\xa0\xa0words\u3000", False),
            ("Re: Lunch", "Lunch", True),
            ("RE : lunch", "lunch", True),
            ("Re[2]: Lunch", "Lunch", True),
            ("re [x] : Lunch", "Lunch", True),
            ("fw: Fwd: FW: Lunch", "Lunch", True),
            ("[list] Lunch", "Lunch", False),
            ("[list] Re: [list] Lunch", "Lunch", True),
            ("Re: [a] [b] Re: x", "x", True),
            ("[a] [b]", "[b]", False),
            ("[list]", "[list]", False),
            ("Re: [list]", "[list]", True),
            ("Lunch (fwd)", "Lunch", True),
            ("Lunch (fwd) (FWD) ", "Lunch", True),
            ("[fwd: Lunch]", "Lunch", True),
            ("[Fwd: [Fwd: Re: Lunch (fwd)]]", "Lunch", True),
            ("Re:", "", True),
            ("(fwd)", "", True),
            ("Reply: x", "Reply: x", False),
            ("Re x: y", "Re x: y", False),
            ("[unfinished Re: x", "[unfinished Re: x", False),
            ("İ [fwd: x]", "İ [fwd: x]", False),
        ):
            self.assertEqual(base_subject(subject), (base, reply), subject)

    def test_long(self) -> None:
        """A subject made to be slow is not."""
        for piece in ("[a]", "re:", "re[a]:", "[fwd:", "(fwd)", "[", "] ", "[a] re", "re [a] "):
            base_subject(piece * 100_000)
            base_subject(piece * 100_000 + "]" * 100_000)
            base_subject("x" + piece * 100_000)

    @given(st.text(alphabet="[]ref wd:()a", max_size=40))
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_base_of_base(self, subject: str) -> None:
        """The base subject of a base subject is itself."""
        base, _ = base_subject(subject)
        self.assertEqual(base_subject(base), (base, False))


class Keys(SynchronousTestCase):
    def test_date(self) -> None:
        """Dates are instants; without a zone UTC, unreadable ones INTERNALDATE."""
        self.assertEqual(date_key(b"Date: Thu, 1 Jan 1970 01:00:10 +0100\r\n", 5), 10)
        self.assertEqual(date_key(b"date:\r\n 1 Jan 1970 00:00:20\r\n", 5), 20)
        for header in (
            b"",
            b"Date: never\r\n",
            b"Date: 99 Foo 99999999999 00:00\r\n",
            b"Date:\r\n",
            b"Date: 1 Jan 2010 59:10 +0000\r\n",
        ):
            self.assertEqual(date_key(header, 5), 5, header)
        twice = b"Date: 1 Jan 1970 00:00:01\r\nDate: 1 Jan 1970 00 (h) : 00:02\r\n"
        self.assertEqual(date_key(twice, 5), 2)

    def test_addresses(self) -> None:
        """The mailbox of the first address, of a group its name; the shown name, or else the address."""
        for field, mailbox, shown in (
            (b"Ann Lee <ann@x.org>, bob@y.org", "ANN", "ANN LEE"),
            (b"bob@y.org", "BOB", "BOB@Y.ORG"),
            (b"=?utf-8?q?=C3=84nn?= <z@x.org>", "Z", collated("Änn")),
            (b"=?utf-8?q??= <zoe@x.org>", "ZOE", "ZOE@X.ORG"),
            (b"Friends: ann@x.org;", "FRIENDS", "FRIENDS"),
            (b"", "", ""),
        ):
            header = b"From: " + field + b"\r\n\r\n"
            self.assertEqual(address_key(header, b"FROM"), mailbox, field)
            self.assertEqual(display_key(header, b"FROM"), shown, field)
        self.assertEqual(display_key(b"\r\n", b"TO"), "")

    def test_collated(self) -> None:
        """Case does not count, accents come after their letter, and ``_`` after the letters (RFC 5051)."""
        self.assertEqual(collated("aBc"), collated("Abc"))
        self.assertEqual(collated("É"), collated("e\u0301"))
        self.assertLess(collated("z"), collated("_"))

    def test_ids(self) -> None:
        """Message ids in any spelling; of In-Reply-To the first, and only without References."""
        self.assertEqual(message_ids(b'Message-ID: <"a\\b"@x>\r\n', b"message-id"), [b"ab@x"])
        self.assertEqual(
            references(b"References: <1@x>\r\n <2@x>\r\nIn-Reply-To: <3@x>\r\n"), [b"1@x", b"2@x"]
        )
        self.assertEqual(
            references(b"References: none\r\nIn-Reply-To: you <3@x> <4@x>\r\n"), [b"3@x"]
        )

    def test_order(self) -> None:
        """Several keys, each in its direction; equals keep the mailbox's order, reversed or not."""
        self.assertEqual(ordered([1, 2, 3, 4], [(True, [1, 2, 1, 2])]), [2, 4, 1, 3])
        self.assertEqual(
            ordered([1, 2, 3, 4], [(False, ["b", "a", "b", "a"]), (True, [1, 2, 3, 4])]),
            [4, 2, 3, 1],
        )


def shown(threads: list[ThreadNode]) -> bytes:
    return b"".join(encode.thread(threads))[9:-2].strip()


class Threads(SynchronousTestCase):
    def references(self, *messages: tuple[object, ...]) -> bytes:
        """Threads of (id, references, subject, reply) in the order of their dates, numbered from 1."""
        return shown(
            by_references(
                [
                    Threaded(
                        i, i, str(subject), bool(reply), one.encode(), [r.encode() for r in refs]
                    )  # type: ignore[attr-defined]
                    for i, (one, refs, subject, reply) in enumerate(messages, 1)
                ]
            )
        )

    def test_ordered_subject(self) -> None:
        """The oldest of a subject has all others as answers, and threads come by their oldest."""
        messages = [
            Threaded(1, 50, "b"),
            Threaded(2, 10, "a"),
            Threaded(3, 20, "b"),
            Threaded(4, 30, "a"),
            Threaded(5, 40, "a"),
        ]
        self.assertEqual(shown(by_subject(messages)), b"(2 (4)(5))(3 1)")

    def test_chain(self) -> None:
        """Answers to answers, as in the example of RFC 5256 section 4."""
        self.assertEqual(
            self.references(
                ("a", [], "x", 0), ("b", [], "y", 0), ("c", ["b"], "y", 1), ("d", ["b", "c"], "y", 1),
                ("e", ["b", "c", "d"], "y", 1), ("f", ["b", "c"], "y", 1),
            ),
            b"(1)(2 3 (4 5)(6))",
        )  # fmt: skip

    def test_presumed_parent(self) -> None:
        """What others presumed of a message's parent is dropped for its own word, even if that would be a circle."""
        self.assertEqual(
            self.references(("a", [], "x", 0), ("b", ["a", "c"], "y", 0), ("c", ["b"], "z", 0)),
            b"(1)(3 2)",
        )

    def test_missing_parent(self) -> None:
        """Answers to a message that is not there are together; one alone stands for itself."""
        self.assertEqual(self.references(("b", ["a"], "x", 1), ("c", ["a"], "y", 1)), b"((1)(2))")
        self.assertEqual(self.references(("b", ["0", "a"], "x", 1)), b"(1)")

    def test_missing_between(self) -> None:
        """Where a message in the middle is not there, its answers go to the one above."""
        self.assertEqual(
            self.references(
                ("a", [], "x", 0), ("c", ["a", "b"], "x", 1), ("d", ["a", "b"], "x", 1)
            ),
            b"(1 (2)(3))",
        )

    def test_subjects(self) -> None:
        """Threads of one subject are one: an answer below what it answers, equals below a dummy (step 5)."""
        self.assertEqual(self.references(("a", [], "x", 0), ("b", [], "x", 1)), b"(1 2)")
        self.assertEqual(self.references(("a", [], "x", 1), ("b", [], "x", 0)), b"(2 1)")
        self.assertEqual(self.references(("a", [], "x", 0), ("b", [], "x", 0)), b"((1)(2))")
        self.assertEqual(self.references(*[(i, [], "x", 0) for i in "abc"]), b"((1)(2)(3))")
        self.assertEqual(self.references(("a", [], "", 0), ("b", [], "", 0)), b"(1)(2)")
        self.assertEqual(
            self.references(
                ("b", ["a"], "x", 1),
                ("c", ["a"], "x", 1),
                ("e", ["d"], "x", 1),
                ("f", ["d"], "x", 1),
            ),
            b"((1)(2)(3)(4))",
        )

    def test_circle(self) -> None:
        """References in a circle lose what would close it."""
        self.assertEqual(self.references(("a", ["b"], "x", 0), ("b", ["a"], "y", 0)), b"(2 1)")
        self.assertEqual(self.references(("a", ["a"], "x", 0)), b"(1)")
        self.assertEqual(self.references(("a", ["b", "c", "b", "a"], "x", 0)), b"(1)")

    def test_same_id(self) -> None:
        """Two messages of one id are two; one without an id is itself."""
        self.assertEqual(
            self.references(
                ("a", [], "x", 0), ("a", [], "y", 0), ("b", ["a"], "z", 1), ("", ["a"], "q", 1)
            ),
            b"(1 (3)(4))(2)",
        )

    def test_own_parent_counts(self) -> None:
        """What a message says of its parent counts more than what others said."""
        self.assertEqual(
            self.references(
                ("x", ["p", "a"], "1", 0),
                ("p", [], "2", 0),
                ("q", [], "3", 0),
                ("a", ["q"], "4", 0),
            ),
            b"(2)(3 4 1)",
        )

    def test_no_references_count_too(self) -> None:
        """A message that says nothing of a parent has none, if others said so before it."""
        self.assertEqual(
            self.references(
                ("b", [], "1", 0),
                ("x", ["b", "a"], "2", 0),
                ("a", [], "3", 0),
            ),
            b"(1)(3 2)",
        )

    def test_large(self) -> None:
        """Many messages in one chain, either way round, or in one bush, or with many references each, are linked in
        time linear in them, a few at a time."""
        n = 30_000
        ids = [b"%d@x" % i for i in range(n)]
        forwards = [Threaded(i + 1, i, "", False, ids[i], ids[max(0, i - 1) : i]) for i in range(n)]
        (root,) = by_references(forwards, 5 * n // TURN)
        self.assertEqual(b"".join(encode.thread([root])).count(b" "), n + 1)
        backwards = [
            Threaded(n - i, n - i, "", False, ids[i], ids[i + 1 : i + 2]) for i in range(n)
        ]
        self.assertEqual(len(by_references(backwards, 5 * n // TURN)), 1)
        bush = [Threaded(i + 1, i, "", False, ids[i], [b"root", b"other"]) for i in range(n)]
        self.assertEqual(len(by_references(bush, 5 * n // TURN)[0].children), n)
        self.assertEqual(len(by_subject(bush, n // TURN)[0].children), n - 1)
        long = [
            Threaded(i + 1, i, "", False, ids[i], [*ids[:1000], b"%d@y" % i])
            for i in range(1000, 1100)
        ]
        self.assertEqual(len(by_references(long, 50)), 1)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"),
                st.lists(st.sampled_from("abcdefgh"), max_size=4),
                st.sampled_from("xyz"),
                st.booleans(),
            ),
            max_size=12,
        )
    )
    @settings(derandomize=True, deadline=None, max_examples=300)
    def test_everybody_once(self, messages: list[tuple[object, ...]]) -> None:
        """Whatever refers to what, every message is in the answer exactly once."""
        answer = self.references(*messages)
        numbers = sorted(int(n) for n in answer.replace(b"(", b" ").replace(b")", b" ").split())
        self.assertEqual(numbers, list(range(1, len(messages) + 1)))
