"""The fetcher gets what is public, and nothing else, however it is spelled."""

import asyncio
import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError, PlatformError, QueueFullError
from src.media import fetching
from src.media.addresses import is_own, is_public, literal
from src.media.fetching import Fetcher
from src.media.settings import MediaSettings

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n and so on"
PUBLIC = "93.184.216.34"


@dataclass
class Site:
    """A server on this machine, and what it was asked."""

    port: int
    answers: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "files.test") -> str:
        """Returns the address of something there."""
        return f"http://{host}:{self.port}{path}"

    def fetcher(self, settings: MediaSettings | None = None, host: str = "files.test") -> Fetcher:
        """Returns a fetcher that may go there."""
        return Fetcher(settings or MediaSettings(), [f"{host}:{self.port}"], resolve=names({host: ["127.0.0.1"]}))


def names(known: dict[str, list[str]]) -> fetching.Resolve:
    """Returns a resolver that knows these names."""

    async def resolve(host: str, port: int) -> list[str]:
        if host not in known:
            raise OSError("no such name")
        return known[host]

    return resolve


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that sends a PNG from `/picture`, and what tests add."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place.asked.append((self.headers["Host"], self.path))
            place.answers.get(self.path, lambda handler: answer(handler, PNG))(self)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    place = Site(server.server_port)
    thread = threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True)
    thread.start()
    yield place
    server.shutdown()
    server.server_close()
    thread.join()


