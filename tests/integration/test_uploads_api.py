"""Users' own files over HTTP: in as a form, out as an answer; what is hostile is refused and leaves nothing."""

import io
import json
import os
import pickle
import socket
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.lifecycle import DEMO, Platform, ok, refused, running_platform
from tests.service import CLIENT, wait_until

MAX_BYTES = 4_000_000
MAX_JSON = 100_000
FILES = {file.name: file.read_bytes() for file in DEMO.iterdir()}
QUIET_SECONDS = 10.0


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A service with small limits."""
    limits = {"AIML_MAX_UPLOAD_GB": str(MAX_BYTES / 1e9), "AIML_MAX_BODY_MB": str(MAX_JSON / 1e6)}
    with running_platform(tmp_path_factory.mktemp("uploads"), **limits) as running:
        yield running


def send(platform: Platform, files: Mapping[str, bytes], name: str | None = None, where: str = "models") -> Any:
    parts: list[tuple[str, Any]] = [("files", (path, content)) for path, content in files.items()]
    return CLIENT.post(
        f"{platform.service.url}/{where}/upload", files=parts, data={"name": name} if name else {}, timeout=120
    )


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return packed.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Evil:
    """What runs a command where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self._witness}",)


def evil_weights(witness: Path) -> dict[str, bytes]:
    """The same code in the two formats that `torch.load` reads."""
    code = pickle.dumps(Evil(witness), protocol=2)
    new = zipped({"archive/data.pkl": code, "archive/version": b"3\n", "archive/byteorder": b"little"})
    return {"old.bin": code, "new.pt": new}


def test_a_model_of_ones_own_comes_in_by_every_way_and_answers(platform: Platform) -> None:
    folder = {f"adder/{path}": content for path, content in FILES.items()}
    sent = {
        "as-files": send(platform, FILES, "as-files"),
        "as-zip": send(platform, {"as-zip.zip": zipped(folder)}),
        "as-tar": send(platform, {"model.tar.gz": tarred(FILES)}, "as-tar"),
    }
    described = {name: ok(response) for name, response in sent.items()}

    assert {name: entry["name"] for name, entry in described.items()} == {name: name for name in sent}
    assert {entry["architecture"] for entry in described.values()} == {"LlamaForCausalLM"}
    listed = platform.get("/models/local")
    assert [entry["name"] for entry in listed] == sorted(sent)
    assert all({file["path"] for file in entry["files"]} == FILES.keys() for entry in listed)
    bodies = [{"repo_name": "adders", "local_model_name": name, "branch": name} for name in sent]
    commits = [platform.post("/models/upload_to_lakefs", body) for body in bodies]
    assert len({commit["digest"] for commit in commits}) == 1
    body = {"registered_name": "adder", "task": "text-generation", "lakefs_repo": "adders", "stage": "production"}
    result = platform.post("/models/register_from_lakefs", {**body, "commit_id": commits[1]["commit_id"]})["result"]
    assert result["tags"]["model_source"] == "upload"
    answer = ok(platform.service.infer("adder"))
    assert answer["result"]["generated_text"] == "72"
    assert answer["provenance"]["digest"] == commits[0]["digest"]


def test_one_folder_may_hold_others(platform: Platform) -> None:
    entry = ok(send(platform, {"config.json": b"{}", "onnx/config.json": b"{}"}, "nested"))
    assert [file["path"] for file in entry["files"]] == ["config.json", "onnx/config.json"]


@pytest.mark.parametrize(
    ("files", "name", "status", "words"),
    [
        ({"config.json": b"{}", "modeling.py": b"import os"}, "x", 400, ["modeling.py", "code"]),
        ({"setup.exe": b"MZ"}, "x", 400, ["setup.exe", "program"]),
        ({"weights.pkl": b"\x80\x04."}, "x", 400, ["weights.pkl", "safetensors"]),
        ({"model.safetensors": b"not that"}, "x", 400, ["model.safetensors", "no safetensors"]),
        ({"config.json": b"{"}, "x", 400, ["config.json", "no JSON"]),
        ({"../config.json": b"{}"}, "x", 400, ["../config.json", "out of its folder"]),
        ({"/etc/config.json": b"{}"}, "x", 400, ["/etc/config.json", "absolute"]),
        ({"config.json": b"{}"}, "../x", 400, ["'../x'", "folder name"]),
        ({"config.json": b"{}", "vocab.json": b"{}"}, None, 400, ["'name'"]),
        ({"a.zip": zipped({"config.json": b"{}"}), "b.json": b"{}"}, "x", 400, ["a.zip", "archive"]),
        ({"a.zip": zipped({"config.json": b"{}", "../evil.json": b"{}"})}, "x", 400, ["../evil.json"]),
        ({"a.tgz": tarred({"config.json": b"{}", "/evil.json": b"{}"})}, "x", 400, ["/evil.json", "absolute"]),
        ({"a.zip": zipped({"run.sh": b"rm"})}, "x", 400, ["run.sh", "program"]),
        ({"a.zip": b"PK no archive"}, "x", 400, ["a.zip", "cannot be unpacked"]),
        ({"a.zip": zipped({})}, "x", 400, ["no files"]),
        ({"a.zip": zipped({"w.gguf": b"GGUF" + bytes(MAX_BYTES)})}, "x", 413, ["unpacks to more"]),
        ({"w.gguf": b"GGUF" + bytes(MAX_BYTES)}, "x", 413, ["AIML_MAX_UPLOAD_GB"]),
        ({}, "x", 415, ["multipart/form-data"]),
    ],
)
def test_what_is_refused_is_named_and_leaves_nothing(
    platform: Platform, files: dict[str, bytes], name: str | None, status: int, words: list[str]
) -> None:
    before = platform.staged_names()

    refused(send(platform, files, name), status, *words)

    assert platform.litter() == []
    assert platform.staged_names() == before


