"""What callers hand over is taken for what it is, and only files below a media root are read for a request."""

import base64
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from src.core.config import load_settings
from src.core.errors import InvalidInputError, PayloadTooLargeError, PlatformError, ValidationError
from src.core.settings_sections import MediaSettings
from src.media.fetching import Fetcher
from src.media.inputs import Inputs, UploadedFile, is_base64
from src.media.paths import media_roots
from tests.unit.media.media_files import noise, pdf, picture, tone, wav

pytestmark = pytest.mark.anyio

PNG = picture(noise())
BASE64 = base64.b64encode(PNG).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with `a.png` and `inner/b.png`, beside a file that is in none."""
    folder = tmp_path / "allowed"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.png").write_bytes(PNG)
    (folder / "inner/b.png").write_bytes(PNG)
    (tmp_path / "outside.png").write_bytes(b"secret")
    (tmp_path / "allowed-beside").mkdir()
    (tmp_path / "allowed-beside/c.png").write_bytes(b"secret")
    return folder


@pytest.fixture
async def inputs(root: Path) -> AsyncIterator[Inputs]:
    """Inputs with that root."""
    fetcher = Fetcher(MediaSettings())
    yield Inputs(MediaSettings(max_image_mb=1), [root], fetcher)
    await fetcher.close()


async def taken(inputs: Inputs, value: Any, *, trusted: bool = False, kind: str = "image") -> bytes:
    """Returns the bytes of what is taken."""
    with await inputs.take(value, kind, "image", trusted=trusted) as content:
        data = content.read()
        assert len(data) == content.size
        return data


async def refusal(inputs: Inputs, value: Any, *, trusted: bool = False) -> PlatformError:
    """Returns the error that a value is refused with; it names the field."""
    with pytest.raises(PlatformError) as caught:
        await taken(inputs, value, trusted=trusted)
    assert "`image`" in caught.value.message
    assert caught.value.details["field"] == "image"
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        BASE64,
        "\n".join(BASE64[place : place + 76] for place in range(0, len(BASE64), 76)),
        BASE64.rstrip("="),
        BASE64.replace("+", "-").replace("/", "_"),
        f"data:image/png;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"DATA:text/plain;charset=x;BASE64,{BASE64}",
        "data:image/png;base64," + BASE64.replace("+", "%2B").replace("/", "%2F"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
        {"base64": BASE64},
        PNG,
        bytearray(PNG),
        memoryview(PNG),
    ],
)
async def test_bytes_come_through_in_every_form(inputs: Inputs, value: Any) -> None:
    assert await taken(inputs, value) == PNG


async def test_base64_of_many_slices_comes_through(inputs: Inputs) -> None:
    data = os.urandom(7_000_001)
    for text in (base64.b64encode(data).decode(), base64.encodebytes(data).decode()):
        assert await taken(inputs, text, kind="audio") == data


async def test_paths_below_a_root_are_read_absolute_or_from_the_root_on(inputs: Inputs, root: Path) -> None:
    for value in ("a.png", "./a.png", "inner/b.png", str(root / "a.png"), {"path": "a.png"}):
        assert await taken(inputs, value) == PNG


async def test_a_link_that_stays_below_the_root_is_followed(inputs: Inputs, root: Path) -> None:
    (root / "link.png").symlink_to(root / "inner/b.png")
    assert await taken(inputs, "link.png") == PNG


async def test_a_root_that_is_a_link_is_a_root(tmp_path: Path, root: Path) -> None:
    (tmp_path / "linked").symlink_to(root)
    inputs = Inputs(MediaSettings(), [tmp_path / "linked"], Fetcher(MediaSettings()))
    assert await taken(inputs, str(tmp_path / "linked/a.png")) == PNG
    assert await taken(inputs, str(root / "a.png")) == PNG


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "../outside.png",
        "inner/../../outside.png",
        "inner/../a.png",
        "{tmp}/outside.png",
        "{tmp}/allowed/../outside.png",
        "{tmp}/allowed-beside/c.png",
        "{tmp}/allowed",
        "/",
        ".",
        "",
        " ",
        "~/.bashrc",
        "a.png\0.txt",
        "/proc/self/environ",
        "/dev/zero",
        "link.png",
        "folder/outside.png",
        "inner",
        "a.png/b.png",
        "missing.png",
        "pipe.png",
    ],
)
async def test_nothing_else_is_read_for_a_request(inputs: Inputs, root: Path, tmp_path: Path, value: str) -> None:
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.png")
    assert isinstance(await refusal(inputs, value.format(tmp=tmp_path)), InvalidInputError)


async def test_whether_a_file_outside_exists_is_not_told(inputs: Inputs, tmp_path: Path) -> None:
    there = (await refusal(inputs, str(tmp_path / "outside.png"))).message.replace("outside.png", "")
    missing = (await refusal(inputs, str(tmp_path / "nowhere.png"))).message.replace("nowhere.png", "")
    assert there == missing
    assert "AIML_MEDIA_ROOTS" in there
    assert "/inference/infer/upload" in there


async def test_without_roots_no_path_is_read(root: Path) -> None:
    inputs = Inputs(MediaSettings(), [], Fetcher(MediaSettings()))
    assert "AIML_MEDIA_ROOTS" in (await refusal(inputs, str(root / "a.png"))).message


@pytest.mark.parametrize(
    "value",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file:/etc/passwd",
        "file:a.png",
        "ftp://x.test/a.png",
        "s3://b/a.png",
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
async def test_other_schemes_are_refused_by_name(inputs: Inputs, value: str, trusted: bool) -> None:
    error = await refusal(inputs, value, trusted=trusted)
    assert value.partition(":")[0].lower() in error.message


async def test_a_url_goes_through_the_fetcher(inputs: Inputs) -> None:
    for value in ("http://127.0.0.1/a.png", " HTTP://127.0.0.1/a.png", {"url": "http://127.0.0.1/a.png"}):
        assert "the URL" in (await refusal(inputs, value)).message


@pytest.mark.parametrize(
    "value",
    [
        "data:image/png;base64",
        "data:image/png;base64,!!!",
        "data:image/png;base64,AAAAA",
        {"base64": "no base64!"},
        {"base64": "a"},
    ],
)
async def test_base64_that_is_none_is_refused(inputs: Inputs, value: Any) -> None:
    assert "base64" in (await refusal(inputs, value)).message


@pytest.mark.parametrize(
    "value", [None, 5, 1.5, True, ["a.png"], {}, {"path": "a", "url": "b"}, {"file": "a.png"}, {"path": 5}, object()]
)
async def test_what_is_no_input_at_all_is_refused_by_its_type(inputs: Inputs, value: Any) -> None:
    assert isinstance(await refusal(inputs, value), ValidationError)


async def test_files_past_the_bound_are_refused_before_they_are_read(inputs: Inputs, root: Path) -> None:
    with (root / "big.png").open("wb") as file:
        file.truncate(2_000_000_000)
    error = await refusal(inputs, "big.png")
    assert isinstance(error, PayloadTooLargeError)
    assert "media.max_image_mb" in error.message
    assert "2,000.0 MB" in error.message


@pytest.mark.parametrize(
    "value", [bytes(1_000_001), "A" * 2_000_000, f"data:;base64,{'A' * 2_000_000}", f"data:,{'a' * 3_000_001}"]
)
async def test_inline_data_past_the_bound_is_refused(inputs: Inputs, value: Any) -> None:
    assert isinstance(await refusal(inputs, value), PayloadTooLargeError)


async def test_an_uploaded_file_is_read_wherever_it_lies(inputs: Inputs, tmp_path: Path) -> None:
    assert await taken(inputs, UploadedFile(tmp_path / "outside.png", "holiday.png")) == b"secret"


@pytest.mark.parametrize("make", [str, Path, lambda path: {"path": str(path)}])
async def test_a_python_caller_may_name_any_file(inputs: Inputs, tmp_path: Path, make: Any) -> None:
    assert await taken(inputs, make(tmp_path / "outside.png"), trusted=True) == b"secret"


async def test_a_python_callers_relative_path_starts_where_it_works(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await taken(inputs, "allowed/../outside.png", trusted=True) == b"secret"
    assert str(tmp_path) in (await refusal(inputs, "nowhere.png", trusted=True)).message


async def test_a_python_caller_may_hand_over_an_open_file(inputs: Inputs, root: Path) -> None:
    with (root / "a.png").open("rb") as file:
        assert await taken(inputs, file, trusted=True) == PNG
    assert await taken(inputs, io.BytesIO(PNG), trusted=True) == PNG
    with (root / "a.png").open(encoding="latin-1") as text:
        assert "mode 'rb'" in (await refusal(inputs, text, trusted=True)).message


@pytest.mark.parametrize("value", [Path("a.png"), io.BytesIO(PNG)])
async def test_objects_are_a_python_callers_only(inputs: Inputs, value: Any) -> None:
    assert isinstance(await refusal(inputs, value), ValidationError)


@pytest.mark.parametrize(
    "data",
    [
        PNG,
        picture(noise(), "JPEG"),
        picture(noise(), "GIF"),
        picture(noise(), "BMP"),
        picture(noise(), "TIFF"),
        picture(noise(), "WEBP"),
        wav(tone(8000, 0.05), 8000),
        pdf([[]]),
    ],
)
def test_base64_of_media_is_no_path(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert is_base64(text)
    assert is_base64(text.rstrip("="))
    assert is_base64(base64.urlsafe_b64encode(data).decode())


@pytest.mark.parametrize(
    "text",
    [
        "image.jpg",
        "/path/to/image.jpg",
        "/path/to/image",
        "folder/image",
        "image",
        "9j",
        "/9j/folder",
        "C:\\images\\a",
        "a b",
        "naïve",
        "x" * 1024,
    ],
)
def test_a_path_is_no_base64(text: str) -> None:
    assert not is_base64(text)


@pytest.mark.parametrize("text", ["x" * 1025, "x.y" * 2000, "aGVsbG8=", base64.b64encode(b"hello" * 300).decode()])
def test_text_that_can_hardly_be_a_path_is_base64(text: str) -> None:
    assert is_base64(text)


def test_media_roots_are_those_set_else_the_usual_on_loopback_else_none(tmp_path: Path) -> None:
    def roots(**settings: Any) -> tuple[Path, ...]:
        return media_roots(load_settings(data_dir=tmp_path, **settings))

    assert [root.name for root in roots()] == ["media", "samples"]
    assert roots()[0] == tmp_path / "media"
    assert roots(media_roots=("/srv/a", "/srv/b"), host="0.0.0.0", api_keys=("k",)) == (Path("/srv/a"), Path("/srv/b"))
    assert roots(host="0.0.0.0", api_keys=("k",)) == ()
