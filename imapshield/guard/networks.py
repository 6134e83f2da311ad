"""Networks: the address of a client and the networks that contain it, as values that can be keys of a table.

Limits per network are needed because one party often has many addresses: a provider gives a customer an IPv6 /64, /56
or /48, and rents out IPv4 addresses side by side.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache

Network = tuple[int, int, int]
"""The IP version (4 or 6), the length of the prefix, and the number of the network without its host bits."""

THIS_MACHINE = ("127.0.0.0/8", "::1/128")

IPV4_PREFIXES = (32, 26, 21)
IPV6_PREFIXES = (64, 56, 48, 32)

_BITS = {4: 32, 6: 128}
_PREFIXES = {4: IPV4_PREFIXES, 6: IPV6_PREFIXES}

# IPv4 addresses inside IPv6: mapped ones of a dual-stack socket (RFC 4291), and those of a translator (RFC 6052).
# Without the second, all IPv4 clients of a server behind a translator would share one /64.
_IPV4_INSIDE_IPV6 = (0xFFFF, 0x64FF9B << 64)


def _parse(address: str) -> tuple[int, int] | None:
    """Return the IP version and the number of an address; None if the text is no address."""
    try:
        if ":" not in address:
            return 4, _parse_ipv4(address)
        number = int(ipaddress.IPv6Address(address.partition("%")[0]))
    except ValueError:
        return None
    return (4, number & 0xFFFFFFFF) if number >> 32 in _IPV4_INSIDE_IPV6 else (6, number)


def _parse_ipv4(address: str) -> int:
    """Return the number of an address. This takes half as long as `ipaddress`, for every connection that arrives."""
    if not (address.isascii() and address.replace(".", "").isdigit() and address.count(".") == 3):
        raise ValueError
    return int.from_bytes(bytes(map(int, address.split("."))), "big")


_cached_parse = lru_cache(maxsize=1024)(_parse)


@lru_cache(maxsize=4096)  # several calls for each connection; an entry takes less than a kilobyte
def networks_of(address: str) -> tuple[Network, ...]:
    """Return the networks that contain `address`, the smallest first.

    The first one stands for the client: an IPv4 address, or the /64 of an IPv6 address. An IPv4 address inside IPv6 is
    an IPv4 address, and a scope (``%eth0``) is ignored. Empty for a text that is no address, such as "local".
    """
    parsed = _parse(address)
    if parsed is None:
        return ()
    version, number = parsed
    bits = _BITS[version]
    return tuple([(version, prefix, number >> (bits - prefix)) for prefix in _PREFIXES[version]])


_LEVEL_FACTOR = {
    (4, 32): 1,
    (4, 26): 3,
    (4, 21): 9,
    (6, 64): 1,
    (6, 56): 3,
    (6, 48): 9,
    (6, 32): 27,
}


def level_factor(network: Network) -> int:
    """Return how many times the share of one address `network` has."""
    return _LEVEL_FACTOR.get(network[:2], 1)


def wider_networks(network: Network) -> tuple[Network, ...]:
    """Return the networks of `networks_of` that contain `network` and are wider, the smallest first."""
    version, prefix, number = network
    prefixes = _PREFIXES[version]
    return tuple([(version, each, number >> (prefix - each)) for each in prefixes if each < prefix])


def has_share(version: int, prefix: int) -> bool:
    """Return whether `networks_of` returns networks of this IP version with this length of the prefix."""
    return prefix in _PREFIXES.get(version, ())


def address_of(network: Network) -> str:
    """Return the first address of a network as text."""
    return describe(network).partition("/")[0]


@lru_cache(maxsize=4096)  # of talkers and of ended connections, for each connection
def describe(network: Network) -> str:
    """Return a network as text, such as ``192.0.2.0/26``."""
    version, prefix, number = network
    address = (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(
        number << (_BITS[version] - prefix)
    )
    return f"{address}/{prefix}"


def parse_network(text: str) -> Network:
    """Return the network of a text such as ``192.0.2.0/26`` or ``::1``, which is a network of one address.

    Raises:
        ValueError: the text is no network; with a line that says so.
    """
    address, slash, length = text.partition("/")
    try:
        bits = _BITS[ipaddress.ip_address(address).version]
        prefix = int(length) if slash else bits
        if not (0 <= prefix <= bits and (length.isdecimal() or not slash)):
            raise ValueError
        parsed = _parse(address)
        assert parsed is not None
        version, number = parsed
        if version == 4 and bits == 128:
            prefix -= 96
            if prefix < 0:
                raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no network; write for example 192.0.2.0/24") from None
    network = (version, prefix, number >> (_BITS[version] - prefix))
    if number != network[2] << (_BITS[version] - prefix):
        raise ValueError(f"{text} has bits behind its prefix; write {describe(network)}")
    return network


def enclosing(address: str, prefixes: Iterable[tuple[int, int]]) -> Iterator[Network]:
    """Yield the networks around `address` with some of `prefixes`, which are pairs of IP version and length."""
    parsed = _cached_parse(address)
    if parsed is not None:
        for version, prefix in prefixes:
            if version == parsed[0]:
                yield version, prefix, parsed[1] >> (_BITS[version] - prefix)


def is_inside(inner: Network, outer: Network) -> bool:
    """Return whether all addresses of one network are in the other."""
    longer = inner[1] - outer[1]
    return inner[0] == outer[0] and longer >= 0 and inner[2] >> longer == outer[2]


class NetworkSet:
    """A set of networks. ``address in networks`` is whether one of them contains the address."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = frozenset(networks)
        self._prefixes = sorted({network[:2] for network in self._networks})
        # A login asks about its address several times.
        self._has = lru_cache(maxsize=1024)(self._has_address)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "NetworkSet":
        """Return the set of networks given as text.

        Raises:
            ValueError: as `parse_network` does.
        """
        return cls(map(parse_network, texts))

    def __contains__(self, address: str) -> bool:
        return self._has(address)

    def _has_address(self, address: str) -> bool:
        return any(network in self._networks for network in enclosing(address, self._prefixes))

    def holds(self, network: Network) -> bool:
        """Return whether the set contains all addresses of `network`."""
        return any(is_inside(network, n) for n in self._networks)

    def overlaps(self, network: Network) -> bool:
        """Return whether the set contains an address of `network`."""
        return any(is_inside(network, n) or is_inside(n, network) for n in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __str__(self) -> str:
        return ", ".join(map(describe, sorted(self._networks))) or "none"
