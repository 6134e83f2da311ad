"""The files of Dovecot and Courier are parsed and written; whatever they contain, nothing is raised."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir import other_servers
from imapshield.maildir.other_servers import (
    COURIER,
    DOVECOT,
    FORMATS,
    UidList,
    format_courier_keywords,
    format_uid_list,
    from_courier_subscriptions,
    parse_courier_keywords,
    parse_uid_list,
    plan,
    to_courier_subscriptions,
)

NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: not set(name) & set(b"\n: \0/"))
LISTS = st.builds(
    lambda uidvalidity, names, uids: UidList(
        uidvalidity, max([*uids, 0]) + 1, dict(zip(names, uids, strict=False))
    ),
    st.integers(1, 3),
    st.lists(NAMES, unique=True, max_size=5),
    st.lists(st.integers(1, 9), unique=True, max_size=5),
)


class UidListTests(SynchronousTestCase):
    @given(LISTS, st.binary())
    def test_formatted_lists_are_parsed_back(self, messages: UidList, old: bytes) -> None:
        """A list is parsed back, whatever the file had before."""
        for form in FORMATS:
            content = format_uid_list(form, messages, old, b"abc")
            parsed = parse_uid_list(content, form)
            assert parsed is not None
            self.assertEqual(
                (parsed.uidvalidity, parsed.uids), (messages.uidvalidity, messages.uids)
            )

    @given(LISTS, LISTS)
    def test_plan_gives_no_uid_to_two_messages(self, ours: UidList, theirs: UidList) -> None:
        """While UIDVALIDITY stays, a UID that was known here identifies the same message, or none."""
        files = {*ours.uids, *theirs.uids}
        new = plan(ours, theirs, files)
        uids = [new.uids[name] for name in files if name in new.uids]
        self.assertEqual(len(set(uids)), len(uids))
        self.assertTrue(all(uid < new.uidnext for uid in new.uids.values()))
        if new.uidvalidity == ours.uidvalidity:
            for name in files & new.uids.keys():
                self.assertTrue(
                    new.uids[name] >= ours.uidnext or new.uids[name] == ours.uids.get(name)
                )

    def test_list_with_too_many_lines_is_not_parsed(self) -> None:
        """A list of many short lines, which would take much memory, is no list."""
        self.patch(other_servers, "MAX_LINES", 3)
        for line in (b"7 :one\n", b"\n", b"x\n"):
            self.assertIsNotNone(parse_uid_list(b"3 V5 N9 Gabc\n" + line, DOVECOT))
            self.assertIsNone(parse_uid_list(b"3 V5 N9 Gabc\n" + line * 3, DOVECOT))

    def test_extra_fields_of_dovecot_stay(self) -> None:
        """GUID and extra fields of messages that are still there stay."""
        old = b"3 V5 N9 Gabc\n3 P7 W22 :a:2,S\n4 :b\n"
        content = format_uid_list(DOVECOT, UidList(6, 20, {b"b": 12, b"a": 11}), old, b"new")
        self.assertEqual(content, b"3 V6 N20 Gabc\n11 P7 W22 :a\n12 :b\n")
        content = format_uid_list(COURIER, UidList(6, 20, {b"a": 11}), old, b"")
        self.assertEqual(content, b"1 6 20\n11 a\n")


class CourierTests(SynchronousTestCase):
    def test_keyword_changes_replace_the_list(self) -> None:
        """A file for one message replaces what the list says; the highest number is the latest, none is later still."""
        files = {
            b":list": b"blue\nred\n\na:0 1\nb:1\nc:0 7 x %b\nd:0\n" % (b"1" * 5000),
            b".9.a": b"green\n", b".10.a": b"red\n", b"b": b"", b".11.b": b"blue\n",
        }  # fmt: skip
        self.assertEqual(
            parse_courier_keywords(files), {b"a": [b"red"], b"c": [b"blue"], b"d": [b"blue"]}
        )

    # The strategy is slow to begin with on a busy machine.
    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique=True), max_size=4))
    def test_formatted_keywords_are_parsed_back(self, keywords: dict[bytes, list[bytes]]) -> None:
        """A list of keywords is parsed back."""
        content = format_courier_keywords(keywords)
        self.assertEqual(parse_courier_keywords({b":list": content}), keywords)

    @given(st.dictionaries(st.binary(), st.binary()), st.binary())
    def test_nothing_is_raised(self, files: dict[bytes, bytes], content: bytes) -> None:
        """No content makes the parsers raise."""
        parse_courier_keywords({**files, b":list": content})
        from_courier_subscriptions(content)
        for form in FORMATS:
            parse_uid_list(content, form)

    def test_subscriptions_are_converted(self) -> None:
        """Names lose INBOX and the dot after it; shared mailboxes are left out."""
        content = from_courier_subscriptions(b"INBOX\nINBOX.A.B\n#shared.x\nINBOX.\n")
        self.assertEqual(content, b"INBOX\nA.B\n")
        self.assertEqual(to_courier_subscriptions([b".A.B", b""]), b"INBOX\nINBOX.A.B\n")
