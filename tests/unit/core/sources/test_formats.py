import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from src.core.sources.file_rules import DATASET_FILES, MODEL_FILES, RefusedError
from src.core.sources.formats import check_format
from src.core.sources.safetensors_header import BrokenHeaderError, read_header
from tests.unit.core.sources.model_files import GOOD, field, safetensors, write

HEADER_OF_ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _file_with_header(header: Any, data: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


@pytest.mark.parametrize("path", GOOD)
def test_a_file_of_a_model_passes(path: str, tmp_path: Path) -> None:
    write(tmp_path, {path: GOOD[path]})
    assert check_format(tmp_path / path, MODEL_FILES.kind_of(path)) is False


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("a.safetensors", b"", "is no safetensors file"),
        ("a.safetensors", safetensors()[:-1], "is cut off"),
        ("a.safetensors", safetensors(tail=b"x"), "goes on after its last tensor"),
        ("a.json", b'{"a": 1', "is no JSON"),
        ("a.json", b"\xff\xfe\xfd", "is no JSON"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.gguf", b"GGML" + bytes(30), "is no GGUF file"),
        ("a.gguf", b"GGUF", "is no GGUF file"),
        ("a.h5", b"HDF" + bytes(600), "is no HDF5 file"),
        ("a.onnx", b"not a model", "damaged|cut off|no ONNX"),
        ("a.onnx", field(1, 8), "is no ONNX model"),
        ("a.onnx", field(99, b"x") + field(7, b"graph"), "is no ONNX model"),
        ("a.onnx", (field(1, 8) + field(7, b"graph"))[:-1], "cut off"),
        ("a.pb", b"", "is empty"),
        ("a.pb", b"\xff" * 20, "no protocol buffer"),
        ("a.png", b"GIF", "is no image"),
        ("a.txt", b"a\0b", "is no text"),
        ("a.txt", b"x" * 3_000_000 + b"\0", "is no text"),
        ("a.model", b"\x7fELF" + bytes(60), "is a program"),
        ("README.md", b"#!/bin/sh\nrm -rf /\n", "is a program"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(path: str, data: bytes, why: str, tmp_path: Path) -> None:
    write(tmp_path, {path: data})
    with pytest.raises(RefusedError, match=why):
        check_format(tmp_path / path, MODEL_FILES.kind_of(path))


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.pth"])
def test_a_pickle_format_has_to_be_tried_out_whatever_it_holds(name: str, tmp_path: Path) -> None:
    write(tmp_path, {name: b"no pickle at all"})
    assert check_format(tmp_path / name, MODEL_FILES.kind_of(name)) is True


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.model", "model.h5", "config.json", "model.safetensors"])
def test_a_pickle_under_another_name_is_recognised(name: str, protocol: int, tmp_path: Path) -> None:
    write(tmp_path, {name: pickle.dumps({"a": list(range(50))}, protocol)})
    assert check_format(tmp_path / name, MODEL_FILES.kind_of(name)) is True


def test_an_archive_of_torch_under_another_name_is_recognised(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "spiece.model", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert check_format(tmp_path / "spiece.model", "opaque") is True


def test_numbers_that_begin_like_a_pickle_are_none(tmp_path: Path) -> None:
    tokens = struct.pack("<8H", 0x0480, 7, 300, 12, 9, 11, 2, 1) * 400
    write(tmp_path, {"train.bin": tokens})
    assert check_format(tmp_path / "train.bin", DATASET_FILES.kind_of("train.bin")) is False


def test_a_program_of_windows_is_recognised_and_a_text_that_begins_alike_is_none(tmp_path: Path) -> None:
    program = b"MZ" + bytes(0x3A) + struct.pack("<I", 0x80) + bytes(0x40) + b"PE\0\0" + bytes(100)
    write(tmp_path, {"a.parquet": program, "spectra.csv": b"MZ,intensity\n1,2\n"})
    with pytest.raises(RefusedError, match="is a program"):
        check_format(tmp_path / "a.parquet", "data")
    assert check_format(tmp_path / "spectra.csv", "data") is False


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("modeling.py", "is code"),
        ("run.sh", "is a program"),
        ("lib/x.so", "is a program"),
        ("model.ckpt", "convert it to safetensors"),
        ("model.pkl", "convert it to safetensors"),
        ("inner.zip", "one archive alone"),
        ("model.xyz", "is no file of a model"),
        ("noending", "is no file of a model"),
    ],
)
def test_a_model_takes_no_other_kinds(path: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        MODEL_FILES.kind_of(path)


@pytest.mark.parametrize("path", ["a.parquet", "b.csv", "c/d.jsonl", "e.wav", "f.jpg", "g.arrow", "shard-0.tar", "h"])
def test_a_dataset_takes_any_files(path: str) -> None:
    assert DATASET_FILES.kind_of(path) == "data"


@pytest.mark.parametrize("path", ["load.py", "setup.exe", "x.so", "go.SH", "a.jar"])
def test_a_dataset_takes_no_programs(path: str) -> None:
    with pytest.raises(RefusedError, match="is a program"):
        DATASET_FILES.kind_of(path)


def test_a_header_tells_the_tensors_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"a": safetensors({"b": ("BF16", [3, 4], 24), "a": ("I64", [], 8), "0": ("F4", [4], 2)})})
    assert [(t.name, t.dtype, t.elements) for t in read_header(tmp_path / "a")] == [
        ("b", "BF16", 12),
        ("a", "I64", 1),
        ("0", "F4", 4),
    ]


@pytest.mark.parametrize(
    "data",
    [
        _file_with_header({"a": HEADER_OF_ONE, "b": {**HEADER_OF_ONE, "data_offsets": [9, 17]}}, 17),
        _file_with_header({"a": HEADER_OF_ONE, "b": {**HEADER_OF_ONE, "data_offsets": [4, 12]}}, 12),
        _file_with_header({"a": {**HEADER_OF_ONE, "shape": [3]}}, 8),
        _file_with_header({"a": {**HEADER_OF_ONE, "shape": [-2]}}, 8),
        _file_with_header({"a": {**HEADER_OF_ONE, "shape": [True, 2]}}, 8),
        _file_with_header({"a": {"dtype": "F32"}}, 8),
        _file_with_header(["a"], 0),
        _file_with_header(b"{" * 50, 0),
        _file_with_header(b"[" * 100_000, 0),
        struct.pack("<Q", 2**63) + b"{}",
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(data: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"a": data})
    with pytest.raises(BrokenHeaderError):
        read_header(tmp_path / "a")


def test_a_longer_header_than_allowed_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"a": safetensors()})
    with pytest.raises(BrokenHeaderError, match="at most 50 are read"):
        read_header(tmp_path / "a", max_header=50)
