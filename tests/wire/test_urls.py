"""Relative IMAP URLs (RFC 5092) that name a message are parsed."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.fetch import BodySection, Section
from imapshield.wire.cursor import MAX_NUMBER64
from imapshield.wire.urls import MessageUrl, parse

WHOLE = BodySection(Section(), peek=True)


class MessageUrlTests(SynchronousTestCase):
    def test_url_names_a_mailbox_and_a_message(self) -> None:
        """A URL has a mailbox, UIDVALIDITY, UID, section and partial range; its keywords ignore case."""
        for url, message in (
            (b"/foo/;UID=7", MessageUrl("foo", None, 7, WHOLE)),
            (b"/foo;UIDVALIDITY=3/;UID=7/", MessageUrl("foo", 3, 7, WHOLE)),
            (b"/inbox/;uid=7", MessageUrl("INBOX", None, 7, WHOLE)),
            (b"/a%2Fb%3B/c/;UID=7", MessageUrl("a/b;/c", None, 7, WHOLE)),
            (b"/R%26D/;UID=7", MessageUrl("R&D", None, 7, WHOLE)),
            (b"/caf%C3%A9/;UID=7", MessageUrl("café", None, 7, WHOLE)),
            (b";UID=7", MessageUrl("top/here", None, 7, WHOLE)),
            (b"there/;UID=7", MessageUrl("top/there", None, 7, WHOLE)),
            (
                b"/foo/;UID=7/;SECTION=1.2.MIME",
                MessageUrl("foo", None, 7, BodySection(Section((1, 2), b"MIME"), peek=True)),
            ),
            (
                b"/foo/;UID=7/;section=HEADER.FIELDS%20(To%20Cc)/;partial=5.10",
                MessageUrl(
                    "foo", None, 7,
                    BodySection(Section((), b"HEADER.FIELDS", (b"To", b"Cc")), True, (5, 10)),
                ),
            ),
            (
                b"/foo/;UID=7/;PARTIAL=5",
                MessageUrl("foo", None, 7, BodySection(Section(), True, (5, MAX_NUMBER64))),
            ),
        ):  # fmt: skip
            self.assertEqual(parse(url, "top/here"), message)

    def test_relative_url_needs_a_selected_mailbox(self) -> None:
        """A relative URL is refused while no mailbox is selected."""
        self.assertRaises(BadCommand, parse, b";UID=7", None)
        self.assertEqual(parse(b";UID=7", "INBOX").mailbox, "INBOX")

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"/",
                    b"foo",
                    b";UID=1",
                    b";SECTION=",
                    b"1.",
                    b"TEXT",
                    b"%20",
                    b"%",
                    b";PARTIAL=1",
                    b"]",
                    b"\0",
                ]
            )
        ).map(b"".join)
    )
    def test_only_bad_command_is_raised(self, url: bytes) -> None:
        """No bytes raise anything but BadCommand."""
        with contextlib.suppress(BadCommand):
            parse(url, "INBOX")

    def test_time_is_linear(self) -> None:
        """64 KiB that are not a URL are refused in linear time."""
        for repeated in (b"/", b"a", b"/;UID=1", b";", b"%41", b"/;SECTION=", b"1."):
            self.assertRaises(BadCommand, parse, repeated * (65536 // len(repeated)), "INBOX")
