"""Hostile files over HTTP: each is a clear error of its own request, and the model behind never notices."""

from collections.abc import Iterator

import pytest

from tests.hostile import MAX_IMAGE_MB, MAX_JSON_MB, Hostile, data_uri, refused, undecodable
from tests.unit.media.hostile_files import FILES, HostileFile
from tests.unit.media.media_files import noise, pdf, picture, tiff


@pytest.fixture(scope="module", autouse=True)
def worker(hostile: Hostile) -> int:
    """The process of the model, which none of this may end."""
    return hostile.works()


@pytest.fixture(autouse=True)
def unharmed(hostile: Hostile, worker: int) -> Iterator[None]:
    """Looks, after each test, whether the model still answers from the same process, and nothing was left."""
    yield
    assert hostile.works() == worker
    assert hostile.uploads() == []


@pytest.mark.parametrize("name", list(FILES))
def test_a_hostile_file_is_refused_with_its_field_its_type_and_the_accepted_ones(hostile: Hostile, name: str) -> None:
    file = FILES[name]
    content = file.make()
    _told(undecodable(hostile.send(file.kind, content), file.kind), file)
    if len(content) < MAX_JSON_MB * 700_000:
        _told(undecodable(hostile.ask({file.kind: data_uri(content)}), file.kind), file)


def _told(body: dict[str, object], file: HostileFile) -> None:
    assert file.words in str(body["error"])
    assert body["details"]["detected"] == file.detected  # type: ignore[index]
    assert body["error_type"] == {400: "ValueError", 413: "PayloadTooLargeError"}[file.status]


def test_one_of_several_is_named_by_its_place(hostile: Hostile) -> None:
    good, bad = ("image", ("a", picture(noise()))), ("image", ("b", b"<svg/>"))
    undecodable(hostile.upload([good, bad, good]), "image", field="data.image[1]")
    pages = [("document", ("a", pdf([[]]))), ("document", ("b", b"PK\x03\x04"))]
    undecodable(hostile.upload(pages), "document", field="data.document[1]")


@pytest.mark.parametrize("tail", [b"PK\x03\x04" + bytes(1000), b"<script>alert(1)</script>", pdf([[]]), b"#EXTM3U\n"])
def test_a_file_of_two_natures_is_read_by_its_beginning_and_in_no_other_way(hostile: Hostile, tail: bytes) -> None:
    response = hostile.send("document", picture(noise()) + tail)
    (page,) = response.json()["result"]["shapes"]["document"]["pages"]
    assert page["image"] == [20, 30, 3]
    assert page["words"] == []


def test_files_past_the_bound_of_bytes_are_refused_by_either_door(hostile: Hostile) -> None:
    content = picture(noise(10, 10)) + bytes(MAX_IMAGE_MB * 1_000_000)
    for response in (hostile.send("image", content), hostile.ask({"image": data_uri(content)})):
        body = refused(response, 413)
        assert body["details"]["setting"] == "media.max_image_mb"
        assert "`data.image`" in body["error"]


def test_more_inputs_and_pages_than_may_be_are_refused(hostile: Hostile) -> None:
    body = refused(hostile.ask({"image": [data_uri(picture(noise()))] * 4}), 413)
    assert body["details"]["setting"] == "media.max_inputs"
    body = undecodable(hostile.send("document", tiff([noise(4, 4)] * 60)), "document")
    assert body["details"]["setting"] == "media.max_pdf_pages"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (7, 422),
        (True, 422),
        ({}, 422),
        ({"path": "a", "url": "b"}, 422),
        ({"pickle": "gASVBQ"}, 422),
        ([[]], 422),
        ([], 400),
        ("", 400),
        ("data:image/png;base64,****", 400),
        ("data:image/png", 400),
        ({"base64": "a"}, 400),
        ("javascript:alert(1)", 400),
    ],
)
def test_what_is_no_input_is_refused_by_name(hostile: Hostile, value: object, status: int) -> None:
    assert "`data.image" in refused(hostile.ask({"image": value}), status)["error"]
