"""The fake hub's sockets: ranges, faults, restarts, and who may take a large file."""

import time
from collections.abc import Iterator

import httpx
import pytest

from src.testing.fake_hub import FakeHub, FakeRepo

WEIGHTS = bytes(range(256)) * 4096
LARGE = "/org/tiny/resolve/main/model.safetensors"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub([FakeRepo("org/tiny", {"a.txt": b"0123456789", "model.safetensors": WEIGHTS})]) as hub:
        yield hub


@pytest.fixture
def client(hub: FakeHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, follow_redirects=True) as client:
        yield client


@pytest.mark.parametrize(("asked", "got"), [("bytes=3-", b"3456789"), ("bytes=3-5", b"345"), ("bytes=8-99", b"89")])
def test_a_range_is_what_was_asked_for(client: httpx.Client, asked: str, got: bytes) -> None:
    answer = client.get("/org/tiny/resolve/main/a.txt", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, got)
    assert answer.headers["Content-Range"].endswith("/10")


def test_a_range_past_the_end_is_refused(client: httpx.Client) -> None:
    answer = client.get("/org/tiny/resolve/main/a.txt", headers={"Range": "bytes=10-"})
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */10")


def test_ranges_may_be_ignored(hub: FakeHub, client: httpx.Client) -> None:
    hub.faults.ranges = False
    answer = client.get("/org/tiny/resolve/main/a.txt", headers={"Range": "bytes=3-"})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


def test_a_large_file_comes_from_the_other_address_by_a_signed_link(hub: FakeHub, client: httpx.Client) -> None:
    redirect = client.head(LARGE, follow_redirects=False)
    location = redirect.headers["Location"]
    assert location.startswith(hub.storage_url)
    assert redirect.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert httpx.get(location).content == WEIGHTS
    assert httpx.get(location.partition("&Signature")[0]).status_code == 403
    assert httpx.get(location, headers={"Authorization": "Bearer hf_x"}).status_code == 400


def test_what_goes_out_is_counted_by_file(hub: FakeHub, client: httpx.Client) -> None:
    client.get(LARGE)
    client.get("/org/tiny/resolve/main/a.txt", headers={"Range": "bytes=4-"})
    client.head("/org/tiny/resolve/main/a.txt")
    assert (hub.bytes_sent("model.safetensors"), hub.bytes_sent("a.txt")) == (len(WEIGHTS), 6)
    assert (hub.fetches("a.txt"), hub.fetches(), hub.bytes_sent()) == (1, 2, len(WEIGHTS) + 6)


def test_a_cut_ends_the_connection_after_so_many_bytes(hub: FakeHub, client: httpx.Client) -> None:
    hub.faults.cut(after=1000, times=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError, match="received 1000 bytes"):
            client.get(LARGE)
    assert client.get(LARGE).content == WEIGHTS
    assert hub.bytes_sent() == 2000 + len(WEIGHTS)


def test_a_cut_waits_for_an_answer_that_is_long_enough(hub: FakeHub, client: httpx.Client) -> None:
    hub.faults.cut(after=1000)
    assert client.get("/org/tiny/resolve/main/a.txt").content == b"0123456789"
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(LARGE)


def test_refusals_are_used_up_and_say_when_to_come_back(hub: FakeHub, client: httpx.Client) -> None:
    hub.faults.unavailable(times=2, path="/api/models", retry_after=7)
    assert client.get("/org/tiny/resolve/main/a.txt").status_code == 200
    answers = [client.get("/api/models/org/tiny") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "7"


@pytest.mark.parametrize(("times", "right"), [(1, [False, True, True]), (None, [False, False, False])])
def test_a_flipped_byte_comes_once_or_always(
    hub: FakeHub, client: httpx.Client, times: int | None, right: list[bool]
) -> None:
    hub.faults.flip("a.txt", times=times)
    got = [client.get("/org/tiny/resolve/main/a.txt").content for _ in range(3)]
    assert [content == b"0123456789" for content in got] == right
    assert len(got[0]) == 10


def test_slowness_is_a_pace(hub: FakeHub, client: httpx.Client) -> None:
    hub.faults.slow(len(WEIGHTS) * 4)
    began = time.monotonic()
    assert client.get(LARGE).content == WEIGHTS
    assert time.monotonic() - began > 0.2


def test_it_stops_under_its_clients_and_starts_at_the_same_address(hub: FakeHub) -> None:
    url, storage = hub.url, hub.storage_url
    hub.faults.slow(1000)
    with httpx.stream("GET", url + LARGE, follow_redirects=True) as answer:
        chunks = answer.iter_bytes()
        next(chunks)
        hub.stop()
        with pytest.raises(httpx.TransportError):
            list(chunks)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    hub.faults.clear()
    hub.start()
    assert (hub.url, hub.storage_url) == (url, storage)
    assert httpx.get(url + LARGE, follow_redirects=True).content == WEIGHTS


def test_it_starts_once(hub: FakeHub) -> None:
    with pytest.raises(RuntimeError, match="already"):
        hub.start()


def test_an_unknown_route_is_not_found(client: httpx.Client) -> None:
    assert client.get("/nowhere").status_code == 404
