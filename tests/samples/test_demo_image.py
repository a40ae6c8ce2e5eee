"""Examines the committed image classifier on pictures that its training never saw."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from samples.inputs.scenes import COLOURS
from samples.inputs.split import is_held_out
from samples.inputs.things import LABELS, SIZES, draw_thing, nothing
from samples.training import share_right

FOLDER = Path(__file__).parents[2] / "samples" / "demo-image"
EACH = 20
RNG = random.Random("test")
THINGS = [draw_thing(RNG, held_out=True, label=label) for label in LABELS for _ in range(EACH)]
TRUTHS = [thing.label for thing in THINGS]


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoImageProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageClassification.from_pretrained(FOLDER, local_files_only=True).eval()


def classify(model: Any, processor: Any, images: list[Image.Image]) -> list[str]:
    with torch.inference_mode():
        logits = model(**processor(images, return_tensors="pt")).logits
    return [model.config.id2label[int(index)] for index in logits.argmax(-1)]


def test_names_nearly_all_held_out_things(model: Any, processor: Any, figure: Callable[[str], None]) -> None:
    score = share_right(classify(model, processor, [thing.image for thing in THINGS]), TRUTHS)
    figure(f"{score:.1%} of {len(THINGS)} held-out pictures named rightly")
    assert score >= 0.95


def test_knows_every_thing(model: Any, processor: Any) -> None:
    names = classify(model, processor, [thing.image for thing in THINGS])
    for start in range(0, len(THINGS), EACH):
        assert share_right(names[start : start + EACH], TRUTHS[start : start + EACH]) >= 0.8, TRUTHS[start]


def test_a_picture_of_nothing_brings_it_down_to_guessing(model: Any, processor: Any) -> None:
    rng = random.Random("nothing")
    assert share_right(classify(model, processor, [nothing(rng) for _ in TRUTHS]), TRUTHS) <= 0.2


def test_noise_brings_it_down_to_guessing(model: Any, processor: Any) -> None:
    draws = np.random.default_rng(0)
    noise = [Image.fromarray(draws.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in TRUTHS]
    assert share_right(classify(model, processor, noise), TRUTHS) <= 0.2


def test_it_looks_at_the_shape_and_not_at_how_many_pixels_of_which_colour_there_are(model: Any, processor: Any) -> None:
    draws = np.random.default_rng(0)
    shuffled = [draws.permutation(np.asarray(thing.image).reshape(-1, 3)).reshape(96, 96, 3) for thing in THINGS]
    assert share_right(classify(model, processor, [Image.fromarray(pixels) for pixels in shuffled]), TRUTHS) <= 0.25


def test_a_large_picture_that_is_wider_than_high_is_named_too(model: Any, processor: Any) -> None:
    wide = []
    for thing in THINGS:
        page = Image.new("RGB", (480, 288), thing.image.getpixel((1, 1)))
        page.paste(thing.image.resize((288, 288), Image.Resampling.BICUBIC), (96, 0))
        wide.append(page)
    assert share_right(classify(model, processor, wide), TRUTHS) >= 0.85


def test_training_and_exam_have_every_thing_and_every_colour() -> None:
    cells = {(label, colour, size) for label in LABELS for colour in COLOURS for size in range(SIZES)}
    kept = {cell for cell in cells if is_held_out(" ".join(map(str, cell)))}
    assert 0.1 < len(kept) / len(cells) < 0.3
    for part in (kept, cells - kept):
        assert {label for label, _, _ in part} == set(LABELS)
        assert {colour for _, colour, _ in part} == set(COLOURS)


def test_pictures_differ_by_seed_alone() -> None:
    first, same, other = (np.asarray(draw_thing(random.Random(seed), held_out=False).image) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
