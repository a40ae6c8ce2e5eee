"""The estimate before loading, compared with what transformers really loads and really caches."""

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from src.inference import vram_estimator
from src.inference.model_config import kv_elements
from src.inference.vram_estimator import RUNTIME_BYTES, MemoryEstimate, estimate

pytestmark = pytest.mark.xdist_group("torch")

TOKENS = 20
LEFT_OUT = object()
TEXT = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def llama(**changes: Any) -> PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**TEXT, **changes}))


def gpt2() -> PreTrainedModel:
    config = transformers.GPT2Config(
        vocab_size=160, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config)


def falcon(*, new: bool = False) -> PreTrainedModel:
    config = transformers.FalconConfig(
        vocab_size=160,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_kv_heads=2,
        new_decoder_architecture=new,
    )
    return transformers.FalconForCausalLM(config)


def mistral() -> PreTrainedModel:
    return transformers.MistralForCausalLM(transformers.MistralConfig(**TEXT, sliding_window=8))


def gemma3() -> PreTrainedModel:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**TEXT, head_dim=24, sliding_window=8, layer_types=kinds)
    return transformers.Gemma3ForCausalLM(config)


def gemma4(**changes: Any) -> PreTrainedModel:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    config = transformers.Gemma4TextConfig(
        **TEXT,
        head_dim=16,
        global_head_dim=32,
        sliding_window=8,
        layer_types=kinds,
        vocab_size_per_layer_input=160,
        **{"hidden_size_per_layer_input": 0, **changes},
    )
    return transformers.Gemma4ForCausalLM(config)


def deepseek() -> PreTrainedModel:
    config = transformers.DeepseekV3Config(
        **{**TEXT, "num_key_value_heads": 4},
        kv_lora_rank=16,
        q_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
    )
    return transformers.DeepseekV3ForCausalLM(config)


def mixtral() -> PreTrainedModel:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**TEXT, num_local_experts=4))


def t5(**changes: Any) -> PreTrainedModel:
    config = transformers.T5Config(
        vocab_size=160, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_decoder_layers=3, num_heads=4, **changes
    )
    return transformers.T5ForConditionalGeneration(config)


def bart() -> PreTrainedModel:
    config = transformers.BartConfig(
        vocab_size=160,
        d_model=64,
        encoder_layers=1,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    return transformers.BartForConditionalGeneration(config)


def whisper() -> PreTrainedModel:
    config = transformers.WhisperConfig(
        vocab_size=160,
        num_mel_bins=8,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_source_positions=30,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    return transformers.WhisperForConditionalGeneration(config)


def llava() -> PreTrainedModel:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_index=159,
    )
    return transformers.LlavaForConditionalGeneration(config)


def vit() -> PreTrainedModel:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**VISION))


def bytes_in_memory(model: PreTrainedModel) -> int:
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


def loaded(folder: Path, dtype: str) -> PreTrainedModel:
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model: PreTrainedModel = getattr(transformers, architecture).from_pretrained(folder, dtype=dtype)
    return model


def cache_bytes(model: PreTrainedModel, batch: int) -> int:
    """Returns the bytes in the cache after a forward pass over `TOKENS` tokens."""
    ids = torch.randint(3, 150, (batch, TOKENS))
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    if model.config.model_type == "whisper":
        inputs["input_features"] = torch.zeros(batch, 8, 60, dtype=model.dtype)
        del inputs["input_ids"]
    with torch.inference_mode():
        cache = model.eval()(**inputs, use_cache=True).past_key_values
    caches = (
        [cache.self_attention_cache, cache.cross_attention_cache]
        if hasattr(cache, "cross_attention_cache")
        else [cache]
    )
    layers = [layer for part in caches for layer in part.layers if layer.keys is not None]
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "llama-tied": lambda: llama(tie_word_embeddings=True),
    "llama-head-dim": lambda: llama(head_dim=32),
    "gpt2": gpt2,
    "falcon": falcon,
    "falcon-new": lambda: falcon(new=True),
    "mistral": mistral,
    "gemma3": gemma3,
    "gemma4": gemma4,
    "gemma4-shared": lambda: gemma4(num_kv_shared_layers=1, hidden_size_per_layer_input=8),
    "deepseek": deepseek,
    "mixtral": mixtral,
    "t5": t5,
    "bart": bart,
    "whisper": whisper,
    "llava": llava,
}


