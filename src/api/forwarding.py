"""What proxies in front of the service say of a request: whose it is. Headers come from strangers.

Each proxy appends to X-Forwarded-For whom it was asked by, so it is read from its end: what stands left of an address
that is no proxy of ours was written by that address, or by nobody.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from src.core.config import is_loopback

Headers = Iterable[tuple[bytes, bytes]]
_IPV6_NETWORK = 64
"""Bits of an IPv6 address that name a customer, who has all 2^64 addresses below them."""


class Proxies:
    """The proxies that are believed: `trusted` holds addresses and networks."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = [ip_network(entry, strict=False) for entry in trusted]

    def client(self, peer: str, headers: Headers) -> str:
        """Returns the address that asked, or the proxy in front of it where that does not tell an address."""
        found = peer
        if self.trusts(peer):
            for hop in hops(headers):
                if parsed(hop) is None:
                    break
                found = hop
                if not self.trusts(hop):
                    break
        return found

    def trusts(self, address: str) -> bool:
        """Whether an address is one of the proxies."""
        found = parsed(address) if self._networks else None
        return found is not None and any(found in network for network in self._networks)


def farthest(peer: str | None, headers: Headers) -> str | None:
    """Returns who asks this machine: through a proxy on it that is not the proxy, but the first one from elsewhere."""
    if peer is None or not is_loopback(peer):
        return peer
    return next((hop for hop in hops(headers) if not is_loopback(hop)), peer)


def scheme(peer: str | None, forwarded: bytes, seen: str) -> str:
    """Returns how the caller asked: as a proxy on this machine says in X-Forwarded-Proto, else as we see it."""
    said = forwarded.decode("latin-1").strip().lower()
    return said if said in ("http", "https") and peer is not None and is_loopback(peer) else seen


def hops(headers: Headers) -> Iterator[str]:
    """Yields what X-Forwarded-For holds, the nearest first, without the ports that some proxies write."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    for entry in reversed(",".join(lines).split(",") if lines else []):
        text = entry.strip()
        if text.startswith("["):
            yield text[1:].partition("]")[0]
        else:
            yield text.rpartition(":")[0] if text.count(":") == 1 else text


@lru_cache(maxsize=4096)
def household(address: str) -> str:
    """Returns whom an address stands for: itself, or of IPv6 the network of its customer."""
    found = parsed(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _IPV6_NETWORK), strict=False))
    return str(found or address)


@lru_cache(maxsize=4096)
def parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Returns an address, IPv4 also where IPv6 wraps it; None for what is none."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
