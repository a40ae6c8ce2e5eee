import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from src.api.errors import UnsupportedMediaTypeError
from src.api.form_intake import FormIntake
from src.api.uploads import Received, receive
from src.core.errors import (
    CancelledError,
    InvalidInputError,
    PayloadTooLargeError,
    PlatformError,
    StoreUnavailableError,
    ValidationError,
)
from tests.service import ROOT, free_port, stop, wait_until

pytestmark = pytest.mark.anyio

FORM = "multipart/form-data; boundary=xyz"
LIMIT = 10_000_000


def part(field: str, data: bytes, filename: str | None = None, headers: bytes = b"") -> bytes:
    name = f'; filename="{filename}"' if filename is not None else ""
    return (
        f'--xyz\r\nContent-Disposition: form-data; name="{field}"{name}\r\n'.encode()
        + headers
        + b"\r\n"
        + data
        + b"\r\n"
    )


def form(files: Mapping[str, bytes], fields: Mapping[str, str] | None = None, field: str = "files") -> bytes:
    texts = b"".join(part(name, value.encode()) for name, value in (fields or {}).items())
    return texts + b"".join(part(field, data, name, OCTETS) for name, data in files.items()) + b"--xyz--\r\n"


AGAIN = b'Content-Disposition: form-data; name="files"; filename="b"\r\n'
OCTETS = b"Content-Type: application/octet-stream\r\n"


def request_of(
    body: bytes, *, piece: int = 65_536, leaves: bool = False, content_type: str = FORM, **headers: str
) -> Request:
    """Returns a request whose body comes in pieces; with `leaves`, its client goes away instead of ending it."""
    sent = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for data in pieces:
            await asyncio.sleep(0)
            yield {"type": "http.request", "body": data, "more_body": True}
        yield {"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b"", "more_body": False}

    stream = messages()
    scope = {"type": "http", "method": "POST", "headers": [(k.encode(), v.encode()) for k, v in sent.items()]}
    return Request(scope, lambda: anext(stream))


async def received(body: bytes, folder: Path, **options: Any) -> Received:
    limits = {"max_bytes": options.pop("max_bytes", LIMIT), "max_files": options.pop("max_files", 1000)}
    return await receive(request_of(body, **options), folder, **limits)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {
    "model.safetensors": os.urandom(200_000),
    "sub/配置.json": b"{}",
    "empty.txt": b"",
    "lines.txt": b"\r\n--xy\r\n--\r\n\r\n-" * 50,
}


@pytest.mark.parametrize("piece", [1, 7, 1000, 65_536, 10_000_000])
@pytest.mark.parametrize("field", ["files", "file"])
async def test_files_arrive_as_they_were_sent_however_the_body_is_cut(field: str, piece: int, tmp_path: Path) -> None:
    files = FILES if piece > 7 else {**FILES, "model.safetensors": os.urandom(3000)}
    body = form(files, {"name": "my-model", "description": "von mir"}, field)
    arrived = await received(body, tmp_path / "in", piece=piece)
    assert files_below(tmp_path / "in") == files
    assert arrived.files == {name: len(data) for name, data in files.items()}
    assert arrived.fields == {"name": "my-model", "description": "von mir"}
    assert arrived.name == "my-model"


async def test_what_real_clients_send_is_understood(tmp_path: Path) -> None:
    names = ["a.json", "sub/b.json", "模型.txt", "with space.txt"]
    by_httpx = httpx.Request(
        "POST", "http://a/", files=[("files", (name, b"{}")) for name in names], data={"name": "m"}
    )
    arrived = await received(by_httpx.read(), tmp_path / "in", content_type=by_httpx.headers["content-type"])
    assert list(arrived.files) == names
    assert arrived.name == "m"


async def test_the_name_may_be_left_out(tmp_path: Path) -> None:
    assert (await received(form({"a.txt": b"1"}), tmp_path / "in")).name is None
    assert (await received(form({"a.txt": b"1"}, {"name": ""}), tmp_path / "in2")).name is None


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "..\\\\evil", "evil\x00.json", "nul", ".git/evil", "a//evil",
     "x" * 300, ".aiml-source.json", "evil\x1b"],
)  # fmt: skip
async def test_a_hostile_name_is_refused_and_nothing_stays(name: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidInputError, ValidationError)):
        await received(form({"fine.json": b"{}", name: b"x"}), tmp_path / "a/in")
    assert files_below(tmp_path) == {}
    assert not (tmp_path / "a/in").exists()


