"""Address lists are read in any form, and invalid addresses are marked."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.message.addresses import END_OF_GROUP, Address, parse_addresses

LIMIT = 100


def address(
    mailbox: bytes | None, host: bytes | None, name: bytes | None = None, route: bytes | None = None
) -> Address:
    return Address(name, route, mailbox, host)


NONE = address(b"MISSING_MAILBOX", b"MISSING_DOMAIN")


class AddressTests(SynchronousTestCase):
    def check(self, value: bytes, *expected: Address) -> None:
        self.assertEqual(parse_addresses(value, LIMIT), list(expected))

    def test_regular_forms_are_read(self) -> None:
        """The address forms of nearly all messages are read."""
        self.check(b"a@b", address(b"a", b"b"))
        self.check(b" <a@b> ", address(b"a", b"b"))
        self.check(b"Fred Foobar <f@x.example>", address(b"f", b"x.example", b"Fred Foobar"))
        self.check(
            b'"Doe, Jane"  <j.d@x>, c@d,\r\n e@f',
            address(b"j.d", b"x", b"Doe, Jane"),
            address(b"c", b"d"),
            address(b"e", b"f"),
        )
        self.check(b"J. R. <a@b>", address(b"a", b"b", b"J. R."))
        self.check(b"=?utf-8?q?x?= <a@b>", address(b"a", b"b", b"=?utf-8?q?x?="))
        self.check(b"J\xc3\xbcrgen <a@b>", address(b"a", b"b", b"J\xc3\xbcrgen"))
        self.check(b"")
        self.check(b" \r\n ")

    def test_name_is_joined_from_its_words(self) -> None:
        """A name is joined from its words; for an address without angle brackets, a comment is the name."""
        self.check(b'"a" b\t "c\\"d" <a@b>', address(b"a", b"b", b'a b c"d'))
        self.check(b'"" <a@b>', address(b"a", b"b"))
        self.check(b"a@b (Fred (x) \\) Foo)", address(b"a", b"b", b"Fred (x) ) Foo"))
        self.check(b"Fred <a@b> (comment)", address(b"a", b"b", b"Fred"))
        self.check(b'"a\r\n b" <a@b>', address(b"a", b"b", b"a b"))

    def test_local_parts_and_domains_are_read_in_any_form(self) -> None:
        """Quoted local parts, dots anywhere, domain literals, and white space and comments between all tokens are
        read."""
        self.check(b'"a b"@c', address(b"a b", b"c"))
        self.check(b"a..b.@c", address(b"a..b.", b"c"))
        self.check(b"<a@[1.2.3.4]>", address(b"a", b"[1.2.3.4]"))
        self.check(b"a@[1.2.\r\n3.4]", address(b"a", b"[1.2.3.4]"))
        self.check(b"a (x) @ b . c", address(b"a", b"b.c", b"x"))
        self.check(b"< a @ b >", address(b"a", b"b"))

    def test_source_route_loses_its_spaces(self) -> None:
        """A source route (RFC 5322 section 4.4, obs-route) is returned without its spaces."""
        self.check(b"x <@a, @b:c@d>", address(b"c", b"d", b"x", b"@a,@b"))
        self.check(
            b"<@a;c@d>",
            address(None, None)._replace(
                route=b"INVALID_ROUTE", mailbox=b"MISSING_MAILBOX", host=b"SYNTAX_ERROR"
            ),
        )

    def test_group_has_a_name_members_and_an_end(self) -> None:
        """A group is returned as its name, its members and an end marker."""
        self.check(
            b"A group: a@b, C <c@d>;",
            address(b"A group", None),
            address(b"a", b"b"),
            address(b"c", b"d", b"C"),
            END_OF_GROUP,
        )
        self.check(
            b"undisclosed-recipients:;", address(b"undisclosed-recipients", None), END_OF_GROUP
        )
        self.check(b"g:;, a@b", address(b"g", None), END_OF_GROUP, address(b"a", b"b"))
        self.check(b"g: a@b", address(b"g", None), address(b"a", b"b"), END_OF_GROUP)

    def test_invalid_address_is_marked_and_never_omitted(self) -> None:
        """An invalid address is never omitted, and is marked with the same words as in Dovecot."""
        self.check(b"fred", address(b"fred", b"MISSING_DOMAIN"))
        self.check(b"Fred Foobar", address(b"MISSING_MAILBOX", b"MISSING_DOMAIN", b"Fred Foobar"))
        self.check(b'"fred"', address(b"MISSING_MAILBOX", b"MISSING_DOMAIN", b"fred"))
        self.check(b"Fred <>", address(b"MISSING_MAILBOX", b"MISSING_DOMAIN", b"Fred"))
        self.check(
            b"Fred <a@b", address(b"a", b"SYNTAX_ERROR", b"Fred")._replace(host=b"SYNTAX_ERROR")
        )
        self.check(b"a@b,,c@d", address(b"a", b"b"), NONE, address(b"c", b"d"))
        self.check(b"a@b,", address(b"a", b"b"))
        self.check(b"a@b, (", address(b"a", b"b"), NONE)
        self.check(b"@", NONE)
        self.check(b". Fred", address(b"MISSING_MAILBOX", b"MISSING_DOMAIN", b".  Fred"))
        self.check(
            b"(",
        )
        self.check(b"a\0b@c", address(b"a", b"MISSING_DOMAIN"))

    def test_address_that_is_cut_off_is_read_in_part(self) -> None:
        """An address that is cut off is returned as far as it can be read."""
        broken = Address(None, None, b"MISSING_MAILBOX", b"SYNTAX_ERROR")
        self.check(b"<", broken)
        self.check(b"<@a:", broken._replace(route=b"@a"))
        self.check(b"<@a,", broken._replace(route=b"INVALID_ROUTE"))
        self.check(b"<@a", broken._replace(route=b"INVALID_ROUTE"))
        self.check(b"<a", broken._replace(mailbox=b"a"))
        self.check(b"<a@", broken._replace(mailbox=b"a"))
        self.check(b"g: a@b,", address(b"g", None), address(b"a", b"b"), END_OF_GROUP)
        self.check(b"g:", address(b"g", None), END_OF_GROUP)

    def test_list_ends_at_unreadable_text(self) -> None:
        """The list ends at text that cannot be read."""
        self.check(b"a@b@c, d@e", address(b"a", b"b"))

    def test_number_of_addresses_is_limited(self) -> None:
        """At most as many addresses as the limit are returned, and a group that is cut off still has its end marker."""
        self.assertEqual(len(parse_addresses(b"a@b, " * 50, 10)), 10)
        self.assertEqual(parse_addresses(b"g:" + b"a," * 50, 3)[-1], END_OF_GROUP)

    @settings(derandomize=True, deadline=None, max_examples=500)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"a",
                    b"b c",
                    b"@",
                    b"<",
                    b">",
                    b",",
                    b";",
                    b":",
                    b".",
                    b'"',
                    b"(",
                    b")",
                    b"\\",
                    b"[",
                    b"]",
                    b" ",
                    b"\r\n ",
                    b"\0",
                    b"\xff",
                ]
            ),
            max_size=30,
        ).map(b"".join)
    )
    def test_no_value_raises(self, value: bytes) -> None:
        """No value raises, and every address has a mailbox unless it ends a group."""
        for found in parse_addresses(value, LIMIT):
            self.assertFalse(found.mailbox is None and found != END_OF_GROUP, found)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([None, b"A", b"A B", b"x. y"]),
                st.sampled_from([b"a", b"a.b", b"a+b"]),
                st.sampled_from([b"c", b"c.d"]),
            ),
            max_size=8,
        )
    )
    def test_regular_and_irregular_forms_agree(
        self, addresses: list[tuple[bytes | None, bytes, bytes]]
    ) -> None:
        """Comments lead to the slower parser, which reads the text in angle brackets in the same way."""

        def address_list(comment: bytes) -> bytes:
            return b", ".join(
                (name or b"") + b" " + comment + b"<" + local + b"@" + host + b">"
                for name, local, host in addresses
            )

        expected = [Address(*(name, None, local, host)) for name, local, host in addresses]
        self.assertEqual(parse_addresses(address_list(b""), LIMIT), expected)
        self.assertEqual(parse_addresses(address_list(b"(c) "), LIMIT), expected)

    def test_hostile_text_takes_linear_time(self) -> None:
        """128 KiB of any text are parsed in linear time; a quadratic algorithm would not finish."""
        size = 1 << 17
        for value in (
            b"a@b, ",
            b"a ",
            b"a (x) ",
            b'"a" ',
            b"(",
            b'"',
            b'"\\',
            b",",
            b"<",
            b"a:;, ",
            b"@a,",
            b".",
            b"a.",
            b"a@b,\r\n ",
            b"(\\",
        ):
            parse_addresses(value * (size // len(value)), 1000)
        self.assertEqual(len(parse_addresses(b"a@b, " * 100_000, 10_000)), 10_000)