@pytest.fixture(scope="module", params=[*MODELS, "vit"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of each architecture."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    {**MODELS, "vit": vit}[request.param]().save_pretrained(path)
    return path


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_the_weights_are_those_of_the_loaded_model(folder: Path, dtype: str) -> None:
    found = estimate(folder, dtype=dtype)
    model = loaded(folder, dtype)
    assert found.method == "safetensors headers"
    assert found.weights_bytes == pytest.approx(bytes_in_memory(model), rel=0.01)
    assert found.parameter_count == pytest.approx(model.num_parameters(), rel=0.001)
    assert found.warnings == ()


@pytest.mark.parametrize(("dtype", "batch"), [("float32", 1), ("bfloat16", 3)])
def test_the_cache_is_that_of_a_forward_pass(folder: Path, dtype: str, batch: int) -> None:
    model = loaded(folder, dtype)
    found = estimate(folder, dtype=dtype, context_tokens=TOKENS, batch=batch).kv_cache_bytes
    if isinstance(model, transformers.ViTForImageClassification):
        assert found == 0
    else:
        assert found == cache_bytes(model, batch)


@pytest.mark.parametrize("dtype", [None, "auto", "float32", "fp32", "float16", "fp16"])
def test_a_bfloat16_checkpoint_is_converted_or_kept(tmp_path: Path, dtype: str | None) -> None:
    llama().to(torch.bfloat16).save_pretrained(tmp_path)
    wanted = {None: "auto", "fp32": "float32", "fp16": "float16"}.get(dtype, dtype or "auto")
    assert estimate(tmp_path, dtype=dtype).weights_bytes == pytest.approx(
        bytes_in_memory(loaded(tmp_path, wanted)), rel=0.01
    )


def test_the_dtype_that_the_config_names_comes_before_the_files(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", dtype="bfloat16")
    found = estimate(tmp_path, dtype="auto")
    assert found.weights_bytes == pytest.approx(bytes_in_memory(loaded(tmp_path, "auto")), rel=0.01)
    assert found.weights_bytes == estimate(tmp_path, dtype="bfloat16").weights_bytes


def test_without_a_config_the_files_tell_the_dtype(tmp_path: Path) -> None:
    save_file(
        {"a": torch.zeros(10, 10, dtype=torch.bfloat16), "count": torch.zeros(4, dtype=torch.int64)},
        tmp_path / "model.safetensors",
    )
    assert estimate(tmp_path, dtype=None).weights_bytes == 232
    assert estimate(tmp_path, dtype="float32").weights_bytes == 432
    assert estimate(tmp_path, dtype="float32").parameter_count == 100


@pytest.mark.parametrize(("config", "size"), [({}, 200), ({"quantization_config": {"quant_method": "fp8"}}, 100)])
def test_eight_bit_floats_stay_only_where_the_model_was_quantized(
    tmp_path: Path, config: dict[str, Any], size: int
) -> None:
    tensors = {"a": torch.zeros(10, 10).to(torch.float8_e4m3fn), "scale": torch.zeros(10, dtype=torch.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert estimate(tmp_path, dtype="bfloat16").weights_bytes == size + 20


def test_a_tied_head_that_is_in_the_file_too_counts_once(tmp_path: Path) -> None:
    llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    absent = estimate(tmp_path, dtype=None).weights_bytes
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert estimate(tmp_path, dtype=None).weights_bytes == absent
    assert bytes_in_memory(loaded(tmp_path, "auto")) == pytest.approx(absent, rel=0.01)


def test_the_copies_of_a_shared_embedding_count_once(tmp_path: Path) -> None:
    t5().save_pretrained(tmp_path)
    once = estimate(tmp_path, dtype=None).weights_bytes
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors["shared.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert estimate(tmp_path, dtype=None).weights_bytes == once
    assert bytes_in_memory(loaded(tmp_path, "auto")) == pytest.approx(once, rel=0.01)


def test_t5_with_a_head_of_its_own_counts_both(tmp_path: Path) -> None:
    t5().save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", tie_word_embeddings=False, scale_decoder_outputs=LEFT_OUT)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn_like(tensors["shared.weight"])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = estimate(tmp_path, dtype=None).weights_bytes
    model = loaded(tmp_path, "auto")
    assert found == pytest.approx(bytes_in_memory(model), rel=0.01)
    again = tmp_path / "again"
    model.save_pretrained(again)  # transformers writes "tied" now
    assert estimate(again, dtype=None).weights_bytes == pytest.approx(found, rel=0.01)


# ------------------------------------------------------------------------------------------- shards


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    llama().save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    return tmp_path


def test_a_sharded_model_is_the_sum_of_its_shards(sharded: Path) -> None:
    found = estimate(sharded, dtype="bfloat16")
    assert found.method == "safetensors headers"
    assert found.weights_bytes == pytest.approx(bytes_in_memory(loaded(sharded, "bfloat16")), rel=0.01)


def test_a_missing_shard_is_named_and_counted_by_the_index(sharded: Path) -> None:
    whole = estimate(sharded, dtype="bfloat16")
    lost = sorted(sharded.glob("*.safetensors"))[1]
    lost.unlink()
    found = estimate(sharded, dtype="bfloat16")
    assert found.weights_bytes == pytest.approx(whole.weights_bytes, rel=0.01)
    assert found.parameter_count == pytest.approx(whole.parameter_count, rel=0.01)
    assert lost.name in found.warnings[0]


def test_a_missing_shard_without_a_total_counts_as_the_others(sharded: Path) -> None:
    whole = estimate(sharded, dtype=None).weights_bytes
    rewrite(sharded / "model.safetensors.index.json", metadata=None)
    sorted(sharded.glob("*.safetensors"))[1].unlink()
    assert estimate(sharded, dtype=None).weights_bytes == pytest.approx(whole, rel=0.3)


def test_an_index_without_any_shard_leaves_the_config(sharded: Path) -> None:
    for file in sharded.glob("*.safetensors"):
        file.unlink()
    found = estimate(sharded, dtype=None)
    assert found.method == "config"
    assert "missing" in found.warnings[0]


def test_an_index_cannot_lead_out_of_the_folder(sharded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "huge.safetensors"
    save_file({"a": torch.zeros(1 << 20)}, elsewhere)
    index = {"weight_map": {"a": str(elsewhere), "b": f"../{elsewhere.parent.name}/huge.safetensors", "c": 3}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    found = estimate(sharded, dtype=None)
    assert found.weights_bytes < 1 << 20


def test_a_hundred_shards_take_less_than_twenty_milliseconds(tmp_path: Path) -> None:
    shards = {}
    for number in range(100):
        names = {f"model.layers.{number}.{part}.weight": ("BF16", [4096, 4096]) for part in "abcdefgh"}
        name = f"model-{number:05}-of-00100.safetensors"
        write_header(tmp_path / name, names)
        shards.update(dict.fromkeys(names, name))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "config.json").write_text(json.dumps({**TEXT, "architectures": ["LlamaForCausalLM"]}))
    durations = []
    for _ in range(5):
        started = time.perf_counter()
        found = estimate(tmp_path, dtype=None)
        durations.append(time.perf_counter() - started)
    assert found.weights_bytes == 100 * 8 * 4096 * 4096 * 2
    assert min(durations) < 0.2  # ten times what it takes


# --------------------------------------------------------------------------- other files, and none


def test_a_pickle_is_as_large_as_its_file(tmp_path: Path) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", architectures=["LlamaForCausalLM"], dtype="float32")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    found = estimate(tmp_path, dtype=None)
    assert found.method == "file sizes"
    assert found.weights_bytes == (tmp_path / "pytorch_model.bin").stat().st_size
    assert found.parameter_count == model.num_parameters()
    assert estimate(tmp_path, dtype="bf16").weights_bytes == found.weights_bytes // 2
    assert found.kv_cache_bytes == estimate(tmp_path, dtype="bf16").kv_cache_bytes * 2 > 0


@pytest.mark.parametrize(
    "names", [["model-q4.gguf"], ["model.onnx", "model.onnx_data"], ["model.onnx", "model.onnx.data"]]
)
def test_gguf_and_onnx_are_as_large_as_their_files_in_any_dtype(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    found = estimate(tmp_path, dtype="float16")
    assert (found.method, found.weights_bytes) == ("file sizes", 1000 * len(names))


def test_a_single_file_is_estimated_too(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(bytes(1000))
    save_file({"a": torch.zeros(50)}, tmp_path / "other.safetensors")
    assert estimate(tmp_path / "model.gguf", dtype=None).weights_bytes == 1000
    assert estimate(tmp_path / "other.safetensors", dtype="float16").weights_bytes == 100


@pytest.mark.parametrize(
    "name", ["llama", "llama-tied", "llama-head-dim", "gpt2", "falcon", "mistral", "gemma3", "mixtral"]
)
def test_a_config_alone_gives_the_parameters(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    model.config.save_pretrained(tmp_path)
    if name == "gpt2":
        rewrite(tmp_path / "config.json", tie_word_embeddings=True)
    found = estimate(tmp_path, dtype="float16")
    assert found.method == "config"
    assert found.parameter_count == pytest.approx(model.num_parameters(), rel=0.03)
    assert found.parameter_count is not None
    assert found.weights_bytes == found.parameter_count * 2


@pytest.mark.parametrize("name", ["t5", "bart", "llava", "deepseek"])
def test_a_config_of_another_kind_alone_says_nothing(tmp_path: Path, name: str) -> None:
    MODELS[name]().config.save_pretrained(tmp_path)
    found = estimate(tmp_path, dtype=None)
    assert (found.method, found.weights_bytes, found.parameter_count) == ("unknown", 0, None)


@pytest.mark.parametrize("where", ["", "nowhere"])
def test_nothing_is_unknown(tmp_path: Path, where: str) -> None:
    assert estimate(tmp_path / where, dtype="float32") == MemoryEstimate(0, 0, RUNTIME_BYTES, "unknown", None)


# ------------------------------------------------------------------------------------------- garbage


def header(value: Any) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 0) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        header(b"\xff\xfe{}"),
        header(b"{" * 5000),
        header([1, 2]),
        header(3),
        header({"a": 1}),
        header({"a": {}}),
        header(entry(shape=None)) + bytes(8),
        header(entry(shape="ab")) + bytes(8),
        header(entry(shape=[-2])) + bytes(8),
        header(entry(shape=[2.0])) + bytes(8),
        header(entry(shape=[2**62] * 10000)) + bytes(8),
        header(entry(shape=[3])) + bytes(8),
        header(entry(dtype=None, data_offsets=[0])) + bytes(8),
        header(entry(dtype={}, data_offsets=[8, 0])) + bytes(8),
        header(entry(data_offsets=[True, 8])) + bytes(8),
        header(entry()) + bytes(7),
    ],
)
def test_a_garbled_file_counts_as_long_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    found = estimate(tmp_path, dtype="float32")
    assert (found.method, found.weights_bytes) == ("file sizes", len(content))
    assert "model.safetensors" in found.warnings[0]


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "nonsense",
        "{" * 5000,
        '{"text_config": ' * 900 + "{}" + "}" * 900,
        json.dumps({**TEXT, "num_hidden_layers": 2**39}),
        json.dumps({**TEXT, "num_hidden_layers": -1, "architectures": "x"}),
        json.dumps({**TEXT, "num_attention_heads": 0, "head_dim": [], "layer_types": {"a": 1}}),
        json.dumps(
            {**TEXT, "hidden_size": "64", "dtype": 7, "per_layer_config": {"0": 1}, "layer_types": [1, [], None]}
        ),
        json.dumps(
            {**TEXT, "vocab_size": 1e300, "tie_word_embeddings": "yes", "model_type": [], "architectures": [None]}
        ),
    ],
)
def test_a_garbled_config_is_passed_over(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    assert estimate(tmp_path, dtype="float16").weights_bytes >= 0
    save_file({"a": torch.zeros(50)}, tmp_path / "model.safetensors")
    assert estimate(tmp_path, dtype="float16").weights_bytes == 100


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": 3}', '{"weight_map": {}, "metadata": 3}'])
def test_a_garbled_index_leaves_the_files(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    save_file({"a": torch.zeros(50)}, tmp_path / "model-00001-of-00001.safetensors")
    assert estimate(tmp_path, dtype=None).weights_bytes == 200


# ------------------------------------------------------------------------------------------- the rest


def test_a_config_that_leaves_out_its_defaults_takes_the_cache_from_the_weights(tmp_path: Path) -> None:
    llava().save_pretrained(tmp_path)
    told = estimate(tmp_path, dtype=None, context_tokens=TOKENS).kv_cache_bytes
    text = {"model_type": "llama", "vocab_size": 160}
    rewrite(tmp_path / "config.json", text_config=text)
    assert estimate(tmp_path, dtype=None, context_tokens=TOKENS).kv_cache_bytes == told > 0


def layers(*kinds: str, **more: Any) -> dict[str, Any]:
    """Returns a config whose layers keep 64 numbers a token each, but for what `more` says."""
    return {**TEXT, "num_hidden_layers": len(kinds), "layer_types": list(kinds), "sliding_window": 9, **more}


@pytest.mark.parametrize(
    ("config", "elements"),
    [
        (layers("full_attention", "sliding_attention"), 64 * (20 + 8)),
        (layers("full_attention", "chunked_attention", attention_chunk_size=5), 64 * (20 + 4)),
        (layers("full_attention", "linear_attention", "conv", "moe"), 64 * 20),
        (layers("indexed_attention", "full_attention", index_head_dim=7), (71 + 64) * 20),
        (layers("sliding_attention", "full_attention", global_head_dim=32), 64 * 8 + 128 * 20),
        (layers("full_attention", "full_attention", num_kv_shared_layers=1), 64 * 20),
        ({**TEXT, "sliding_window": 9, "sliding_window_pattern": 3}, 64 * (8 + 8 + 20)),
        ({**TEXT, "sliding_window": 9}, 64 * 3 * 20),
        ({**TEXT, "sliding_window": 9, "model_type": "mistral"}, 64 * 3 * 8),
        ({**TEXT, "num_key_value_heads": None}, 128 * 3 * 20),
        ({**TEXT, "text_config": {"thinker_config": {}}}, None),
        ({"text_config": TEXT, "hidden_size": 7}, 64 * 3 * 20),
        ({}, None),
    ],
)
def test_the_cache_follows_the_kinds_of_layers(config: dict[str, Any], elements: int | None) -> None:
    assert kv_elements(config, 20) == elements


def test_the_cache_is_bounded_by_the_models_context(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    assert estimate(tmp_path, dtype=None) == estimate(tmp_path, dtype=None, context_tokens=128)
    rewrite(tmp_path / "config.json", max_position_embeddings=131072)
    default = vram_estimator.DEFAULT_CONTEXT_TOKENS
    assert estimate(tmp_path, dtype=None) == estimate(tmp_path, dtype=None, context_tokens=default)


def test_the_overhead_is_the_runtime_and_what_a_forward_pass_holds(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    found = estimate(tmp_path, dtype="float32", context_tokens=100, batch=2, runtime_bytes=1000)
    forward = 100 * 2 * (8 * 64 + 4 * 96) * 4
    assert found.overhead_bytes == 1000 + forward + 2 * 160 * 24 + found.kv_cache_bytes
    assert found.total_bytes == found.weights_bytes + found.kv_cache_bytes + found.overhead_bytes


def test_of_a_large_model_the_overhead_is_a_share(tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", {"a": ("F16", [1 << 20, 1 << 10])})
    assert estimate(tmp_path, dtype=None).overhead_bytes == RUNTIME_BYTES + (1 << 31) // 20


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    t5().save_pretrained(tmp_path)
    script = (
        "import sys; from pathlib import Path; from src.inference.vram_estimator import estimate; "
        f"assert estimate(Path({str(tmp_path)!r}), dtype=None).kv_cache_bytes; "
        "print(sorted({'torch', 'transformers', 'safetensors', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_weights_are_not_read(tmp_path: Path) -> None:
    write_header(tmp_path / "model.safetensors", {"a": ("BF16", [1 << 20, 1 << 16])})  # 128 GiB, all of it a hole
    started = time.perf_counter()
    assert estimate(tmp_path, dtype="float32").weights_bytes == 1 << 38
    assert time.perf_counter() - started < 1


def write_header(file: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """Writes a safetensors file whose data is a hole."""
    entries, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = 2 * shape[0] * shape[1]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    with open(file, "wb") as stream:
        stream.write(header(entries))
        stream.truncate(stream.tell() + at)


def rewrite(file: Path, **changes: Any) -> None:
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not LEFT_OUT}))
