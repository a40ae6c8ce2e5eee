"""Models loaded in int8 and nf4, compared with the same models in float32."""

import importlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BitsAndBytesConfig

from src.core.errors import InvalidInputError, ModelLoadError
from src.inference.engines.transformers import TransformersEngine, placement, quantizing
from src.inference.engines.transformers.bitsandbytes_layers import Int8Layer, fit, library
from src.inference.engines.transformers.runner import Runner
from src.inference.engines.transformers.text_generation import CausalRunner
from tests.tiny_models import tiny_llama

pytestmark = pytest.mark.xdist_group("torch")

LAYERS = "src.inference.engines.transformers.bitsandbytes_layers"
ROOT = Path(__file__).parents[3]


def runner_of(auto_model: Any) -> type[Runner]:
    """Returns a runner without a processor."""

    class Plain(Runner):
        @classmethod
        def load_processor(cls, path: Path, **kwargs: Any) -> Any:
            return None

    Plain.auto_model = auto_model
    return Plain


def load(folder: Path, dtype: str, kind: type[Runner] = CausalRunner) -> Runner:
    return kind.load("tiny", folder, device="cpu", dtype=dtype, trust_remote_code=False)


def weight_types(runner: Runner) -> dict[str, str]:
    """Returns the type of each parameter by name."""
    return {name: type(weight).__name__ for name, weight in runner.model.named_parameters()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose layers take most of its bytes."""
    return tiny_llama(tmp_path_factory.mktemp("llama"), hidden=128)


@pytest.mark.parametrize(("dtype", "kind"), [("int8", "Int8Params"), ("nf4", "Params4bit")])
def test_layers_are_quantized_and_the_rest_is_not(folder: Path, dtype: str, kind: str) -> None:
    runner = load(folder, dtype)
    types = weight_types(runner)
    layers = {name for name in types if name.endswith("_proj.weight")}
    assert len(layers) == 14
    assert {types[name] for name in layers} == {kind}
    assert {types[name] for name in types.keys() - layers} == {"Parameter"}
    assert runner.model.lm_head.weight.dtype == placement.compute_dtype("cpu")


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1.0), ("bfloat16", 0.5), ("int8", 0.35), ("nf4", 0.25)])
def test_the_bytes_of_the_weights_are_fewer(folder: Path, dtype: str, most: float) -> None:
    full, runner = load(folder, "float32").parameter_bytes(), load(folder, dtype)
    assert runner.dtype == dtype
    # The tables of the positions are float32 in every model.
    assert runner.parameter_bytes() <= full * most + 4096


def test_bytes_count_scales(folder: Path) -> None:
    runner = load(folder, "int8")
    layers = [module for module in runner.model.modules() if isinstance(module, Int8Layer)]
    plain = [weight for weight in runner.model.parameters() if type(weight) is torch.nn.Parameter]
    buffers = sum(buffer.nbytes for buffer in runner.model.buffers())
    scales = sum(4 * layer.out_features for layer in layers)
    packed = sum(layer.in_features * layer.out_features for layer in layers)
    assert runner.parameter_bytes() == packed + scales + buffers + sum(weight.nbytes for weight in plain)


@pytest.mark.parametrize(("dtype", "furthest"), [("bfloat16", 0.02), ("float16", 0.02), ("int8", 0.05), ("nf4", 0.35)])
def test_logits_stay_near(folder: Path, dtype: str, furthest: float) -> None:
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        exact = load(folder, "float32").model(ids).logits
        found = load(folder, dtype).model(ids).logits.float()
    assert (found - exact).norm() / exact.norm() < furthest


# ------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 3, 64), (2, 3, 4, 64), (2, 1, 3, 4, 64), (0, 64)], ids=str)
def test_int8_takes_inputs_of_any_dimensions(shape: tuple[int, ...]) -> None:
    weight = torch.randn(32, 64)
    layer = library.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False, threshold=6.0)
    layer.weight = library.nn.Int8Params(weight.clone(), requires_grad=False).to("cpu")
    fit(layer, "cpu")
    inputs = torch.randn(shape)
    with torch.inference_mode():
        found = layer.eval()(inputs)
    assert found.shape == (*shape[:-1], 32)
    assert torch.allclose(found, inputs @ weight.T, atol=0.5)


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_inputs_may_lie_in_memory_in_any_order(folder: Path, dtype: str) -> None:
    layer = load(folder, dtype).model.model.layers[0].mlp.down_proj
    turned = torch.randn(1, layer.in_features, 7, dtype=placement.compute_dtype("cpu")).transpose(1, 2)
    with torch.inference_mode():
        assert torch.equal(layer(turned), layer(turned.contiguous()))


def wide_llama(folder: Path, hidden: int, intermediate: int) -> None:
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("hidden", "intermediate", "left"),
    [(64, 128, 0), (160, 256, 0), (160, 432, 1), (96, 64, 0), (192, 336, 1)],
)
def test_nf4_takes_rows_of_whole_blocks_and_is_right_about_them(
    tmp_path: Path, hidden: int, intermediate: int, left: int
) -> None:
    wide_llama(tmp_path, hidden, intermediate)
    kind = runner_of(transformers.AutoModelForCausalLM)
    exact, found = load(tmp_path, "float32", kind).model, load(tmp_path, "nf4", kind).model
    quantized = {name for name, module in found.named_modules() if isinstance(module, library.nn.Linear4bit)}
    assert len(quantized) == 7 - left
    for name in quantized:
        plain, packed = exact.get_submodule(name), found.get_submodule(name)
        inputs = torch.randn(50, plain.in_features)
        with torch.inference_mode():
            right, given = plain(inputs), inputs.to(found.dtype)
            for got in (packed(given), torch.cat([packed(row[None]) for row in given])):
                assert (got.float() - right).norm() / right.norm() < 0.12, name


def test_nf4_of_no_whole_blocks_is_refused_on_the_cpu(tmp_path: Path) -> None:
    wide_llama(tmp_path, 160, 256)
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=quantized)
    model.save_pretrained(tmp_path / "blocks-of-64")
    with pytest.raises(ModelLoadError, match="rows of 160 weights, which are no whole blocks of 64"):
        load(tmp_path / "blocks-of-64", "auto", runner_of(transformers.AutoModelForCausalLM))


# ---------------------------------------------------------------------------------- architectures


def gpt2(folder: Path) -> Any:
    config = transformers.GPT2Config(vocab_size=96, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return transformers.AutoModelForCausalLM, {"input_ids": torch.arange(3, 23)[None]}


def t5(folder: Path) -> Any:
    config = transformers.T5Config(
        vocab_size=96, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    ids = torch.arange(3, 23)[None]
    return transformers.AutoModelForSeq2SeqLM, {"input_ids": ids, "decoder_input_ids": ids[:, :4]}


def wavlm(folder: Path) -> Any:
    config = transformers.WavLMConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=32,
    )
    transformers.WavLMForCTC(config).save_pretrained(folder)
    return transformers.AutoModelForCTC, {"input_values": torch.sin(torch.arange(1600) / 9)[None]}


def swin(folder: Path) -> Any:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=32, depths=[1, 1], num_heads=[2, 4], window_size=4, num_labels=5
    )
    transformers.SwinForImageClassification(config).save_pretrained(folder)
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    return transformers.AutoModelForImageClassification, {"pixel_values": pixels}


def mixtral(folder: Path) -> Any:
    config = transformers.MixtralConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(folder)
    return transformers.AutoModelForCausalLM, {"input_ids": torch.arange(3, 23)[None]}


@pytest.mark.parametrize(("dtype", "furthest"), [("bfloat16", 0.05), ("float16", 0.05), ("int8", 0.1), ("nf4", 0.4)])
@pytest.mark.parametrize("build", [gpt2, t5, wavlm, swin, mixtral])
def test_architectures_of_other_layers_answer_alike(
    tmp_path: Path, build: Callable[[Path], Any], dtype: str, furthest: float
) -> None:
    torch.manual_seed(0)
    auto_model, inputs = build(tmp_path)
    kind = runner_of(auto_model)
    runner = load(tmp_path, dtype, kind)
    with torch.inference_mode():
        exact = load(tmp_path, "float32", kind).model(**inputs).logits
        found = runner.model(**runner.to_device(inputs)).logits.float()
    assert runner.dtype == dtype
    assert (found - exact).norm() / exact.norm() < furthest


# --------------------------------------------------------------------------------------- refusals


def resnet(folder: Path) -> Any:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    return transformers.AutoModelForImageClassification


def falcon(folder: Path) -> Any:
    """Saves a model whose linear layers are of a class of their own."""
    config = transformers.FalconConfig(vocab_size=96, hidden_size=64, num_hidden_layers=1, num_attention_heads=4)
    transformers.FalconForCausalLM(config).save_pretrained(folder)
    return transformers.AutoModelForCausalLM


@pytest.mark.parametrize("build", [resnet, falcon])
@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_model_without_layers_to_quantize_is_refused(
    tmp_path: Path, dtype: str, build: Callable[[Path], Any]
) -> None:
    kind = runner_of(build(tmp_path))
    with pytest.raises(InvalidInputError, match=f"torch_dtype '{dtype}'.*For.*take float32, bfloat16 or float16"):
        load(tmp_path, dtype, kind)


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_mps_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(placement, "devices", lambda: ["mps", "cpu"])
    with pytest.raises(InvalidInputError, match=f"'{dtype}' is not to be had on device 'mps': take float32"):
        CausalRunner.load("tiny", folder, device="auto", dtype=dtype, trust_remote_code=False)


def rewritten(folder: Path, copy: Path, **changes: Any) -> Path:
    """Returns a copy of a model whose config says more."""
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_a_checkpoint_quantized_by_another_method_is_refused_where_a_format_is_asked(
    folder: Path, tmp_path: Path
) -> None:
    other = rewritten(folder, tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(InvalidInputError, match=r"quantized already \(gptq\); take float32"):
        load(other, "int8")


def test_a_checkpoint_that_needs_more_to_be_read_says_what(folder: Path, tmp_path: Path) -> None:
    other = rewritten(folder, tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelLoadError, match=r"(?i)gptq"):
        load(other, "auto")


def test_a_checkpoint_quantized_in_an_unknown_way_is_refused(folder: Path, tmp_path: Path) -> None:
    other = rewritten(folder, tmp_path / "odd", quantization_config={"quant_method": "of-tomorrow"})
    with pytest.raises(ModelLoadError, match="quantized by 'of-tomorrow', which transformers does not know"):
        load(other, "auto")


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_checkpoint_of_bitsandbytes_loads_as_it_is(folder: Path, tmp_path: Path, dtype: str) -> None:
    first = load(folder, dtype)
    quantized = BitsAndBytesConfig(load_in_8bit=dtype == "int8", load_in_4bit=dtype == "nf4", bnb_4bit_quant_type="nf4")
    model = transformers.LlamaForCausalLM.from_pretrained(folder, quantization_config=quantized)
    model.save_pretrained(tmp_path)
    first.processor.save_pretrained(tmp_path)
    ids = torch.arange(3, 23)[None]
    for wanted in ("auto", dtype):
        runner = load(tmp_path, wanted)
        assert runner.dtype == dtype
        with torch.inference_mode():
            exact, found = first.model(ids).logits.float(), runner.model(ids).logits.float()
        assert (found - exact).norm() / exact.norm() < 0.05
    other = "nf4" if dtype == "int8" else "int8"
    with pytest.raises(InvalidInputError, match=f"quantized already \\({dtype}\\)"):
        load(tmp_path, other)


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, LAYERS)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InvalidInputError, match="need the package bitsandbytes, which cannot be imported here"):
        load(folder, "nf4")


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
def test_a_missing_package_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    engine = TransformersEngine()
    engine.check_options({option: "int8"})
    monkeypatch.setattr(importlib.import_module(TransformersEngine.__module__), "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match="'int8' needs the package bitsandbytes, which is not installed"):
        engine.check_options({option: "int8"})
    engine.check_options({option: "bfloat16"})


@pytest.mark.parametrize(("dtype", "tried"), [("auto", False), ("float32", False), ("float16", True), ("int8", True)])
def test_a_format_that_was_asked_for_is_tried_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, tried: bool
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(CausalRunner, "warm_up", fail)
    if tried:
        with pytest.raises(
            InvalidInputError, match=f"'tiny' does not run in torch_dtype '{dtype}' on cpu.*take float32"
        ):
            load(folder, dtype)
    else:
        assert load(folder, dtype).dtype == "float32"


def test_memory_that_runs_out_while_it_is_tried_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(CausalRunner, "warm_up", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load(folder, "int8")


# ----------------------------------------------------------------------------- what else it must not do


def test_nothing_is_logged_for_each_layer(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        runner = load(folder, "int8")
        runner.model(torch.arange(3, 23)[None])
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


@pytest.mark.slow
def test_a_float_model_leaves_the_package_alone_and_its_import_does_nothing_besides(folder: Path) -> None:
    script = f"""if True:
        import os, sys, torch
        from pathlib import Path
        from src.inference.engines.transformers.text_generation import CausalRunner
        CausalRunner.load("m", Path({str(folder)!r}), device="cpu", dtype="auto", trust_remote_code=False)
        print("bitsandbytes" in sys.modules)
        threads, compiled = len(os.listdir("/proc/self/task")), torch.compile
        import {LAYERS}
        print(len(os.listdir("/proc/self/task")) - threads, torch.compile is compiled)
        print(sorted({{"torch._inductor.async_compile", "kernels", "networkx"}} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["False", "0 True", "[]"]


def test_every_format_of_the_settings_is_known_to_the_loader() -> None:
    from src.inference.options import TransformersOptions
    from src.inference.quantization import QUANTIZED

    schema = TransformersOptions.model_json_schema()["properties"]["torch_dtype"]["anyOf"][0]["enum"]
    assert set(schema) == {"auto", *placement.DTYPES, *QUANTIZED}
    assert quantizing.INSTEAD == "take float32, bfloat16 or float16"
