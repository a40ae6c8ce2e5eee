"""Arrays and bytes between processes."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from src.inference.workers import buffers
from src.inference.workers.messages import Decoder, Kind, encode_any

BIG = buffers.INLINE_BYTES + 8


def round_trip(value: Any) -> Any:
    frame_bytes, _ = encode_any(Kind.INFER, 1, value)
    (frame,) = Decoder().feed(frame_bytes)
    return frame.value()


def shared_files() -> list[Path]:
    return list(buffers.folder().glob(f"aiml-buffer-{os.getpid()}-*"))


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(12, dtype=numpy.float32).reshape(3, 4),
        numpy.zeros((0, 3), dtype=numpy.int64),
        numpy.array(5.0),
        numpy.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        numpy.arange(BIG, dtype=numpy.uint8).reshape(2, -1),
        numpy.array([True, False]),
    ],
    ids=["small", "empty", "scalar array", "strided", "shared memory", "bool"],
)
def test_arrays_arrive_as_they_were(array: Any) -> None:
    arrived = round_trip({"data": {"image": array, "note": "您好"}})
    assert arrived["data"]["note"] == "您好"
    assert arrived["data"]["image"].dtype == array.dtype
    assert arrived["data"]["image"].shape == array.shape
    assert (arrived["data"]["image"] == array).all()
    assert shared_files() == []


@pytest.mark.parametrize("size", [0, 10, BIG])
def test_bytes_arrive_as_they_were(size: int) -> None:
    data = os.urandom(size)
    assert round_trip([{"a": [data, 1]}]) == [{"a": [data, 1]}]
    assert shared_files() == []


def test_numpy_numbers_become_numbers() -> None:
    assert round_trip({"score": numpy.float32(0.5), "count": numpy.int64(3), "x": b""}) == {
        "score": 0.5,
        "count": 3,
        "x": b"",
    }


def test_data_that_looks_like_a_place_is_data() -> None:
    value = {"places": [{"path": ["value"], "file": "aiml-buffer-1-1"}], "raw": b"x"}
    assert round_trip(value) == value


@pytest.mark.parametrize("value", [object(), numpy.array([object()])])
def test_what_cannot_go_is_refused_and_leaves_no_file(value: Any) -> None:
    with pytest.raises(TypeError):
        encode_any(Kind.INFER, 1, {"big": bytes(BIG), "bad": value})
    assert shared_files() == []


def test_where_shared_memory_has_no_room_big_ones_go_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    data = os.urandom(BIG)
    monkeypatch.setattr(os, "open", full)
    body, files = buffers.pack({"big": data})
    assert files == []
    assert buffers.unpack(body) == {"big": data}


def test_discard_removes_what_nobody_opened() -> None:
    _, files = encode_any(Kind.INFER, 1, {"big": bytes(BIG)})
    assert len(shared_files()) == 1
    buffers.discard(files)
    assert shared_files() == []


def test_a_frame_that_nobody_wants_gives_its_files_back() -> None:
    encoded, files = encode_any(Kind.RESULT, 1, {"big": bytes(BIG)})
    (frame,) = Decoder().feed(encoded)
    frame.drop()
    assert shared_files() == []
    (again,) = Decoder().feed(encoded)
    again.drop()  # as when a sweep was faster
    assert len(files) == 1


def test_a_name_that_is_not_ours_is_not_opened() -> None:
    body, files = buffers.pack({"big": bytes(BIG)})
    buffers.discard(files)
    with pytest.raises(ValueError, match="a name of ours"):
        buffers.unpack(body.replace(files[0].encode(), b"../" + b"x" * (len(files[0]) - 3)))


def test_a_start_sweeps_what_the_dead_left() -> None:
    script = "from src.inference.workers import buffers; buffers.pack({'a': bytes(buffers.INLINE_BYTES + 1)})"
    dead = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    dead.wait()
    left = list(buffers.folder().glob(f"aiml-buffer-{dead.pid}-*"))
    assert len(left) == 1
    buffers.sweep()
    assert not left[0].exists()