def test_pickles_with_code_are_refused_and_do_not_run(platform: Platform, tmp_path: Path) -> None:
    failure = refused(send(platform, evil_weights(tmp_path / "ran"), "evil"), 400, "weights_only", "safetensors")

    assert failure["details"]["refused"].keys() == {"old.bin", "new.pt"}
    assert all("system" in reason for reason in failure["details"]["refused"].values())
    assert not (tmp_path / "ran").exists()
    assert platform.litter() == []
    assert "evil" not in platform.staged_names()


FIELD = b'--abc\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    ("content_type", "body", "status", "words"),
    [
        ("application/json", b"{}", 415, ["multipart/form-data", "application/json"]),
        ("multipart/form-data", b"x", 422, ["Content-Type", "curl -F"]),
        ("multipart/form-data; boundary=abc", b"", 422, ["curl -F"]),
        (
            "multipart/form-data; boundary=abc",
            FIELD % (b"files", b'; filename="a.json"', b"{}"),
            422,
            ["in the middle"],
        ),
        ("multipart/form-data; boundary=abc", FIELD % (b"name", b"", b"x") + b"--abc--\r\n", 422, ["no file"]),
        ("multipart/form-data; boundary=abc", FIELD % (b"files", b"", b"x") + b"--abc--\r\n", 422, ["takes files"]),
        ("multipart/form-data; boundary=abc", FIELD % (b"nam", b"", b"x") + b"--abc--\r\n", 422, ["'nam'"]),
    ],
)
def test_a_body_that_is_no_form_with_files_is_told(
    platform: Platform, content_type: str, body: bytes, status: int, words: list[str]
) -> None:
    url = f"{platform.service.url}/models/upload"
    refused(CLIENT.post(url, content=body, headers={"Content-Type": content_type}, timeout=60), status, *words)
    assert platform.litter() == []


def begun(platform: Platform, path: str, headers: str, body: bytes) -> socket.socket:
    """Sends the beginning of a request."""
    address = urlsplit(platform.service.url)
    connection = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n".encode() + body)
    return connection


def test_a_client_that_leaves_midway_leaves_nothing(platform: Platform) -> None:
    before = platform.staged_names()
    head = b'--abc\r\nContent-Disposition: form-data; name="files"; filename="a.gguf"\r\n\r\nGGUF'
    headers = f"Content-Type: multipart/form-data; boundary=abc\r\nContent-Length: {MAX_BYTES - 1}"
    with begun(platform, "/models/upload", headers, head + bytes(2_000_000)):
        wait_until(lambda: platform.litter() != [], QUIET_SECONDS, "the upload to begin")
    wait_until(lambda: platform.litter() == [], QUIET_SECONDS, "what it left to go")
    assert platform.staged_names() == before


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@pytest.mark.parametrize("path", ["/models/download", "/datasets/checkout", "/models/transition_stage"])
def test_json_in_chunks_is_refused_once_it_is_too_large(platform: Platform, path: str) -> None:
    """The body never ends: an answer comes only from who does not wait for all of it."""
    headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked"
    body = b'{"model_name": "' + b"x" * MAX_JSON
    with begun(platform, path, headers, chunk(body) + chunk(body)) as connection:
        answer = HTTPResponse(connection)
        answer.begin()
        failure = json.loads(answer.read())
    assert (answer.status, failure["error_type"]) == (413, "PayloadTooLargeError")
    assert "AIML_MAX_BODY_MB" in failure["error"]


def test_a_form_in_chunks_may_be_larger_than_json_but_not_than_its_own_limit(platform: Platform) -> None:
    def form(size: int) -> Iterator[bytes]:
        yield b'--abc\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n'
        yield from (b"x" * 100_000 for _ in range(size // 100_000))
        yield b"\r\n--abc--\r\n"

    def sent(size: int) -> httpx.Response:
        headers = {"Content-Type": "multipart/form-data; boundary=abc"}
        return CLIENT.post(f"{platform.service.url}/models/upload", content=form(size), headers=headers, timeout=60)

    assert ok(sent(5 * MAX_JSON))["size_bytes"] == 5 * MAX_JSON
    before = platform.staged_names()
    refused(sent(2 * MAX_BYTES), 413, "AIML_MAX_UPLOAD_GB")
    assert platform.litter() == []
    assert platform.staged_names() == before


def test_what_is_staged_is_removed_when_asked(platform: Platform) -> None:
    ok(send(platform, {"config.json": b"{}"}, "unwanted"))
    assert "unwanted" in ok(platform.delete("/models/local/unwanted"))["message"]
    refused(platform.delete("/models/local/unwanted"), 404, "unwanted")
    refused(platform.delete("/models/local/..%2F..%2Fmlflow.db"), 404)
    assert platform.litter() == []
