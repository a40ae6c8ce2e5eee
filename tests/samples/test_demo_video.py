"""Examines the committed video model on clips that its training never saw."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from samples.inputs.motions import MOTIONS, Clip, Frame, draw_clip, exchanges, is_exam, sample, still_clip
from samples.training import share_right

pytest.importorskip("torchvision", reason="the video processors of transformers need torchvision")

FOLDER = Path(__file__).parents[2] / "samples" / "demo-video"
FRAMES = 8
RNG = random.Random("test")
CLIPS = [draw_clip(RNG, held_out=True, motion=motion) for motion in MOTIONS for _ in range(20)]
ASKED = [exchanges(clip, RNG) for clip in CLIPS]
OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, local_files_only=True).eval()


def sampled(clip: Clip) -> list[Frame]:
    return [clip.frames[place] for place in sample(len(clip.frames), FRAMES)]


def ask(model: Any, processor: Any, clips: Sequence[Sequence[Frame]], prompts: list[str]) -> list[str]:
    messages = [
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt}]}] for prompt in prompts
    ]
    texts = [processor.apply_chat_template(message, add_generation_prompt=True) for message in messages]
    videos = [np.stack(list(frames)) for frames in clips]
    inputs = processor(videos=videos, text=texts, padding=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=16)
    answers = processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def score(model: Any, processor: Any, subject: str, clips: Sequence[Sequence[Frame]]) -> float:
    questions = [asked[subject] for asked in ASKED]
    replies = ask(model, processor, clips, [question.prompt for question in questions])
    return share_right(replies, [question.reply for question in questions])


@pytest.mark.parametrize("subject", ["motion", "shape", "colour"])
def test_answers_nine_held_out_questions_in_ten(
    model: Any, processor: Any, subject: str, figure: Callable[[str], None]
) -> None:
    right = score(model, processor, subject, [sampled(clip) for clip in CLIPS])
    figure(f"{right:.1%} of {len(CLIPS)} questions about the {subject} in a clip answered exactly")
    assert right >= 0.9


def test_nothing_in_the_picture_brings_it_down_to_guessing(model: Any, processor: Any) -> None:
    rng = random.Random("blank")
    assert score(model, processor, "motion", [still_clip(rng, FRAMES) for _ in CLIPS]) <= 0.2


def test_one_frame_of_the_clip_is_not_enough(model: Any, processor: Any) -> None:
    assert score(model, processor, "motion", [[sampled(clip)[3]] * FRAMES for clip in CLIPS]) <= 0.3


def test_a_clip_played_backwards_moves_the_other_way(model: Any, processor: Any) -> None:
    clips = [clip for clip in CLIPS if clip.motion in OPPOSITES]
    replies = ask(model, processor, [sampled(clip)[::-1] for clip in clips], ["What happens?"] * len(clips))
    assert share_right(replies, [MOTIONS[OPPOSITES[clip.motion]] for clip in clips]) >= 0.8


def test_exam_shows_only_held_out_clips_and_training_none() -> None:
    assert all(is_exam(clip.motion, clip.shape, clip.colour) for clip in CLIPS)
    rng = random.Random(3)
    training = [draw_clip(rng, held_out=False, sampled=2) for _ in range(300)]
    assert not any(is_exam(clip.motion, clip.shape, clip.colour) for clip in training)
    assert {clip.motion for clip in training} == set(MOTIONS)


def test_same_seed_films_the_same_clip() -> None:
    first, second = (draw_clip(random.Random(5), held_out=False, sampled=4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))
