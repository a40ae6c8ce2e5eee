"""Image classification on tiny models, against the library called directly; alone and in batches."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable

pytestmark = pytest.mark.xdist_group("torch")

# Kernels throughout, patches, pictures with masks, pictures of any shape, kernels normalised at each call.
KINDS = ("ResNet", "ViT", "Siglip2", "TextNet", "Bit")
Load = Callable[..., tuple[Any, Path]]


def picture(seed: int, width: int = 80, height: int = 64) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).copy()


@pytest.fixture(scope="module")
def engine() -> Any:
    from src.inference.engines.transformers.engine import TransformersEngine

    return TransformersEngine({"device": "cpu"})


@pytest.fixture(scope="module")
def load(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Builds and loads a model of an architecture; keyword arguments go into its files."""
    loaded = dict[str, tuple[Any, Path]]()

    def get(kind: str, *, config: Any = None, processor: Any = None) -> tuple[Any, Path]:
        from tests.architectures.rows_image import classifier, shieldgemma2

        key = f"{kind} {config} {processor}"
        if key not in loaded:
            folder = tmp_path_factory.mktemp("classifier")
            if kind == "ShieldGemma2":
                shieldgemma2(folder)
            else:
                classifier(f"{kind}ForImageClassification", folder)
            edit(folder / "config.json", config)
            edit(folder / "preprocessor_config.json", processor)
            loaded[key] = engine.load_model("tiny", model_path=folder, task="image-classification"), folder
        return loaded[key]

    return get


def edit(file: Path, changes: Any) -> None:
    if changes:
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def asked(*pictures: Any) -> dict[str, Any]:
    return {"images": list(pictures)}


def scores_of(raw: Any) -> list[dict[str, float]]:
    return [dict(zip(seen["labels"], seen["scores"], strict=True)) for seen in raw["response"]]


