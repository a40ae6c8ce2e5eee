"""Bytes and arrays behind descriptors, between processes that do not trust each other."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.media.content import Pieces, PositionedReader, content_of, map_arrays, new_file, write_arrays

MOST = 1 << 20


def mapped(*arrays: Any) -> list[Any]:
    """Returns arrays after their way."""
    descriptor, places = write_arrays(arrays)
    try:
        return map_arrays(descriptor, places, MOST)
    finally:
        os.close(descriptor)


def test_arrays_come_back_as_they_went() -> None:
    sent = [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.linspace(0, 1, 7, dtype=np.float32),
        np.zeros((0, 4), np.int32),
        np.arange(8, dtype=np.int32).reshape(2, 4),
    ]
    for array, found in zip(sent, mapped(*sent), strict=True):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)


def test_pieces_come_back_in_one() -> None:
    (found,) = mapped(Pieces([np.full((2, 2), value, np.uint8) for value in range(3)], (3, 2, 2)))
    assert found[:, 0, 0].tolist() == [0, 1, 2]


def test_what_came_can_be_written_to() -> None:
    (found,) = mapped(np.zeros(4, np.uint8))
    found[0] = 1
    assert found.flags.writeable


def test_nothing_alone_comes_back() -> None:
    assert mapped() == []
    assert mapped(np.zeros((0, 4), np.int32))[0].shape == (0, 4)


@pytest.mark.parametrize(
    "place",
    [
        {"dtype": "|u1", "shape": [101], "offset": 0},
        {"dtype": "|u1", "shape": [10], "offset": 95},
        {"dtype": "|u1", "shape": [10], "offset": -5},
        {"dtype": "|u1", "shape": [-1, -10], "offset": 0},
        {"dtype": "|u1", "shape": [2**40, 2**40], "offset": 0},
        {"dtype": "<f4", "shape": [100], "offset": 0},
        {"dtype": "|O", "shape": [1], "offset": 0},
        {"dtype": "|u1", "shape": "none", "offset": 0},
        {},
    ],
)
def test_an_array_that_cannot_be_is_refused(place: dict[str, Any]) -> None:
    descriptor = new_file()
    os.ftruncate(descriptor, 100)
    try:
        with pytest.raises((ValueError, LookupError)):
            map_arrays(descriptor, [place], MOST)
    finally:
        os.close(descriptor)


def test_more_than_a_decoder_may_have_is_refused_without_a_look_at_it() -> None:
    descriptor = new_file()
    os.ftruncate(descriptor, 1 << 50)
    try:
        with pytest.raises(ValueError, match="are the most"):
            map_arrays(descriptor, [{"dtype": "|u1", "shape": [10], "offset": 0}], MOST)
    finally:
        os.close(descriptor)


def test_the_other_side_cannot_take_the_memory_away_again() -> None:
    descriptor, places = write_arrays([np.ones(10_000, np.uint8)])
    (found,) = map_arrays(descriptor, places, MOST)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
    assert found.sum() == 10_000


def test_a_file_of_the_other_sides_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with path.open("r+b") as file, pytest.raises(OSError):
        map_arrays(file.fileno(), [], MOST)


def test_a_reader_keeps_its_own_place_and_ends_at_the_size_it_was_told() -> None:
    with content_of(b"0123456789", "field") as content:
        one, other = (PositionedReader(content.descriptor, 8) for _ in range(2))
        assert one.read(4) == b"0123"
        assert other.read(2) == b"01"
        assert one.read(100) == b"4567"
        assert one.read(1) == b""
        assert one.seek(-3, os.SEEK_END) == 5
        assert one.read() == b"567"
        assert one.seek(100) == 100
        assert one.read(1) == b""
        with pytest.raises(OSError):
            one.seek(-1)
        assert io.BufferedReader(other).read() == b"234567"


def test_a_content_lets_go_of_its_descriptor_once() -> None:
    content = content_of(b"abc", "field")
    descriptor = content.descriptor
    content.close()
    content.close()
    with pytest.raises(OSError):
        os.fstat(descriptor)
