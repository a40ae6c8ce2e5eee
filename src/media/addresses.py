"""Which addresses of the internet protocol lead out into the public, and which into somebody's house.

Sources: the registries of special-purpose addresses (RFC 6890 and successors); addresses on which clouds answer
their machines with credentials.
"""

import ipaddress
import re
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' own; 100.100.100.200 tells Alibaba's machines about themselves
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's machines, about themselves
            "169.254.0.0/16",  # link-local; 169.254.169.254 tells most clouds' machines about themselves
            "172.16.0.0/12",
            "192.0.0.0/24",  # 192.0.0.192 tells Oracle's machines about themselves
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols' own, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4: another spelling of an IPv4 address
            "3fff::/20",
        ),
    )
)
_NUMERIC_LABEL = re.compile(r"(\d+|0x[0-9a-f]*)", re.ASCII | re.IGNORECASE)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet; IPv6 spellings of IPv4 addresses are not."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def is_own(address: Address) -> bool:
    """Whether this machine itself has the address; nothing is sent to find out."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False  # there is no way to it


def literal(host: str) -> Address | None:
    """Returns the address that a host is written as, None for a name; raises ValueError for an unusual spelling.

    `2130706433`, `0x7f.1` and `0177.0.0.1` are addresses to some libraries and names to others: neither here.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        if ":" in host or "%" in host or _NUMERIC_LABEL.fullmatch(last):
            raise
        return None
