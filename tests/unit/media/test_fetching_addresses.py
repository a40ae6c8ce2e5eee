"""The fetcher goes to public addresses, and nowhere else, however they are spelled."""

import ipaddress

import httpx
import pytest

from src.core.errors import InvalidInputError
from src.core.settings_sections import MediaSettings
from src.media import fetching
from src.media.addresses import is_own, is_public, literal
from src.media.fetching import Fetcher
from tests.unit.media.sites import PNG, PUBLIC, Site, answer, fetched, names, refusal, streamed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "localhost",
        "localhost.",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.5",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:93.184.216.34]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "0",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
    ],
)
async def test_an_address_that_is_not_public_is_refused_in_every_spelling(host: str) -> None:
    async def unasked(name: str, port: int) -> list[str]:
        return {"localhost": ["127.0.0.1"], "localhost.": ["127.0.0.1"]}[name]

    error = await refusal(Fetcher(MediaSettings(), resolve=unasked), f"http://{host}/picture.png")
    assert isinstance(error, InvalidInputError)
    assert "`image`" in error.message
    assert "127" not in error.message


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], ["::1"], ["fe80::1%eth0"], ["169.254.169.254"], []],
)
async def test_a_name_with_one_address_that_is_not_public_is_refused(found: list[str]) -> None:
    error = await refusal(Fetcher(MediaSettings(), resolve=names({"trick.test": found})), "http://trick.test/")
    assert "public address" in error.message or "cannot be found" in error.message


async def test_this_machines_own_addresses_are_refused_even_where_they_are_public(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching.addresses, "is_own", lambda address: str(address) == PUBLIC)
    error = await refusal(Fetcher(MediaSettings(), resolve=names({"us.test": [PUBLIC]})), "http://us.test/")
    assert "public address" in error.message


async def test_the_real_resolver_is_asked_about_localhost_and_refused() -> None:
    assert "public address" in (await refusal(Fetcher(MediaSettings()), "http://localhost/")).message


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=streamed())

    minds = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])

    async def changing(host: str, port: int) -> list[str]:
        return next(minds)

    monkeypatch.setattr(fetching, "_transport", lambda: httpx.MockTransport(respond))
    assert await fetched(Fetcher(MediaSettings(), resolve=changing), "https://rebind.test/picture.png") == PNG
    (request,) = asked
    assert request.url.host == PUBLIC
    assert request.headers["host"] == "rebind.test"
    assert request.extensions["sni_hostname"] == "rebind.test"
    assert "cookie" not in request.headers
    assert "authorization" not in request.headers


async def test_the_next_address_is_tried_where_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.host == PUBLIC:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=streamed())

    monkeypatch.setattr(fetching, "_transport", lambda: httpx.MockTransport(respond))
    fetcher = Fetcher(MediaSettings(), resolve=names({"two.test": [PUBLIC, "93.184.216.35"]}))
    assert await fetched(fetcher, "http://two.test/") == PNG


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/secret",
        "http://169.254.169.254/latest/meta-data",
        "//[::1]/secret",
        "file:///etc/passwd",
        "http://2130706433/",
        "ftp://files.test/",
        "http://user:pass@files.test/",
        "gopher://127.0.0.1:6379/_x",
        "http://[::1",
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(site: Site, target: str) -> None:
    site.answers["/away"] = lambda handler: answer(handler, b"", 302, Location=target)
    error = await refusal(site.fetcher(), site.url("/away"))
    assert isinstance(error, InvalidInputError)
    assert len(site.asked) == 1


async def test_a_redirect_to_a_name_is_resolved_once_more(site: Site) -> None:
    known = {"files.test": ["127.0.0.1"], "inner.test": ["127.0.0.1"]}
    site.answers["/away"] = lambda handler: answer(handler, b"", 307, Location=site.url("/picture", "inner.test"))
    fetcher = Fetcher(MediaSettings(), [f"files.test:{site.port}"], resolve=names(known))
    assert "names port" in (await refusal(fetcher, site.url("/away"))).message
    fetcher = Fetcher(MediaSettings(), [f"files.test:{site.port}", f"INNER.test:{site.port}"], resolve=names(known))
    assert await fetched(fetcher, site.url("/away")) == PNG


async def test_three_redirects_are_followed_and_four_are_not(site: Site) -> None:
    for step in range(5):
        site.answers[f"/{step}"] = lambda handler, step=step: answer(handler, b"", 302, Location=f"/{step + 1}")  # type: ignore[misc]
    site.answers["/5"] = lambda handler: answer(handler, PNG)
    assert await fetched(site.fetcher(), site.url("/2")) == PNG
    assert "more than 3 times" in (await refusal(site.fetcher(), site.url("/1"))).message


@pytest.mark.parametrize("text", [PUBLIC, "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:800::200e"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_an_address_of_this_machine_is_its_own() -> None:
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert not is_own(ipaddress.ip_address(PUBLIC))


@pytest.mark.parametrize("host", ["files.test", "a1.b2", "1e100.net", "0x.test", "cafe"])
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None
