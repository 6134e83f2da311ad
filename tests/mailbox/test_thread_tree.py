"""Threads follow RFC 5256 for any messages, and building them takes linear time."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox import thread_tree
from imapshield.mailbox.thread_tree import MESSAGES_PER_PAUSE, ThreadMessage
from imapshield.wire import encode
from imapshield.wire.responses import ThreadNode
from tests.mailbox.pausing import pause, run

Description = tuple[str, list[str], str, bool]
"""A message as (id, references, subject, is a reply)."""


def thread_by_subject(messages: list[ThreadMessage], min_pauses: int = 0) -> list[ThreadNode]:
    return run(thread_tree.thread_by_subject(messages, pause), min_pauses)


def thread_by_references(messages: list[ThreadMessage], min_pauses: int = 0) -> list[ThreadNode]:
    return run(thread_tree.thread_by_references(messages, pause), min_pauses)


def encoded(threads: list[ThreadNode]) -> bytes:
    """Return the threads as THREAD sends them, without the name of the response."""
    return b"".join(encode.thread(threads))[9:-2].strip()


class ThreadTests(SynchronousTestCase):
    def references(self, *messages: Description) -> bytes:
        """Return the REFERENCES threads of `messages`, which are in order of date and are numbered from 1."""
        return encoded(
            thread_by_references(
                [
                    ThreadMessage(
                        i, i, subject, is_reply, own_id.encode(), [r.encode() for r in references]
                    )
                    for i, (own_id, references, subject, is_reply) in enumerate(messages, 1)
                ]
            )
        )

    def test_oldest_message_of_a_subject_is_the_parent(self) -> None:
        """The oldest message of a subject has all others as children, and threads are sorted by their oldest
        message."""
        messages = [
            ThreadMessage(1, 50, "b"),
            ThreadMessage(2, 10, "a"),
            ThreadMessage(3, 20, "b"),
            ThreadMessage(4, 30, "a"),
            ThreadMessage(5, 40, "a"),
        ]
        self.assertEqual(encoded(thread_by_subject(messages)), b"(2 (4)(5))(3 1)")

    def test_replies_to_replies_are_nested(self) -> None:
        """Replies to replies are nested, as in the example of RFC 5256 section 4."""
        self.assertEqual(
            self.references(
                ("a", [], "x", False), ("b", [], "y", False), ("c", ["b"], "y", True), ("d", ["b", "c"], "y", True),
                ("e", ["b", "c", "d"], "y", True), ("f", ["b", "c"], "y", True),
            ),
            b"(1)(2 3 (4 5)(6))",
        )  # fmt: skip

    def test_own_references_replace_an_implied_parent_in_a_circle(self) -> None:
        """A message's own references replace an implied parent, even if the message's own link would be
        circular."""
        self.assertEqual(
            self.references(
                ("a", [], "x", False), ("b", ["a", "c"], "y", False), ("c", ["b"], "z", False)
            ),
            b"(1)(3 2)",
        )

    def test_replies_to_a_missing_message_are_one_thread(self) -> None:
        """Replies to a missing message are one thread; a single such reply is a separate thread."""
        self.assertEqual(
            self.references(("b", ["a"], "x", True), ("c", ["a"], "y", True)), b"((1)(2))"
        )
        self.assertEqual(self.references(("b", ["0", "a"], "x", True)), b"(1)")

    def test_replies_to_a_missing_reply_move_up(self) -> None:
        """If a message within a thread is missing, its replies become children of its parent."""
        self.assertEqual(
            self.references(
                ("a", [], "x", False), ("c", ["a", "b"], "x", True), ("d", ["a", "b"], "x", True)
            ),
            b"(1 (2)(3))",
        )

    def test_threads_of_one_subject_are_merged(self) -> None:
        """Threads of one subject are merged: a reply below its original, equal messages below a dummy (step 5)."""
        self.assertEqual(self.references(("a", [], "x", False), ("b", [], "x", True)), b"(1 2)")
        self.assertEqual(self.references(("a", [], "x", True), ("b", [], "x", False)), b"(2 1)")
        self.assertEqual(self.references(("a", [], "x", False), ("b", [], "x", False)), b"((1)(2))")
        self.assertEqual(self.references(*[(i, [], "x", False) for i in "abc"]), b"((1)(2)(3))")
        self.assertEqual(self.references(("a", [], "", False), ("b", [], "", False)), b"(1)(2)")
        self.assertEqual(
            self.references(
                ("b", ["a"], "x", True),
                ("c", ["a"], "x", True),
                ("e", ["d"], "x", True),
                ("f", ["d"], "x", True),
            ),
            b"((1)(2)(3)(4))",
        )

    def test_link_that_closes_a_circle_is_dropped(self) -> None:
        """In circular references, the link that would close the circle is dropped."""
        self.assertEqual(
            self.references(("a", ["b"], "x", False), ("b", ["a"], "y", False)), b"(2 1)"
        )
        self.assertEqual(self.references(("a", ["a"], "x", False)), b"(1)")
        self.assertEqual(self.references(("a", ["b", "c", "b", "a"], "x", False)), b"(1)")

    def test_messages_with_one_id_are_both_kept(self) -> None:
        """Two messages with one id are both kept, and so is a message without an id."""
        self.assertEqual(
            self.references(
                ("a", [], "x", False),
                ("a", [], "y", False),
                ("b", ["a"], "z", True),
                ("", ["a"], "q", True),
            ),
            b"(1 (3)(4))(2)",
        )

    def test_own_references_override_an_implied_parent(self) -> None:
        """A message's own references override the parent that other messages implied."""
        self.assertEqual(
            self.references(
                ("x", ["p", "a"], "1", False),
                ("p", [], "2", False),
                ("q", [], "3", False),
                ("a", ["q"], "4", False),
            ),
            b"(2)(3 4 1)",
        )

    def test_message_without_references_has_no_parent(self) -> None:
        """A message without references has no parent, although an earlier message implied one."""
        self.assertEqual(
            self.references(
                ("b", [], "1", False),
                ("x", ["b", "a"], "2", False),
                ("a", [], "3", False),
            ),
            b"(1)(3 2)",
        )

    def test_threading_takes_linear_time_and_pauses(self) -> None:
        """Threading takes linear time and pauses often: for one long chain in either order, for many replies to one
        message, and for many references per message."""
        n = 30_000
        ids = [b"%d@x" % i for i in range(n)]
        forwards = [
            ThreadMessage(i + 1, i, "", False, ids[i], ids[max(0, i - 1) : i]) for i in range(n)
        ]
        (root,) = thread_by_references(forwards, 5 * n // MESSAGES_PER_PAUSE)
        self.assertEqual(b"".join(encode.thread([root])).count(b" "), n + 1)
        backwards = [
            ThreadMessage(n - i, n - i, "", False, ids[i], ids[i + 1 : i + 2]) for i in range(n)
        ]
        self.assertEqual(len(thread_by_references(backwards, 5 * n // MESSAGES_PER_PAUSE)), 1)
        siblings = [
            ThreadMessage(i + 1, i, "", False, ids[i], [b"root", b"other"]) for i in range(n)
        ]
        self.assertEqual(
            len(thread_by_references(siblings, 5 * n // MESSAGES_PER_PAUSE)[0].children), n
        )
        self.assertEqual(
            len(thread_by_subject(siblings, n // MESSAGES_PER_PAUSE)[0].children), n - 1
        )
        many_references = [
            ThreadMessage(i + 1, i, "", False, ids[i], [*ids[:1000], b"%d@y" % i])
            for i in range(1000, 1100)
        ]
        self.assertEqual(len(thread_by_references(many_references, 50)), 1)

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
    def test_every_message_occurs_once(self, messages: list[Description]) -> None:
        """Whatever the references, every message is in the response exactly once."""
        threads = self.references(*messages)
        numbers = sorted(int(n) for n in threads.replace(b"(", b" ").replace(b")", b" ").split())
        self.assertEqual(numbers, list(range(1, len(messages) + 1)))
