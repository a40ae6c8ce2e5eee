"""Objects of Pillow and numpy, as Python callers hand them over."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.core.errors import InvalidInputError, PayloadTooLargeError, PlatformError, ValidationError
from src.core.settings_sections import MediaSettings
from src.media.decoded import DecodedAudio, DecodedDocument, DecodedImage, DecodedVideo
from src.media.loader import MediaLoader
from src.media.objects import taken
from src.media.wishes import wishes_for
from tests.unit.media.decoding import decoded_audio
from tests.unit.media.media_files import noise, pdf, picture, tone, wav

pytestmark = pytest.mark.anyio

PIXELS = noise(6, 10)
SETTINGS = MediaSettings()


@pytest.fixture(scope="module")
async def loader() -> AsyncIterator[MediaLoader]:
    """A loader with a pool of its own."""
    made = MediaLoader(MediaSettings(max_inputs=3, max_pdf_pages=4))
    yield made
    await made.close()


def image_of(value: Any) -> Any:
    """Returns the pixels that an object is taken for."""
    found = taken(value, "image", "image", wishes_for("image", {}, SETTINGS), SETTINGS)
    assert isinstance(found, DecodedImage)
    assert found.pixels.dtype == np.uint8
    return found.pixels


def heard(value: Any) -> DecodedAudio:
    """Returns the sound that an object is taken for."""
    data = taken(value, "audio", "audio", wishes_for("audio", {}, SETTINGS), SETTINGS)
    assert isinstance(data, bytes)
    return decoded_audio(data)


@pytest.mark.parametrize(
    "value",
    [
        PIXELS,
        Image.fromarray(PIXELS),
        np.moveaxis(PIXELS, 2, 0),
        PIXELS.astype(np.float32) / 255,
        PIXELS.astype(np.float64),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.uint16) * 257,
        np.dstack([PIXELS, np.full((6, 10), 255, np.uint8)]),
        np.asfortranarray(PIXELS),
    ],
)
def test_a_picture_is_taken_from_every_usual_layout(value: Any) -> None:
    assert np.array_equal(image_of(value), PIXELS)


@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 1), (1, 6, 10)])
def test_grey_becomes_three_equal_channels(shape: tuple[int, ...]) -> None:
    grey = PIXELS[:, :, 0]
    assert np.array_equal(image_of(grey.reshape(shape)), grey[:, :, None].repeat(3, 2))


def test_a_tensor_is_read_by_way_of_numpy() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return PIXELS

    assert np.array_equal(image_of(Tensor()), PIXELS)


def test_an_image_of_pillow_is_laid_on_white_and_not_changed_itself() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert (image_of(image) == 255).all()
    assert image.mode == "RGBA"


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 2, 5)),
        np.zeros((0, 10, 3), np.uint8),
        np.zeros(10),
        np.full((2, 2), np.nan),
        np.full((2, 2), -1.0),
        np.full((2, 2), 256.0),
        np.array([["a", "b"]]),
        np.zeros((2, 2), complex),
    ],
)
def test_an_array_that_is_no_picture_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="`image`"):
        image_of(value)


def test_objects_keep_to_the_bounds_too() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_pixels"):
        taken(PIXELS, "image", "image", wishes_for("image", {}, SETTINGS), MediaSettings(max_pixels=59))


@pytest.mark.parametrize(
    "value",
    [
        {"array": tone(8000), "sampling_rate": 8000},
        {"raw": tone(8000), "sampling_rate": 8000, "path": None},
        {"array": tone(8000).tolist(), "sampling_rate": 8000},
        {"array": (tone(8000) * 32768).astype(np.int16), "sampling_rate": 8000},
        {"array": np.stack([tone(8000)] * 2), "sampling_rate": 8000},
        {"array": np.stack([tone(8000)] * 2, 1), "sampling_rate": 8000},
        (tone(8000).astype(np.float64), 8000),
    ],
)
def test_sound_is_taken_from_every_usual_form(value: Any) -> None:
    found = heard(value)
    assert found.rate == 8000
    assert found.samples == pytest.approx(tone(8000), abs=1e-4)


@pytest.mark.parametrize(
    "value",
    [
        tone(8000),
        {"array": tone(8000)},
        {"array": tone(8000), "sampling_rate": 0},
        {"array": np.full(100, np.nan), "sampling_rate": 8000},
        {"array": np.zeros((2, 2, 2)), "sampling_rate": 8000},
        {"array": ["a"], "sampling_rate": 8000},
    ],
)
def test_sound_that_lacks_something_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="`audio`"):
        heard(value)


@pytest.mark.parametrize(
    "value",
    [[Image.fromarray(PIXELS)] * 20, [PIXELS] * 20, np.stack([PIXELS] * 20), {"frames": [PIXELS] * 20, "fps": 10}],
)
def test_frames_are_a_video(value: Any) -> None:
    found = taken(value, "video", "video", wishes_for("video", {"num_frames": 5}, SETTINGS), SETTINGS)
    assert isinstance(found, DecodedVideo)
    assert found.frames.shape == (5, 6, 10, 3)
    assert (found.indices, found.total_frames) == ((0, 4, 9, 14, 19), 20)
    assert found.fps == (10 if isinstance(value, dict) else 24)
    assert bool(found.warnings) == (not isinstance(value, dict))


def test_frames_of_different_sizes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="different sizes"):
        taken([PIXELS, PIXELS[:3]], "video", "video", wishes_for("video", {}, SETTINGS), SETTINGS)


@pytest.mark.parametrize("kind", ["image", "audio", "video", "document"])
@pytest.mark.parametrize("value", [5, {"path": "a"}, object(), ["a.png"], {}])
def test_what_is_no_object_of_a_library_is_left_to_others(kind: str, value: Any) -> None:
    assert taken(value, kind, kind, wishes_for(kind, {}, SETTINGS), SETTINGS) is None


async def test_the_loader_takes_objects_from_a_python_caller_only(loader: MediaLoader) -> None:
    found = await loader.load(PIXELS, "image", field="image", trusted=True)
    assert isinstance(found, DecodedImage)
    assert np.array_equal(found.pixels, PIXELS)
    with pytest.raises(ValidationError, match="`image` must be a path"):
        await loader.load(PIXELS, "image", field="image")


async def test_the_loader_brings_sound_to_the_rate_asked_for(loader: MediaLoader) -> None:
    value = {"array": tone(44_100), "sampling_rate": 44_100}
    found = await loader.load(value, "audio", field="audio", trusted=True, rate=16_000)
    assert isinstance(found, DecodedAudio)
    assert (found.rate, found.original_rate, len(found.samples)) == (16_000, 44_100, 16_000)


async def test_a_list_of_documents_is_one_document(loader: MediaLoader) -> None:
    pages = [pdf([[(72, 700, 12, "one")], [(72, 700, 12, "two")]]), picture(PIXELS)]
    found = await loader.load(pages, "document", field="document", dpi=36)
    assert isinstance(found, DecodedDocument)
    assert [(page.number, page.words) for page in found.pages] == [(0, ("one",)), (1, ("two",)), (2, ())]
    chosen = await loader.load(pages, "document", field="document", pages=[1])
    assert isinstance(chosen, DecodedDocument)
    assert [page.words for page in chosen.pages] == [("two",)]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([picture(PIXELS)] * 5, "has 5 pages"),
        ([pdf([[]] * 3)] * 2, "has 6 pages"),
        ([], "list of pages"),
        ([[picture(PIXELS)]], "list of pages"),
        ([picture(PIXELS), b"PK\x03\x04"], r"`document\[1\]` is a zip archive"),
    ],
)
async def test_a_list_that_is_no_document_is_refused(loader: MediaLoader, value: Any, problem: str) -> None:
    with pytest.raises(PlatformError, match=problem):
        await loader.load(value, "document", field="document", dpi=36)


async def test_several_images_come_in_their_order(loader: MediaLoader) -> None:
    files = [picture(noise(4, 4, seed)) for seed in range(3)]
    found = await loader.load_all(files, "image", field="image")
    assert [image.pixels.tolist() for image in found] == [noise(4, 4, seed).tolist() for seed in range(3)]  # type: ignore[union-attr]
    assert len(await loader.load_all(files[0], "image", field="image")) == 1


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([picture(PIXELS)] * 4, r"is a list of 4; at most 3 are taken \(media.max_inputs\)"),
        ([], "empty list"),
        ([picture(PIXELS), b""], r"`image\[1\]` is empty"),
        ([b"", picture(PIXELS), picture(PIXELS)], r"`image\[0\]` is empty"),
    ],
)
async def test_one_bad_image_of_several_is_named(loader: MediaLoader, value: Any, problem: str) -> None:
    with pytest.raises(PlatformError, match=problem):
        await loader.load_all(value, "image", field="image")


async def test_the_bytes_alone_are_had_without_decoding(loader: MediaLoader) -> None:
    with await loader.content(wav(tone(8000), 8000), "audio", field="audio") as content:
        assert content.read()[:4] == b"RIFF"