def directly(folder: Path, pixels: Any, *, several: bool = False) -> dict[str, float]:
    """The library's scores of one picture."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**processor(Image.fromarray(pixels), return_tensors="pt")).logits[0]
    scores = (logits.sigmoid() if several else logits.softmax(-1)).tolist()
    return {model.config.id2label[place]: score for place, score in enumerate(scores)}


def forwards(runner: Any, requests: Sequence[Any]) -> int:
    """How often the model runs for a batch."""
    calls = list[Any]()
    handle = runner.model.register_forward_pre_hook(lambda *given: calls.append(given))
    runner.run_batch(requests, {})
    handle.remove()
    return len(calls)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), [(80, 64), (40, 90), (32, 32), (1, 1)])
def test_the_scores_are_the_librarys(kind: str, width: int, height: int, load: Load) -> None:
    runner, folder = load(kind)
    raw = runner.run(asked(picture(1, width, height)), {"top_k": 0})
    assert scores_of(raw)[0] == pytest.approx(directly(folder, picture(1, width, height)), abs=1e-5)
    assert raw["response"][0]["scores"] == sorted(raw["response"][0]["scores"], reverse=True)
    assert raw["warnings"] == []


@pytest.mark.parametrize("height", [1, 3])
def test_rows_are_not_taken_for_colours(height: int, load: Load) -> None:
    runner, folder = load("ViT")
    raw = runner.run(asked(picture(1, 3, height)), {"top_k": 0})
    assert scores_of(raw)[0] == pytest.approx(directly(folder, picture(1, 3, height)), abs=1e-5)


def test_pixels_that_must_not_be_written_to_are_read(load: Load) -> None:
    pixels = picture(1)
    fixed = np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape)
    runner, _ = load("ResNet")
    assert runner.run(asked(fixed), {}) == runner.run(asked(pixels), {})


@pytest.mark.parametrize("kind", [*KINDS, "ShieldGemma2"])
def test_a_batch_of_unlike_pictures_answers_as_each_alone(kind: str, load: Load, engine: Any) -> None:
    runner, _ = load(kind)
    sizes = [(80, 64), (64, 64), (80, 64), (40, 90), (64, 64)]
    requests = [asked(picture(seed, *size)) for seed, size in enumerate(sizes)]
    requests.append(asked(picture(8, 64, 64), picture(9), picture(10, 40, 90)))
    together = engine.infer_batch(runner, requests, {"top_k": 0})
    assert {engine.batch_key(runner, each, {}) for each in requests} == {()}
    assert [len(raw["response"]) for raw in together] == [1, 1, 1, 1, 1, 3]
    for each, raw in zip(requests, together, strict=True):
        alone = engine.infer(runner, each, {"top_k": 0})
        for one, other in zip(scores_of(raw), scores_of(alone), strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert scores_of(together[0])[0] != pytest.approx(scores_of(together[2])[0], abs=1e-3)


def test_the_model_runs_once_for_all_that_it_sees_at_one_size(load: Load) -> None:
    sizes = [(80, 64), (64, 64), (40, 90), (80, 64)]
    requests = [asked(picture(seed, *size)) for seed, size in enumerate(sizes)]
    assert forwards(load("ResNet")[0], requests) == 1
    # One that keeps the sides' ratio has an input of its own for each.
    assert forwards(load("TextNet")[0], requests) == 3


def test_a_long_list_is_seen_in_slices(load: Load) -> None:
    runner, _ = load("ViT")
    pictures = [picture(seed, 32, 32) for seed in range(70)]
    assert forwards(runner, [asked(*pictures)]) == 3
    raw = runner.run(asked(*pictures), {"top_k": 0})
    for place in (0, 31, 32, 69):
        alone = runner.run(asked(pictures[place]), {"top_k": 0})
        assert scores_of(raw)[place] == pytest.approx(scores_of(alone)[0], abs=1e-5)


def test_labels_that_do_not_exclude_each_other_are_scored_each_alone(load: Load) -> None:
    runner, folder = load("ViT", config={"problem_type": "multi_label_classification"})
    raw = runner.run(asked(picture(1)), {"top_k": 0})
    assert scores_of(raw)[0] == pytest.approx(directly(folder, picture(1), several=True), abs=1e-5)
    assert sum(raw["response"][0]["scores"]) != pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("options", "count"), [({}, 5), ({"top_k": 2}, 2), ({"top_k": 0}, 6), ({"top_k": 9}, 6)])
def test_top_k_says_how_many_labels(options: Any, count: int, load: Load) -> None:
    raw = load("ViT")[0].run(asked(picture(1)), options)
    everything = load("ViT")[0].run(asked(picture(1)), {"top_k": 0})
    assert raw["response"][0]["labels"] == everything["response"][0]["labels"][:count]
    assert raw["metadata"] == {"model": "tiny", "labels": 6}


def test_the_policies_of_a_guard_are_its_labels(load: Load) -> None:
    from tests.architectures.rows_image import by_policies

    runner, folder = load("ShieldGemma2")
    direct = by_policies(folder, {"image": picture(1)})
    seen = runner.run(asked(picture(1)), {})["response"][0]
    assert seen["labels"] == direct.answer
    assert seen["scores"] == pytest.approx(direct.numbers, abs=1e-5)


@pytest.mark.parametrize(("kind", "expected"), [("ResNet", True), ("ViT", False), ("Bit", False)])
def test_kernels_lie_channels_last_where_that_is_faster(kind: str, expected: bool, load: Load) -> None:
    import torch
    from torch import nn

    kernels = [module.weight for module in load(kind)[0].model.modules() if isinstance(module, nn.Conv2d)]
    whole = [kernel for kernel in kernels if min(kernel.shape) > 1]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) is expected for kernel in whole)
    assert whole


def test_a_strip_is_refused_and_its_neighbours_are_not(load: Load, engine: Any) -> None:
    runner, _ = load("ResNet")
    strip = np.zeros((2, 401, 3), np.uint8)
    with pytest.raises(InvalidInputError, match="401 x 2 pixels is too narrow a strip"):
        engine.infer(runner, asked(strip), {})
    first, second, third = engine.infer_batch(runner, [asked(picture(1)), asked(strip), asked(picture(2))], {})
    assert isinstance(second, InvalidInputError)
    assert [type(each) for each in runner.run_batch([asked(strip)] * 2, {})] == [InvalidInputError] * 2
    for seed, raw in ((1, first), (2, third)):
        alone = engine.infer(runner, asked(picture(seed)), {})
        assert scores_of(raw)[0] == pytest.approx(scores_of(alone)[0], abs=1e-5)


def test_a_size_that_nothing_scales_and_the_model_does_not_take_is_the_callers_fault(load: Load, engine: Any) -> None:
    runner, folder = load("ViT", processor={"do_resize": False})
    runner.warm_up()
    assert scores_of(runner.run(asked(picture(1, 32, 32)), {"top_k": 0}))[0] == pytest.approx(
        directly(folder, picture(1, 32, 32)), abs=1e-5
    )
    with pytest.raises(InvalidInputError, match=r"cannot take a picture of this size: .*32"):
        runner.run(asked(picture(1, 80, 64)), {})
    good, bad = engine.infer_batch(runner, [asked(picture(1, 32, 32)), asked(picture(1, 80, 64))], {})
    assert len(good["response"]) == 1
    assert isinstance(bad, InvalidInputError)


def test_options_about_anything_else_are_warned_of(load: Load) -> None:
    options = {"num_beams": 2, "language": "en", "segmentation": "lines", "top_k": 3}
    for raw in (
        load("ViT")[0].run(asked(picture(1)), options),
        *load("ViT")[0].run_batch([asked(picture(1))], options),
    ):
        warned = " ".join(raw["warnings"])
        assert all(f"option '{name}' has no effect" in warned for name in ("num_beams", "language", "segmentation"))
        assert "top_k" not in warned
    assert load("ViT")[0].run(asked(picture(1)), {"segmentation": "auto", "num_beams": 1})["warnings"] == []


def test_a_caller_who_is_gone_ends_it(load: Load, engine: Any) -> None:
    with pytest.raises(CancelledError), stoppable(lambda: True):
        load("ViT")[0].run(asked(picture(1)), {})
    with pytest.raises(CancelledError), stoppable(lambda: True):
        engine.infer_batch(load("ViT")[0], [asked(picture(1))] * 2, {})


@pytest.mark.parametrize("width", [1, 3, 4, 7, 8])
def test_bfloat16_kernels_compute_what_float32_does_in_whatever_layout_they_get(width: int) -> None:
    import torch

    from src.inference.engines.transformers.image_classification import lay_out

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(16, 16, width, stride=width)).eval()
    pixels = torch.randn(2, 16, 8, 8)
    with torch.inference_mode():
        right = model(pixels)
        model = model.to(torch.bfloat16)
        lay_out(model)
        found = model(pixels.bfloat16()).float()
    assert float((found - right).norm() / right.norm()) < 0.03
