"""Which layers int8 and nf4 keep, and in how many bytes, by names and shapes alone."""

from pathlib import Path
from typing import Any

import pytest

from src.inference import quantization
from src.inference.quantization import block_of, compute_format, is_quantized, quantized_before, quantized_bytes

MATRIX = (96, 64)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.weight",
        "model.decoder.layers.11.fc2.weight",
        "transformer.h.3.mlp.c_fc.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
        "model.visual.blocks.7.mlp.0.weight",
        "language_model.model.layers.2.mlp.shared_expert.up_proj.weight",
    ],
)
def test_linear_layers_inside_blocks_are_quantized(name: str) -> None:
    assert is_quantized(name, MATRIX, "int8")
    assert is_quantized(name, MATRIX, "nf4")


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "score.weight",
        "classifier.1.weight",
        "model.embed_tokens.weight",
        "multi_modal_projector.linear_1.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.per_layer_embed.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.0.layer.1.DenseReluDense.wo.weight",
        "backbone.layers.4.mixer.dt_proj.weight",
        "model.layers.0.block_sparse_moe.experts.3.w1.weight",
        "model.layers.0.mlp.router.classifier.weight",
    ],
)
def test_all_else_stays(name: str) -> None:
    assert not is_quantized(name, MATRIX, "int8")


def test_layers_that_one_architecture_reads_itself_stay_there() -> None:
    name = "wavlm.encoder.layers.0.attention.k_proj.weight"
    assert is_quantized(name, MATRIX, "int8")
    assert not is_quantized(name, MATRIX, "int8", "wavlm")


@pytest.mark.parametrize("shape", [(64,), (8, 64, 3), (8, 3, 4, 4)])
def test_only_matrices_are_quantized(shape: tuple[int, ...]) -> None:
    assert not is_quantized("model.layers.0.conv.weight", shape, "int8")


@pytest.mark.parametrize(("columns", "block"), [(4096, 64), (192, 64), (160, 32), (96, 32), (432, None), (48, None)])
def test_rows_of_nf4_are_whole_blocks(columns: int, block: int | None) -> None:
    assert block_of(columns) == block
    assert is_quantized("layers.0.q_proj.weight", (64, columns), "nf4") == (block is not None)
    assert is_quantized("layers.0.q_proj.weight", (64, columns), "int8")


@pytest.mark.parametrize(
    ("shape", "quantized", "size"),
    [
        ((4096, 4096), "int8", 4096 * 4096 + 4 * 4096),
        ((4096, 4096), "nf4", 4096 * 4096 * 9 // 16),
        ((16, 160), "nf4", 16 * 160 // 2 + 4 * 16 * 160 // 32),
    ],
)
def test_bytes_of_a_layer(shape: tuple[int, int], quantized: Any, size: int) -> None:
    assert quantized_bytes(*shape, quantized) == size


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", "bfloat16"),
        ("flags\t\t: fpu amx_bf16", "bfloat16"),
        ("Features\t: fp asimd i8mm bf16", "bfloat16"),
        ("flags\t\t: fpu avx512f avx512_vnni", "float32"),
        (None, "float32"),
    ],
)
def test_the_cpu_says_what_it_computes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, found: str
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(quantization, "_CPUINFO", tmp_path / "cpuinfo")
    quantization._multiplies_bfloat16.cache_clear()
    try:
        assert compute_format("cpu") == found
        assert compute_format("cuda:0") == "bfloat16"
    finally:
        quantization._multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": "int8"}, None),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "int8"),
        ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, "nf4"),
        ({"quantization_config": {"load_in_4bit": True}}, "fp4"),
        ({"quantization_config": {"bits": 4}}, "unknown"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
    ],
)
def test_a_config_tells_of_a_checkpoint_that_is_quantized(config: dict[str, Any], method: str | None) -> None:
    assert quantized_before(config) == method
