"""The form of a request with files, however its bytes come; and the folder that its files wait in."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.api.arrivals import Arrivals
from src.api.infer_form import InferForm
from src.core.errors import InvalidInputError, PayloadTooLargeError, PlatformError, ValidationError
from src.core.settings_sections import MediaSettings
from src.inference.models.base import MediaField
from src.media.inputs import UploadedFile

FORM = "multipart/form-data; boundary=xyz"
SETTINGS = MediaSettings(max_inputs=2, max_image_mb=0.01, max_mb=0.02)
REQUEST = {"task": "look", "engine": "e", "model_name": "m", "data": {"prompt": "p"}}
PIXELS = os.urandom(3000) + b"\r\n--xy\r\n--xyz\r" + os.urandom(3000)


def media_of(task: str, engine: str, model_name: str) -> Mapping[str, MediaField]:
    assert (engine, model_name) == ("e", "m")
    return {"image": MediaField("image", many=True), "sound": MediaField("audio")}


def form_in(folder: Path) -> InferForm:
    return InferForm(FORM, folder / "in", SETTINGS, max_body=5000, media_of=media_of)


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    called = f'; filename="{filename}"' if filename is not None else ""
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{called}\r\n\r\n'.encode() + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--xyz--\r\n"


def fed(form: InferForm, data: bytes, piece: int = 65_536) -> dict[str, Any]:
    for start in range(0, len(data), piece):
        form.feed(data[start : start + piece])
    return form.finish()


ASK = part("request", json.dumps(REQUEST).encode())
PICTURE = part("image", PIXELS, "a.png")


@pytest.mark.parametrize("piece", [1, 2, 7, 1000, 65_536])
@pytest.mark.parametrize("parts", [(ASK, PICTURE), (PICTURE, ASK)], ids=["first", "last"])
def test_a_form_says_the_same_however_it_is_cut(tmp_path: Path, parts: tuple[bytes, ...], piece: int) -> None:
    found = fed(form_in(tmp_path), body(*parts), piece)
    file = found["data"].pop("image")
    assert found == REQUEST
    assert isinstance(file, UploadedFile)
    assert file.name == "a.png"
    assert file.path.read_bytes() == PIXELS


@pytest.mark.parametrize("filename", ["../../evil", "/etc/passwd", "request", "0"])
def test_files_lie_in_the_folder_whatever_they_are_called(tmp_path: Path, filename: str) -> None:
    found = fed(form_in(tmp_path), body(part("image[]", b"1", filename), part("image[]", b"2", filename), ASK))
    assert [file.path for file in found["data"]["image"]] == [tmp_path / "in/0", tmp_path / "in/1"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["0", "1"]


@pytest.mark.parametrize("is_list", [True, False])
def test_one_file_is_a_list_where_its_name_says_so(tmp_path: Path, is_list: bool) -> None:
    found = fed(form_in(tmp_path), body(ASK, part("image[]" if is_list else "image", b"1", "a")))
    assert isinstance(found["data"]["image"], list) is is_list


@pytest.mark.parametrize(
    ("early", "error", "words"),
    [
        (ASK + part("picture", b"", "a"), InvalidInputError, "takes files under 'image', 'sound'"),
        (part("picture", b"", "a") + ASK, InvalidInputError, "takes files under 'image', 'sound'"),
        (ASK + part("prompt", b"x"), InvalidInputError, "'prompt' is no file"),
        (part("request", b"[]"), ValidationError, "must be an object"),
        (ASK + ASK, ValidationError, "there twice"),
        (part("image", bytes(30_000), "a"), PayloadTooLargeError, r"media\.max_mb"),
        (ASK + part("image", bytes(15_000), "a"), PayloadTooLargeError, r"media\.max_image_mb"),
        (ASK + part("image", b"", "a") * 3, PayloadTooLargeError, "more than 2 files"),
        (part("request", bytes(6000)), PayloadTooLargeError, "AIML_MAX_BODY_MB"),
        (part("request", b"{") + part("image", b"", "a"), ValidationError, "is no JSON"),
    ],
)
def test_what_is_wrong_is_told_as_soon_as_it_is_there(
    tmp_path: Path, early: bytes, error: type[PlatformError], words: str
) -> None:
    form = form_in(tmp_path)
    with pytest.raises(error, match=words):
        form.feed(early + b"--xyz\r\n" + bytes(2000))
    form.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_part_with_two_names_is_refused(tmp_path: Path) -> None:
    twice = b'--xyz\r\nContent-Disposition: form-data; name="request"\r\n'
    again = b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n{}'
    with pytest.raises(ValidationError, match="two Content-Disposition"):
        form_in(tmp_path).feed(twice + again)


def test_what_dead_processes_left_is_swept_and_what_living_ones_hold_is_not(tmp_path: Path) -> None:
    (tmp_path / "left" / "over").mkdir(parents=True)
    one, two = Arrivals(tmp_path), Arrivals(tmp_path)
    held = one.new_folder()
    held.mkdir()
    assert not (tmp_path / "left").exists()
    other = two.new_folder()
    other.mkdir()
    assert held.is_dir()
    one.close()
    assert not held.exists()
    assert other.is_dir()
    two.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
