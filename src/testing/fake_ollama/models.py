"""What a fake model is: what the tests choose, and what Ollama's lists derive from it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from src.testing.fake_ollama.wire import JsonObject

PLAIN_TEMPLATE = "{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}"
_TENSORS_OF_BLOCK = ("attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a model: its kind, digest (`sha256:` and hex) and size in bytes."""

    kind: str
    digest: str
    size: int


@dataclass(frozen=True)
class FakeModel:
    """A model that a fake server can hold or pull.

    `capabilities` as in `/api/show`: `completion`, `vision`, `tools`, `thinking`, `embedding`, `insert`.
    `weights_digest` (hex) is derived from the name where it is left out; two models that differ in it
    answer differently.
    """

    name: str
    capabilities: tuple[str, ...] = ("completion",)
    family: str = "llama"
    parameter_count: int = 144_448
    quantization: str = "unknown"
    context_length: int = 512
    embedding_length: int = 64
    block_count: int = 2
    head_count: int = 4
    feed_forward_length: int = 128
    vocabulary_size: int = 486
    weights_size: int = 590_112
    weights_digest: str = ""
    template: str = PLAIN_TEMPLATE
    system: str = ""
    license: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent_model: str = ""

    @property
    def weights(self) -> Layer:
        """The file with the weights."""
        digest = self.weights_digest or hashlib.sha256(self.name.encode()).hexdigest()
        return Layer("model", f"sha256:{digest}", self.weights_size)

    @cached_property
    def layers(self) -> list[Layer]:
        """Every file of the model, the configuration last; texts have their true digests."""
        texts = {"template": self.template, "system": self.system, "license": self.license}
        if self.parameters:
            texts["params"] = json.dumps(dict(self.parameters), separators=(",", ":")) + "\n"
        layers = [self.weights] + [_text_layer(kind, text) for kind, text in texts.items() if text]
        config = {**self.details, "capabilities": list(self.capabilities)}
        return [*layers, _text_layer("config", json.dumps([config, [layer.digest for layer in layers]]))]

    @cached_property
    def digest(self) -> str:
        """The digest of the manifest, hex: the same for the same files, whatever the name."""
        return hashlib.sha256(" ".join(layer.digest for layer in self.layers).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(layer.size for layer in self.layers)

    @property
    def parent(self) -> str:
        """Where the model came from: a stored model, or the path of its weights."""
        return self.parent_model or f"/models/blobs/{self.weights.digest.replace(':', '-')}"

    @property
    def details(self) -> JsonObject:
        """What every list says about the model."""
        return {
            "parent_model": self.parent,
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": human_count(self.parameter_count),
            "quantization_level": self.quantization,
        }

    @property
    def model_info(self) -> JsonObject:
        """The metadata of the weights, the tokenizer's lists left out as Ollama does."""
        of_family = {
            "attention.head_count": self.head_count,
            "attention.head_count_kv": self.head_count,
            "attention.layer_norm_rms_epsilon": 1e-05,
            "block_count": self.block_count,
            "context_length": self.context_length,
            "embedding_length": self.embedding_length,
            "feed_forward_length": self.feed_forward_length,
            "rope.dimension_count": self.embedding_length // self.head_count,
            "vocab_size": self.vocabulary_size,
        }
        tokenizer = {"add_bos_token": True, "bos_token_id": 1, "eos_token_id": 2, "model": "llama"}
        tokenizer |= dict.fromkeys(("scores", "token_type", "tokens")) | {"unknown_token_id": 0}
        return {
            "general.architecture": self.family,
            "general.file_type": 0,
            "general.parameter_count": self.parameter_count,
            **{f"{self.family}.{key}": value for key, value in of_family.items()},
            **{f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()},
        }

    @property
    def tensors(self) -> list[JsonObject]:
        """Names, types and shapes of the weights."""
        width, inner = self.embedding_length, self.feed_forward_length
        shapes = {"token_embd": [width, self.vocabulary_size], "output": [width, self.vocabulary_size]}
        shapes["output_norm"] = [width]
        for block in range(self.block_count):
            for name in _TENSORS_OF_BLOCK:
                shapes[f"blk.{block}.{name}"] = [width] if name.endswith("_norm") else [width, width]
            shapes[f"blk.{block}.ffn_gate"] = shapes[f"blk.{block}.ffn_up"] = [width, inner]
            shapes[f"blk.{block}.ffn_down"] = [inner, width]
        return [{"name": f"{name}.weight", "type": "F32", "shape": shape} for name, shape in shapes.items()]


def human_count(count: int) -> str:
    """Returns a number of parameters as Ollama writes it: 144K, 4.18M, 1.7B."""
    for size, letter, decimals in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= size:
            number = count / size
            return f"{number:.0f}{letter}" if number.is_integer() else f"{number:.{decimals}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def _text_layer(kind: str, text: str) -> Layer:
    content = text.encode()
    return Layer(kind, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


TINY = FakeModel(
    "tiny",
    weights_digest="5581bfc80b0c76eaccc6819fbf5f82c408f7cb09a10f2c49766039eb6bc8f617",
    system="short words",
    license="made for recording",
    parameters={"num_ctx": 512, "stop": ["!"]},
)
"""The model that the recordings were made with."""

BIGGER = FakeModel(
    "bigger",
    parameter_count=4_184_320,
    embedding_length=256,
    block_count=6,
    head_count=8,
    feed_forward_length=512,
    weights_size=16_751_712,
    weights_digest="6da39618f27ac3abb90b731f0fe2031c9f9800e0700ab62aecb1e8fffcc60036",
    system=TINY.system,
    license=TINY.license,
    parameters=TINY.parameters,
)
"""The model that the recorded registry had besides; large enough to leave its pull midway."""
