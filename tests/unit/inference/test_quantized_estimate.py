"""The estimate of int8 and nf4 before loading, compared with the bytes that the loaded model holds."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from src.inference import quantization
from src.inference.engines.transformers.runner import Runner
from src.inference.quantization import LOADING_BYTES
from src.inference.vram_estimator import RUNTIME_BYTES, estimate
from tests.unit.inference.test_vram_estimator import MODELS, vit

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(autouse=True, params=["bfloat16", "float32"])
def computing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the CPU computes in: one that multiplies bfloat16, and one that does not."""
    monkeypatch.setattr(quantization, "_multiplies_bfloat16", lambda: request.param == "bfloat16")
    return str(request.param)


def loaded(folder: Path, dtype: str) -> Runner:
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]

    class Plain(Runner):
        auto_model = getattr(transformers, architecture)

        @classmethod
        def load_processor(cls, path: Path, **kwargs: Any) -> Any:
            return None

    return Plain.load("m", folder, device="cpu", dtype=dtype, trust_remote_code=False)


# Falcon's linear layers are a class of its own, which nobody quantizes.
QUANTIZABLE = [name for name in MODELS if not name.startswith("falcon")]


@pytest.fixture(scope="module", params=[*QUANTIZABLE, "vit"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of each architecture."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    build: Callable[[], Any] = {**MODELS, "vit": vit}[request.param]
    build().save_pretrained(path)
    return path


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_the_weights_are_those_of_the_loaded_model(folder: Path, dtype: str) -> None:
    runner = loaded(folder, dtype)
    assert runner.dtype == dtype
    # GPT-2 stores its matrices the other way round, and so a scale for each column.
    allowed = 0.05 if "gpt2" in folder.name else 0.02
    assert estimate(folder, dtype=dtype).weights_bytes == pytest.approx(runner.parameter_bytes(), rel=allowed)


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_quantized_model_takes_less(folder: Path, computing: str, dtype: str) -> None:
    assert estimate(folder, dtype=dtype).weights_bytes < estimate(folder, dtype=computing).weights_bytes


@pytest.mark.parametrize(("dtype", "per_weight"), [("int8", 1.0), ("nf4", 0.5625)])
def test_of_a_large_model_layers_take_what_is_promised(
    tmp_path: Path, computing: str, dtype: str, per_weight: float
) -> None:
    layer, table = 4096 * 4096, 32000 * 4096
    names = {
        f"model.layers.{number}.self_attn.{part}_proj.weight": [4096, 4096] for number in range(8) for part in "abcd"
    }
    write_header(tmp_path / "model.safetensors", {**names, "lm_head.weight": [32000, 4096]})
    found = estimate(tmp_path, dtype=dtype)
    size = 2 if computing == "bfloat16" else 4
    assert found.weights_bytes == pytest.approx(32 * layer * per_weight + table * size, rel=0.001)
    assert found.overhead_bytes == RUNTIME_BYTES + max(found.weights_bytes // 20, LOADING_BYTES * layer)


def test_a_gpu_computes_in_sixteen_bits(tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", {"lm_head.weight": [32000, 64]})
    assert estimate(tmp_path, dtype="int8", device="cuda:0").weights_bytes == 32000 * 64 * 2


@pytest.mark.parametrize(("dtype", "per_weight"), [("int8", 1.0), ("nf4", 0.5625)])
def test_a_config_alone_tells_of_layers_and_the_rest(
    tmp_path: Path, computing: str, dtype: str, per_weight: float
) -> None:
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    found = estimate(tmp_path, dtype=dtype)
    assert (found.method, found.parameter_count is not None) == ("config", True)
    table = 2 * 1000 * 256
    layers = (found.parameter_count or 0) - table
    size = 2 if computing == "bfloat16" else 4
    assert found.weights_bytes == pytest.approx(table * size + layers * per_weight, rel=0.01)


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_checkpoint_that_is_quantized_already_is_as_large_as_its_file(tmp_path: Path, dtype: str) -> None:
    MODELS["llama"]().save_pretrained(tmp_path / "plain")
    quantized = transformers.BitsAndBytesConfig(
        load_in_8bit=dtype == "int8", load_in_4bit=dtype == "nf4", bnb_4bit_quant_type="nf4"
    )
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=quantized)
    if dtype == "nf4":  # rows of 96 are no whole blocks of 64, which the loader refuses
        model.model.layers = torch.nn.ModuleList()
    model.save_pretrained(tmp_path / "packed")
    stored = sum(tensor.nbytes for tensor in load_file(tmp_path / "packed" / "model.safetensors").values())
    for wanted in (dtype, "float32"):
        assert estimate(tmp_path / "packed", dtype=wanted).weights_bytes <= stored * 1.01


def write_header(file: Path, tensors: dict[str, list[int]]) -> None:
    """Writes a safetensors file of bfloat16 whose data is a hole."""
    entries, at = {}, 0
    for name, shape in tensors.items():
        size = 2 * shape[0] * shape[1]
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries).encode()
    with open(file, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(stream.tell() + at)
