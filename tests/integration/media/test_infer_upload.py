"""Files beside the request: streamed to disk, read like any other input, and gone with the answer."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests import media_plugin
from tests.hostile import (
    MAX_IMAGE_MB,
    MAX_INPUTS,
    MAX_JSON_MB,
    MAX_MB,
    MAX_WAITING,
    PNG,
    UPLOAD,
    Hostile,
    data_uri,
    refused,
    request,
    running_hostile,
)
from tests.service import CLIENT, is_alive, wait_until
from tests.unit.media import faults
from tests.unit.media.media_files import noise, pdf, picture, shades, tone, video, wav

IMAGE = ("image", ("photo.png", PNG, "image/png"))
QUIET_SECONDS = 20.0
FORM = "multipart/form-data; boundary=abc"


def json_part(value: Any, content_type: str | None = None) -> tuple[str, tuple[Any, ...]]:
    """Returns the part `request`."""
    text = value if isinstance(value, bytes) else json.dumps(value)
    return ("request", (None, text, content_type) if content_type else (None, text))


def post(hostile: Hostile, *parts: tuple[str, tuple[Any, ...]], **headers: str) -> httpx.Response:
    return CLIENT.post(hostile.service.url + UPLOAD, files=list(parts), headers=headers, timeout=120)


def shapes(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["result"]["shapes"]


def asked() -> dict[str, Any]:
    return {**request(), "data": {"prompt": "why?"}}


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain; charset=utf-8"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_the_json_part_may_stand_anywhere_and_be_called_anything(
    hostile: Hostile, is_first: bool, content_type: str | None
) -> None:
    part = json_part(asked(), content_type)
    response = post(hostile, *((part, IMAGE) if is_first else (IMAGE, part)))
    assert shapes(response) == {"prompt": "why?", "image": [{"pixels": [20, 30, 3], "type": "image/png"}]}
    body = response.json()
    assert body["success"] is True
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["provenance"]["engine"] == media_plugin.ENGINE
    assert hostile.uploads() == []


def test_the_json_part_may_come_as_a_file_and_without_data(hostile: Hostile) -> None:
    part = ("request", ("request.json", json.dumps(request()), "application/json"))
    assert [image["type"] for image in shapes(post(hostile, part, IMAGE))["image"]] == ["image/png"]


def test_a_form_without_files_is_a_request_like_any_other(hostile: Hostile) -> None:
    body = {**request(), "data": {"image": data_uri(PNG)}}
    assert shapes(post(hostile, json_part(body)))["image"][0]["pixels"] == [20, 30, 3]


def test_every_kind_goes_to_the_field_it_is_named_after(hostile: Hostile) -> None:
    files = [
        ("audio", ("a", wav(tone(16_000), 16_000))),
        ("video", ("v", video(shades(12)))),
        ("document", ("d.pdf", pdf([[(72, 700, 12, "words")]]))),
    ]
    found = shapes(post(hostile, *files, json_part(asked())))
    assert found["audio"]["samples"] == [8000]
    assert found["video"]["frames"] == [4, 48, 64, 3]
    assert found["document"]["pages"][0]["words"] == ["words"]


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_several_files_of_a_name_become_a_list_in_their_order(hostile: Hostile, name: str) -> None:
    sizes = [(5, 6), (7, 8), (9, 10)]
    files = [(name, ("same.png", picture(noise(*size)))) for size in sizes]
    found = shapes(post(hostile, json_part(asked()), *files))
    assert [image["pixels"][:2] for image in found["image"]] == [list(size) for size in sizes]


def test_several_documents_are_the_pages_of_one(hostile: Hostile) -> None:
    files = [("document", ("page.png", PNG)), ("document", ("rest.pdf", pdf([[], []])))]
    assert len(shapes(post(hostile, json_part(asked()), *files))["document"]["pages"]) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sends_it_as_the_documentation_says(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture(noise(), "JPEG"))
    asking = f"request={json.dumps(asked())};type=application/json"
    command = ["curl", "-sS", "-F", asking, "-F", "image=@photo.jpg", hostile.service.url + UPLOAD]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["result"]["shapes"]["image"] == [{"pixels": [20, 30, 3], "type": "image/jpeg"}]


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/passwd", "a\\b.png", "x" * 5000, "", "nul\x1b", "照片.png"])
def test_what_a_file_is_called_does_not_matter(hostile: Hostile, name: str) -> None:
    body = (
        f'--abc\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + PNG
        + b'\r\n--abc\r\nContent-Disposition: form-data; name="request"\r\n\r\n'
        + json.dumps(request()).encode()
        + b"\r\n--abc--\r\n"
    )
    response = CLIENT.post(hostile.service.url + UPLOAD, content=body, headers={"Content-Type": FORM}, timeout=60)
    assert shapes(response)["image"][0]["pixels"] == [20, 30, 3]
    assert hostile.uploads() == []


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ([IMAGE], 422, ["no part 'request'", "curl -F"]),
        ([json_part(asked()), json_part(asked()), IMAGE], 422, ["'request' is there twice"]),
        ([json_part(b"{"), IMAGE], 422, ["'request' is no JSON"]),
        ([json_part(b"\xff"), IMAGE], 422, ["'request' is no JSON"]),
        ([json_part([1])], 422, ["'request' must be an object"]),
        ([json_part({"task": "shapes"})], 422, ["'engine' must be a text", "'model_name'"]),
        ([json_part({**request(), "data": None})], 422, ["'data' must be an object"]),
        ([json_part({**asked(), "optoins": {}})], 422, ["unknown field 'optoins'"]),
        ([json_part({**asked(), "task": "shape"})], 422, ["unknown task 'shape'", "did you mean 'shapes'"]),
        ([json_part({**asked(), "engine": "shapez"}), IMAGE], 422, ["unknown engine 'shapez'"]),
        ([json_part({**asked(), "task": "text-generation"}), IMAGE], 400, ["'image'", "takes no files"]),
        ([json_part(asked()), ("picture", ("a", PNG))], 400, ["'picture'", "'audio', 'document', 'image', 'video'"]),
        ([("picture", ("a", PNG)), json_part(asked())], 400, ["'picture'", "'audio', 'document', 'image', 'video'"]),
        ([json_part(request("look")), ("audio", ("a", PNG))], 400, ["'audio'", "under 'image'"]),
        ([json_part(asked()), ("prompt", (None, "hello"))], 400, ["'prompt' is no file", "'request'"]),
        ([json_part(asked()), ("image", (None, "https://x.test/a.png"))], 400, ["'image' is no file"]),
        ([json_part({**request(), "data": {"image": "a.png"}}), IMAGE], 400, ["`data.image` is there twice"]),
        ([IMAGE, json_part({**request(), "data": {"image": "a.png"}})], 400, ["`data.image` is there twice"]),
        ([json_part(asked()), *[("audio", ("a", b"x"))] * 2], 400, ["`data.audio` takes one file, and 2 came"]),
        ([json_part(asked()), *[IMAGE] * (MAX_INPUTS + 1)], 413, [f"more than {MAX_INPUTS} files", "media.max_inputs"]),
        ([json_part(asked()), ("image", ("a", bytes(MAX_IMAGE_MB * 1_000_000 + 1)))], 413, ["media.max_image_mb"]),
        ([("image", ("a", bytes(MAX_IMAGE_MB * 1_000_000 + 1))), json_part(asked())], 413, ["media.max_image_mb"]),
        ([("image", ("a", bytes(MAX_MB * 1_000_000 + 1))), json_part(asked())], 413, ["media.max_mb"]),
        ([json_part({**request(), "data": {"prompt": "x" * MAX_JSON_MB * 1_000_000}})], 413, ["AIML_MAX_BODY_MB"]),
        ([json_part(asked()), ("image", ("a.png", b""))], 400, ["`data.image` is empty"]),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_and_leaves_nothing(
    hostile: Hostile, parts: list[Any], status: int, words: list[str]
) -> None:
    body = refused(post(hostile, *parts), status)
    for word in words:
        assert word in body["error"], body["error"]
    assert hostile.uploads() == []


def test_a_failure_repeats_what_was_asked_for(hostile: Hostile) -> None:
    body = refused(post(hostile, json_part(asked()), ("image", ("a", b"<html>"))), 400)
    assert (body["task"], body["engine"], body["model_name"]) == ("shapes", "shapes", "any")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "words"),
    [
        ("application/json", b"{}", 415, "multipart/form-data"),
        ("multipart/form-data", b"x", 422, "Content-Type"),
        (FORM, b"", 422, "in the middle"),
        (FORM, b"--abc--\r\n", 422, "no part 'request'"),
        (FORM, b'--abc\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"task": "x', 422, "in the middle"),
        (FORM, b"--abc\r\n" + b"a: b\r\n" * 50_000, 422, "bytes of headers"),
        (FORM, b"--abc\r\nContent-Disposition: attachment\r\n\r\n", 422, "cannot be read"),
    ],
)
def test_a_body_that_is_no_form_is_told(
    hostile: Hostile, content_type: str, body: bytes, status: int, words: str
) -> None:
    url = hostile.service.url + UPLOAD
    response = CLIENT.post(url, content=body, headers={"Content-Type": content_type}, timeout=60)
    assert words in refused(response, status)["error"]
    assert hostile.uploads() == []


@pytest.mark.parametrize("origin", ["https://evil.test", "null"])
def test_a_foreign_page_cannot_upload(hostile: Hostile, origin: str) -> None:
    assert refused(post(hostile, json_part(asked()), IMAGE, Origin=origin), 403)["error_type"] == "ForbiddenError"


def test_only_post_is_taken(hostile: Hostile) -> None:
    assert hostile.service.get(UPLOAD).status_code == 405


def begun(hostile: Hostile, headers: str, body: bytes) -> socket.socket:
    """Sends the beginning of a request."""
    address = urlsplit(hostile.service.url)
    connection = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=60)
    connection.sendall(f"POST {UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n".encode() + body)
    return connection


FILE_HEAD = b'--abc\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


def test_a_form_that_tells_of_too_much_is_refused_before_it_comes(hostile: Hostile) -> None:
    with begun(hostile, f"Content-Type: {FORM}\r\nContent-Length: 900000000", b"") as connection:
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413
        assert b"media.max_mb x media.max_inputs" in answer.read()


def test_a_file_without_end_is_refused_once_it_is_too_large(hostile: Hostile) -> None:
    chunk = b"%x\r\n%b\r\n" % (MAX_MB * 1_000_000 + 10, FILE_HEAD + bytes(MAX_MB * 1_000_000 + 10 - len(FILE_HEAD)))
    with begun(hostile, f"Content-Type: {FORM}\r\nTransfer-Encoding: chunked", chunk + chunk) as connection:
        assert b" 413 " in connection.recv(65_536).partition(b"\r\n")[0]
    wait_until(lambda: hostile.uploads() == [], QUIET_SECONDS, "what it left to go")


def test_a_client_that_leaves_midway_leaves_nothing(hostile: Hostile) -> None:
    with begun(hostile, f"Content-Type: {FORM}\r\nContent-Length: 5000000", FILE_HEAD + bytes(2_000_000)):
        wait_until(lambda: hostile.uploads() != [], QUIET_SECONDS, "the upload to begin")
    wait_until(lambda: hostile.uploads() == [], QUIET_SECONDS, "what it left to go")


def test_more_uploads_than_may_be_on_their_way_are_turned_away_at_once(hostile: Hostile) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(MAX_WAITING):
            held.enter_context(begun(hostile, f"Content-Type: {FORM}\r\nContent-Length: 5000000", FILE_HEAD))
        wait_until(lambda: len(hostile.uploads()) == MAX_WAITING, QUIET_SECONDS, "the uploads to begin")
        response = post(hostile, json_part(asked()), IMAGE)
        assert response.status_code == 503
        assert response.json()["error_type"] == "QueueFullError"
        assert response.json()["retryable"] is True
        assert int(response.headers["retry-after"]) >= 1
    wait_until(lambda: hostile.uploads() == [], QUIET_SECONDS, "what they left to go")
    hostile.works()


def test_a_client_that_leaves_stops_the_decoding_of_its_file(hostile: Hostile) -> None:
    part = b'--abc\r\nContent-Disposition: form-data; name="request"\r\n\r\n' + json.dumps(request()).encode()
    body = FILE_HEAD + faults.file("hang") + b"\r\n" + part + b"\r\n--abc--\r\n"
    hostile.works()
    before = set(hostile.decoders())
    with begun(hostile, f"Content-Type: {FORM}\r\nContent-Length: {len(body)}", body):
        wait_until(lambda: hostile.uploads() != [], QUIET_SECONDS, "the upload to arrive")
        time.sleep(0.5)
    wait_until(lambda: hostile.uploads() == [], QUIET_SECONDS, "what it left to go")
    wait_until(lambda: not before <= set(hostile.decoders()), QUIET_SECONDS, "its decoder to end")
    hostile.works()


def test_what_a_killed_service_left_is_swept_at_the_next_start_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with running_hostile(tmp_path / "one") as one:
        with begun(one, f"Content-Type: {FORM}\r\nContent-Length: 5000000", FILE_HEAD + bytes(2_000_000)):
            wait_until(lambda: one.uploads() != [], QUIET_SECONDS, "the upload to begin")
            kept = one.uploads()
            os.kill(one.service.process.pid, 9)
            one.service.process.wait()
        assert kept == one.uploads()
    (tmp_path / "two").mkdir()
    with running_hostile(tmp_path / "two", data_dir=tmp_path / "one" / "data") as two:
        wait_until(lambda: two.uploads() == [], QUIET_SECONDS, "the files to be swept")
        with begun(two, f"Content-Type: {FORM}\r\nContent-Length: 5000000", FILE_HEAD + bytes(2_000_000)):
            wait_until(lambda: two.uploads() != [], QUIET_SECONDS, "the upload to begin")
            (tmp_path / "three").mkdir()
            with running_hostile(tmp_path / "three", data_dir=tmp_path / "one" / "data"):
                time.sleep(1)
                assert two.uploads() != []
    assert not is_alive(two.service.process.pid)
