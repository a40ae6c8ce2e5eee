"""Whose request it is, behind proxies that are believed and behind others."""

import pytest

from src.api.forwarding import Proxies, farthest, household, scheme

PROXY, OTHER_PROXY, CLIENT, LIAR = "10.0.0.5", "10.0.0.6", "203.0.113.7", "198.51.100.1"
BELIEVED = Proxies(["10.0.0.0/24", "::1"])


def forwarded(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), *((b"x-forwarded-for", line.encode("latin-1")) for line in lines)]


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        (CLIENT, [], CLIENT),
        (LIAR, [CLIENT], LIAR),
        (PROXY, [], PROXY),
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"{LIAR}, {CLIENT}"], CLIENT),
        (PROXY, [LIAR, CLIENT], CLIENT),
        (PROXY, [f"{LIAR}, {CLIENT}, {OTHER_PROXY}"], CLIENT),
        (PROXY, [f"{LIAR},{CLIENT}", OTHER_PROXY], CLIENT),
        (PROXY, [OTHER_PROXY], OTHER_PROXY),
        (PROXY, [f"{CLIENT}:5678"], CLIENT),
        ("::1", ["[2001:db8::7]:5678"], "2001:db8::7"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.5", [CLIENT], CLIENT),
        (PROXY, ["unknown"], PROXY),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["x" * 10_000], PROXY),
        ("testclient", [CLIENT], "testclient"),
    ],
)
def test_the_last_address_that_is_no_believed_proxy_is_the_caller(peer: str, lines: list[str], expected: str) -> None:
    assert BELIEVED.client(peer, forwarded(*lines)) == expected


def test_nobody_is_believed_unless_named() -> None:
    assert Proxies([]).client("127.0.0.1", forwarded(CLIENT)) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_customer_has_one_name_for_all_its_addresses(address: str, expected: str) -> None:
    assert household(address) == expected


@pytest.mark.parametrize(
    ("peer", "lines", "expected"),
    [
        ("127.0.0.1", [CLIENT], CLIENT),
        ("127.0.0.1", [f"{CLIENT}, 127.0.0.1"], CLIENT),
        ("::1", [CLIENT], CLIENT),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "unknown"),
        (CLIENT, ["127.0.0.1"], CLIENT),
        (None, [CLIENT], None),
    ],
)
def test_what_a_proxy_of_this_machine_passes_on_does_not_come_from_this_machine(
    peer: str | None, lines: list[str], expected: str | None
) -> None:
    assert farthest(peer, forwarded(*lines)) == expected


@pytest.mark.parametrize(
    ("peer", "said", "expected"),
    [
        ("127.0.0.1", b"https", "https"),
        (CLIENT, b"https", "http"),
        ("127.0.0.1", b"gopher", "http"),
        (None, b"https", "http"),
    ],
)
def test_only_a_proxy_of_this_machine_tells_the_scheme(peer: str | None, said: bytes, expected: str) -> None:
    assert scheme(peer, said, "http") == expected
