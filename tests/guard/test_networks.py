"""The networks of an address, and sets of networks, as an operator writes them."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.networks import (
    NetworkSet,
    describe,
    enclosing,
    is_inside,
    networks_of,
    parse_network,
)


def described(address: str) -> list[str]:
    return [describe(network) for network in networks_of(address)]


class NetworksOfTests(SynchronousTestCase):
    def test_ipv4(self) -> None:
        """An IPv4 address is in a /32, a /26 and a /21."""
        self.assertEqual(
            described("192.0.2.199"), ["192.0.2.199/32", "192.0.2.192/26", "192.0.0.0/21"]
        )

    def test_ipv6(self) -> None:
        """An IPv6 address is in a /64, which stands for the client, and in a /56, a /48 and a /32."""
        self.assertEqual(
            described("2001:db8:1:ff02::7"),
            ["2001:db8:1:ff02::/64", "2001:db8:1:ff00::/56", "2001:db8:1::/48", "2001:db8::/32"],
        )

    def test_ipv4_inside_ipv6(self) -> None:
        """An IPv4 address of a dual-stack socket or of a NAT64 translator counts as that IPv4 address."""
        for address in ("::ffff:192.0.2.7", "::FFFF:c000:207", "64:ff9b::192.0.2.7"):
            self.assertEqual(networks_of(address), networks_of("192.0.2.7"), address)
        self.assertEqual(described("::192.0.2.7")[0], "::/64")

    def test_scope_is_ignored(self) -> None:
        """The scope of a link-local address is ignored."""
        self.assertEqual(networks_of("fe80::1%eth0"), networks_of("fe80::1"))

    def test_no_address(self) -> None:
        """What is no address is in no network."""
        for text in (
            "local", "unknown", "", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.-4", "1.2.3.4 ", "1..2.3", "1.2.3.4_0", "١.2.3.4",
            "1.2.3.²", ":", "g::", "1:2", "::1/128", "%eth0",
        ):  # fmt: skip
            self.assertEqual(networks_of(text), (), text)


class ParseNetworkTests(SynchronousTestCase):
    def test_networks(self) -> None:
        """A network is an address with the length of its prefix; without one, it is that address alone."""
        for text, expected in (
            ("192.0.2.0/24", "192.0.2.0/24"), ("192.0.2.7", "192.0.2.7/32"), ("0.0.0.0/0", "0.0.0.0/0"), ("::1", "::1/128"),
            ("::/0", "::/0"), ("2001:DB8::/32", "2001:db8::/32"), ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:0:0/96", "0.0.0.0/0"),
        ):  # fmt: skip
            self.assertEqual(describe(parse_network(text)), expected)

    def test_errors(self) -> None:
        """What is no network is an error that shows how to write one."""
        for text in (
            "", "x", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/255.0.0.0", "010.0.0.0/8", "::/129", "::ffff:0:0/90", "::ffff:0:0/95",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, parse_network, text)
            self.assertEqual(str(error), f"{text!r} is no network; write for example 192.0.2.0/24")
        error = self.assertRaises(ValueError, parse_network, "192.0.2.7/24")
        self.assertEqual(str(error), "192.0.2.7/24 has bits behind its prefix; write 192.0.2.0/24")

    def test_is_inside(self) -> None:
        """A network is inside itself and inside wider networks of the same IP version."""
        wide, narrow, other = map(parse_network, ("10.0.0.0/8", "10.1.0.0/16", "::/0"))
        self.assertEqual(
            [is_inside(narrow, wide), is_inside(wide, wide), is_inside(wide, narrow), is_inside(narrow, other)],
            [True, True, False, False],
        )  # fmt: skip

    def test_is_inside_compares_every_bit(self) -> None:
        """Networks that differ in the version, the length or one bit are told apart."""
        for inner, outer, inside in (
            ("10.0.0.0/7", "10.0.0.0/8", False), ("9.0.0.0/8", "10.0.0.0/8", False), ("11.0.0.0/8", "10.0.0.0/8", False),
            ("::/8", "0.0.0.0/8", False), ("0.0.0.0/8", "::/8", False), ("2001:db8:1::/48", "2001:db8::/32", True),
            ("2001:db9::/48", "2001:db8::/32", False),
        ):  # fmt: skip
            self.assertIs(is_inside(parse_network(inner), parse_network(outer)), inside, inner)

    def test_enclosing_networks_have_the_version_of_the_address(self) -> None:
        """Only prefixes of the IP version of the address count."""
        prefixes = [(4, 8), (6, 32), (4, 24), (6, 48)]
        for address, expected in (
            ("192.0.2.7", ["192.0.0.0/8", "192.0.2.0/24"]),
            ("2001:db8:1::7", ["2001:db8::/32", "2001:db8:1::/48"]),
        ):
            self.assertEqual([describe(n) for n in enclosing(address, prefixes)], expected)


class NetworkSetTests(SynchronousTestCase):
    def test_contains(self) -> None:
        """A set contains the addresses of its networks, which may overlap."""
        networks = NetworkSet.parse(["127.0.0.0/8", "::1", "2001:db8::/33", "127.0.0.0/30"])
        for address, expected in (
            ("127.0.0.1", True), ("127.9.9.9", True), ("::ffff:127.0.0.1", True), ("128.0.0.1", False), ("::1", True), ("::2", False),
            ("2001:db8:7fff::1", True), ("2001:db8:8000::1", False), ("local", False), ("unknown", False), ("", False),
        ):  # fmt: skip
            self.assertEqual(address in networks, expected, address)

    def test_overlaps(self) -> None:
        """A network overlaps a set if they have an address in common."""
        networks = NetworkSet.parse(["10.0.0.0/16", "2001:db8::1"])
        for text, expected in (
            ("10.0.3.0/24", True), ("10.0.0.0/8", True), ("10.1.0.0/16", False), ("2001:db8::/64", True), ("2001:db8:1::/64", False),
        ):  # fmt: skip
            self.assertEqual(networks.overlaps(parse_network(text)), expected, text)

    def test_empty(self) -> None:
        """An empty set contains nothing and is false."""
        self.assertFalse(NetworkSet())
        self.assertNotIn("127.0.0.1", NetworkSet())
        self.assertTrue(NetworkSet.parse(["0.0.0.0/0"]))
        self.assertIn("192.0.2.1", NetworkSet.parse(["0.0.0.0/0"]))

    def test_text(self) -> None:
        """As text, a set is the list of its networks."""
        self.assertEqual(str(NetworkSet()), "none")
        self.assertEqual(str(NetworkSet.parse(["::1", "10.0.0.0/8"])), "10.0.0.0/8, ::1/128")

    def test_error(self) -> None:
        """A text that is no network is an error."""
        self.assertRaises(ValueError, NetworkSet.parse, ["127.0.0.0/8", "localhost"])
