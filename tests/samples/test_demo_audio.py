"""Examines the committed audio classifier on sounds that its training never heard."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from samples.inputs.sounds import LABELS, RATE, Waveform, draw_sound, silence
from samples.training import share_right

FOLDER = Path(__file__).parents[2] / "samples" / "demo-audio"
RNG = random.Random("test")
SOUNDS = [draw_sound(RNG, held_out=True, label=label) for label in LABELS for _ in range(20)]
TRUTHS = [sound.label for sound in SOUNDS]


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoFeatureExtractor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForAudioClassification.from_pretrained(FOLDER, local_files_only=True).eval()


def classify(model: Any, processor: Any, audio: list[Waveform]) -> list[str]:
    with torch.inference_mode():
        logits = model(**processor(audio, sampling_rate=RATE, return_tensors="pt")).logits
    return [model.config.id2label[int(index)] for index in logits.argmax(-1)]


def test_names_nine_held_out_sounds_in_ten(model: Any, processor: Any, figure: Callable[[str], None]) -> None:
    score = share_right(classify(model, processor, [sound.audio for sound in SOUNDS]), TRUTHS)
    figure(f"{score:.1%} of {len(SOUNDS)} held-out sounds named rightly")
    assert score >= 0.9


def test_knows_every_kind_of_sound(model: Any, processor: Any) -> None:
    names = classify(model, processor, [sound.audio for sound in SOUNDS])
    for start in range(0, len(SOUNDS), 20):
        assert share_right(names[start : start + 20], TRUTHS[start : start + 20]) >= 0.6, TRUTHS[start]


def test_silence_brings_it_down_to_guessing(model: Any, processor: Any) -> None:
    rng = random.Random("silence")
    assert share_right(classify(model, processor, [silence(rng) for _ in TRUTHS]), TRUTHS) <= 0.2


def test_samples_in_another_order_are_another_sound(model: Any, processor: Any) -> None:
    rising = [sound for sound in SOUNDS if sound.label == "rising tone"]
    backwards = classify(model, processor, [sound.audio[::-1].copy() for sound in rising])
    assert share_right(backwards, ["falling tone"] * len(rising)) >= 0.6


def test_sounds_stay_within_full_scale_and_differ_by_seed() -> None:
    assert all(np.abs(sound.audio).max() <= 1 for sound in SOUNDS)
    first, same, other = (draw_sound(random.Random(seed), held_out=False).audio for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first[:1000], other[:1000])
