"""Small files of every kind that a model has, made by hand."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path


def safetensors(tensors: Mapping[str, tuple[str, list[int], int]] | None = None, *, tail: bytes = b"") -> bytes:
    """Returns a file of name → (dtype, shape, bytes), filled with zeros."""
    position, header = 0, {}
    for name, (dtype, shape, size) in (tensors or {"weight": ("F32", [2, 2], 16)}).items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(position) + tail


def field(number: int, data: bytes | int) -> bytes:
    """Returns a field of a protocol buffer."""
    if isinstance(data, int):
        return _varint(number << 3) + _varint(data)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes files below a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


GOOD = {
    "model.safetensors": safetensors(),
    "weights/model.onnx": field(1, 8) + field(7, b"graph"),
    "model.pb": field(1, b"node") + field(3, 27),
    "model.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "user-block.h5": bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(100),
    "model.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    "config.json": b'{"architectures": ["LlamaForCausalLM"], "limit": Infinity}',
    "tokenizer.model": b"\n\x0e\n\x05<unk>" + bytes(40),
    "tokenizer.model.v3": b"\n\x0e\n\x05<unk>" + bytes(40),
    "vocab.txt": "[PAD]\n你好\n".encode(),
    "merges.txt": b"#version: 0.2\na b\n",
    "qwen.tiktoken": b"IQ== 0\nIg== 1\n",
    "source.spm": b"\n\x0e\n\x05<unk>" + bytes(40),
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"---\npipeline_tag: text-generation\n---\n# A model\n",
    "LICENSE": b"Do what you like.\n",
    "LICENSE.txt": b"Do what you like.\n",
    ".gitattributes": b"*.bin filter=lfs\n",
    "generation.yaml": b"a: 1\n",
    "figure.png": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "model.onnx_data": bytes(range(256)),
    "variables/variables.data-00000-of-00001": bytes(30),
}
