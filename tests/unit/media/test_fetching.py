"""The fetcher gets what may be fetched, under its own name."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest

from src.core.settings_sections import MediaSettings
from src.media.fetching import Fetcher
from tests.unit.media.sites import PNG, PUBLIC, Site, answer, fetched, names, refusal

pytestmark = pytest.mark.anyio


async def test_what_is_there_is_fetched_under_its_own_name(site: Site) -> None:
    assert await fetched(site.fetcher(), site.url("/picture?size=1#part")) == PNG
    assert site.asked == [(f"files.test:{site.port}", "/picture?size=1")]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://files.test:0/", "port 0"),
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


async def test_no_proxy_of_the_environment_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await fetched(site.fetcher(), site.url("/picture")) == PNG


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
