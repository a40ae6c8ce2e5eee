"""The lean HTTP client against servers that do whatever a server may do, on both event loops."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import (
    ConfigurationError,
    EngineError,
    EngineUnavailableError,
    InvalidInputError,
    ModelNotFoundError,
    PlatformError,
    QueueFullError,
    WorkerDiedError,
)
from src.inference.engines.ollama import connection, pool
from src.inference.engines.ollama.client import OllamaClient
from tests.service import free_port
from tests.unit.inference.scripted_server import chunked, hang_up, scripted, silence, whole

pytestmark = pytest.mark.anyio
HI = {"response": "Hi", "done": True}
LINES = [{"response": "a", "done": False}, {"response": "b", "done": False}, {"response": "", "done": True}]
STREAM = (b'{"response":"a","done":false}\n', b'{"response":"b","done":false}\n', b'{"response":"","done":true}\n')
ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(STREAM[0]), STREAM[0])


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The service runs on uvloop, the Python door on asyncio's own loop."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@asynccontextmanager
async def client_of(url: str, *, timeout: float = 30.0, verify_ssl: bool = True) -> AsyncIterator[OllamaClient]:
    client = OllamaClient(url, timeout=timeout, verify_ssl=verify_ssl)
    try:
        yield client
    finally:
        await client.close()


async def ask(client: OllamaClient) -> Any:
    return await client.post("/api/generate", {"model": "tiny", "prompt": "Hello"})


async def streamed(client: OllamaClient) -> list[Any]:
    async with aclosing(client.lines("/api/generate", {"model": "tiny"})) as lines:
        return [line async for line in lines]


async def slowly(writer: asyncio.StreamWriter, answer: bytes) -> None:
    for place in range(len(answer)):
        writer.write(answer[place : place + 1])
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "answer",
    [
        whole(),
        chunked(b'{"response": "Hi",', b' "done": true}'),
        b"HTTP/1.1 100 Continue\r\n\r\n" + whole(),
        b'HTTP/1.1 200 OK\r\n\r\n{"response": "Hi", "done": true}',
        b'HTTP/1.0 200 OK\r\nContent-Length: 32\r\n\r\n{"response": "Hi", "done": true}',
    ],
    ids=["length", "chunks", "continue", "until-the-end", "http-1.0"],
)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_an_answer_is_read_however_it_is_framed(answer: bytes, bytewise: bool) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (slowly(writer, answer) if bytewise else asyncio.sleep(0, writer.write(answer)))
        if b"Content-Length" not in answer and b"chunked" not in answer:
            writer.close()

    async with scripted(send) as server, client_of(server.url) as client:
        assert await ask(client) == HI


async def test_a_request_names_host_type_and_length() -> None:
    async with scripted(whole()) as server:
        address = server.url.replace("http://", "http://me:s%20cret@") + "/behind/a proxy/"
        async with client_of(address) as client:
            assert await ask(client) == HI
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    assert first == "POST /behind/a%20proxy/api/generate HTTP/1.1"
    assert f"Host: {server.url.removeprefix('http://')}" in headers
    assert {"Content-Type: application/json", "Content-Length: 33"} <= {*headers}
    assert "Authorization: Basic bWU6cyBjcmV0" in headers
    assert body == b'{"model":"tiny","prompt":"Hello"}'


@pytest.mark.parametrize(
    "answer", [chunked(*STREAM), chunked(b"".join(STREAM)), chunked(*(bytes([byte]) for byte in b"".join(STREAM)))]
)
async def test_lines_are_handed_out_whole(answer: bytes) -> None:
    async with scripted(answer) as server, client_of(server.url) as client:
        assert await streamed(client) == LINES


async def test_a_last_line_without_its_end_counts() -> None:
    async with scripted(chunked(b'{"status":"a"}\n\n', b'{"status":"b"}')) as server, client_of(server.url) as client:
        assert await streamed(client) == [{"status": "a"}, {"status": "b"}]


async def test_each_line_is_there_as_soon_as_it_has_come() -> None:
    async with scripted(silently_after(ENDLESS)) as server, client_of(server.url) as client:
        lines = client.lines("/api/generate", {})
        assert await asyncio.wait_for(anext(lines), 10) == LINES[0]
        await lines.aclose()


def silently_after(start: bytes) -> Any:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await silence(reader, writer)

    return send


async def test_a_connection_is_used_again() -> None:
    async with scripted(whole(), chunked(*STREAM), whole(b"{}")) as server, client_of(server.url) as client:
        assert await ask(client) == HI
        assert await streamed(client) == LINES
        assert await client.get("/api/tags") == {}
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        whole(headers="Connection: close\r\n"),
        whole() + b"HTTP/1.1 200 OK\r\n",
        b'HTTP/1.0 200 OK\r\nContent-Length: 32\r\n\r\n{"response": "Hi", "done": true}',
    ],
    ids=["said-so", "says-more-than-asked", "http-1.0"],
)
async def test_a_connection_that_cannot_be_kept_is_not(answer: bytes) -> None:
    async with scripted(answer, whole()) as server, client_of(server.url) as client:
        assert await ask(client) == await ask(client) == HI
    assert server.connections == 2


async def test_a_refusal_leaves_the_connection_usable() -> None:
    missing = whole(b'{"error": "model \'x\' not found"}', "404 Not Found")
    async with scripted(missing, missing, whole()) as server, client_of(server.url) as client:
        with pytest.raises(ModelNotFoundError, match="model 'x' not found"):
            await ask(client)
        with pytest.raises(ModelNotFoundError):
            await streamed(client)
        assert await ask(client) == HI
    assert server.connections == 1


async def test_a_stale_connection_is_replaced_once() -> None:
    async with scripted(whole(), hang_up, whole()) as server, client_of(server.url) as client:
        assert await ask(client) == await ask(client) == HI
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_server_that_hangs_up_on_the_new_connection_too_is_an_error() -> None:
    async with scripted(whole(), hang_up, hang_up, whole()) as server, client_of(server.url) as client:
        await ask(client)
        with pytest.raises(WorkerDiedError, match="closed it before it answered"):
            await ask(client)
        assert len(server.requests) == 3


async def test_a_new_connection_that_is_closed_is_not_tried_again() -> None:
    async with scripted(hang_up, whole()) as server, client_of(server.url) as client:
        with pytest.raises(WorkerDiedError) as caught:
            await ask(client)
        assert caught.value.retryable
        assert len(server.requests) == 1


async def test_a_request_that_the_server_may_have_worked_on_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALE_SECONDS", 0.0)
    async with scripted(whole(), hang_up, whole()) as server, client_of(server.url) as client:
        await ask(client)
        with pytest.raises(WorkerDiedError):
            await ask(client)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nContent-Le", whole()[:-5], chunked(*STREAM)[:-30], b"SSH-2.0\r\n"]
)
async def test_an_answer_that_breaks_off_is_a_retryable_error(start: bytes) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        writer.close()

    async with scripted(whole(), send, whole()) as server, client_of(server.url) as client:
        await ask(client)
        with pytest.raises(WorkerDiedError, match=r"^The connection to Ollama server at http://.* broke: ") as caught:
            await streamed(client)
        assert caught.value.retryable
        assert len(server.requests) == 2
        assert await ask(client) == HI


async def test_a_silent_server_is_given_up_after_the_timeout() -> None:
    async with scripted(silence) as server, client_of(server.url, timeout=0.05) as client:
        with pytest.raises(EngineUnavailableError, match="did not answer in time"):
            await ask(client)
        assert await server.all_left()


async def test_a_stream_that_stops_is_given_up_after_the_timeout() -> None:
    async with scripted(silently_after(ENDLESS)) as server, client_of(server.url, timeout=0.05) as client:
        with pytest.raises(EngineUnavailableError, match="did not answer in time"):
            await streamed(client)
        assert await server.all_left()


async def test_nobody_there() -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(EngineUnavailableError, match="Failed to connect to Ollama server"):
            await ask(client)


@pytest.mark.parametrize("answer", [silence, silently_after(ENDLESS)])
async def test_cancelling_closes_the_connection(answer: Any) -> None:
    async with scripted(answer) as server, client_of(server.url) as client:
        asking = asyncio.ensure_future(ask(client))
        await server.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await server.all_left()


async def test_leaving_a_stream_closes_the_connection() -> None:
    async with scripted(silently_after(ENDLESS)) as server, client_of(server.url) as client:
        async with aclosing(client.lines("/api/generate", {})) as lines:
            assert await anext(lines) == LINES[0]
        assert await server.all_left()


async def test_connections_are_bounded_and_the_next_waits_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.ConnectionPool.__init__, "__kwdefaults__", {"most": 2})
    async with scripted(*[whole()] * 9) as server, client_of(server.url) as client:
        assert await asyncio.gather(*(ask(client) for _ in range(9))) == [HI] * 9
    assert server.connections == 2


async def test_who_waits_for_a_connection_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.ConnectionPool.__init__, "__kwdefaults__", {"most": 1})
    async with scripted(silently_after(ENDLESS)) as server, client_of(server.url, timeout=0.2) as client:
        lines = client.lines("/api/generate", {})
        await anext(lines)
        with pytest.raises(EngineUnavailableError, match="did not answer in time"):
            await ask(client)
        await lines.aclose()


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEPT_SECONDS", -1.0)
    async with scripted(whole(), whole()) as server, client_of(server.url) as client:
        await ask(client)
        assert await server.all_left()
        await ask(client)
    assert server.connections == 2


async def test_closing_the_client_ends_what_is_under_way() -> None:
    async with scripted(silence) as server, client_of(server.url) as client:
        asking = asyncio.ensure_future(ask(client))
        await server.asked.wait()
        await client.close()
        with pytest.raises(WorkerDiedError):
            await asking
        assert await server.all_left()
        with pytest.raises(EngineUnavailableError):
            await ask(client)


async def test_a_large_request_and_a_large_answer_pass() -> None:
    text = "x" * 3_000_000
    async with scripted(whole(b'{"response": "%b"}' % text.encode())) as server, client_of(server.url) as client:
        assert await client.post("/api/generate", {"prompt": text}) == {"response": text}
        assert len(server.requests[0]) > len(text)


async def test_a_slow_reader_stops_the_server_and_not_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_UNREAD", 1000)
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3000):
            line = b'{"response":"%b","done":false}\n' % (b"x" * 10_000)
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with scripted(flood) as server, client_of(server.url) as client:
        lines = client.lines("/api/generate", {})
        await anext(lines)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 3000
        assert len([line async for line in lines]) == 2999


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (whole(b"<html>Bad gateway", "502 Bad Gateway"), EngineError, "<html>Bad gateway"),
        (whole(b"", "503 Service Unavailable"), QueueFullError, "Service Unavailable"),
        (whole(b"[1]"), EngineError, r"no Ollama server; it says 200 \[1\]"),
        (whole(b"\xff\xfe"), EngineError, "no Ollama server"),
        (whole(b"", "302 Found", "Location: /elsewhere\r\n"), EngineError, "it says 302 Found"),
    ],
)
async def test_an_answer_that_is_none_is_told(answer: bytes, kind: type[PlatformError], words: str) -> None:
    async with scripted(answer) as server, client_of(server.url) as client:
        with pytest.raises(kind, match=words):
            await ask(client)


async def test_what_json_cannot_hold_is_refused_before_anything_is_sent() -> None:
    async with client_of(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(InvalidInputError, match="cannot be written as JSON"):
            await client.post("/api/generate", {"prompt": "\ud800"})


@pytest.mark.parametrize(
    "address", ["localhost:11434", "ftp://host", "http://", "http://host:port", f"http://{'ü' * 70}"]
)
async def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ollama\.api_base"):
        OllamaClient(address, timeout=1.0, verify_ssl=True)


async def test_tls_is_checked_unless_told_otherwise(tls: ssl.SSLContext) -> None:
    async with scripted(whole(), chunked(*STREAM), tls=tls) as server:
        async with client_of(server.url) as strict:
            with pytest.raises(EngineUnavailableError, match=r"certificate .* cannot be trusted.*verify_ssl"):
                await ask(strict)
        async with client_of(server.url, verify_ssl=False) as client:
            assert await ask(client) == HI
            assert await streamed(client) == LINES
    assert len(server.requests) == 2


async def test_leaving_a_stream_over_tls_closes_the_connection(tls: ssl.SSLContext) -> None:
    async with scripted(silently_after(ENDLESS), tls=tls) as server, client_of(server.url, verify_ssl=False) as client:
        async with aclosing(client.lines("/api/generate", {})) as lines:
            assert await anext(lines) == LINES[0]
        assert await server.all_left()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that nobody has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ollama.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "ollama.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