@pytest.mark.parametrize("names", [("a.json", "a.json"), ("a", "a/b"), ("a/b", "a")])
async def test_a_name_that_is_there_twice_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there twice"):
        await received(b"".join(part("files", b"x", name) for name in names) + b"--xyz--", tmp_path / "in")
    assert not (tmp_path / "in").exists()


async def test_more_than_the_limit_is_refused_at_once_where_the_length_is_told(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLargeError, match="AIML_MAX_UPLOAD_GB"):
        await received(b"", tmp_path / "in", content_length="10000001")
    assert not (tmp_path / "in").exists()


async def test_more_than_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLargeError):
        await received(form({"a": bytes(3_000_000)}), tmp_path / "in", max_bytes=2_000_000)
    assert not (tmp_path / "in").exists()


async def test_too_many_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLargeError, match="more than 3 files"):
        await received(form({f"{n}.txt": b"" for n in range(4)}), tmp_path / "in", max_files=3)


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (b"", ValidationError, "ends in the middle"),
        (b"--xyz--\r\n", ValidationError, "no file in the field"),
        (form({}, {"name": "m"}), ValidationError, "no file in the field"),
        (form({"a": b"x" * 5000})[:2500], ValidationError, "ends in the middle"),
        (form({"a": b"x" * 5000})[:-6], ValidationError, "ends in the middle"),
        (form({"a": b"x"}, {"title": "m"}), ValidationError, "unknown field 'title'"),
        (form({"a": b"x"}, {"name": "m" * 20_000}), PayloadTooLargeError, "longer than"),
        (part("name", b"a") + form({"a": b"x"}, {"name": "b"}), ValidationError, "there twice"),
        (part("name", b"\xff") + form({"a": b"x"}), ValidationError, "is not UTF-8"),
        (part("files", b"text") + b"--xyz--", ValidationError, "takes files, not text"),
        (form({"": b"text"}), ValidationError, "takes files, not text"),
        (b"hello", ValidationError, "cannot be read"),
        (b"--other\r\n\r\n", ValidationError, "cannot be read"),
        (b"--xyz\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\n", ValidationError, "cannot be read"),
        (b"--xyz\r\n" + b"a" * 300_000, ValidationError, "bytes of headers"),
        (b"--xyz\r\n" + b"a: b\r\n" * 50_000, ValidationError, "bytes of headers"),
        (part("files", b"", "a", AGAIN), ValidationError, "two Content-Disposition headers"),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_such_form_is_refused(
    body: bytes, error: type[PlatformError], why: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=why):
        await received(body, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/mixed; boundary=xyz", "text/plain"])
async def test_another_content_type_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="files in a form"):
        await received(b"{}", tmp_path / "in", content_type=kind)


@pytest.mark.parametrize("rest", ["", "; boundary=", "; boundary=" + "x" * 300])
async def test_a_form_without_a_sound_boundary_is_refused(rest: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="Content-Type of the form"):
        await received(b"", tmp_path / "in", content_type="multipart/form-data" + rest)


@pytest.mark.parametrize("size", [100, 5_000_000])
async def test_of_a_client_that_leaves_midway_nothing_stays(size: int, tmp_path: Path) -> None:
    with pytest.raises(CancelledError, match="nothing of it is kept"):
        await received(form({"a": bytes(size)})[:-50], tmp_path / "in", leaves=True)
    assert not (tmp_path / "in").exists()


async def test_of_a_request_that_is_cancelled_nothing_stays(tmp_path: Path) -> None:
    endless = request_of(form({"a": bytes(5_000_000)})[:-50])
    body = endless.receive

    silent = asyncio.Event()

    async def then_silence() -> Any:
        message = await body()
        if not message["more_body"]:
            silent.set()
            await asyncio.Event().wait()
        return message

    waiting = Request(endless.scope, then_silence)
    task = asyncio.create_task(receive(waiting, tmp_path / "in", max_bytes=LIMIT))
    await silent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "in").exists()