def answer(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Sends an answer; underscores in names of headers stand for dashes."""
    handler.send_response(status)
    told = {"Content_Type": "image/png", "Content_Length": str(len(body)), **headers}
    for name, value in told.items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@asynccontextmanager
async def closing(fetcher: Fetcher) -> AsyncIterator[Fetcher]:
    """Closes a fetcher after use."""
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def fetched(fetcher: Fetcher, url: str, kind: str = "image") -> bytes:
    """Returns what is fetched."""
    async with closing(fetcher):
        with await fetcher.fetch(url, kind, kind) as content:
            return content.read()


async def streamed() -> AsyncIterator[bytes]:
    """Yields the picture as it comes from a network."""
    yield PNG


async def refusal(fetcher: Fetcher, url: str, kind: str = "image") -> PlatformError:
    """Returns the error that a URL is refused with."""
    with pytest.raises(PlatformError) as caught:
        await fetched(fetcher, url, kind)
    return caught.value


async def test_what_is_there_is_fetched_under_its_own_name(site: Site) -> None:
    assert await fetched(site.fetcher(), site.url("/picture?size=1#part")) == PNG
    assert site.asked == [(f"files.test:{site.port}", "/picture?size=1")]


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


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://files.test:22/", "port 22"),
        ("http://files.test:6379/", "port 6379"),
        ("http://user@files.test/", "user name or password"),
        ("http:///path", "no host"),
        ("http://files.test/" + "a" * 5000, "4096 characters"),
        ("http://files.test:99999/", "port 99999"),
        ("http://files.test:port/", "is none"),
        ("http://fi les.test/", "unusual"),
        ("http://nowhere.test/", "cannot be found"),
        ("http://files.test\r\nX-Evil: 1/", "is none"),
    ],
)
async def test_a_url_that_may_not_be_fetched_is_refused_with_the_reason(url: str, problem: str) -> None:
    error = await refusal(Fetcher(MediaSettings(), resolve=names({"files.test": [PUBLIC]})), url)
    assert problem in error.message
    assert error.details == {"field": "image"}


async def test_only_the_exempted_port_of_a_host_is_exempt(site: Site) -> None:
    fetcher = Fetcher(MediaSettings(), ["127.0.0.1:1"])
    assert "names port" in (await refusal(fetcher, site.url("/picture", "127.0.0.1"))).message
    assert await fetched(Fetcher(MediaSettings(), [f"127.0.0.1:{site.port}"]), site.url("/", "127.0.0.1")) == PNG


@pytest.mark.parametrize(
    ("kind", "content_type", "passes"),
    [
        ("image", "image/png; charset=binary", True),
        ("image", "application/octet-stream", True),
        ("image", "", True),
        ("image", "text/html; charset=utf-8", False),
        ("image", "audio/wav", False),
        ("audio", "audio/x-wav", True),
        ("audio", "video/mp4", True),
        ("video", "video/webm", True),
        ("video", "image/png", False),
        ("document", "application/pdf", True),
        ("document", "image/tiff", True),
        ("document", "application/zip", False),
    ],
)
async def test_the_content_type_must_be_one_of_the_kind(site: Site, kind: str, content_type: str, passes: bool) -> None:
    site.answers["/picture"] = lambda handler: answer(handler, PNG, Content_Type=content_type)
    if passes:
        assert await fetched(site.fetcher(), site.url("/picture"), kind) == PNG
    else:
        assert "answers with" in (await refusal(site.fetcher(), site.url("/picture"), kind)).message


@pytest.mark.parametrize("status", [204, 206, 301, 304, 404, 500])
async def test_another_status_is_refused(site: Site, status: int) -> None:
    site.answers["/picture"] = lambda handler: answer(handler, b"", status)
    assert f"status {status}" in (await refusal(site.fetcher(), site.url("/picture"))).message


async def test_a_length_past_the_bound_is_refused_before_the_body(site: Site) -> None:
    site.answers["/big"] = lambda handler: answer(handler, b"", Content_Length="40000000")
    error = await refusal(site.fetcher(), site.url("/big"))
    assert isinstance(error, PayloadTooLargeError)
    assert "media.max_image_mb" in error.message


async def test_a_body_that_tells_no_length_ends_at_the_bound(site: Site) -> None:
    sent = []

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler, b"", Content_Length="")
        try:
            for _ in range(2000):
                handler.wfile.write(bytes(100_000))
                sent.append(100_000)
        except OSError:
            pass

    site.answers["/endless"] = endless
    error = await refusal(site.fetcher(MediaSettings(max_image_mb=1)), site.url("/endless"))
    assert isinstance(error, PayloadTooLargeError)
    assert sum(sent) < 100_000_000


async def test_a_compressed_answer_is_refused_and_not_unpacked(site: Site) -> None:
    site.answers["/zipped"] = lambda handler: answer(handler, b"\x1f\x8b", Content_Encoding="gzip")
    assert "compressed" in (await refusal(site.fetcher(), site.url("/zipped"))).message


async def test_a_server_that_only_trickles_ends_with_the_time(site: Site) -> None:
    done = threading.Event()

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler, b"", Content_Length="1000")
        while not done.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    site.answers["/slow"] = trickle
    try:
        error = await refusal(site.fetcher(MediaSettings(fetch_timeout=0.5)), site.url("/slow"))
        assert "0.5 s (media.fetch_timeout)" in error.message
    finally:
        done.set()


async def test_an_answer_that_breaks_off_is_refused(site: Site) -> None:
    def break_off(handler: http.server.BaseHTTPRequestHandler) -> None:
        answer(handler, b"half", Content_Length="1000")
        handler.close_connection = True

    site.answers["/half"] = break_off
    assert "breaks off" in (await refusal(site.fetcher(), site.url("/half"))).message


async def test_nobody_listening_is_refused(site: Site) -> None:
    fetcher = Fetcher(MediaSettings(), ["127.0.0.1:9"])
    assert "cannot be reached" in (await refusal(fetcher, "http://127.0.0.1:9/")).message


async def test_no_proxy_of_the_environment_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await fetched(site.fetcher(), site.url("/picture")) == PNG


async def test_cancelling_leaves_no_connection(site: Site) -> None:
    done = threading.Event()
    site.answers["/slow"] = lambda handler: (answer(handler, b"", Content_Length="10"), done.wait(20))[0]
    async with closing(site.fetcher()) as fetcher:
        task = asyncio.create_task(fetcher.fetch(site.url("/slow"), "image", "image"))
        while not site.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.set()


async def test_no_more_are_fetched_at_a_time_than_may_be_until_one_is_closed(site: Site) -> None:
    async with closing(site.fetcher(MediaSettings(max_fetches=2, fetch_timeout=0.5))) as fetcher:
        held = [await fetcher.fetch(site.url("/picture"), "image", "image") for _ in range(2)]
        with pytest.raises(QueueFullError, match=r"media\.max_fetches"):
            await fetcher.fetch(site.url("/picture"), "image", "image")
        for content in held:
            content.close()
        for path in ("/missing-one", "/missing-two", "/missing-three"):
            site.answers[path] = lambda handler: answer(handler, b"", 404)
            with pytest.raises(InvalidInputError):
                await fetcher.fetch(site.url(path), "image", "image")
        (await fetcher.fetch(site.url("/picture"), "image", "image")).close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for `files.test` with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "files.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("files.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "files.test.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


async def test_tls_is_checked_against_the_name_and_not_the_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PNG) + PNG)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        resolve = names({"files.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
        allowed = [f"files.test:{port}", f"other.test:{port}"]
        assert await fetched(Fetcher(MediaSettings(), allowed, resolve=resolve), f"https://files.test:{port}/") == PNG
        error = await refusal(Fetcher(MediaSettings(), allowed, resolve=resolve), f"https://other.test:{port}/")
        assert "cannot be reached" in error.message


@pytest.mark.parametrize("text", [PUBLIC, "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:800::200e"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_an_address_of_this_machine_is_its_own() -> None:
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    assert not is_own(ipaddress.ip_address(PUBLIC))


@pytest.mark.parametrize("host", ["files.test", "a1.b2", "1e100.net", "0x.test", "cafe"])
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None