async def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.api.form_intake._FilePart.on_data", full)
    with pytest.raises(StoreUnavailableError, match="no room left"):
        await received(form(FILES), tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_after_it_was_discarded_nothing_is_written(tmp_path: Path) -> None:
    intake = FormIntake(FORM, tmp_path / "in", max_bytes=LIMIT, max_files=3)
    intake.discard()
    with pytest.raises(ValidationError, match="broken off"):
        intake.feed(form({"sub/a": b"x"}))
    assert not (tmp_path / "in").exists()


def test_what_follows_the_end_is_bounded(tmp_path: Path) -> None:
    intake = FormIntake(FORM, tmp_path / "in", max_bytes=LIMIT, max_files=3)
    intake.feed(form({"a": b"x"}))
    with pytest.raises(ValidationError, match="behind its end"):
        intake.feed(bytes(300_000))


def test_the_library_is_imported_on_first_use_only() -> None:
    code = "import sys, src.api.uploads\nsys.exit('streaming_form_data' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


SERVER = """
import sys
from pathlib import Path
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from src.api.errors import status_of
from src.api.uploads import receive
from src.core.errors import PlatformError
from src.core.stores.disk import unique_name

async def upload(request):
    try:
        arrived = await receive(request, Path(sys.argv[2]) / unique_name(), max_bytes=4_000_000_000)
    except PlatformError as exc:
        return JSONResponse({"error": exc.message}, status_of(exc))
    return JSONResponse(arrived.files)

async def health(request):
    return JSONResponse({"status": "healthy"})

app = Starlette(routes=[Route("/upload", upload, methods=["POST"]), Route("/health", health)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning")
"""


class Running:
    """A server of its own with the routes `/upload` and `/health`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        script = folder.parent / "server.py"
        script.write_text(SERVER)
        folder.mkdir()
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([sys.executable, script, str(self.port), folder], env=env)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def peak_memory(self) -> int:
        """Returns the most bytes that the server has held so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "arrived")
    try:
        wait_until(running.answers, 60, "the server to start")
        yield running
    finally:
        stop(running.process)


def test_a_connection_that_breaks_midway_leaves_nothing(server: Running) -> None:
    head = f"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nContent-Length: 9000000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head + form({"a": bytes(4_000_000)}))
        wait_until(lambda: any(server.folder.rglob("a")), 30, "the file to arrive")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    wait_until(lambda: not list(server.folder.iterdir()), 30, "the folder to go")


SENDER = """
import http.client, os, sys, time
size, block = int(sys.argv[2]), os.urandom(1_000_000)
head = b'--xyz\\r\\nContent-Disposition: form-data; name="files"; filename="model.bin"\\r\\n\\r\\n'
end = b"\\r\\n--xyz--\\r\\n"
started = time.perf_counter()
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), blocksize=1_000_000)
connection.putrequest("POST", "/upload")
connection.putheader("Content-Type", "multipart/form-data; boundary=xyz")
connection.putheader("Content-Length", str(len(head) + size + len(end)))
connection.endheaders()
connection.send(head)
for _ in range(size // len(block)):
    connection.send(block)
connection.send(end)
print(connection.getresponse().read().decode())
print(time.perf_counter() - started)
"""


@pytest.mark.slow
def test_others_are_answered_while_two_gigabytes_come_in_and_memory_stays_flat(
    server: Running, figure: Callable[[str], None]
) -> None:
    size, seconds = 2_000_000_000, []
    with httpx.Client(trust_env=False) as client:
        client.post(f"{server.url}/upload", content=form({"a": b"x"}), headers={"content-type": FORM})
        before = server.peak_memory()
        command = [sys.executable, "-c", SENDER, str(server.port), str(size)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
            while sender.poll() is None:
                started = time.perf_counter()
                client.get(f"{server.url}/health")
                seconds.append(time.perf_counter() - started)
                time.sleep(0.005)
            answer, taken = sender.communicate()[0].splitlines()
    p99 = sorted(seconds)[int(len(seconds) * 0.99)]
    grown = server.peak_memory() - before
    figure(
        f"{size / 1e9:.0f} GB at {size / float(taken) / 1e6:.0f} MB/s; p99 of another request {p99 * 1000:.1f} ms "
        f"over {len(seconds)}; memory grew by {grown / 1e6:.0f} MB"
    )
    assert json.loads(answer) == {"model.bin": size}
    assert p99 < 0.1
    assert grown < 50_000_000
